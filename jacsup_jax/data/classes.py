"""Read TFDS sets with a class label, and parts of dSprites and Shapes3D.

The class of an image of these two is its shape.
"""

from collections.abc import Callable

import numpy as np
import tensorflow_datasets as tfds

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.data import mnist
from jacsup_jax.data import prepared
from jacsup_jax.data import registry
from jacsup_jax.data import svhn

_HUES = ('floor_hue', 'wall_hue', 'object_hue')
# Labels of sets with more than the class; the features are `label_NAME`.
LABEL_NAMES = {
  'dsprites': ('shape', 'scale', 'orientation', 'x_position', 'y_position'),
  'shapes3d': (*_HUES, 'scale', 'shape', 'orientation'),
}

_TEST_SIZE, _MOST_TRAINING = 10_000, 100_000  # of dSprites and Shapes3D
_READ_SIZE = 5_000  # examples decoded at a time


def load(
  name: str,
  split: str,
  *,
  data_dir: files.Path | None,
  image_shape: tuple[int, int, int] | None,
  report: Callable[[str], None],
) -> registry.Dataset:
  """Loads one split of a set; see `registry.load`.

  It is read from a data folder that holds it; else from its original files (IDX
  of the MNIST family, .mat of SVHN) in the folder, in DATA_DIR/NAME, in
  DATA_DIR/downloads/manual, where torchvision has them, or (IDX) in a folder
  that is alone; else downloaded, which takes TensorFlow.
  """
  part = 'test' if split == 'test' else 'train'
  root = prepared.find_root(data_dir)
  builder = prepared.find_builder(name, root)
  shape, num_classes = _check_features(name, builder, image_shape)
  names = LABEL_NAMES.get(name, ())
  arrays, hint = None, ''
  if not builder.is_prepared():
    arrays, hint = _read_originals(name, root, part, report)
  if arrays is None:
    if not builder.is_prepared():
      builder = prepared.prepare(name, root, report, hint)
    arrays = _read_prepared(name, builder, part, shape, names)
  return registry.make_classes(name, split, *arrays, num_classes, names)


def _read_originals(name, root, part, report):
  """Reads a part of original files, if there are any; else says their names."""
  folders = [root, root / name, root / 'downloads' / 'manual']
  if name in mnist.NAMES:
    folders += [root / mnist.NAMES[name] / 'raw', *mnist.list_folders(root)]
    if found := mnist.find_originals(*folders):
      mnist.check_originals(name, found, report)
      return mnist.read_split(found, part, in_order_of_tfds=True), ''
    expected = mnist.FILE_NAMES
  elif name == svhn.NAME:
    if found := svhn.find_files(*folders):
      return svhn.read_split(found, part), ''
    expected = svhn.FILES.values()
  else:
    return None, ''
  return None, f'; or put its files there, {", ".join(expected)}'


def choose_rows(num_examples: int, part: str) -> range:
  """Chooses records of dSprites and Shapes3D, which TFDS has shuffled.

  Test are the last 10,000, of fewer than 20,000 the last sixth; training and
  validation the first 100,000 of the others.
  """
  many = num_examples >= 2 * _TEST_SIZE
  start = num_examples - (_TEST_SIZE if many else num_examples // 6)
  train, test = range(min(start, _MOST_TRAINING)), range(start, num_examples)
  return test if part == 'test' else train


def _check_features(name, builder, accepted) -> tuple[tuple[int, ...], int]:
  """Checks that a set has images and a class; returns shape and classes."""
  features = builder.info.features
  found = dict(getattr(features, 'items', dict)())
  image = found.get('image')
  label = found.get('label_shape' if name in LABEL_NAMES else 'label')
  kinds = (image, tfds.features.Image), (label, tfds.features.ClassLabel)
  if not all(isinstance(*pair) for pair in kinds):
    raise errors.InputError(
      f'--dataset={name} has the features {", ".join(found) or "of a list"};'
      ' accepted: sets with an image and a class label.'
    )
  registry.check_image_shape(f'--dataset={name}', image.shape, accepted)
  return tuple(image.shape), label.num_classes


def _read_prepared(name, builder, part, shape, names):
  """Reads images, and labels or the labels of all `names`."""
  count, take = prepared.open_split(name, builder, 'train' if names else part)
  rows = choose_rows(count, part) if names else range(count)
  with prepared.reading(name, builder.data_dir):
    images = np.empty((len(rows), *shape), np.uint8)
    labels = np.empty((len(rows), len(names)) if names else len(rows), np.int32)
    for start in range(0, len(rows), _READ_SIZE):
      some = slice(start, start + _READ_SIZE)
      examples = take(rows[some])
      images[some] = [example['image'] for example in examples]
      labels[some] = [
        [example[f'label_{label}'] for label in names] or example['label']
        for example in examples
      ]
  # White is 1 in dSprites.
  scale = np.uint8(255 if names and images.max() <= 1 else 1)
  return images * scale, labels
