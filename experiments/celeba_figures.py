"""Draws Figures 4, 5 and 8 of Lezama (2019) from the models of a run."""

from collections.abc import Mapping, Sequence
import functools
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import drawings
from jacsup_jax.baselines import fader as fader_networks
from jacsup_jax.data import batches
from jacsup_jax.data import registry as datasets
from jacsup_jax.figures import face_figures
from jacsup_jax.figures import panels as figures
from jacsup_jax.figures import traversals
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages

_SUBJECTS = 8
_SWEEP_SUBJECTS = 4
_COMPARED_SUBJECTS = 5
_SWEEP_VALUES = 9
# A figure with more columns cannot be read; the paper's has 32.
_MAX_ATTRIBUTES = 32


def list_drawings(
    trained: Sequence[stages.Trained],
    rows: Sequence[Mapping[str, Any]],
    data: datasets.FaceDataset,
    metrics: Sequence[Mapping[str, Any]],
) -> drawings.Drawings:
  """Lists the figures that the models of a run give; nothing is drawn yet.

  figure_4: flips against error, of all models.
  figure_5_MODEL: each attribute flipped, by the teacher and the last students,
    those that the judge confirms most often for the model first.
  figure_8: where there are Fader Networks, the attributes that the judge
    confirms most often for the student, swept by both; see `list_comparison`.
  figure_8_MODEL (sweeps): the four attributes that are confirmed most often,
    each over values from -alpha to alpha, for an image of its own.
  reconstructions (Figure 7): eight images, by the teacher and the last student
    of each chain, and Fader Networks.
  curves_MODEL: the error over the training of each chain.
  discriminator_fader (curves): what the latent discriminator of Fader Networks
    tells.

  Args:
    trained: models of the run, parents before their children.
    rows: of results.json, of these models and others; a model without one is
      not in Figures 4, 5 and 8.
    data: that is not trained on.
    metrics: of metrics.jsonl, of the same models, for the curves.
  """
  finals = find_finals(trained)
  measured = find_measured(trained, rows)
  found = {name: {} for name in ('4', '5', '7', '8', 'sweeps', 'curves')}
  found['7']['reconstructions'] = list_reconstructions(finals, data)
  if face_figures.has_tradeoff(rows):
    found['4']['figure_4'] = drawings.Drawing(
        functools.partial(face_figures.tradeoff, rows),
        'Figure 4: attribute flips against error; towards the top left is'
        ' better.',
    )
  for name, (model, row) in measured.items():
    of_model = (model, row, data)
    found['5'][f'figure_5_{name}'] = drawings.Drawing(
        functools.partial(_draw_flips, *of_model),
        f'Figure 5: one attribute flipped at a time, {_title(model)}.',
    )
    found[drawings.SWEEPS][f'figure_8_{name}'] = drawings.Drawing(
        functools.partial(_draw_sweeps, *of_model),
        f'As Figure 8: an attribute\'s factor over values, {_title(model)}.',
    )
  if 'student' in measured and 'fader' in measured:
    found['8']['figure_8'] = list_comparison(
        measured['student'], measured['fader'], data
    )
  for name, model in finals.items():
    of_chain = _ancestors(model, trained)
    records = [record for record in metrics if record['stage'] in of_chain]
    if any(record.get('eval_mse') is not None for record in records):
      found[drawings.CURVES][f'curves_{name}'] = drawings.Drawing(
          functools.partial(face_figures.training_curves, records),
          f'Error over training, {_title(model)}.',
          is_curve=True,
      )
    if any('discriminator_accuracy' in record for record in records):
      commoner = float(np.mean(_share_of_commoner_sign(data)))
      found[drawings.CURVES][f'discriminator_{name}'] = drawings.Drawing(
          functools.partial(
              face_figures.adversarial_curves, records, commoner
          ),
          'What the discriminator tells of the attributes from the code.',
          is_curve=True,
      )
  return {name: files for name, files in found.items() if files}


def find_finals(
    trained: Sequence[stages.Trained],
) -> dict[str, stages.Trained]:
  """Finds the teacher and the last of each chain of students, by kind.

  Args:
    trained: models of a run, parents before their children.
  """
  # A later one of a kind takes the place of an earlier.
  finals = {model.stage.model: model for model in trained}
  if len(finals) > 1:
    finals.pop('teacher_phase_1', None)
  return finals


