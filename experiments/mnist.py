"""Section 3 of Lezama (2019): progressive discovery of factors in digits.

Trains a teacher with k units, then students of d = 1, 2, ... nuisance units,
each grown from the last and supervised by it; measures reconstruction and class
swaps of all; draws Figures 1 and 2. --baselines adds methods of the field.

  python -m experiments.mnist --flagfile=mnist_quick
  python -m experiments.mnist --flagfile=mnist_field
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
from experiments import versions
from jacsup_jax.baselines import field
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_scores
from jacsup_jax.evaluation import reconstruction
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import stages as stages_lib
from jacsup_jax.training import devices
from jacsup_jax.training import discovery

IMAGE_SHAPE = (28, 28, 1)
# Sets that have images of another shape.
IMAGE_SHAPES = {registry.DRAWN_FACTORS: (32, 32, 3)}


@dataclasses.dataclass(frozen=True)
class Config:
  """The flags of this binary, with the paper's values."""

  chain: discovery.DiscoveryConfig = discovery.DiscoveryConfig()
  baseline: field.FieldConfig = field.FieldConfig()
  result: cli.ResultConfig = cli.ResultConfig()
  run: cli.RunConfig = cli.RunConfig(workdir=pathlib.Path('runs/mnist'))

  def __post_init__(self):
    if not self.chain.students and not self.baseline.baselines:
      raise errors.InputError(
        '--students and --baselines are empty: nothing to train; accepted: one'
        ' or more of either.'
      )
    if units := self.baseline.factor_units:
      # Imported here: few runs have baselines.
      from jacsup_jax.models import latents

      k, d = self.chain.num_factors, self.chain.nuisance_dim
      latents.order_units(units, k, k + d)


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
    image_shape=IMAGE_SHAPES.get(config.result.dataset, IMAGE_SHAPE),
    dtype=jnp.dtype(config.chain.compute_dtype),
  )


def load_data(
  config: Config, image_shape: tuple[int, int, int]
) -> tuple[registry.Dataset, registry.Dataset | None, registry.Dataset]:
  """Loads what to train on, what to choose on or None, what to measure."""
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
  progress.report_data(train)
  chooses = plateau or config.baseline.baselines
  validation = load('validation') if chooses else None
  return train, validation, load(result.eval_split)


def main(config: Config) -> None:
  """Trains, measures and draws a run."""
  shape = IMAGE_SHAPES.get(config.result.dataset, IMAGE_SHAPE)
  make = functools.partial(make_module, config)
  train_and_evaluate('mnist', config, make, shape)


def train_and_evaluate(
  experiment: str,
  config: Config,
  make_module: MakeModule,
  image_shape: tuple[int, int, int],
) -> None:
  """Trains, measures and draws a run, or what is missing of it."""
  run, chain, values = config.run, config.chain, cli.as_dict(config)
  stages = discovery.make_stages(chain)
  discovery.check_sizes(chain, stages, image_shape)
  devices.check_batch_size(chain.batch_size)
  with session.opened(run, values) as workdir:
    if session.is_complete(workdir):
      return
    train, validation, test = devices.in_turn(
      lambda: load_data(config, image_shape)
    )
    sizes = chain.num_factors, chain.nuisance_dim, train.num_classes
    rivals = chain.spread(field.make_stages(config.baseline, *sizes))
    given, train_stages = prepare_training(
      config, stages, rivals, make_module, train, validation, workdir
    )
    stages = [*stages, *rivals]
    if workdir is None:  # The first of several processes does all else.
      train_stages(evaluate=None)
      return

    judges = session.restore_or_train_classes(
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
    scores = class_scores.ClassScores(judges, test, train)
    with session.observed(run, workdir, stages, scores.watch, test) as (
        report, evaluate_and_draw
    ):  # fmt: skip
      trained = train_stages(evaluate=evaluate_and_draw, report=report)

    models = session.add_random(
      session.by_seed([*given, *trained]), versions.choose_like
    )
    found, choices = versions.list_versions(
      models, judges, lambda: validation, config.baseline.factor_units
    )
    rows = versions.make_rows(found, scores.measure)
    about = (
      f'{config.result.eval_split} split; {class_scores.PROTOCOL}{choices}'
    )
    session.finish(
        workdir, experiment, about, rows, versions.list_shown(found), test,
        judges=[judge.describe() for judge in judges],
        **session.describe_checkers(workdir),
    )  # fmt: skip


def prepare_training(
  config, stages, rivals, make_module, train, validation, workdir
):
  """Returns given teachers, and a function that trains all stages."""
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
  validate = lambda model: float(
    reconstruction.measure_mse(model, validation.images)
  )

  def train_stages(**options):
    options |= {
        'workdir': workdir, 'checkpoint_every': config.run.checkpoint_every,
        'eval_every': config.result.eval_every, 'note': progress.note,
    }  # fmt: skip
    run = functools.partial(stages_lib.run, **options)
    trained = run(stages, recipe, given=given, validate=validate)
    if rivals:
      # Imported here: few runs have baselines.
      from jacsup_jax.baselines import field_recipe

      rate = config.baseline.baseline_learning_rate
      trained += run(
        rivals, field_recipe.Field(chain, rate, make_module, train)
      )
    return trained

  return given, train_stages


if __name__ == '__main__':
  cli.run(main, Config())
