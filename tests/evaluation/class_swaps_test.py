"""Tests of evaluation.class_swaps and reconstruction, with an oracle."""

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import two_pixels

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import judges as judges_lib
from jacsup_jax.evaluation import reconstruction

CLASSES = 10


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Model:
  """Functions in the place of a trained model."""

  encode: Callable
  decode: Callable
  image_range: tuple[int, int] = (0, 1)
  image_shape: tuple[int, int, int] = two_pixels.SHAPE


DATA = two_pixels.make_data('test', 8 * judges_lib.BATCH_SIZE, 0)
IMAGES, LABELS = DATA.images, DATA.labels


def _make_judge(family='mlp', offsets=(0,)):
  """Makes judges that read the class exactly, or are wrong by an offset.

  With dropout on, they see random ones.
  """

  def classify(images, keys=None):
    [seen] = two_pixels.see(images)
    if keys is not None:
      draw = lambda key: jax.random.randint(key, seen.shape[1:], 0, CLASSES)
      seen = np.asarray(jax.vmap(draw)(keys))
    return np.stack([(seen + offset) % CLASSES for offset in offsets])

  return two_pixels.make_judge(family, classify)


ORACLE = Model(two_pixels.encode, two_pixels.decode)
# The anti-oracle reconstructs as well, but has the class in the nuisance.
REVERSED = Model(
  lambda images: codes.Code(*two_pixels.encode(images)[::-1]),
  lambda code: two_pixels.decode(codes.Code(*code[::-1])),
)


# Another: the class that it draws has to do with the style alone.
def _decode_style(code):
  drawn = jnp.mod(jnp.round(code.nuisance * 255), CLASSES) * 20 / 255
  return jnp.stack([drawn, code.nuisance], axis=1)[:, None]


STYLE = Model(two_pixels.encode, _decode_style)


@functools.lru_cache
def _count(model, count=len(LABELS)):
  judge, images = _make_judge(), IMAGES[:count]
  found = class_swaps.add_counts(
    {'mlp': class_swaps.count_swaps(judge, decoded, LABELS)}
    for decoded in class_swaps.decode_pairs(model, images)
  )['mlp']
  return found.followed[:, 0], found.pairs[:, 0], found.correct[0]


def test_mse_is_the_mean_over_images_and_pixels():
  # Black and white against 0.5: 0.25 everywhere. Against black: 0 and 1.
  images = jnp.array([0, 255], jnp.uint8).reshape(2, 1, 1, 1)
  constant = lambda value: lambda code: jnp.full((2, 1, 1, 1), value)
  encode = lambda images: codes.Code(images[:, 0, 0], jnp.zeros((2, 0)))
  for value, expected in ((0.5, 0.25), (0.0, 0.5)):
    mse = reconstruction.compute_mse(Model(encode, constant(value)), images)
    np.testing.assert_allclose(mse, expected, rtol=1e-6)


def _make_counts(followed, pairs, correct):
  return class_swaps.Counts(*map(np.array, (followed, pairs, correct)))


def test_summary_of_hand_made_counts():
  row = class_swaps.summarize(
    {
      # Judges: 1/2 and 3/4; noisy 1 and 0; true labels 1/4 twice.
      'mlp': _make_counts(
        [[1, 3], [4, 0], [1, 1]], [[2, 4], [4, 4], [4, 4]], [2, 6]
      ),
      'cnn': _make_counts([[1, 3]], [[4, 6]], [7, 7]),
      'svm': _make_counts([[2]], [[3]], [8]),
    },
    8,
  )
  np.testing.assert_allclose(row['class_swaps_mlp'], 0.625)
  # Squares of 1/8 twice, over 2 - 1: deviations have the divisor n - 1.
  np.testing.assert_allclose(row['class_swaps_mlp_std'], np.sqrt(1 / 32))
  expected = {
      'class_swaps': 0.375, 'class_swaps_family': 'cnn',
      'class_swaps_mlp_by_judge': [0.5, 0.75],
      'class_swaps_mlp_pairs': [2, 4], 'class_swaps_noisy_judge': 0.5,
      'class_swaps_true_labels': 0.25,
      'judge_accuracy_reconstructions_mlp': 0.5,
      'class_swaps_cnn': 0.375, 'class_swaps_cnn_by_judge': [0.25, 0.5],
      'judge_accuracy_reconstructions_cnn': 0.875,
      'class_swaps_svm': 2 / 3, 'class_swaps_svm_std': None,
      'judge_accuracy_reconstructions_svm': 1.0,
  }  # fmt: skip
  assert row == row | expected


def test_a_family_without_pairs_leaves_no_headline():
  # One judge sees a single class.
  none = _make_counts([[0, 1]], [[0, 4]], [1, 1])
  some = _make_counts([[3]], [[4]], [1])
  row = class_swaps.summarize({'cnn': none, 'svm': some}, 4)
  assert row['class_swaps_cnn'] is None
  assert row['class_swaps_cnn_by_judge'] is None
  assert row['class_swaps_svm'] == 0.75
  assert row['class_swaps'] is row['class_swaps_family'] is None