def find_measured(
    trained: Sequence[stages.Trained], rows: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[stages.Trained, Mapping[str, Any]]]:
  """Finds the last model of each kind that has a row.

  Args:
    trained: models of a run, parents before their children.
    rows: of results.json.

  Returns:
    By kind: the model and its row.
  """
  rows_of = {row['stage']: row for row in rows}
  return {
      name: (model, rows_of[model.stage.name])
      for name, model in find_finals(trained).items()
      if model.stage.name in rows_of
  }


def list_reconstructions(
    finals: Mapping[str, stages.Trained], data: datasets.FaceDataset
) -> drawings.Drawing:
  """Lists Figure 7, which may have models of several runs.

  Args:
    finals: models by kind, in the order of rows.
    data: that none is trained on.
  """
  return drawings.Drawing(
      functools.partial(_draw_reconstructions, finals, data),
      'Figure 7: images that were held out, and what the models make of them.',
  )


def list_comparison(
    ours: tuple[stages.Trained, Mapping[str, Any]],
    fader: tuple[stages.Trained, Mapping[str, Any]],
    data: datasets.FaceDataset,
) -> drawings.Drawing:
  """Lists Figure 8, which may compare models of two runs.

  Args:
    ours: a model and its row.
    fader: Fader Networks and their row.
    data: that neither is trained on.
  """
  return drawings.Drawing(
      functools.partial(_draw_comparison, ours, fader, data),
      'Figure 8: factors over values, each from minus to plus its model\'s'
      ' alpha; above by the student, below by Fader Networks.',
  )


def rank_attributes(
    row: Mapping[str, Any], data: datasets.FaceDataset
) -> list[int]:
  """Returns indices of attributes, the most often flipped first.

  Args:
    row: of results.json.
    data: whose attributes they are.
  """
  rates = row['attribute_flips_by_attribute']
  names = data.attribute_names
  return sorted(range(len(names)), key=lambda i: -rates[names[i]])


def first_images(data: datasets.FaceDataset, count: int) -> np.ndarray:
  """Returns the first images of data, `[count, S, S, 3]` in [0, 1]."""
  return _for_display(_first_images(data)[:count])


def sweep_attributes(
    model: stages.Trained,
    data: datasets.FaceDataset,
    indices: Sequence[int],
    values: np.ndarray,
) -> np.ndarray:
  """Decodes an image for each of some attributes, its factor over values.

  Args:
    model: of faces.
    data: the first image is of the first attribute, and so on.
    indices: of the attributes, n.
    values: `[count]`, of the factor.

  Returns:
    `[n, count, S, S, 3]` in [0, 1].
  """
  images = _first_images(data)[: len(indices)]
  code = _encode(model, images, data)
  swept = []
  for subject, index in enumerate(indices):
    one = jax.tree.map(lambda x, i=subject: x[i : i + 1], code)
    swept.append(
        _sweep(model.model, model.variables, one, index, jnp.asarray(values))[0]
    )
  return _for_display(jnp.stack(swept))


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
  kind = face_figures.name_model(model.stage.model)
  return f'{kind}, d = {model.stage.nuisance_dim}'


def _first_images(data):
  return batches.to_signed_float(jnp.asarray(data.images[:_SUBJECTS]))


def _draw_reconstructions(finals, data):
  images = _first_images(data)
  shown = {'original': _for_display(images)}
  for model in finals.values():
    shown[textwrap.fill(_title(model), 24)] = _for_display(
        _decode(model.model, model.variables, _encode(model, images, data))
    )
  return figures.reconstructions(shown)


def _draw_flips(model, row, data):
  images = _first_images(data)
  indices = rank_attributes(row, data)[:_MAX_ATTRIBUTES]
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


def _draw_sweeps(model, row, data):
  indices = rank_attributes(row, data)[:_SWEEP_SUBJECTS]
  values = np.linspace(-row['strength'], row['strength'], _SWEEP_VALUES)
  return face_figures.sweeps(
      sweep_attributes(model, data, indices, values),
      values,
      [data.attribute_names[i] for i in indices],
      title=_title(model),
  )


def _draw_comparison(ours, fader, data):
  indices = rank_attributes(ours[1], data)[:_COMPARED_SUBJECTS]
  # From -1 to 1, of the alpha of each.
  values = np.linspace(-1, 1, _SWEEP_VALUES)
  above, below = (
      sweep_attributes(model, data, indices, row['strength'] * values)
      for model, row in (ours, fader)
  )
  return face_figures.compared_sweeps(
      np.stack([above, below], axis=1),
      values,
      [data.attribute_names[i] for i in indices],
      ['student', 'Fader Networks'],
      xlabel=(
          'value of the factor $y_i$, in units of alpha'
          f' ({ours[1]["strength"]:g} and {fader[1]["strength"]:g})'
      ),
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
