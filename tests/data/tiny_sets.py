"""Small sets in the files that TFDS and the MNIST family have."""

import gzip
import hashlib
import io

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from jacsup_jax.data import mnist


def write_originals(folder):
  """Writes four small files in the format of MNIST's; returns their sha256."""
  folder.mkdir(parents=True, exist_ok=True)
  checksums = {}
  for split, size in (('train', 60), ('test', 12)):
    rng = np.random.default_rng(size)
    images = rng.integers(0, 256, (size, 28, 28), np.uint8)
    labels = np.arange(size, dtype=np.uint8) % 10
    for name, array in zip(mnist.FILES[split], (images, labels)):
      header = bytes((0, 0, 8, array.ndim))
      header += np.array(array.shape, '>u4').tobytes()
      content = gzip.compress(header + array.tobytes())
      (folder / name).write_bytes(content)
      checksums[name] = hashlib.sha256(content).hexdigest()
  return checksums


def write_prepared(root, name, splits):
  """Prepares a set of TFDS from examples by split, without TensorFlow."""

  def generate(examples):
    for index, example in enumerate(examples):
      png = io.BytesIO()
      Image.fromarray(example['image'].squeeze()).save(png, format='PNG')
      yield index, {**example, 'image': io.BytesIO(png.getvalue())}

  builder = tfds.builder(name, data_dir=root)
  builder._split_generators = lambda dl_manager: {
    split: generate(examples) for split, examples in splits.items()
  }
  builder.download_and_prepare(file_format='array_record')


def read_originals(folder):
  """Gives the examples, by split, of the four files."""
  return {
    split: [
      {'image': image, 'label': int(label)}
      for image, label in zip(*(mnist.read(folder / name) for name in names))
    ]
    for split, names in mnist.FILES.items()
  }
