"""Tests of evaluation.class_scores with an oracle."""

import dataclasses

import jax
import numpy as np
import pytest
import two_pixels

from jacsup_jax.core import errors
from jacsup_jax.evaluation import class_scores
from jacsup_jax.evaluation import naturalness

TRAIN = two_pixels.make_data('train', 4000, 0)
TEST = two_pixels.make_data('test', 700, 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Model:
  """The class is the factor, the style the nuisance, which noise may change."""

  noise: float | jax.Array = 0.0
  image_range = (0, 1)
  image_shape = two_pixels.SHAPE
  num_factors = 1

  def encode(self, images):
    return two_pixels.encode(images)

  def decode(self, code):
    return two_pixels.decode(code._replace(nuisance=code.nuisance + self.noise))


JUDGES = [two_pixels.make_judge(family) for family in ('mlp', 'cnn', 'svm')]
SCORES = class_scores.ClassScores(JUDGES, TEST, TRAIN)


@pytest.fixture(scope='module')
def row():
  return SCORES.measure(Model())


def test_oracle_has_the_best_row(row):
  assert row['mse'] < 1e-12
  for family in ('mlp', 'cnn', 'svm'):
    assert row[f'class_swaps_{family}'] == 1
    assert row[f'judge_accuracy_{family}'] == 1
    assert row[f'judge_accuracy_reconstructions_{family}'] == 1
  assert row['class_swaps'] == 1 and row['class_swaps_family'] == 'mlp'
  # Reconstructions are the real images; swaps are new ones of the same kind.
  assert row['precision_reconstructions'] == row['recall_reconstructions'] == 1
  assert row['precision_swapped'] > 0.8 and row['recall_swapped'] > 0.8
  assert row['frechet_reconstructions'] == pytest.approx(0, abs=1e-9)
  assert row['frechet_swapped'] < 0.01
  assert row['probe_mlp_factors'] > 0.9 > 0.3 > row['probe_mlp_nuisance']


def test_images_from_elsewhere_are_not_natural(row):
  other = SCORES.measure(Model(5.0))
  assert other['class_swaps'] == 1
  for name in ('swapped', 'reconstructions'):
    assert other[f'precision_{name}'] == other[f'recall_{name}'] == 0
    assert other[f'frechet_{name}'] == pytest.approx(25, rel=0.1)
  assert other.keys() == row.keys()


def test_while_training_perceptrons_alone_are_asked(row):
  found = SCORES.watch(Model())
  assert {name for name in found if 'cnn' in name or 'svm' in name} == set()
  assert 'class_swaps' not in found and 'class_swaps_family' not in found
  assert found == {name: row[name] for name in found}
  assert {'mse', 'psnr', 'class_swaps_mlp'} <= found.keys()


def test_few_chunks_of_many_images_are_compared(monkeypatch):
  # Two batches a time: 700 images are one chunk.
  assert SCORES._compared.tolist() == [True]
  data = dataclasses.replace(
    TEST, images=np.resize(TEST.images, (9000, 1, 2, 1)),
    labels=np.resize(TEST.labels, 9000),
  )  # fmt: skip
  scores = class_scores.ClassScores(JUDGES, data)
  # Nine chunks of 1,024, of which five at most.
  assert scores._compared.tolist() == [True, False] * 4 + [True]
  monkeypatch.setattr(naturalness, 'MOST_IMAGES', 2048)
  scores = class_scores.ClassScores(JUDGES, data)
  assert scores._compared.tolist() == [i % 5 == 0 for i in range(9)]
  assert len(scores._real.features) == 2048


def test_rows_without_probes_or_pairs():
  small = dataclasses.replace(
    TEST, images=TEST.images[:90], labels=TEST.labels[:90]
  )
  row = class_scores.ClassScores(JUDGES, small).measure(Model())
  assert not [name for name in row if name.startswith('probe')]
  # Fewer images than a batch have no pairs.
  assert row['class_swaps'] is row['precision_swapped'] is None
  assert row['precision_reconstructions'] == 1


def test_labels_of_one_class_are_refused():
  same = dataclasses.replace(TEST, labels=np.full_like(TEST.labels, 7))
  with pytest.raises(errors.InputError, match='test split .* are 7; accepted'):
    class_scores.ClassScores(JUDGES, same)


def test_probes_see_other_images():
  choose = class_scores.choose_probed_split
  assert choose('train') == choose('train_minus_validation') == 'test'
  assert choose('validation', 'train') == 'train_minus_validation'
  assert choose('test') == 'train'
  assert choose('test', 'train_minus_validation') == 'train_minus_validation'
