"""Scores of models on classes: the rows of results.json.

Class swaps by judges of all families, how natural images are, and what codes
say of the class.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import judges as judges_lib
from jacsup_jax.evaluation import leakage
from jacsup_jax.evaluation import naturalness
from jacsup_jax.evaluation import reconstruction
from jacsup_jax.models import model as models

PROTOCOL = '; '.join(
  [class_swaps.PROTOCOL, naturalness.PROTOCOL, leakage.PROTOCOL]
)
# Its features are those in which images are compared.
_FEATURES = 'cnn'


def choose_probed_split(split: str, trained_on: str = 'train') -> str:
  """Returns the split on which probes of a measured split are trained.

  It shares no image with it: of the test split, what models are trained on.
  """
  if split == 'test':
    return trained_on
  return 'train_minus_validation' if split == 'validation' else 'test'


@dataclasses.dataclass(frozen=True)
class ClassScores:
  """Measures models on one split, by judges of several families.

  Attributes:
    judges: of `class_judges`.
    data: what models are measured on.
    probed: other images, on which probes of codes are trained; None for no
      probes.
  """

  judges: Sequence[Any]
  data: registry.Dataset
  probed: registry.Dataset | None = None

  def __post_init__(self):
    judges_lib.check_labels(self.data)

  def measure(self, model: models.Model) -> dict[str, Any]:
    """Measures a model: entries of a row of results.json.

    `mse` and `psnr`; those of `class_swaps.summarize`, and `judge_accuracy_F`
    on real images for each family F; those of `naturalness.measure` for images
    `swapped` and `reconstructions`; and those of `leakage.measure`.
    """
    class_swaps.check_model(model, self.judges)
    data, counts, features = self.data, [], ([], [])
    chunks = class_swaps.decode_pairs(model, data.images)
    for is_compared, decoded in zip(self._compared, chunks):
      counts.append(
        {
          judge.family: class_swaps.count_swaps(judge, decoded, data.labels)
          for judge in self.judges
        }
      )
      if is_compared:
        look = self._judge_of_features.features
        swapped = look(decoded.swapped)[decoded.is_paired]
        features[0].append(swapped.reshape(-1, swapped.shape[-1]))
        features[1].append(look(decoded.reconstructions)[decoded.is_first])
    total = class_swaps.add_counts(counts)
    row = self._measure_error(model)
    row |= class_swaps.summarize(total, len(data)) | self._accuracy
    for name, parts in zip(('swapped', 'reconstructions'), features):
      row |= naturalness.measure(self._real, np.concatenate(parts), name)
    if self.probed is not None:
      row |= leakage.measure(model, self.probed, data)
    return row

  def watch(self, model: models.Model) -> dict[str, Any]:
    """Measures a model that is being trained: its error, and class swaps.

    The latter by perceptrons alone, the paper's judges, in less than a second.
    """
    judges = [
      judge for judge in self.judges if judge.family == class_swaps.PAPER_FAMILY
    ]
    found = class_swaps.measure(
      model, judges, self.data.images, self.data.labels
    )
    names = {'class_swaps', 'class_swaps_family'}  # They need all families.
    found = {key: value for key, value in found.items() if key not in names}
    return self._measure_error(model) | found

  def _measure_error(self, model):
    mse = float(reconstruction.measure_mse(model, self.data.images))
    return {'mse': mse, 'psnr': reconstruction.psnr(mse)}

  @property
  def _judge_of_features(self):
    [judge] = [own for own in self.judges if own.family == _FEATURES]
    return judge

  @functools.cached_property
  def _accuracy(self):
    """Accuracy of each family on the real images, mean over its judges."""
    args = self.data.images, self.data.labels
    return {
      f'judge_accuracy_{judge.family}': float(
        np.mean(judges_lib.compute_accuracy(judge, *args))
      )
      for judge in self.judges
    }

  @functools.cached_property
  def _compared(self):
    """Says of each chunk whether it is compared: every n-th, of few enough."""
    rows = judges_lib.list_rows(len(self.data))
    most = max(1, naturalness.MOST_IMAGES // rows[0].size)
    return np.arange(len(rows)) % -(-len(rows) // most) == 0

  @functools.cached_property
  def _real(self):
    """The real images that are compared."""
    rows = judges_lib.list_rows(len(self.data))
    is_first = np.arange(rows.size).reshape(rows.shape) < len(self.data)
    found = []
    for own, counted in zip(rows[self._compared], is_first[self._compared]):
      images = batches.to_float(jnp.asarray(self.data.images[own]))
      found.append(self._judge_of_features.features(images)[counted])
    return naturalness.Manifold.fit(np.concatenate(found))
