"""Section 4 of Lezama (2019): editing facial attributes with one model.

Trains a teacher in two phases, then students of larger nuisance with Jacobian
supervision, with cycle losses instead, or with neither, and Fader Networks as a
baseline; measures attribute flips by two judges and the reconstruction error;
draws Figures 4, 5 and 8.

  python -m experiments.celeba --flagfile=celeba_quick
"""

from collections.abc import Sequence
import dataclasses
import functools
import pathlib

from flax import linen as nn
import jax.numpy as jnp

from experiments import cli
from experiments import face_flags
from experiments import progress
from experiments import session
from jacsup_jax.baselines import rivals
from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.evaluation import attribute_flips
from jacsup_jax.evaluation import judges
from jacsup_jax.evaluation import predicted_labels
from jacsup_jax.evaluation import reconstruction
from jacsup_jax.evaluation import tables
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import stages as stages_lib
from jacsup_jax.training import attributes
from jacsup_jax.training import devices


@dataclasses.dataclass(frozen=True)
class Config:
  """The flags of this binary, with the paper's values."""

  chain: attributes.AttributesConfig = attributes.AttributesConfig()
  baseline: rivals.BaselineConfig = rivals.BaselineConfig()
  result: cli.ResultConfig = cli.ResultConfig(dataset=registry.DEFAULT_FACES)
  data: face_flags.FaceDataConfig = face_flags.FaceDataConfig(image_size=256)
  model: face_flags.FaceModelConfig = face_flags.FaceModelConfig()
  judge: judges.JudgeConfig = judges.JudgeConfig()
  run: cli.RunConfig = cli.RunConfig(
    workdir=pathlib.Path('runs/celeba'), checkpoint_every=5
  )

  def __post_init__(self):
    supervisor, names = self.chain.supervisor, self.baseline.baselines
    if supervisor not in (attributes.TEACHER, *names):
      raise errors.InputError(
        f'--supervisor={supervisor} with --baselines={",".join(names)};'
        f' accepted: {supervisor} among the baselines, as it has to be trained.'
      )

  def is_supervisor(self, model: str) -> bool:
    """Whether a kind of model is a baseline that supervises the students.

    It is trained before all others.
    """
    return model == self.chain.supervisor and model in self.baseline.baselines


def make_module(
  config: Config,
  num_factors: int,
  nuisance_dim: int,
  cls: type[nn.Module] = autoencoders.FaceAutoencoder,
) -> nn.Module:
  """Makes an autoencoder whose nuisance is a map of 2x2."""
  fields = {}
  if cls is autoencoders.FaceAutoencoder:
    fields = {'factor_activation': config.model.factor_activation}
  return cls(
    num_factors,
    nuisance_dim // 4,
    image_size=config.data.image_size,
    first_width=config.model.first_width,
    last_width=config.model.last_width,
    dtype=jnp.dtype(config.chain.compute_dtype),
    **fields,
  )


def main(config: Config) -> None:
  """Trains, measures and draws a run."""
  stages = attributes.make_stages(config.chain)
  others = rivals.make_stages(config.baseline, config.chain.nuisance_dims[0])
  stages += config.chain.spread(others)
  stages.sort(key=lambda stage: not config.is_supervisor(stage.model))
  if not stages:
    raise errors.InputError(
      '--students is empty, and the teacher is given or has --epochs=0:'
      ' nothing to train; accepted: students, or --baselines.'
    )
  train_and_evaluate('celeba', config, stages)


