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
from experiments import flags
from experiments import progress
from experiments import session
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import judges
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
  result: flags.ResultConfig = flags.ResultConfig()
  run: flags.RunConfig = flags.RunConfig(workdir=pathlib.Path('runs/mnist'))


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
  """Loads what to train on, what ends a stage early (or None), what to measure.

  Args:
    config: of the run.
    image_shape: (H, W, C) that the images must have.
  """
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


def restore_or_train_judges(
    config: Config, image_shape: tuple[int, int, int]
) -> judges.Judges:
  """Restores the judges of the data set, or trains and saves them."""
  dataset, run = config.result.dataset, config.run
  directory = run.judge_workdir or judges.default_directory(
      dataset, run.data_dir
  )
  progress.announce(f'judges in {directory}, trained if missing')
  return judges.restore_or_train(
      directory,
      dataset,
      run.data_dir,
      image_shape=image_shape,
      report=progress.report_judge,
  )


def main(config: Config) -> None:
  train_and_evaluate(
      'mnist', config, functools.partial(make_module, config), IMAGE_SHAPE
  )


def train_and_evaluate(
    experiment: str,
    config: Config,
    make_module: MakeModule,  # pylint: disable=redefined-outer-name
    image_shape: tuple[int, int, int],
) -> None:
  """Trains, measures and draws a run, or what is missing of it.

  Args:
    experiment: name of the binary.
    config: its flags.
    make_module: makes autoencoders.
    image_shape: (H, W, C).

  Raises:
    InputError: if the flags, the data or the work directory do not fit.
  """
  run, own = config.run, config.chain
  stages = discovery.make_stages(own)
  discovery.check_sizes(own, stages, image_shape)
  devices.check_batch_size(own.batch_size)
  values = cli.as_dict(config)
  with session.opened(run, values) as workdir:
    if session.is_complete(workdir):
      return
    train, validation, test = devices.in_turn(
        lambda: load_data(config, image_shape)
    )
    recipe = discovery.Discovery(own, make_module, train.images)
    given = []
    if own.teacher_workdir is not None:
      given = session.restore_teachers(
          own.teacher_workdir,
          stages,
          make_module(own.num_factors, 0, True),
          recipe if own.keep_moments else None,
      )
    train_stages = functools.partial(
        stages_lib.run,
        stages,
        recipe,
        workdir=workdir,
        given=given,
        checkpoint_every=run.checkpoint_every,
        eval_every=config.result.eval_every,
        note=progress.note,
    )
    if workdir is None:  # The first of several processes does all else.
      train_stages(evaluate=None)
      return

    ensemble = restore_or_train_judges(config, image_shape)
    workdir.begin(
        experiment,
        values,
        session.describe_data(train, run.data_dir, image_shape=image_shape),
        [stage.name for stage in stages],
    )

    def evaluate(model):
      return class_swaps.measure(model, ensemble, test.images, test.labels)

    def validate(model):
      return float(reconstruction.measure_mse(model, validation.images))

    with progress.observed(
        workdir,
        stages,
        evaluate,
        progress.make_draw_swaps(test),
        bar=run.progress,
        event_files=run.tensorboard,
    ) as (report, evaluate_and_draw):
      trained = train_stages(
          evaluate=evaluate_and_draw,
          report=report,
          validate=validate,
      )

    trained = session.by_seed([*given, *trained])
    rows = [
        session.describe(model) | evaluate(model.model)
        for model in session.add_random(trained, lambda own: own[-1])
    ]
    session.finish(
        workdir,
        experiment,
        f'{config.result.eval_split} split; {class_swaps.PROTOCOL}',
        rows,
        trained,
        test,
        judges=ensemble.describe(),
    )


if __name__ == '__main__':
  cli.run(main, Config())
