"""Editing with a linear model, and with small autoencoders."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_editors

from jacsup_jax.core import codes
from jacsup_jax.editor import editor
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models

SHAPE = (2, 3, 1)
PIXELS = 6
NUM_FACTORS = 2
NUM_UNITS = 3


class Linear(nn.Module):
  """Factors and a nuisance unit of an image by one matrix, and back."""

  image_shape: tuple[int, int, int] = SHAPE
  num_factors: int = NUM_FACTORS
  nuisance_dim: int = NUM_UNITS - NUM_FACTORS

  image_range = (0.0, 1.0)
  factors_are_labels = False

  def setup(self):
    normal = nn.initializers.normal(0.1)
    self.into = self.param('into', normal, (PIXELS, NUM_UNITS))
    self.back = self.param('back', normal, (NUM_UNITS, PIXELS))

  def encode(self, images, train=False):
    del train
    flat = images.reshape(len(images), -1) @ self.into
    return codes.Code(flat[:, :NUM_FACTORS], flat[:, NUM_FACTORS:])

  def decode(self, code):
    flat = jnp.concatenate([code.factors, code.nuisance], axis=1) @ self.back
    return 0.5 + flat.reshape(-1, *SHAPE)

  def __call__(self, images):
    return self.decode(self.encode(images))


def _make(deviations=(0.5, 0.0, 2.0)):
  variables = autoencoders.init_variables(Linear(), 0)
  units = tuple(
    unit_scales.Unit(f'u{i}', unit_scales.FACTOR, 0.0, deviation, -1.0, 1.0)
    for i, deviation in enumerate(deviations)
  )
  return editor.Editor(models.Model(Linear(), variables['params']), units)


def _images(count=2, shape=SHAPE):
  random = np.random.default_rng(0)
  return random.integers(60, 200, (count, *shape)).astype(np.uint8)


@pytest.mark.parametrize('unit', range(NUM_UNITS))
@pytest.mark.parametrize('strength', [-1.0, 0.5])
def test_a_linear_decoder_moves_by_deviations(unit, strength):
  own = _make()
  encoded = own.encode(_images())
  strengths = np.eye(NUM_UNITS)[unit] * strength
  # In the model's range: bytes would round.
  moved = editor.move(
    encoded.code, jnp.asarray(strengths * [0.5, 0.0, 2.0], jnp.float32)
  )
  column = own.model.params['back'][unit].reshape(1, *SHAPE)
  deviation = own.units[unit].deviation
  expected = encoded.reconstructions + strength * deviation * column
  np.testing.assert_allclose(own.model.decode(moved), expected, atol=1e-6)
  found = own.edit(encoded, strengths)
  # A pixel that is right between two bytes may be either.
  np.testing.assert_allclose(
    found, np.clip(expected, 0, 1) * 255, atol=0.5 + 1e-3
  )
  assert (deviation == 0) == np.array_equal(found, own.reconstruct(encoded))


def test_move_by_hand():
  code = codes.Code(jnp.array([[1.0, 2.0]]), jnp.array([[3.0]]))
  moved = editor.move(code, jnp.array([10.0, 0.0, -1.0]))
  np.testing.assert_array_equal(moved.factors, [[11, 2]])
  np.testing.assert_array_equal(moved.nuisance, [[2]])
  # Factors alone: whatever the nuisance is.
  mapped = code._replace(nuisance=jnp.ones((1, 2, 2, 5)))
  moved = editor.move(mapped, jnp.array([10.0, 0.0]))
  np.testing.assert_array_equal(moved.nuisance, mapped.nuisance)


def test_the_gradient_by_a_step_is_the_column():
  own = _make()
  code = own.encode(_images(1)).code

  def pixel(steps):
    return own.model.decode(editor.move(code, steps))[0, 1, 2, 0]

  found = jax.grad(pixel)(jnp.zeros(NUM_UNITS))
  back = own.model.params['back'].reshape(NUM_UNITS, *SHAPE)
  np.testing.assert_allclose(found, back[:, 1, 2, 0], rtol=1e-5)


@pytest.mark.parametrize('make', [_make, tiny_editors.make_faces])
def test_no_strength_gives_the_reconstruction_and_all_detail_the_image(make):
  own = make()
  # Every byte there is, so that none is rounded to another.
  count = -(-256 // np.prod(own.image_shape))
  images = np.resize(np.arange(256), (count, *own.image_shape)).astype(np.uint8)
  encoded = own.encode(images)
  zeros = np.zeros(len(own.units))
  np.testing.assert_array_equal(own.edit(encoded, zeros, 1.0), images)
  same = own.edit(encoded, zeros)
  np.testing.assert_array_equal(same, own.reconstruct(encoded))


def test_detail_fades_where_an_edit_changes_the_picture():
  own = _make()
  # Reconstructions are 0.5; a strength of 1 adds 0.14 to the upper half.
  column = np.zeros(SHAPE, np.float32)
  column[: SHAPE[0] // 2] = 0.28
  back = jnp.zeros((NUM_UNITS, PIXELS)).at[0].set(column.ravel())
  params = {'into': jnp.zeros((PIXELS, NUM_UNITS)), 'back': back}
  own = dataclasses.replace(own, model=models.Model(Linear(), params))
  encoded = own.encode(np.full((1, *SHAPE), 178, np.uint8))
  edit = own.edit(encoded, np.array([1.0, 0, 0]), 1.0)[0] / 255
  detail = 178 / 255 - 0.5
  upper = 0.5 + 0.14 + detail * np.exp(-1)
  np.testing.assert_allclose(edit[: SHAPE[0] // 2], upper, atol=0.5 / 255)
  np.testing.assert_allclose(edit[SHAPE[0] // 2 :], 178 / 255, atol=1e-6)


@pytest.mark.parametrize('make', [_make, tiny_editors.make_faces])
def test_edits_in_turn_are_those_one_by_one(make):
  own = make()
  encoded = own.encode(_images(2, own.image_shape))
  strengths = np.random.default_rng(0).normal(size=(3, len(own.units)))
  together = own.edit_in_turn(encoded, strengths, 0.25)
  assert together.dtype == np.uint8
  each = [own.edit(encoded, row, 0.25) for row in strengths]
  np.testing.assert_array_equal(together, np.stack(each, axis=1))


def test_strengths_and_editors_share_a_program():
  own = _make()
  encoded = own.encode(_images(3))
  before = editor._edit._cache_size()
  for strength in (0.0, 1.0, -2.0):
    own.edit(encoded, np.full(NUM_UNITS, strength), 0.1 * abs(strength))
  _make((1.0, 1.0, 1.0)).edit(encoded, np.ones(NUM_UNITS))
  assert editor._edit._cache_size() == before + 1
