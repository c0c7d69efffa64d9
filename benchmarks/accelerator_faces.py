"""Trains on real faces for as long as the time allows; see `accelerator`.

Section 4 of Lezama (2019) at 64x64 pixels: a teacher, a student, and beside
them a student with cycle losses, Fader Networks and random weights, all judged
on the validation partition. Weights are those of celeba64.flags, chosen on
held-out faces.
"""

from collections.abc import Mapping
from concurrent import futures
import dataclasses
import functools
import io
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks import records as records_lib
from jacsup_jax.baselines import fader
from jacsup_jax.baselines import rivals
from jacsup_jax.core import config
from jacsup_jax.data import registry
from jacsup_jax.editor import editor
from jacsup_jax.editor import model_files
from jacsup_jax.evaluation import attribute_flips
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models
from jacsup_jax.runs import checkpoints
from jacsup_jax.training import attributes
from jacsup_jax.training import steps

# What each stage gets of the time, by its model, and each measurement.
_SHARES = {
  'teacher_phase_1': 14,
  'teacher': 16,
  'student': 13,
  'student_cycle': 10,
  'fader': 10,
}
_MEASURING_SHARE = 4
_LARGEST_FILE = 16e6
_LONGEST_CURVE = 200


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The run: the paper's schedule, and the paper's d for each pixel.

  64x64 pixels are a sixteenth of 256x256, and so are 128, 256 and 512 of 2048,
  4096 and 8192.
  """

  chain: attributes.AttributesConfig = attributes.AttributesConfig(
    nuisance_dims=(128, 256, 512),
    students=('student', 'student_cycle'),
    weights=config.AttributeLossWeights(
      lambda_prediction=100.0,
      lambda_xcov=10.0,
      lambda_attribute_cycle=1e-4,
      lambda_nuisance_cycle=1e-5,
      lambda_y=10.0,
      lambda_diff=50.0,
    ),
    compute_dtype='bfloat16',
  )
  baseline: rivals.BaselineConfig = rivals.BaselineConfig(
    baselines=('fader',),
    baseline_epochs=200,
    fader_weights=fader.FaderLossWeights(adversarial_ramp_steps=8700),
  )
  first_width: int = 32
  last_width: int = 512
  judge: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {
      'epochs': 8,
      'first_width': 16,
      'last_width': 256,
    }
  )
  held_out: int = 2048
  strengths: tuple[float, ...] = attribute_flips.STRENGTHS
  selection_images: int = 256
  measured: tuple[str, ...] = (
    *('teacher', 'student_d512', 'student_cycle_d512', 'fader', 'random'),
  )
  exported: str = 'student_d512'


REHEARSAL = Sizes(
  chain=attributes.AttributesConfig(
    nuisance_dims=(12, 16),
    epochs=1,
    cycle_epochs=0,
    student_epochs=1,
    batch_size=8,
    compute_dtype='bfloat16',
  ),
  baseline=rivals.BaselineConfig(),
  first_width=4,
  last_width=6,
  judge={
    'epochs': 1,
    'batch_size': 8,
    'first_width': 4,
    'last_width': 4,
    'hidden': 4,
  },
  held_out=8,
  strengths=(1.0,),
  selection_images=8,
  measured=('student_d16',),
  exported='student_d16',
)


def run(
  records: records_lib.Records, sizes: Sizes, bundle: pathlib.Path | None
) -> None:
  """Trains and measures all models, each for its share of the time."""
  if sizes is REHEARSAL or bundle is None:
    faces = make_noise(40, 8, ('Smiling', 'Male'))
  else:
    faces = load_faces(bundle / 'faces.npz')
  train, selection, data = split_faces(*faces, sizes.held_out)
  # Beside the results, which travel without them.
  folder = records.folder
  states = folder.with_name(f'{folder.name}_states')
  judges = []
  for kind in attribute_judges.KINDS:
    judge = attribute_judges.restore_or_train(
      states / 'judges' / kind, train, selection, kind=kind, **sizes.judge
    )
    records.measure(
      f'faces/{kind} judge', lambda own=judge: _describe_judge(own)
    )
    judges.append(judge)
  trained: dict[str, steps.Trained] = {}
  stages = list_stages(sizes)
  measure = functools.partial(_measure, records, sizes, judges, selection, data)
  for index, stage in enumerate(stages):
    rest = sum(_SHARES[each.model] for each in stages[index:])
    rest += _MEASURING_SHARE * len(sizes.measured)
    seconds = records.left * _SHARES[stage.model] / rest
    stage = _limit(stage, trained)
    recipe = _make_recipe(sizes, stage, train)
    curve: dict[str, Any] = {}
    trained[stage.name] = own = train_stage(
      stage, recipe, trained, seconds, states / stage.name, curve
    )
    if curve:
      records.measure(f'curves/{stage.name}', lambda own=curve: own)
    measure(stage.name, own.model)
    if stage.name == sizes.exported:
      records.measure(
        'faces/model file',
        lambda own=own: export(own, train, folder / 'faces.safetensors'),
      )
  module = trained[attributes.TEACHER].module
  measure(
    'random', models.Model(module, **autoencoders.init_variables(module, 0))
  )


def list_stages(sizes: Sizes) -> list[config.Stage]:
  """Lists the stages, parents before their children."""
  chain = sizes.chain
  baselines = rivals.make_stages(sizes.baseline, chain.nuisance_dims[0])
  return attributes.make_stages(chain) + chain.spread(baselines)


def _limit(stage, trained):
  """Gives a student with cycle losses as many epochs as the other had."""
  rival = trained.get(stage.name.replace('student_cycle', 'student'))
  if rival is None or stage.model != 'student_cycle':
    return stage
  return dataclasses.replace(stage, epochs=rival.stage.epochs)


def _make_recipe(sizes, stage, train):
  """Makes the recipe of a stage."""

  def make_model(nuisance_dim, cls=autoencoders.FaceAutoencoder):
    is_own = cls is autoencoders.FaceAutoencoder
    fields = {'factor_activation': 'linear'} if is_own else {}
    return cls(
      train.labels.shape[1],
      nuisance_dim // 4,
      image_size=train.image_shape[0],
      first_width=sizes.first_width,
      last_width=sizes.last_width,
      dtype=getattr(jnp, sizes.chain.compute_dtype),
      **fields,
    )

  if stage.model in rivals.BASELINES:
    return rivals.make_recipe(stage.model, sizes.chain, make_model, train)
  return attributes.Attributes(sizes.chain, make_model, train)


def train_stage(
  stage: config.Stage,
  recipe: attributes.Attributes,
  trained: Mapping[str, steps.Trained],
  seconds: float,
  directory: pathlib.Path,
  curve: dict[str, Any],
) -> steps.Trained:
  """Trains a stage to its last epoch, or the one in which its time is over.

  One that is saved in the directory is restored; a trained one is saved, and
  fills the curve with its metrics.
  """
  module, state = recipe.create(stage, trained)
  with checkpoints.StageCheckpoints(directory) as saved:
    found = saved.recover(state, print)
    if found is not None:
      stage = dataclasses.replace(stage, epochs=found.progress['epochs'])
      return steps.Trained(stage, module, found.state, found.sha256)
    epoch_fn = recipe.make_epoch(stage, module, trained)
    begun, rows = time.monotonic(), []
    # No two stages of a chain see the data in the same order.
    first = int(state.step) // recipe.steps_per_epoch
    compiled = 0.0
    for epoch in range(stage.epochs):
      state, metrics = epoch_fn(state, first + epoch)
      rows.append({name: float(mean) for name, mean in metrics.items()})
      taken = time.monotonic() - begun
      compiled = compiled or taken
      if taken > seconds:
        break
    count = len(rows)
    images = (count - 1) * recipe.steps_per_epoch * recipe.batch_size
    curve |= {
      'epochs': count,
      'seconds': taken,
      'seconds of the first epoch': compiled,
      # The first one compiles.
      'images a second': images / max(taken - compiled, 1e-9),
      'curves': _thin(rows),
    }
    state = jax.device_get(state)
    sha256 = saved.save(int(state.step), state, {'epochs': count})
  stage = dataclasses.replace(stage, epochs=count)
  return steps.Trained(stage, module, state, sha256)


def _thin(rows):
  """Returns curves by name, of at most `_LONGEST_CURVE` epochs."""
  every = -(-len(rows) // _LONGEST_CURVE)
  kept = range(0, len(rows), every)
  curves = {name: [rows[i][name] for i in kept] for name in rows[0]}
  return {'epoch': [i + 1 for i in kept], **curves}


def _measure(records, sizes, judges, selection, data, name, model):
  """Measures flips and error of a model, if it is one of those."""
  if name not in sizes.measured:
    return

  def measure():
    chosen = attribute_flips.choose_strengths(
      model, judges, selection, sizes.strengths, sizes.selection_images
    )
    return attribute_flips.measure(model, judges, chosen, data)

  records.measure(f'faces/{name}', measure)


def _describe_judge(judge):
  return {
    'accuracy': float(np.mean(judge.accuracy)),
    'balanced accuracy': float(np.mean(judge.balanced_accuracy)),
    'best epoch': judge.best_epoch,
    'epochs': judge.epochs,
  }


def export(
  trained: steps.Trained, train: registry.Dataset, path: pathlib.Path
) -> dict[str, Any]:
  """Writes a model as a file of the editor, if it is not too large."""
  module = trained.module.clone(dtype=jnp.float32)
  model = dataclasses.replace(trained.model, module=module)
  size = 4 * sum(x.size for x in jax.tree.leaves(model.variables))
  if size > _LARGEST_FILE:
    raise ValueError(f'{size / 1e6:.1f} MB; at most 16 are written')
  units = unit_scales.measure(model, train.images, train.attribute_names)
  model_files.write(path, editor.Editor(model, units, trained.stage.name))
  return {'MB': path.stat().st_size / 1e6}


def make_noise(
  count: int, image_size: int, names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
  """Makes images without faces, the last quarter for validation."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (count, image_size, image_size, 3), np.uint8)
  signs = rng.choice(np.array([-1, 1], np.int8), (count, len(names)))
  return images, signs, np.arange(count) >= 0.75 * count, names


