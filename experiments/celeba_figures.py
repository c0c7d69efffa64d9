"""Draws Figures 4, 5 and 8 of Lezama (2019) from the models of a run."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax import datasets
from jacsup_jax import face_figures
from jacsup_jax import fader_networks
from jacsup_jax import figures
from jacsup_jax import networks
from jacsup_jax import stages
from jacsup_jax import traversals
from jacsup_jax import workdirs
from jacsup_jax.datasets import batches

_SUBJECTS = 8
_SWEEP_SUBJECTS = 4
_SWEEP_VALUES = 9
# A figure with more columns cannot be read; the paper's has 32.
_MAX_ATTRIBUTES = 32


def draw(
    workdir: workdirs.WorkDir,
    trained: Sequence[stages.Trained],
    rows: Sequence[Mapping[str, Any]],
    data: datasets.FaceDataset,
    metrics: Sequence[Mapping[str, Any]],
) -> None:
  """Writes the figures of a run to its work directory, `figures/*.png`.

  reconstructions: eight images, by the teacher and the last student of each
    chain.
  figure_4: flips against error, of all models.
  figure_5_MODEL: each attribute flipped, by the teacher and the last students,
    those that the judge confirms most often for the model first.
  figure_8_MODEL: the four attributes that are confirmed most often, each over
    values from -alpha to alpha, for an image of its own.
  curves_MODEL: the error over the training of each chain.
  discriminator_fader: what the latent discriminator of Fader Networks tells.

  Args:
    workdir: of the run.
    trained: all models, parents before their children.
    rows: of results.json, of these models and others.
    data: that is not trained on.
    metrics: of metrics.jsonl, of the same models, for the curves.
  """
  images = batches.to_signed_float(jnp.asarray(data.images[:_SUBJECTS]))
  rows_of = {row['stage']: row for row in rows}
  finals = _find_finals(trained)
  save = lambda figure, name: figures.save(
      figure, workdir.figures / f'{name}.png'
  )

  shown = {'original': _for_display(images)}
  for name, model in finals.items():
    shown[_title(model)] = _for_display(
        _decode(model.model, model.variables, _encode(model, images, data))
    )
  save(figures.reconstructions(shown), 'reconstructions')
  save(face_figures.tradeoff(rows), 'figure_4')
  for name, model in finals.items():
    row = rows_of[model.stage.name]
    save(_draw_flips(model, row, images, data), f'figure_5_{name}')
    save(_draw_sweeps(model, row, images, data), f'figure_8_{name}')
  for name, model in finals.items():
    of_chain = _ancestors(model, trained)
    records = [record for record in metrics if record['stage'] in of_chain]
    if any(record.get('eval_mse') is not None for record in records):
      save(face_figures.training_curves(records), f'curves_{name}')
    if any('discriminator' in record for record in records):
      commoner = float(np.mean(_share_of_commoner_sign(data)))
      save(
          face_figures.adversarial_curves(records, commoner),
          f'discriminator_{name}',
      )


def _find_finals(trained):
  """Returns the teacher and the last of each chain of students, by kind."""
  # A later one of a kind takes the place of an earlier.
  finals = {model.stage.model: model for model in trained}
  finals.pop('teacher_phase_1', None)
  return finals


def _ancestors(model, trained):
  """Returns the names of a model's stage and all that it came from."""
  by_name = {other.stage.name: other for other in trained}
  names = []
  while model is not None:
    names.append(model.stage.name)
    model = by_name.get(model.stage.parent)
  return names


def _share_of_commoner_sign(data):
  """Returns `[K]`, how often one is right who always says the commoner sign."""
  present = np.mean(data.attributes > 0, axis=0)
  return np.maximum(present, 1 - present)


def _title(model):
  kind = model.stage.model.replace('_', ' ')
  return f'{kind}, d = {model.stage.nuisance_dim}'


def _rank_attributes(row, data):
  """Returns indices of attributes, the most often flipped first."""
  rates = row['attribute_flips_by_attribute']
  names = data.attribute_names
  return sorted(range(len(names)), key=lambda i: -rates[names[i]])


def _draw_flips(model, row, images, data):
  indices = _rank_attributes(row, data)[:_MAX_ATTRIBUTES]
  code = _encode(model, images, data)
  flipped = _flip(
      model.model, model.variables, code, jnp.array(indices), row['strength']
  )
  return face_figures.attribute_flips(
      _for_display(images),
      _for_display(_decode(model.model, model.variables, code)),
      _for_display(flipped),
      [data.attribute_names[i] for i in indices],
      f'{_title(model)}, alpha = {row["strength"]:g}',
  )


def _draw_sweeps(model, row, images, data):
  indices = _rank_attributes(row, data)[:_SWEEP_SUBJECTS]
  values = np.linspace(-row['strength'], row['strength'], _SWEEP_VALUES)
  code = _encode(model, images, data)
  swept = []
  for subject, index in enumerate(indices):
    one = jax.tree.map(lambda x: x[subject : subject + 1], code)
    swept.append(
        _sweep(model.model, model.variables, one, index, jnp.asarray(values))[0]
    )
  return face_figures.sweeps(
      _for_display(jnp.stack(swept)),
      values,
      [data.attribute_names[i] for i in indices],
      title=_title(model),
  )


def _for_display(images):
  """Converts images in [-1, 1] to [0, 1]."""
  return np.asarray((images + 1) / 2)


def _encode(trained, images, data):
  """Encodes the first images of the data."""
  attributes = jnp.asarray(data.attributes[: len(images)])
  return _jitted_encode(trained.model, trained.variables, images, attributes)


@functools.partial(jax.jit, static_argnums=0)
def _jitted_encode(model, variables, images, attributes):
  encode = fader_networks.make_labelled_encode(model, variables['batch_stats'])
  return encode(variables['params'], images, attributes)


def _bind_decode(model, variables):
  decode = networks.make_decode(model, variables['batch_stats'])
  return functools.partial(decode, variables['params'])


@functools.partial(jax.jit, static_argnums=0)
def _decode(model, variables, code):
  return _bind_decode(model, variables)(code)


@functools.partial(jax.jit, static_argnums=0)
def _flip(model, variables, code, indices, strength):
  decode = _bind_decode(model, variables)
  return traversals.flip_factors(decode, code, indices, strength)


@functools.partial(jax.jit, static_argnums=0)
def _sweep(model, variables, code, index, values):
  return traversals.sweep_factor(
      _bind_decode(model, variables), code, index, values
  )
