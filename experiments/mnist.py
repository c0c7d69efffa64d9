"""Section 3 of Lezama (2019): progressive discovery of factors in digits.

Trains a teacher with k units, then students of d = 1, 2, ... nuisance units,
each grown from the last and supervised by it; measures reconstruction and class
swaps of all; draws Figures 1 and 2.

  python -m experiments.mnist --flagfile=experiments/flagfiles/mnist_quick.flags
"""

from collections.abc import Callable
import dataclasses
import functools
import pathlib

from flax import linen as nn
import jax.numpy as jnp

from experiments import cli
from experiments import progress
from experiments import session
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import reconstruction
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import stages as stages_lib
from jacsup_jax.training import devices
from jacsup_jax.training import discovery

IMAGE_SHAPE = (28, 28, 1)


@dataclasses.dataclass(frozen=True)
class Config:
  """The flags of this binary, with the paper's values."""

  chain: discovery.DiscoveryConfig = discovery.DiscoveryConfig()
  result: cli.ResultConfig = cli.ResultConfig()
  run: cli.RunConfig = cli.RunConfig(workdir=pathlib.Path('runs/mnist'))


# (num_factors, nuisance_dim, is_first) -> autoencoder.
MakeModule = Callable[[int, int, bool], nn.Module]


def make_module(
  config: Config, num_factors: int, nuisance_dim: int, is_first: bool
) -> autoencoders.MlpAutoencoder:
  """Makes an autoencoder; the first teacher alone normalizes its code."""
  return autoencoders.MlpAutoencoder(
    num_factors,
    nuisance_dim,
    normalize_code=is_first,
    dtype=jnp.dtype(config.chain.compute_dtype),
  )


def load_data(
  config: Config, image_shape: tuple[int, int, int]
) -> tuple[registry.Dataset, registry.Dataset | None, registry.Dataset]:
  """Loads what to train on, what ends a stage or None, what to measure."""
  result = config.result
  progress.announce(f'preparing the data {result.dataset}')
  load = functools.partial(
    registry.load,
    result.dataset,
    data_dir=config.run.data_dir,
    image_shape=image_shape,
    report=progress.announce,
  )
  plateau = config.chain.grow_when == 'plateau'
  held_out = plateau or result.eval_split == 'validation'
  train = load('train_minus_validation' if held_out else 'train')
  validation = load('validation') if plateau else None
  return train, validation, load(result.eval_split)


def main(config: Config) -> None:
  """Trains, measures and draws a run."""
  train_and_evaluate(
    'mnist', config, functools.partial(make_module, config), IMAGE_SHAPE
  )


def train_and_evaluate(
  experiment: str,
  config: Config,
  make_module: MakeModule,
  image_shape: tuple[int, int, int],
) -> None:
  """Trains, measures and draws a run, or what is missing of it."""
  run, values = config.run, cli.as_dict(config)
  stages = discovery.make_stages(config.chain)
  discovery.check_sizes(config.chain, stages, image_shape)
  devices.check_batch_size(config.chain.batch_size)
  with session.opened(run, values) as workdir:
    if session.is_complete(workdir):
      return
    train, validation, test = devices.in_turn(
      lambda: load_data(config, image_shape)
    )
    given, train_stages = prepare_training(
      config, stages, make_module, train, validation, workdir
    )
    if workdir is None:  # The first of several processes does all else.
      train_stages(evaluate=None)
      return

    ensemble = session.restore_or_train_classes(
      run.judge_workdir, config.result.dataset, run.data_dir, image_shape
    )
    session.begin(
      workdir,
      experiment,
      values,
      stages,
      train,
      run.data_dir,
      image_shape=image_shape,
    )
    evaluate = lambda model: class_swaps.measure(
      model, ensemble, test.images, test.labels
    )
    with session.observed(run, workdir, stages, evaluate, test) as (
        report, evaluate_and_draw
    ):  # fmt: skip
      trained = train_stages(evaluate=evaluate_and_draw, report=report)

    trained = session.by_seed([*given, *trained])
    rows = [
      session.describe(model) | evaluate(model.model)
      for model in session.add_random(trained, lambda own: own[-1])
    ]
    protocol = f'{config.result.eval_split} split; {class_swaps.PROTOCOL}'
    session.finish(
        workdir, experiment, protocol, rows, trained, test,
        judges=ensemble.describe(), **session.describe_checkers(workdir),
    )  # fmt: skip


def prepare_training(config, stages, make_module, train, validation, workdir):
  """Returns given teachers, and a function that trains the stages."""
  chain, given = config.chain, []
  recipe = discovery.Discovery(
    chain,
    make_module,
    train.images,
    functools.partial(session.restore_or_distill, workdir),
  )
  if chain.teacher_workdir is not None:
    given = session.restore_teachers(
      chain.teacher_workdir,
      stages,
      make_module(chain.num_factors, 0, True),
      recipe if chain.keep_moments else None,
    )
  train_stages = functools.partial(
    stages_lib.run,
    stages,
    recipe,
    workdir=workdir,
    given=given,
    checkpoint_every=config.run.checkpoint_every,
    eval_every=config.result.eval_every,
    note=progress.note,
    validate=lambda model: float(
      reconstruction.measure_mse(model, validation.images)
    ),
  )
  return given, train_stages


if __name__ == '__main__':
  cli.run(main, Config())
