"""Models with random weights to edit with, which compile in no time."""

import dataclasses
import functools

import jax
import numpy as np

from jacsup_jax.editor import editor
from jacsup_jax.editor import profiles
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models

ATTRIBUTES = (
    'Smiling', 'Eyeglasses', 'Mouth_Slightly_Open', '5_o_Clock_Shadow', 'Bald',
)  # fmt: skip
SAMPLES = {
  name: np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
  for name, shape in {'faces': (16, 16, 3), 'digits': (28, 28, 1)}.items()
}


@functools.cache
def make_faces():
  """An editor of faces of 16x16 pixels."""
  module = autoencoders.FaceAutoencoder(
    len(ATTRIBUTES), 4, image_size=16, first_width=4, last_width=16,
    factor_activation='linear',
  )  # fmt: skip
  return _make(module, dict.fromkeys(ATTRIBUTES, 2.0), 'tiny faces')


@functools.cache
def make_known_faces():
  """The editor of faces with a profile, by which Smiling is weak."""
  edits = {
    'Smiling': profiles.EditScore(-4.0, 4.0, flips=0.6, kept=0.9),
    'Eyeglasses': profiles.EditScore(-2.0, 3.0, flips=0.95, kept=0.8),
  }
  errors = {'0.5': 1e-4, '0.99': 1e-3}  # less than any picture has
  profile = profiles.Profile('a student', edits, errors)
  return dataclasses.replace(make_faces(), profile=profile)


@functools.cache
def make_laid_out_digits():
  """The editor of digits with a map of two classes."""
  cells = ((0, 1), (0, -1))
  layout = profiles.Layout(cells, {'0': (-2.0, 2.0), '1': (2.0, 2.0)})
  return dataclasses.replace(
    make_digits(), profile=profiles.Profile(layout=layout)
  )


@functools.cache
def make_digits():
  """An editor of digits, whose last unit cannot be moved."""
  module = autoencoders.MlpAutoencoder(2, 3, widths=(8,))
  deviations = {'y1': 2.0, 'y2': 2.0, 'z1': 2.0, 'z2': 2.0, 'z3': 0.0}
  return _make(module, deviations, 'tiny digits')


def make_choice(name, load, counterpart=''):
  """A choice of an editor, with noise to start from."""
  images = SAMPLES['faces' if name.endswith('faces') else 'digits']
  samples = editor.Samples(len(images), lambda rows: images[list(rows)])
  open_samples = lambda unused_own: samples
  return editor.Choice(name, 'tiny', name, load, open_samples, counterpart)


def _make(module, deviations, title):
  variables = autoencoders.init_variables(module, 0)
  # Initial weights are so small that nothing would be seen.
  params = jax.tree.map(lambda x: 2 * x, variables['params'])
  units = []
  for name, deviation in deviations.items():
    group = unit_scales.NUISANCE if name[0] == 'z' else unit_scales.FACTOR
    units.append(unit_scales.Unit(name, group, 0.0, deviation, -4.0, 4.0))
  model = models.Model(module, params, variables['batch_stats'])
  return editor.Editor(model, tuple(units), title)


CHOICES = [make_choice('faces', make_faces), make_choice('digits', make_digits)]
