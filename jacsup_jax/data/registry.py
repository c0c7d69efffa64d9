"""Load image sets by name: classes and faces, from TFDS or your own files."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import hashlib
import importlib
import pathlib
from typing import NamedTuple

from absl import logging
import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files

DEFAULT_DATASET = 'mnist_embedded'
DEFAULT_FACES = 'synthetic_faces'
DRAWN_FACTORS = 'drawn_factors'  # the same, as classes with all their factors
ARRAYS = 'arrays'  # an .npz file of the user's own
KNOWN_DATASETS = (
  *(DEFAULT_DATASET, DRAWN_FACTORS),
  *('mnist', 'fashion_mnist', 'kmnist'),
)
KNOWN_FACES = (DEFAULT_FACES, 'celeba_folder', 'celeb_a')
SPLITS = ('train', 'train_minus_validation', 'validation', 'test')

# The module that reads a set; that of all other names is `classes`.
_READERS = {
  DEFAULT_DATASET: 'mnist',
  DRAWN_FACTORS: 'drawn_factors',
  ARRAYS: 'arrays',
  **dict.fromkeys(KNOWN_FACES, 'faces'),
}
# The last training examples; of fewer than twice as many, the last sixth.
_VALIDATION_SIZE = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """One split of an image set. The arrays are read-only.

  Attributes:
    name: of the set.
    split: for example train.
    images: `[M, H, W, C]` uint8, or None if they are read when asked for.
    labels: `[M]` int32 classes from 0, or `[M, K]` int8 attributes in {-1, +1}.
    fingerprint: 16 hexadecimal digits of the examples and their order.
    attribute_names: of the K attributes, in order; None for classes.
    num_classes: above every label; None for attributes.
    all_labels: `[M, L]` int32, of a set with more labels than its class.
    label_names: of these L labels.
    image_shape: (H, W, C).
    exclusive: pairs of attributes that no image has both.
    read_images: rows -> images, where `images` is None.
  """

  name: str
  split: str
  images: np.ndarray | None
  labels: np.ndarray
  fingerprint: str = ''
  attribute_names: tuple[str, ...] | None = None
  num_classes: int | None = None
  all_labels: np.ndarray | None = None
  label_names: tuple[str, ...] = ()
  image_shape: tuple[int, int, int] | None = None
  exclusive: tuple[tuple[str, str], ...] = ()
  read_images: Callable[[np.ndarray], np.ndarray] | None = dataclasses.field(
    default=None, repr=False
  )

  def __post_init__(self):
    fill = functools.partial(object.__setattr__, self)  # It is frozen.
    if self.image_shape is None:
      fill('image_shape', tuple(self.images.shape[1:]))
    if self.attribute_names is None and self.num_classes is None:
      fill('num_classes', int(self.labels.max()) + 1)
    if not self.fingerprint:
      fill('fingerprint', digest(self.images, self.labels)[:16])

  @functools.cached_property
  def conflicts(self) -> np.ndarray:
    """`[K, K]` bool: attributes that exclude each other."""
    names = self.attribute_names
    excluding = {*self.exclusive} | {pair[::-1] for pair in self.exclusive}
    return np.array([[(a, b) in excluding for b in names] for a in names])

  def __len__(self) -> int:
    return len(self.labels)

  def read(self, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Reads images `[n, H, W, C]` uint8 and labels at `[n]` positions.

    It may be called from several threads. IndexError if a position is not from
    0 to M - 1.
    """
    rows = np.asarray(rows, np.int64)
    if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
      raise IndexError(
        f'positions {rows.min()} to {rows.max()} of {len(self)} examples'
      )
    in_memory = self.images is not None
    images = self.images[rows] if in_memory else self.read_images(rows)
    return images, self.labels[rows]


