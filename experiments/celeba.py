"""Section 4 of Lezama (2019): editing facial attributes with one model.

Trains a teacher in two phases, then students of larger nuisance with Jacobian
supervision, with cycle losses instead, or with neither, and Fader Networks as a
baseline; measures attribute flips by a judge and the reconstruction error;
draws Figures 4, 5 and 8.

  python -m experiments.celeba \
      --flagfile=experiments/flagfiles/celeba_quick.flags
"""

from collections.abc import Sequence
import dataclasses
import functools
import pathlib

import jax.numpy as jnp

from experiments import cli
from experiments import flags
from experiments import progress
from experiments import session
from jacsup_jax.baselines import fader
from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.core import options
from jacsup_jax.data import registry
from jacsup_jax.evaluation import attribute_flips
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import judge_files
from jacsup_jax.evaluation import judges
from jacsup_jax.evaluation import reconstruction
from jacsup_jax.evaluation import tables
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import stages as stages_lib
from jacsup_jax.training import attributes
from jacsup_jax.training import devices

_WIDTH = {'low': 1, 'high': config_lib.LARGEST_WIDTH, 'group': 'what'}
_JUDGE_BATCH_SIZE = 128


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The size of the models, and how flips are measured."""

  first_width: int = options.option(
      16, 'Channels of the first layer; each further layer has twice as many.',
      **_WIDTH,
  )  # fmt: skip
  last_width: int = options.option(
      512, 'Largest number of channels of a hidden layer.', **_WIDTH
  )
  linear_factors: bool = options.option(
      False,
      'The factors have no LeakyReLU, so that both signs of an attribute are'
      ' learnt alike; those of the paper and the released code have one.',
      group='what',
  )
  strengths: tuple[float, ...] = options.option(
      attribute_flips.STRENGTHS,
      'alpha of the flips: values to choose from, for each model.',
      group='what',
  )
  selection_images: int = options.option(
      256, 'Number of images on which alpha is chosen.', low=1, group='what'
  )

  def __post_init__(self):
    options.check(self)
    if not self.strengths or min(self.strengths) <= 0:
      raise errors.InputError(
          f'--strengths={",".join(map(str, self.strengths))}; accepted: numbers'
          ' above 0, separated by commas.'
      )


@dataclasses.dataclass(frozen=True)
class Config:
  """The flags of this binary, with the paper's values."""

  chain: attributes.AttributesConfig = attributes.AttributesConfig()
  baseline: fader.FaderConfig = fader.FaderConfig()
  result: flags.ResultConfig = flags.ResultConfig(
      dataset=registry.DEFAULT_FACES
  )
  data: flags.FaceDataConfig = flags.FaceDataConfig(image_size=256)
  model: ModelConfig = ModelConfig()
  judge: judges.JudgeConfig = judges.JudgeConfig()
  run: flags.RunConfig = flags.RunConfig(
      workdir=pathlib.Path('runs/celeba'), checkpoint_every=5
  )


def make_module(config: Config, num_factors: int, nuisance_dim: int, cls=None):
  """Makes an autoencoder; the nuisance is a map of 2x2.

  Args:
    config: of the run.
    num_factors: k.
    nuisance_dim: d, a multiple of 4.
    cls: FaceAutoencoder, or FaderAutoencoder, whose factors are the labels.
  """
  own, linear = config.model, {}
  if cls is None:
    cls = autoencoders.FaceAutoencoder
    linear = {'linear_factors': own.linear_factors}
  return cls(
      num_factors,
      nuisance_dim // 4,
      image_size=config.data.image_size,
      first_width=own.first_width,
      last_width=own.last_width,
      dtype=jnp.dtype(config.chain.compute_dtype),
      **linear,
  )


def restore_or_train_judge(config: Config, train, selection):
  """Restores the judge of the training data, or trains and saves one."""
  directory = config.run.judge_workdir or attribute_judges.default_directory(
      train.name, config.data.image_size
  )
  progress.announce(f'judge in {directory}, trained if missing')
  settings = {}
  if not judge_files.exist(directory):  # One that is there may differ.
    settings = {
        name.removeprefix('judge_'): value
        for name, value in cli.as_dict(config.judge).items()
    } | {'batch_size': min(_JUDGE_BATCH_SIZE, len(train))}
  return attribute_judges.restore_or_train(
      directory, train, selection, report=progress.report_judge, **settings
  )


