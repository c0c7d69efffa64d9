"""Tests of evaluation.class_swaps and reconstruction, with an oracle.

An image is two pixels: the first is 20 times its class, the second its style.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import reconstruction

CLASSES = 10
NUM_IMAGES = 8 * class_swaps.SWAP_BATCH_SIZE


class Model(NamedTuple):
  """Functions in the place of a trained model."""

  encode: Any
  decode: Any
  image_range: tuple[int, int] = (0, 1)


LABELS, STYLES = np.random.default_rng(0).integers(
  0, [[CLASSES], [256]], (2, NUM_IMAGES), np.int32
)
IMAGES = np.stack([20 * LABELS, STYLES], axis=1).astype(np.uint8)
IMAGES = IMAGES.reshape(-1, 1, 2, 1)


def _judge(images, key=None):
  """Reads the class exactly; with dropout on, it sees a random one."""
  seen = jnp.round(images[:, 0, 0, 0] * 255 / 20).astype(jnp.int32)
  if key is None:
    return seen
  return jax.random.randint(key, seen.shape, 0, CLASSES)


# The oracle: factors are the class, nuisance is the style.
def _encode(images):
  return codes.Code(images[:, 0, 0], images[:, 0, 1])


def _decode(code):
  return jnp.stack([code.factors, code.nuisance], axis=1)[:, None]


ORACLE = Model(_encode, _decode)
# The anti-oracle reconstructs as well, but has the class in the nuisance.
REVERSED = Model(
  lambda images: codes.Code(*_encode(images)[::-1]),
  lambda code: _decode(codes.Code(*code[::-1])),
)


# Another: the class that it draws has to do with the style alone.
def _decode_style(code):
  drawn = jnp.mod(jnp.round(code.nuisance * 255), CLASSES) * 20 / 255
  return jnp.stack([drawn, code.nuisance], axis=1)[:, None]


STYLE = Model(_encode, _decode_style)


@functools.lru_cache
def _count(model):
  count = functools.partial(class_swaps.count_class_swaps, model, _judge)
  counts = jax.jit(count)(IMAGES, LABELS)
  return np.asarray(counts.followed), np.asarray(counts.pairs)


def test_mse_is_the_mean_over_images_and_pixels():
  # Black and white against 0.5: 0.25 everywhere. Against black: 0 and 1.
  images = jnp.array([0, 255], jnp.uint8).reshape(2, 1, 1, 1)
  constant = lambda value: lambda code: jnp.full((2, 1, 1, 1), value)
  encode = lambda images: codes.Code(images[:, 0, 0], jnp.zeros((2, 0)))
  for value, expected in ((0.5, 0.25), (0.0, 0.5)):
    mse = reconstruction.compute_mse(Model(encode, constant(value)), images)
    np.testing.assert_allclose(mse, expected, rtol=1e-6)


def test_summary_of_hand_made_counts():
  row = class_swaps.summarize(
    {
      'mse': jnp.array(0.01),
      # Judges: 1/2 and 3/4; noisy 1 and 0; true labels 1/4 twice.
      'followed': jnp.array([[1, 4, 1], [3, 0, 1]]),
      'pairs': jnp.array([[2, 4, 4], [4, 4, 4]]),
      'judge_accuracy': jnp.array([0.5, 1.0]),
      'judge_accuracy_reconstructions': jnp.array([0.25, 0.75]),
    }
  )
  assert row['class_swaps'] == 0.625
  # Squares of 1/8 twice, over 2 - 1: deviations have the divisor n - 1.
  np.testing.assert_allclose(row['class_swaps_std'], np.sqrt(1 / 32))
  expected = {
      'class_swaps_by_judge': [0.5, 0.75], 'class_swaps_pairs': [2, 4],
      'class_swaps_noisy_judge': 0.5, 'class_swaps_true_labels': 0.25,
      'judge_accuracy': 0.75, 'judge_accuracy_reconstructions': 0.5,
  }  # fmt: skip
  assert row == row | expected
  np.testing.assert_allclose(row['psnr'], 20.0, rtol=1e-6)


def test_oracle_scores_one():
  followed, pairs = _count(ORACLE)
  opinion, _, true_labels = followed / pairs
  assert opinion == true_labels == 1.0
  # Equal opinions are left out: about a tenth of the pairs.
  assert 0.85 * NUM_IMAGES < pairs[0] < 0.95 * NUM_IMAGES
  np.testing.assert_array_equal(pairs[0], pairs[2])
  # With dropout, a judge that guesses: one in ten. With the same key before
  # and after a swap it would say the same twice: never.
  np.testing.assert_allclose(followed[1] / pairs[1], 0.1, atol=0.04)


def test_anti_oracle_scores_zero():
  followed, pairs = _count(REVERSED)
  # It reconstructs, so every judge is of the same opinion as of the oracle.
  np.testing.assert_array_equal(pairs, _count(ORACLE)[1])
  assert followed[0] == followed[2] == 0


def test_decoder_that_ignores_the_factors_scores_chance():
  followed, pairs = _count(STYLE)
  # By opinion, the class never moves at all.
  assert followed[0] == 0 and pairs[0] > 0
  # By true labels, one in ten; the deviation over 900 pairs is 0.01.
  np.testing.assert_allclose(followed[2] / pairs[2], 0.1, atol=0.04)


def test_ensemble_measures_each_judge():
  def judge(offset, images, key):
    # The second judge is always wrong by one class, and consistent.
    return (_judge(images, key) + offset) % CLASSES

  measure = functools.partial(class_swaps.evaluate_autoencoder, ORACLE, judge)
  measured = jax.jit(measure)(jnp.array([0, 1]), IMAGES, LABELS)
  for name in ('judge_accuracy', 'judge_accuracy_reconstructions'):
    np.testing.assert_array_equal(measured[name], [1.0, 0.0])
  # Rounding of float32.
  assert measured['mse'] < 1e-12
  assert measured['pairs'].shape == measured['followed'].shape == (2, 3)
  row = class_swaps.summarize(measured)
  assert row['class_swaps_by_judge'] == [1.0, 1.0]
  # The wrong judge never sees the donor's true label: (1 + 0) / 2.
  assert row['class_swaps_true_labels'] == 0.5


@pytest.mark.parametrize('batch_size', [200, None])
def test_error_does_not_depend_on_the_batches(batch_size):
  shifted = Model(_encode, lambda code: _decode(code) + 0.25)
  mse = reconstruction.compute_mse(shifted, IMAGES[:300], batch_size=batch_size)
  np.testing.assert_allclose(mse, 1 / 16, rtol=1e-5)