def load_faces(
  path: pathlib.Path,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
  """Decodes the faces that `bundle` packed.

  Returns images `[M, S, S, 3]` uint8, attributes `[M, K]` int8 in {-1, +1},
  which ones are of the validation partition, and the names of the attributes.
  """
  with np.load(path) as packed:
    content, ends = packed['content'], packed['ends']
    signs, names = packed['attributes'], tuple(packed['names'].tolist())
    is_validation = packed['is_validation']
  starts = [0, *ends[:-1].tolist()]

  def decode(start, end):
    with Image.open(io.BytesIO(content[start:end].tobytes())) as image:
      return np.asarray(image.convert('RGB'))

  with futures.ThreadPoolExecutor() as pool:
    images = np.stack([*pool.map(decode, starts, ends.tolist())])
  return images, signs, is_validation, names


def split_faces(
  images: np.ndarray,
  signs: np.ndarray,
  is_validation: np.ndarray,
  names: tuple[str, ...],
  held_out: int,
) -> list[registry.Dataset]:
  """Returns the faces to train on, to choose on, and to measure on."""
  train, data = np.flatnonzero(~is_validation), np.flatnonzero(is_validation)
  parts = {
    'train': train[:-held_out],
    'held_out': train[-held_out:],
    'validation': data,
  }
  return [
    registry.Dataset(
      'celeba64', split, images[rows], signs[rows], attribute_names=names
    )
    for split, rows in parts.items()
  ]
