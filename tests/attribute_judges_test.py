"""Tests of jacsup_jax.attribute_judges, on images of bright corners."""

import dataclasses
import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import judge_files
from jacsup_jax.runs import checkpoints

SIZE = 8
NAMES = ('Top', 'Red')
SMALL = {
    'first_width': 4, 'last_width': 8, 'hidden': 8, 'batch_size': 32,
    'epochs': 8,
}  # pyformat: disable


@dataclasses.dataclass(frozen=True)
class Faces:
  """What a judge needs of a FaceDataset."""

  attributes: np.ndarray
  stored: np.ndarray
  in_memory: bool = True
  attribute_names: tuple[str, ...] = NAMES
  image_size: int = SIZE
  name: str = 'corners'
  split: str = 'train'
  fingerprint: str = 'abc'

  @property
  def images(self):
    return self.stored if self.in_memory else None

  def read(self, indices):
    return self.stored[indices], self.attributes[indices]

  def __len__(self):
    return len(self.attributes)


def _faces(count, seed, **kwargs):
  """Attribute 0 brightens the upper half; attribute 1 the channel of red."""
  random = np.random.default_rng(seed)
  attributes = random.choice(np.array([-1, 1], np.int8), (count, 2))
  images = random.integers(0, 80, (count, SIZE, SIZE, 3), np.uint8)
  images[attributes[:, 0] > 0, : SIZE // 2] += 100
  images[attributes[:, 1] > 0, ..., 0] += 70
  return Faces(attributes, images, **kwargs)


TRAIN, SELECTION = _faces(768, 0), _faces(100, 1, split='validation')


@pytest.fixture(scope='module')
def trained():
  """A judge, and what was reported of its epochs."""
  reports = []
  report = lambda *args: reports.append(args)
  judge = attribute_judges.train(TRAIN, SELECTION, report=report, **SMALL)
  return judge, reports


@pytest.fixture(scope='module')
def judge(trained):
  return trained[0]


def _restore(directory, **other):
  wanted = {
      'attribute_names': NAMES, 'image_size': SIZE, 'dataset': 'corners',
      **other,
  }  # pyformat: disable
  return attribute_judges.restore(directory, **wanted)


# Values.


def test_signs_are_those_of_the_logits():

  class Model:

    def apply(self, variables, images):
      return variables * images[:, 0, 0]

  images = jnp.array([[0.5, -0.5, 0.0]]).reshape(1, 1, 1, 3)
  np.testing.assert_array_equal(
      attribute_judges.classify(Model(), -2.0, images), [[-1, 1, -1]]
  )


def test_accuracy_is_that_of_numpy(judge):
  images = SELECTION.images.astype(np.float32) / 127.5 - 1
  seen = np.asarray(judge.judge(images))
  correct = seen == SELECTION.attributes
  # A rounding may turn one of 100, which weighs up to 1/40 of one sign.
  np.testing.assert_allclose(judge.accuracy, correct.mean(axis=0), atol=0.011)
  present = SELECTION.attributes > 0
  balanced = [
      (correct[present[:, i], i].mean() + correct[~present[:, i], i].mean()) / 2
      for i in range(2)
  ]
  np.testing.assert_allclose(judge.balanced_accuracy, balanced, atol=0.026)


def test_description_identifies_the_judge(judge):
  described = judge.describe()
  assert described['attribute_names'] == NAMES
  assert described['fingerprint'] == 'abc'
  assert described['sha256'] == checkpoints.hash_tree(judge.variables)
  json.dumps(described)


def test_best_epoch_is_kept(trained):
  judge, reports = trained
  epochs, losses, accuracies = zip(*reports)
  assert epochs == tuple(range(1, 9))
  assert losses[-1] < losses[0]
  assert judge.best_epoch == 1 + np.argmax(accuracies)
  np.testing.assert_allclose(np.mean(judge.accuracy), max(accuracies))
  # The weights are those of that epoch.
  counts = attribute_judges.compute_accuracy(judge, SELECTION)
  np.testing.assert_allclose(counts.accuracy, judge.accuracy, atol=0.011)


# Invariants.


def test_data_on_disk_train_the_same_judge(judge, monkeypatch):
  # 256 images in steps of 32: parts of 3, 3 and 2 steps.
  monkeypatch.setattr(attribute_judges, '_CHUNK_IMAGES', 96)
  on_disk = functools.partial(dataclasses.replace, in_memory=False)
  settings = {**SMALL, 'epochs': 1}
  one, other = (
      attribute_judges.train(train, selection, **settings)
      for train, selection in (
          (TRAIN, SELECTION), (on_disk(TRAIN), on_disk(SELECTION))
      )
  )  # pyformat: disable
  # Programs of other sizes round otherwise; Adam at 1e-3 enlarges that where a
  # gradient is next to 0.
  chex.assert_trees_all_close(
      one.variables['params'], other.variables['params'], atol=2e-3
  )
  counts = attribute_judges.compute_accuracy(judge, on_disk(SELECTION))
  chex.assert_trees_all_equal(
      counts, attribute_judges.compute_accuracy(judge, SELECTION)
  )
  assert counts.present[0] + counts.absent[0] == 100


def test_judge_is_a_function_for_jit(judge):
  images = jnp.zeros((2, SIZE, SIZE, 3))
  seen = jax.jit(functools.partial(attribute_judges.classify, judge.model))(
      judge.variables, images
  )
  assert seen.shape == (2, 2) and set(np.unique(seen)) <= {-1, 1}
  np.testing.assert_array_equal(seen, judge.judge(images))


def test_restored_judge_is_the_one_saved(judge, tmp_path):
  assert not judge_files.exist(tmp_path / 'judge')
  attribute_judges.save(tmp_path / 'judge', judge)
  assert judge_files.exist(tmp_path / 'judge')
  assert [p.name for p in tmp_path.iterdir()] == ['judge']
  restored = _restore(tmp_path / 'judge')
  chex.assert_trees_all_equal(restored.variables, judge.variables)
  assert dataclasses.replace(restored, variables={}) == dataclasses.replace(
      judge, variables={}
  )


@pytest.mark.parametrize(
    ('other', 'expected'),
    [
        ({'attribute_names': ('Top', 'Bald')},
         ['does not tell Bald', 'tells Red besides']),
        ({'attribute_names': ('Top',)}, ['tells Red besides']),
        ({'attribute_names': ('Red', 'Top')}, ['another order: Top, Red']),
        ({'image_size': 16}, ['--image_size=8', '--image_size=16']),
        ({'dataset': 'celeb_a'}, ['--dataset=corners', '--dataset=celeb_a']),
    ],
)  # pyformat: disable
def test_judge_of_other_data_is_refused(judge, tmp_path, other, expected):
  attribute_judges.save(tmp_path, judge)
  with pytest.raises(errors.InputError) as error:
    _restore(tmp_path, **other)
  message = str(error.value)
  assert str(tmp_path) in message and '\n' not in message
  for text in (*expected, 'accepted'):
    assert text in message


@pytest.mark.parametrize('text', [None, 'no json', '{"seeds": [0]}', '[]'])
def test_what_is_no_judge_is_refused_by_name(tmp_path, text):
  if text is not None:
    (tmp_path / 'judge.json').write_text(text)
  with pytest.raises(errors.InputError, match='judge.json'):
    _restore(tmp_path)


def test_judge_is_trained_once(judge, tmp_path, monkeypatch):
  monkeypatch.setattr(attribute_judges, 'train', lambda *a, **k: judge)
  make = functools.partial(
      attribute_judges.restore_or_train, tmp_path / 'judge', TRAIN, SELECTION
  )
  assert make() is judge
  monkeypatch.setattr(attribute_judges, 'train', None)  # Not again.
  assert make(seed=0, epochs=8).sha256 == judge.sha256
  for other in ({'seed': 6}, {'epochs': 2}, {'hidden': 9}):
    with pytest.raises(errors.InputError, match='accepted: the same'):
      make(**other)
  with pytest.raises(errors.InputError, match='fingerprint abc'):
    attribute_judges.restore_or_train(
        tmp_path / 'judge',
        dataclasses.replace(TRAIN, fingerprint='other'),
        SELECTION,
    )


def test_directory_of_something_else_is_refused(tmp_path):
  (tmp_path / 'letter.txt').write_text('dear')
  with pytest.raises(errors.InputError, match=str(tmp_path)):
    attribute_judges.restore_or_train(tmp_path, TRAIN, SELECTION)
  assert [p.name for p in tmp_path.iterdir()] == ['letter.txt']


def test_selection_of_other_attributes_is_refused():
  other = dataclasses.replace(SELECTION, attribute_names=('Top', 'Bald'))
  with pytest.raises(errors.InputError, match='Top, Bald'):
    attribute_judges.train(TRAIN, other)


# Oracle and anti-oracle.


def test_judge_learns_what_can_be_told(judge):
  assert min(judge.accuracy) > 0.9
  # It stays so on what leaves the images as they are, and is at chance where
  # nothing is left to see.
  counts = attribute_judges.compute_accuracy(
      judge, SELECTION, lambda x: jnp.zeros_like(x)
  )
  np.testing.assert_allclose(counts.balanced_accuracy, 0.5)
