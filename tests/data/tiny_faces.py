"""A folder of tiny faces in CelebA's layout, for the tests that need one."""

import io
import zipfile

import numpy as np
from PIL import Image

ATTRIBUTES = ('Bald', 'Male', 'Smiling')
NAMES = tuple(f'{index:06}.png' for index in range(1, 13))
# Eight train, three validation, one test.
PARTITIONS = (0, 0, 1, 0, 0, 2, 0, 1, 0, 0, 1, 0)
TRAIN = [0, 1, 3, 4, 6, 8, 9, 11]
LABELS = np.random.default_rng(1).choice([-1, 1], (12, 3)).astype(np.int8)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 20, 16, 3), np.uint8)


def encode(image):
  file = io.BytesIO()
  Image.fromarray(image).save(file, format='PNG')
  return file.getvalue()


def find_row(image):
  """Returns which of the images has this centre square, of 16 pixels."""
  [row] = np.flatnonzero((IMAGES[:, 2:-2] == image).all(axis=(1, 2, 3)))
  return row


def write_lists(folder, attribute_place='.', partition_place='.'):
  for place in (attribute_place, partition_place):
    (folder / place).mkdir(parents=True, exist_ok=True)
  lines = [str(len(NAMES)), ' '.join(ATTRIBUTES)]
  for name, row in zip(NAMES, LABELS):
    lines.append(f'{name} {"  ".join(map(str, row))}')
  attribute_file = folder / attribute_place / 'list_attr_celeba.txt'
  attribute_file.write_text('\n'.join(lines) + '\n')
  partition_file = folder / partition_place / 'list_eval_partition.txt'
  partition_file.write_text(
    ''.join(f'{name} {part}\n' for name, part in zip(NAMES, PARTITIONS))
  )


def write_images(folder):
  """Writes the images into folder/img_align_celeba."""
  images = folder / 'img_align_celeba'
  images.mkdir(parents=True)
  for name, image in zip(NAMES, IMAGES):
    (images / name).write_bytes(encode(image))


def write_archive(path, *, prefix='img_align_celeba/', extra=()):
  """Writes the images, and other entries (name, content), into an archive."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(path, 'w') as archive:
    for name, image in zip(NAMES, IMAGES):
      archive.writestr(prefix + name, encode(image))
    for name, content in extra:
      archive.writestr(name, content)