def load(
  name: str,
  split: str = 'train',
  *,
  data_dir: files.Path | None = None,
  image_shape: tuple[int, int, int] | None = None,
  image_size: int | None = None,
  attributes: Sequence[str] | None = None,
  in_memory: bool = True,
  skip_bad_images: bool = False,
  skip_missing_images: bool = False,
  held_out: int = 0,
  report: Callable[[str], None] = logging.warning,
) -> Dataset:
  """Loads one split of a set, preparing the set first if needed.

  Classes: `mnist_embedded` is in this package, `drawn_factors` are its drawn
  faces with all their factors as labels, `arrays` is your own .npz file, any
  other name a TFDS set of images with a class label (see `classes.load`).
  Validation is the last 10,000 training examples, or the last sixth of fewer
  than 20,000; train_minus_validation is the rest, train is both.

  Faces: `synthetic_faces` is drawn here, `celeba_folder` a folder of CelebA or
  of your own faces (see `celeba`), where `skip_bad_images` leaves out damaged
  ones and `skip_missing_images` those that are listed and not there, `celeb_a`
  TFDS's own. train, validation and test are the official partitions; train
  gives up its last `held_out` faces, the split held_out.

  `data_dir` is the folder of prepared sets (default: TFDS_DATA_DIR, else
  ~/tensorflow_datasets), the file of `arrays` or that `celeba_folder`. Classes
  must have the `image_shape` (H, W, C), if given; faces are resized to
  `image_size`, a power of two from 8, by default 64, and have the `attributes`
  of these names, in order; they are read when asked for unless `in_memory`.
  `report` receives one line when the set is prepared.

  Raises:
    InputError: if the name, the split or an option is not accepted, or files
      are missing or damaged.
    RunError: if there is too little memory, or the set cannot be written.
  """
  # Imported here: TFDS takes a second.
  module = _READERS.get(name, 'classes')
  reader = importlib.import_module(f'jacsup_jax.data.{module}')
  if name in KNOWN_FACES:
    return reader.load(
      *(name, split, data_dir, image_size or 64, attributes),
      *(in_memory, (skip_bad_images, skip_missing_images), held_out, report),
    )
  if attributes is not None or image_size is not None or held_out:
    raise errors.InputError(
      f'--dataset={name} is not a set of faces; --attributes, --image_size and'
      f' --held_out are accepted for {", ".join(KNOWN_FACES)}.'
    )
  if split not in SPLITS:
    raise errors.InputError(
      f'unknown split {split!r}; accepted: {", ".join(SPLITS)}.'
    )
  return reader.load(
    name, split, data_dir=data_dir, image_shape=image_shape, report=report
  )


class Face(NamedTuple):
  """One face."""

  image: np.ndarray  # [S, S, 3] uint8
  attributes: np.ndarray  # [K] int8 in {-1, +1}
  source: bytes = b''  # enters the sha256 of the sources


class FaceSource(NamedTuple):
  """Where faces of one size come from."""

  root: pathlib.Path  # the folder of prepared sets
  key: str  # tells sources apart
  attribute_names: tuple[str, ...]
  splits: tuple[str, ...]
  # (split) -> its faces in order, and the names of those left out.
  generate: Callable[[str], Iterator[Face | str]]
  notes: tuple[str, ...] = ()  # lines to show when the set is prepared


def make_classes(
  name: str,
  split: str,
  images: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  label_names: tuple[str, ...] = (),
  class_name: str = 'shape',
) -> Dataset:
  """Makes a split of a set of classes from its training or test examples.

  These are all images `[N, H, W, C]` uint8 with labels `[N]` int32; `[N, L]`
  for a set with L labels by name, one of which is the class.
  """
  count = len(images)
  many = count >= 2 * _VALIDATION_SIZE
  start = count - (_VALIDATION_SIZE if many else count // 6)
  if split == 'train_minus_validation':
    images, labels = images[:start], labels[:start]
  elif split == 'validation':
    images, labels = images[start:], labels[start:]
  # All labels enter: the class alone may not tell sets apart.
  fingerprint = digest(images, labels)[:16]
  all_labels = labels if label_names else None
  if label_names:
    labels = np.ascontiguousarray(labels[:, label_names.index(class_name)])
  images.flags.writeable = labels.flags.writeable = False
  return Dataset(
    *(name, split, images, labels, fingerprint, None, num_classes),
    all_labels=all_labels,
    label_names=label_names,
  )


def check_image_shape(
  what: str, found: tuple, accepted: tuple[int, int, int] | None
) -> None:
  """Raises InputError unless images have one shape, the accepted one if any."""
  if None in found or (accepted and tuple(found) != tuple(accepted)):
    show = lambda shape: 'x'.join(str(size or 'any') for size in shape)
    wanted = 'images of one size' if None in found else show(accepted)
    raise errors.InputError(
      f'{what} has images of {show(found)}; accepted: {wanted}.'
    )


def digest(*arrays: np.ndarray) -> str:
  """Computes the sha256 of arrays, their types and shapes included."""
  sha256 = hashlib.sha256()
  for array in arrays:
    sha256.update(f'{array.dtype.str} {array.shape};'.encode())
    sha256.update(np.ascontiguousarray(array).data)
  return sha256.hexdigest()
