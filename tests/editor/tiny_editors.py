"""Models with random weights to edit with, which compile in no time."""

import jax
import numpy as np

from experiments import edit_choices
from jacsup_jax.editor import editor
from jacsup_jax.models import autoencoders as networks

ATTRIBUTES = (
    'Smiling', 'Eyeglasses', 'Mouth_Slightly_Open', '5_o_Clock_Shadow', 'Bald',
)  # pyformat: disable
NUM_SAMPLES = 5


def make_faces(image_size=16, *, first_width=4, last_width=16, channels=4):
  """An editor of faces of a size."""
  model = networks.FaceAutoencoder(
      len(ATTRIBUTES),
      channels,
      image_size=image_size,
      first_width=first_width,
      last_width=last_width,
      linear_factors=True,
  )
  units = [
      editor.Unit(name, editor.FACTOR, 0.0, 2.0, -4.0, 4.0)
      for name in ATTRIBUTES
  ]
  return _make(model, units, is_signed=True, title='tiny faces')


def make_digits():
  """An editor of digits, whose last unit cannot be moved."""
  model = networks.MlpAutoencoder(2, 3, image_shape=(28, 28, 1), widths=(8,))
  names = ('y1', 'y2', 'z1', 'z2', 'z3')
  units = [
      editor.Unit(
          name,
          editor.FACTOR if name.startswith('y') else editor.NUISANCE,
          0.0,
          0.0 if name == 'z3' else 2.0,
          -4.0,
          4.0,
      )
      for name in names
  ]
  return _make(model, units, is_signed=False, title='tiny digits')


def make_choice(own, name, samples=NUM_SAMPLES):
  """A choice of an editor, with noise to start from."""
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (samples, *own.image_shape), np.uint8)
  return edit_choices.Choice(
      id=name,
      group='tiny',
      title=name,
      load=lambda: own,
      load_samples=lambda unused_editor: images,
  )


def _make(model, units, *, is_signed, title):
  variables = networks.init_variables(model, 0)
  # As they begin, weights are so small that nothing would be seen.
  variables['params'] = jax.tree.map(lambda x: 2 * x, variables['params'])
  return editor.Editor(model, variables, tuple(units), is_signed, title)
