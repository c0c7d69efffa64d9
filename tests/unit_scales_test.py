"""Tests of jacsup_jax.unit_scales."""

import dataclasses
import json

import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.editor import editor
from jacsup_jax.evaluation import unit_scales


def _images(count, seed=0):
  """`[count, 1, 4, 1]` uint8."""
  generator = np.random.default_rng(seed)
  return generator.integers(0, 256, (count, 1, 4, 1)).astype(np.uint8)


def _encode(images):
  """A code by hand: factors (x0, 5), nuisance (2 x1, x2 + x3)."""
  x = images.reshape(len(images), 4).astype(np.float32)
  return codes.Code(
      np.stack([x[:, 0], np.full(len(x), 5, np.float32)], axis=1),
      np.stack([2 * x[:, 1], x[:, 2] + x[:, 3]], axis=1),
  )


# Values.


# Less than a batch, a batch, some and an incomplete one.
@pytest.mark.parametrize('count', [1, 64, 150])
def test_units_are_those_of_numpy(count):
  images = _images(count)
  x = images.reshape(count, 4).astype(np.float64)
  values = np.stack(
      [x[:, 0], np.full(count, 5), 2 * x[:, 1], x[:, 2] + x[:, 3]], axis=1
  )
  units = unit_scales.measure(_encode, images, ('Smiling', 'Male'))
  assert [(u.name, u.kind) for u in units] == [
      ('Smiling', editor.FACTOR), ('Male', editor.FACTOR),
      ('z1', editor.NUISANCE), ('z2', editor.NUISANCE),
  ]  # pyformat: disable
  for unit, own in zip(units, values.T):
    np.testing.assert_allclose(
        [unit.mean, unit.deviation, unit.low, unit.high],
        [own.mean(), own.std(), *np.quantile(own, [0.01, 0.99])],
        rtol=1e-6,
    )


def test_a_unit_without_spread_has_deviation_zero():
  unit = unit_scales.measure(_encode, _images(100), ('a', 'b'))[1]
  assert (unit.deviation, unit.mean, unit.low, unit.high) == (0, 5, 5, 5)
  # Rounding is no spread.
  rounded = lambda images: codes.Code(
      0.1 + 1e-8 * _encode(images).factors.astype(np.float64),
      _encode(images).nuisance,
  )
  constant = unit_scales.measure(rounded, _images(100), ('a', 'b'))[1]
  assert constant.deviation == 0


def test_mistakes_are_refused():
  with pytest.raises(ValueError, match='no image'):
    unit_scales.measure(_encode, _images(0), ('a', 'b'))
  with pytest.raises(ValueError, match='2 factors, and there are 1 names'):
    unit_scales.measure(_encode, _images(3), ('a',))


# Invariants.


def test_the_encoder_is_given_one_shape():
  shapes = set()

  def encode(images):
    shapes.add(images.shape)
    return _encode(images)

  unit_scales.measure(encode, _images(150), ('a', 'b'))
  assert len(shapes) == 1


def test_only_the_first_images_count():
  many = _images(unit_scales.NUM_IMAGES + 70)
  few = many[: unit_scales.NUM_IMAGES]
  assert unit_scales.measure(_encode, many, ('a', 'b')) == unit_scales.measure(
      _encode, few, ('a', 'b')
  )


def test_a_map_of_nuisance_gives_no_unit():
  def encode(images):
    code = _encode(images)
    return codes.Code(code.factors, code.nuisance[:, None, None])

  units = unit_scales.measure(encode, _images(10), ('a', 'b'))
  assert [unit.name for unit in units] == ['a', 'b']


def test_units_are_read_as_they_were_written():
  units = unit_scales.measure(_encode, _images(33), ('a', 'b'))
  text = json.dumps([unit_scales.to_json(unit) for unit in units])
  assert unit_scales.read_units('file', json.loads(text)) == units


@pytest.mark.parametrize(
    ('change', 'part'),
    [
        ({'kind': 'neither'}, 'factor or nuisance'),
        ({'deviation': -1.0}, 'deviation of 0 or more'),
        ({'deviation': float('nan')}, 'finite'),
        ({'mean': float('inf')}, 'finite'),
        ({'mean': 'x'}, 'mean'),
        ({'name': 3}, 'name'),
    ],
)
def test_damaged_units_are_refused(change, part):
  unit = editor.Unit('a', editor.FACTOR, 0.0, 1.0, -1.0, 1.0)
  entry = dataclasses.asdict(unit) | change
  with pytest.raises(errors.InputError, match=part) as info:
    unit_scales.read_units('scales.json', [dataclasses.asdict(unit), entry])
  assert str(info.value).isprintable()
  assert 'scales.json unit 2' in str(info.value)


@pytest.mark.parametrize('entry', [None, [], 'x', {}, 3])
def test_what_is_no_unit_is_refused(entry):
  with pytest.raises(errors.InputError, match='scales.json unit 1'):
    unit_scales.read_units('scales.json', [entry])