def train_and_evaluate(
  experiment: str, config: Config, stages: Sequence[config_lib.Stage]
) -> None:
  """Trains, measures and draws a run, or what is missing of it."""
  run, chain, split = config.run, config.chain, config.result.eval_split
  chosen_on = session.choose_selection_split(split, config.data.held_out)
  devices.check_batch_size(chain.batch_size)
  values, load_options = cli.as_dict(config), config.data.load_options()
  strengths = config.model.strengths
  with session.opened(run, values) as workdir:
    if session.is_complete(workdir):
      return
    load = functools.partial(
        registry.load, config.result.dataset, data_dir=run.data_dir,
        report=progress.announce, **load_options,
    )  # fmt: skip
    train = devices.in_turn(
      functools.partial(load, 'train', in_memory=chain.cache != 'none')
    )
    progress.report_data(train)
    load_selection = functools.cache(functools.partial(load, chosen_on))
    given, checked, train_stages = prepare_training(
      config, stages, train, load_selection, workdir
    )
    if workdir is None:  # The first of several processes does all else.
      train_stages(evaluate=None)
      return

    selection, data = load_selection(), load(split)
    face_judges = session.restore_or_train_faces(
      run.judge_workdir, train, selection, config.judge
    )
    session.begin(
      workdir, experiment, values, stages, train, run.data_dir, **load_options
    )
    few = range(min(config.model.selection_images, len(selection)))
    few = [*map(jnp.asarray, selection.read(few))]
    evaluate = lambda model: {
      'mse': float(reconstruction.measure_mse(model, *few))
    }
    middle = sorted(strengths)[len(strengths) // 2]
    with session.observed(
      run, workdir, stages, evaluate, selection, middle
    ) as (report, evaluate_and_draw):
      trained = train_stages(evaluate=evaluate_and_draw, report=report)

    trained = session.by_seed([*given, *trained])
    random = make_module(config, data.labels.shape[1], chain.nuisance_dims[0])
    models = session.add_random(trained, session.choose_own, random)
    rows = measure(config, models, face_judges, selection, data)
    progress.say(tables.format_attributes(rows))
    about = f'{split} split, selection on {chosen_on}'
    session.finish(
        workdir, experiment, f'{about}; {attribute_flips.PROTOCOL}', rows,
        trained, data,
        judges=[judge.describe() for judge in face_judges], **checked,
    )  # fmt: skip


def measure(config, models, face_judges, selection, data):
  """Returns a row for each model and source of its labels."""
  rows, own = [], config.model
  find = lambda predictor: attribute_flips.choose_thresholds(
    predictor.model, selection
  )
  versions = [*predicted_labels.list_versions(models, find)]
  for model, labels, version in progress.track('measuring', versions):
    chosen = attribute_flips.choose_strengths(
      version, face_judges, selection, own.strengths, own.selection_images
    )
    measured = attribute_flips.measure(
      version, face_judges, chosen, data, own.edit_images
    )
    rows.append(session.describe(model) | {'labels': labels} | measured)
  lacking = rows[0]['stgan_lacking']
  if 0 < len(lacking) < len(attribute_flips.STGAN):
    progress.note(f"flips of STGAN's attributes lack {', '.join(lacking)}")
  return rows


def prepare_training(config, stages, train, load_selection, workdir):
  """Returns given teachers, what checks edits, and what trains the stages."""
  chain, num_factors = config.chain, len(train.attribute_names)
  attributes.check_sizes(chain, stages, num_factors, train.image_shape)
  make = functools.partial(make_module, config, num_factors)
  names, given, checked, checker = config.baseline.baselines, [], {}, None
  own = [stage for stage in stages if stage.model not in names]
  if own and chain.weights.lambda_edit_check:
    restore = lambda: session.restore_or_train_checker(
      config.run.judge_workdir, train, load_selection(), config.judge
    )
    classifier = devices.in_turn(restore)
    checker = classifier.module, classifier.variables
    checked = {'edit_check': classifier.describe()}
  recipe = attributes.Attributes(chain, make, train, checker=checker)
  if chain.teacher_workdir is not None:
    given = session.restore_teachers(
        chain.teacher_workdir, own, make(chain.nuisance_dims[0]),
        recipe if chain.keep_moments else None,
    )  # fmt: skip

  def train_stages(**options):
    options |= {
        'workdir': workdir, 'checkpoint_every': config.run.checkpoint_every,
        'eval_every': config.result.eval_every, 'note': progress.note,
    }  # fmt: skip

    def train_rivals(supervising):
      for name in names:
        if config.is_supervisor(name) == supervising:
          rival = rivals.make_recipe(name, chain, make, train, supervising)
          of_rival = [stage for stage in stages if stage.model == name]
          yield from stages_lib.run(of_rival, rival, **options)

    supervisors = [*train_rivals(True)]
    teachers = [*given, *supervisors]
    trained = stages_lib.run(own, recipe, given=teachers, **options)
    return [*supervisors, *trained, *train_rivals(False)]

  return given, checked, train_stages


if __name__ == '__main__':
  cli.run(main, Config())
