"""Models with random weights to edit with, which compile in no time."""

import jax
import numpy as np

from jacsup_jax.editor import editor
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models

ATTRIBUTES = (
    'Smiling', 'Eyeglasses', 'Mouth_Slightly_Open', '5_o_Clock_Shadow', 'Bald',
)  # fmt: skip
NUM_SAMPLES = 5


def make_faces(image_size=16):
  """An editor of faces."""
  module = autoencoders.FaceAutoencoder(
    len(ATTRIBUTES),
    4,
    image_size=image_size,
    first_width=4,
    last_width=16,
    linear_factors=True,
  )
  return _make(module, dict.fromkeys(ATTRIBUTES, 2.0), 'tiny faces')


def make_digits():
  """An editor of digits, whose last unit cannot be moved."""
  module = autoencoders.MlpAutoencoder(2, 3, widths=(8,))
  deviations = {'y1': 2.0, 'y2': 2.0, 'z1': 2.0, 'z2': 2.0, 'z3': 0.0}
  return _make(module, deviations, 'tiny digits')


def make_choice(own, name, count=NUM_SAMPLES):
  """A choice of an editor, with noise to start from."""
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (count, *own.image_shape), np.uint8)
  return editor.Choice(
    id=name,
    group='tiny',
    title=name,
    load=lambda: own,
    open_samples=lambda unused_editor: editor.Samples(
      count, lambda rows: images[list(rows)]
    ),
  )


def read_samples(choice):
  found = choice.open_samples(None)
  return found.read(range(found.count))


def _make(module, deviations, title):
  variables = autoencoders.init_variables(module, 0)
  # Initial weights are so small that nothing would be seen.
  params = jax.tree.map(lambda x: 2 * x, variables['params'])
  units = tuple(
    unit_scales.Unit(
      name,
      unit_scales.NUISANCE if name[0] == 'z' else unit_scales.FACTOR,
      0.0,
      deviation,
      -4.0,
      4.0,
    )  # fmt: skip
    for name, deviation in deviations.items()
  )
  model = models.Model(module, params, variables['batch_stats'])
  return editor.Editor(model, units, title)
