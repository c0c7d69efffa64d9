"""Measures how many prepared faces are read and decoded a second.

  python -m benchmarks.input

JPEG files of noise on a slope, at training resolution and in memory: the
decoding is measured, not a disk.
"""

import io
import statistics
import time

from absl import flags
import numpy as np
from PIL import Image

from benchmarks import timing
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import registry

FLAGS = flags.FLAGS
_BATCH_SIZE = 32


def define_flags() -> None:
  """Defines the flags; not on import, as tests import this module."""
  flags.DEFINE_integer('image_size', 256, 'Pixels of a side of a face.')
  flags.DEFINE_integer('repeats', 10, 'Measurements.', 1)


def main() -> str:
  """Returns the rate that the flags ask for."""
  size, repeats = FLAGS.image_size, FLAGS.repeats
  errors.check_image_size(size)
  machine, rate = timing.describe_machine(), measure(size, repeats)
  return (
    f'Reading faces: {size}x{size} pixels, JPEG, {machine}; median of'
    f' {repeats}.\n{rate:.0f} images/s, {rate / timing.count_threads():.0f} a'
    ' core.'
  )


def measure(image_size: int, repeats: int, num_images: int = 1024) -> float:
  """Returns the images read a second, the median of the repeats."""
  dataset = make_encoded_set(image_size, num_images)
  order = np.random.default_rng(0).permutation(num_images)
  rates = []
  for _ in range(repeats):
    start = time.perf_counter()
    for _ in batches.iterate_chunks(
      dataset, order.reshape(-1, _BATCH_SIZE), chunk_steps=8
    ):
      pass
    rates.append(num_images / (time.perf_counter() - start))
  return statistics.median(rates)


def make_encoded_set(image_size: int, num_images: int) -> registry.Dataset:
  """Makes a set of 16 different images that are decoded when read."""
  rng = np.random.default_rng(0)
  slope = np.linspace(0, 200, image_size)[:, None, None]
  files = []
  for _ in range(16):
    noise = rng.integers(0, 56, (image_size, image_size, 3))
    file = io.BytesIO()
    Image.fromarray((slope + noise).astype(np.uint8)).save(file, 'JPEG')
    files.append(file.getvalue())

  def read_images(rows):
    opened = (Image.open(io.BytesIO(files[i % len(files)])) for i in rows)
    return np.stack([np.asarray(image) for image in opened])

  labels = np.ones((num_images, 1), np.int8)
  return registry.Dataset(
    'noise',
    'train',
    None,
    labels,
    'noise',
    ('Smiling',),
    image_shape=(image_size, image_size, 3),
    read_images=read_images,
  )


if __name__ == '__main__':
  timing.run(main, define_flags)
