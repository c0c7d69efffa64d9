"""Loads sets of labelled images through TFDS, or from a file of arrays.

A TFDS set is prepared once into a data folder, as array_record files, which
TFDS reads without TensorFlow. Its arrays are decoded once (see decoded.py).
"""

import dataclasses
import functools
import os

import numpy as np
import tensorflow_datasets as tfds

from jacsup_jax.core import errors
from jacsup_jax.data import array_file
from jacsup_jax.data import decoded
from jacsup_jax.data import preparing
from jacsup_jax.data import shape_sets
from jacsup_jax.data.mnist_embedded import mnist_embedded_dataset_builder

DEFAULT_DATASET = preparing.EMBEDDED
KNOWN_DATASETS = preparing.KNOWN_DATASETS
SPLITS = ('train', 'train_minus_validation', 'validation', 'test')
# Of digits.
IMAGE_SHAPE = (28, 28, 1)

# The last training examples, in the order of the prepared set. A set with
# fewer than twice as many training examples gives its last sixth.
VALIDATION_SIZE = 10_000

_READ_SIZE = 5_000  # Examples decoded at a time.


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """One split of a set, in memory. The arrays are read-only."""

  name: str
  split: str
  images: np.ndarray  # [N, H, W, C] uint8
  labels: np.ndarray  # [N] int32, 0 to num_classes - 1
  num_classes: int
  fingerprint: str  # The first 16 digits of the sha256 of both arrays.
  # Of a set with more labels than the class: [N, L] int32, and their names.
  all_labels: np.ndarray | None = None
  label_names: tuple[str, ...] = ()


def load(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_shape: tuple[int, int, int] | None = IMAGE_SHAPE,
) -> Dataset:
  """Loads one split of a set, preparing the set first if it is not yet.

  `mnist_embedded` prepares itself from files inside this package. `arrays` is
  a user's own .npz file, see array_file.py. Any other name is a TFDS set of
  images with a class label. It is read from a data folder that holds it; else
  it is prepared from its original files where they lie in the data folder, in
  DATA_DIR/NAME or in DATA_DIR/downloads/manual; else it is downloaded, which
  takes TensorFlow. `dsprites` and `shapes3d` are such sets whose class is the
  shape, and whose splits are parts of the only one they have, see
  shape_sets.py.

  Validation is the last 10,000 training examples, or the last sixth of a
  training set smaller than 20,000; train_minus_validation is the rest, and
  train is both.

  Args:
    name: one of `KNOWN_DATASETS`, `arrays`, or another TFDS name.
    split: one of `SPLITS`.
    data_dir: the folder of prepared sets, which must exist. By default that of
      TFDS: the environment variable TFDS_DATA_DIR, else
      ~/tensorflow_datasets, made when needed. For `arrays` the file.
    image_shape: (H, W, C) that the images must have, None for any.

  Returns:
    The split as arrays.

  Raises:
    InputError: if the name, the split, the folder or the file is not usable, in
      one line that says which and what to do; nothing is left on disk then.
  """
  if split not in SPLITS:
    raise errors.InputError(
        f'unknown split {split!r}: accepted are {", ".join(SPLITS)}'
    )
  part = 'test' if split == 'test' else 'train'
  if name == array_file.NAME:
    images, labels, num_classes = array_file.read(data_dir, part)
    _check_shape(f'{data_dir}', images.shape[1:], image_shape)
  else:
    images, labels, num_classes = _load_prepared(
        name, part, data_dir, image_shape
    )
  images, labels = _select(images, labels, split)
  fingerprint = decoded.digest(images, labels)[:16]
  layout, all_labels = shape_sets.LAYOUTS.get(name), None
  if layout:
    all_labels = labels
    labels = np.ascontiguousarray(labels[:, layout.class_index])
    all_labels.flags.writeable = False
  images.flags.writeable = labels.flags.writeable = False
  return Dataset(
      name=name,
      split=split,
      images=images,
      labels=labels,
      num_classes=num_classes,
      fingerprint=fingerprint,
      all_labels=all_labels,
      label_names=layout.label_names if layout else (),
  )


def _load_prepared(
    name: str,
    part: str,
    data_dir: str | os.PathLike | None,
    image_shape: tuple[int, int, int] | None,
) -> tuple[np.ndarray, np.ndarray, int]:
  """Loads 'train' or 'test' of a TFDS set, and its number of classes."""
  root = preparing.data_root(data_dir)
  builder = preparing.make_builder(name, root)
  if isinstance(builder, mnist_embedded_dataset_builder.Builder):
    builder.check_sources()
  shape, num_classes = _check_features(name, builder, image_shape)
  if not preparing.is_prepared(builder):
    preparing.prepare(name, root, explicit=data_dir is not None)
    builder = preparing.make_builder(name, root)
  return *_read(name, builder, part, shape), num_classes


