"""Read TFDS sets of images with a class label, or parts of dSprites, Shapes3D.

TFDS has dSprites and Shapes3D as one split of 737,280 grey and 480,000 colour
images of 64x64, all combinations of their labels once. A part is kept in memory
here: of the records, which TFDS has shuffled, the last 10,000 are the test
split and the first 100,000 that for training, with validation. The class of an
image is its shape.
"""

import functools
import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from jacsup_jax.core import errors
from jacsup_jax.data import dataset
from jacsup_jax.data import decoded
from jacsup_jax.data import mnist
from jacsup_jax.data import prepared

# Labels of sets with more than the class; the features are `label_NAME`.
LABEL_NAMES = {
    'dsprites': ('shape', 'scale', 'orientation', 'x_position', 'y_position'),
    'shapes3d': (
        'floor_hue', 'wall_hue', 'object_hue', 'scale', 'shape', 'orientation',
    ),
}  # pyformat: disable

_EMBEDDED = 'mnist_embedded'
_READ_SIZE = 5_000  # examples decoded at a time
_TEST_SIZE, _MOST_TRAINING = 10_000, 100_000  # of dSprites and Shapes3D


def load(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike | None,
    image_shape: tuple[int, int, int] | None,
    report: prepared.ReportFn,
) -> dataset.Dataset:
  """Loads one split of a set, preparing the set first; see `registry.load`."""
  part = 'test' if split == 'test' else 'train'
  root = prepared.find_root(data_dir)
  make = functools.partial(_make_builder, name)
  builder = make(root)
  if name == _EMBEDDED:
    mnist.check_sha256(mnist.SOURCE_DIR, mnist.SHA256)
  shape, num_classes = _check_features(name, builder, image_shape)
  if not builder.is_prepared():
    _prepare(name, make, root, data_dir is not None, report)
    builder = make(root)
  label, stored_split, rows = part, part, None
  if name in LABEL_NAMES:
    stored_split = 'train'
    count, _ = prepared.open_split(name, builder, stored_split)
    rows = choose_rows(count, part)
    label = f'{part}_{len(rows)}'
  decode = functools.partial(_decode, name, builder, stored_split, shape, rows)
  with prepared.reading(name, builder.data_dir):
    images, labels = decoded.load_or_make(builder, label, decode)
  return dataset.make_classes(
      name, split, images, labels, num_classes, LABEL_NAMES.get(name, ())
  )


def choose_rows(num_examples: int, part: str) -> range:
  """Chooses the records of a part of dSprites or Shapes3D.

  Args:
    num_examples: number of all records. Of fewer than 20,000, the last sixth is
      the test split.
    part: 'train' or 'test'.

  Returns:
    Their positions.
  """
  size = _TEST_SIZE if num_examples >= 2 * _TEST_SIZE else num_examples // 6
  start = num_examples - size
  if part == 'test':
    return range(start, num_examples)
  return range(min(start, _MOST_TRAINING))


def brighten(images: np.ndarray) -> np.ndarray:
  """Makes white 255 where it is 1, as in dSprites."""
  if images.size and images.max() <= 1:
    return images * np.uint8(255)
  return images


def _make_builder(name: str, root: pathlib.Path) -> tfds.core.DatasetBuilder:
  if name != _EMBEDDED:
    return prepared.find_builder(name, root)
  with prepared.reading(name, root / name):
    return mnist.MnistEmbedded(data_dir=os.fspath(root))


def _prepare(name, make, root, explicit, report):
  checksums = {
      info.filename: info.checksum
      for info in (make(root).url_infos or {}).values()
  }
  originals, duration, hint = None, '', ''
  if name == _EMBEDDED:
    duration = '15 seconds'
  elif set(checksums) == set(mnist.FILE_NAMES):
    hint = (
        f'; or put the original files into {root / "downloads" / "manual"}:'
        f' {", ".join(mnist.FILE_NAMES)}'
    )
    originals = mnist.find_originals(name, root)
    if originals:
      mnist.check_sha256(originals, checksums)
      duration = 'half a minute'

  def make_prepared(folder):
    builder = make(folder)
    if originals:
      builder._split_generators = lambda dl_manager: {
          split: mnist.generate_examples(originals, split)
          for split in mnist.FILES
      }
    elif name != _EMBEDDED:
      prepared.check_before_download(builder)
    return builder

  prepared.prepare(
      name, make_prepared, root,
      # Original files in the folder say that it is the right one.
      explicit=explicit and not originals,
      report=report, duration=duration, hint=hint,
  )  # pyformat: disable


def _check_features(name, builder, accepted) -> tuple[tuple[int, ...], int]:
  """Checks that a set has images and a class; returns shape and classes."""
  features = builder.info.features
  is_dict = isinstance(features, tfds.features.FeaturesDict)
  found = dict(features.items()) if is_dict else {}
  image = found.get('image')
  label = found.get('label_shape' if name in LABEL_NAMES else 'label')
  if not isinstance(image, tfds.features.Image) or not isinstance(
      label, tfds.features.ClassLabel
  ):
    raise errors.InputError(
        f'--dataset={name} has the features {", ".join(found) or "of a list"}:'
        ' accepted are sets with an image and a class label'
    )
  dataset.check_image_shape(f'--dataset={name}', image.shape, accepted)
  return tuple(image.shape), label.num_classes


def _decode(name, builder, split, shape, rows) -> decoded.Arrays:
  """Decodes examples, with OpenCV if it is installed, else Pillow."""
  count, take = prepared.open_split(name, builder, split)
  rows = range(count) if rows is None else rows
  all_names = LABEL_NAMES.get(name)
  images = np.empty((len(rows), *shape), np.uint8)
  width = (len(all_names),) if all_names else ()
  labels = np.empty((len(rows), *width), np.int32)
  for start in range(0, len(rows), _READ_SIZE):
    part = slice(start, min(start + _READ_SIZE, len(rows)))
    examples = take(rows[part])
    images[part] = [example['image'] for example in examples]
    labels[part] = [
        [example[f'label_{label}'] for label in all_names]
        if all_names
        else example['label']
        for example in examples
    ]
  return (brighten(images) if all_names else images), labels