def test_oracle_scores_one():
  followed, pairs, correct = _count(ORACLE)
  opinion, _, true_labels = followed / pairs
  assert opinion == true_labels == 1.0 and correct == len(LABELS)
  # Equal opinions are left out: about a tenth of the pairs.
  assert 0.85 * len(LABELS) < pairs[0] < 0.95 * len(LABELS)
  np.testing.assert_array_equal(pairs[0], pairs[2])
  # With dropout, a judge that guesses: one in ten. With the same key before
  # and after a swap it would say the same twice: never.
  np.testing.assert_allclose(followed[1] / pairs[1], 0.1, atol=0.04)


def test_anti_oracle_scores_zero():
  followed, pairs, _ = _count(REVERSED)
  # It reconstructs, so every judge is of the same opinion as of the oracle.
  np.testing.assert_array_equal(pairs, _count(ORACLE)[1])
  assert followed[0] == followed[2] == 0


def test_decoder_that_ignores_the_factors_scores_chance():
  followed, pairs, _ = _count(STYLE)
  # By opinion, the class never moves at all.
  assert followed[0] == 0 and pairs[0] > 0
  # By true labels, one in ten; the deviation over 900 pairs is 0.01.
  np.testing.assert_allclose(followed[2] / pairs[2], 0.1, atol=0.04)


def test_pairs_do_not_depend_on_chunks_and_leave_out_an_incomplete_batch():
  # 11 batches, of which 10 are whole, in two chunks.
  count = 10 * judges_lib.BATCH_SIZE + 70
  images = np.concatenate([IMAGES, IMAGES])[:count]
  chunks = [*class_swaps.decode_pairs(ORACLE, images)]
  assert [chunk.rows.shape for chunk in chunks] == [(8, 128)] * 2
  rows = np.concatenate([chunk.rows[chunk.is_first] for chunk in chunks])
  np.testing.assert_array_equal(rows, np.arange(count))
  paired = np.concatenate([chunk.is_paired for chunk in chunks])
  np.testing.assert_array_equal(paired, np.arange(16) < 10)
  # The pairs of a batch are those of a key of its own, as before there were
  # chunks.
  keys = jax.random.split(jax.random.key(0), 10)
  for i, key in enumerate(keys):
    pair_key, own_key, swap_key = jax.random.split(key, 3)
    chunk, at = chunks[i // 8], i % 8
    np.testing.assert_array_equal(
      chunk.partners[at], jax.random.permutation(pair_key, 128)
    )
    assert jnp.all(chunk.keys[:, at] == jnp.stack([own_key, swap_key]))
  # Each swapped image has the class of its partner and a style of its own.
  batch = images[: judges_lib.BATCH_SIZE]
  np.testing.assert_array_equal(
    two_pixels.see(chunks[0].swapped[0])[0],
    batch[chunks[0].partners[0], 0, 0, 0] // 20,
  )
  _, pairs, correct = _count(ORACLE, 200)
  assert pairs[0] <= 128 and correct == 200


def test_every_family_is_measured():
  # The second perceptron is always wrong by one class, and consistent.
  families = [_make_judge('mlp', (0, 1)), _make_judge('svm')]
  row = class_swaps.measure(ORACLE, families, IMAGES, LABELS)
  assert row['class_swaps_mlp_by_judge'] == [1.0, 1.0]
  assert row['class_swaps_svm'] == row['class_swaps'] == 1.0
  # The wrong judge never sees the donor's true label: (1 + 0) / 2.
  assert row['class_swaps_true_labels'] == 0.5
  assert row['judge_accuracy_reconstructions_mlp'] == 0.5
  assert row['judge_accuracy_reconstructions_svm'] == 1.0


def test_images_that_the_judges_do_not_know_are_refused():
  with pytest.raises(errors.InputError, match=r'\(2, 2, 1, 0, 1\); accepted'):
    other = dataclasses.replace(ORACLE, image_shape=(2, 2, 1))
    class_swaps.measure(other, [_make_judge()], IMAGES, LABELS)
  with pytest.raises(errors.InputError, match='1 or more'):
    class_swaps.measure(ORACLE, [_make_judge()], IMAGES[:0], LABELS[:0])


@pytest.mark.parametrize('batch_size', [200, None])
def test_error_does_not_depend_on_the_batches(batch_size):
  shifted = Model(
    two_pixels.encode, lambda code: two_pixels.decode(code) + 0.25
  )
  mse = reconstruction.compute_mse(shifted, IMAGES[:300], batch_size=batch_size)
  np.testing.assert_allclose(mse, 1 / 16, rtol=1e-5)