def _check_features(
    name: str,
    builder: tfds.core.DatasetBuilder,
    image_shape: tuple[int, int, int] | None,
) -> tuple[tuple[int, int, int], int]:
  """Checks that a set is one of images; returns their shape and its classes."""
  features = builder.info.features
  if isinstance(features, tfds.features.FeaturesDict):
    found = dict(features.items())
  else:
    found = {}
  layout = shape_sets.LAYOUTS.get(name)
  image = found.get('image')
  label = found.get('label_shape' if layout else 'label')
  accepted = _shape_text(image_shape or ('H', 'W', 'C'))
  if not isinstance(image, tfds.features.Image) or not isinstance(
      label, tfds.features.ClassLabel
  ):
    raise errors.InputError(
        f'--dataset={name} has the features {", ".join(found) or "of a list"}:'
        f' accepted are sets with an image of {accepted} and a class label'
    )
  _check_shape(f'--dataset={name}', tuple(image.shape), image_shape)
  return tuple(image.shape), label.num_classes


def _check_shape(what, found, accepted):
  if None in found:
    raise errors.InputError(
        f'{what} has images of {_shape_text(found)}: accepted are images of one'
        ' size'
    )
  if accepted is not None and found != tuple(accepted):
    raise errors.InputError(
        f'{what} has images of {_shape_text(found)}: accepted are'
        f' {_shape_text(accepted)}'
    )


def _shape_text(shape: tuple[int | str | None, ...]) -> str:
  return 'x'.join('any' if size is None else str(size) for size in shape)


def _read(
    name: str,
    builder: tfds.core.DatasetBuilder,
    split: str,
    shape: tuple[int, int, int],
) -> decoded.Arrays:
  if name in shape_sets.LAYOUTS:
    return _read_shapes(name, builder, split, shape)
  # A mocked builder knows no splits, and has no folder to keep arrays in.
  if builder.info.splits and split not in builder.info.splits:
    raise errors.InputError(
        f'{name} has no split {split!r}: it has'
        f' {", ".join(builder.info.splits)}'
    )
  if not preparing.is_prepared(builder):
    return _decode(name, builder, split, shape, singly=True)
  make = functools.partial(_decode, name, builder, split, shape)
  return decoded.load_or_make(builder.data_dir, split, make)


def _read_shapes(
    name: str,
    builder: tfds.core.DatasetBuilder,
    part: str,
    shape: tuple[int, int, int],
) -> decoded.Arrays:
  """Reads a part of the only split; the labels are `[N, L]`."""
  with preparing.reading(name, builder), preparing.quiet():
    rows = shape_sets.choose_rows(len(builder.as_data_source('train')), part)
  is_prepared = preparing.is_prepared(builder)

  def make():
    images, labels = _decode(
        name,
        builder,
        'train',
        shape,
        rows=rows,
        features=shape_sets.LAYOUTS[name].features,
        singly=not is_prepared,
    )
    return shape_sets.brighten(images), labels

  if not is_prepared:
    return make()
  return decoded.load_or_make(builder.data_dir, f'{part}_{len(rows)}', make)


def _decode(
    name: str,
    builder: tfds.core.DatasetBuilder,
    split: str,
    shape: tuple[int, int, int],
    *,
    rows: range | None = None,
    features: tuple[str, ...] | None = None,
    singly: bool = False,
) -> decoded.Arrays:
  """Reads and decodes a split, with OpenCV if installed, else Pillow.

  All of it, or some rows; its `label`, or an array `[N, L]` of such features.
  """
  with preparing.reading(name, builder), preparing.quiet():
    source = builder.as_data_source(split)
    rows = range(len(source)) if rows is None else rows
    images = np.empty((len(rows), *shape), np.uint8)
    width = (len(features),) if features else ()
    labels = np.empty((len(rows), *width), np.int32)
    for start in range(0, len(rows), _READ_SIZE):
      stop = min(start + _READ_SIZE, len(rows))
      indices = list(rows[start:stop])
      if singly:  # Three times as slow, but all that a mocked source can.
        examples = [source[index] for index in indices]
      else:
        examples = source.__getitems__(indices)
      images[start:stop] = [example['image'] for example in examples]
      labels[start:stop] = [
          [example[feature] for feature in features]
          if features
          else example['label']
          for example in examples
      ]
  return images, labels


def _select(
    images: np.ndarray, labels: np.ndarray, split: str
) -> decoded.Arrays:
  if split in ('train', 'test'):
    return images, labels
  size = VALIDATION_SIZE
  if len(images) < 2 * VALIDATION_SIZE:
    size = len(images) // 6
  start = len(images) - size
  if split == 'validation':
    return images[start:], labels[start:]
  return images[:start], labels[:start]