def main(config: Config) -> None:
  stages = attributes.make_stages(config.chain)
  stages += config.chain.spread(
      fader.make_stages(config.baseline, config.chain.nuisance_dims[0])
  )
  if not stages:
    raise errors.InputError(
        '--students is empty, and the teacher is given or has --epochs=0:'
        ' nothing to train; accepted: students, or --fader_epochs of 1 or more.'
    )
  train_and_evaluate('celeba', config, stages)


def train_and_evaluate(
    experiment: str, config: Config, stages: Sequence[config_lib.Stage]
) -> None:
  """Trains, measures and draws a run, or what is missing of it.

  Args:
    experiment: name of the binary.
    config: its flags.
    stages: of the run, Fader Networks last.

  Raises:
    InputError: if the flags, the data or the work directory do not fit.
  """
  run, sizes, chain = config.run, config.model, config.chain
  is_baseline = lambda stage: isinstance(stage.weights, fader.FaderLossWeights)
  chosen_on = session.choose_selection_split(
      config.result.eval_split, config.data.held_out
  )
  devices.check_batch_size(chain.batch_size)
  values = cli.as_dict(config)
  with session.opened(run, values) as workdir:
    if session.is_complete(workdir):
      return
    load = functools.partial(
        registry.load,
        config.result.dataset,
        data_dir=run.data_dir,
        report=progress.announce,
        **config.data.load_options(),
    )
    train = devices.in_turn(
        lambda: load('train', in_memory=chain.cache != 'none')
    )
    num_factors = len(train.attribute_names)
    attributes.check_sizes(chain, stages, num_factors, train.image_shape)
    make = functools.partial(make_module, config, num_factors)
    recipe = attributes.Attributes(chain, make, train)
    baseline = attributes.Attributes(
        fader.make_flags(chain, config.baseline),
        functools.partial(make, cls=fader.FaderAutoencoder),
        train,
        fader.FaderSteps,
    )
    own = [stage for stage in stages if not is_baseline(stage)]
    given = []
    if chain.teacher_workdir is not None:
      given = session.restore_teachers(
          chain.teacher_workdir,
          own,
          make(chain.nuisance_dims[0]),
          recipe if chain.keep_moments else None,
      )

    def train_stages(**options):
      options |= {
          'workdir': workdir,
          'checkpoint_every': run.checkpoint_every,
          'eval_every': config.result.eval_every,
          'note': progress.note,
      }
      trained = stages_lib.run(own, recipe, given=given, **options)
      others = [stage for stage in stages if is_baseline(stage)]
      return trained + stages_lib.run(others, baseline, **options)

    if workdir is None:  # The first of several processes does all else.
      train_stages(evaluate=None)
      return

    selection, data = load(chosen_on), load(config.result.eval_split)
    judge = restore_or_train_judge(config, train, selection)
    workdir.begin(
        experiment,
        values,
        session.describe_data(train, run.data_dir, **config.data.load_options()),
        [stage.name for stage in stages],
    )
    few = map(jnp.asarray, selection.read(range(sizes.selection_images)))
    images, labels = few

    def evaluate(model):
      return {'mse': float(reconstruction.measure_mse(model, images, labels))}

    middle = sorted(sizes.strengths)[len(sizes.strengths) // 2]
    with progress.observed(
        workdir,
        stages,
        evaluate,
        progress.make_draw_flips(selection, middle),
        bar=run.progress,
        event_files=run.tensorboard,
    ) as (report, evaluate_and_draw):
      trained = train_stages(evaluate=evaluate_and_draw, report=report)

    trained = session.by_seed([*given, *trained])
    rows = [
        session.describe(model)
        | attribute_flips.measure(
            model.model,
            judge,
            selection,
            data,
            sizes.strengths,
            sizes.selection_images,
        )
        for model in session.add_random(
            trained, lambda own: own[0], make(chain.nuisance_dims[0])
        )
    ]
    progress.say(tables.format_attributes(rows))
    session.finish(
        workdir,
        experiment,
        f'{config.result.eval_split} split, selection on {chosen_on};'
        f' {attribute_flips.PROTOCOL}',
        rows,
        trained,
        data,
        judge=judge.describe(),
    )


if __name__ == '__main__':
  cli.run(main, Config())
