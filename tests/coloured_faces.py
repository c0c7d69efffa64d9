"""A folder of faces in CelebA's layout whose attributes are colours."""

import numpy as np
from PIL import Image

NAMES = ('Bald', 'Smiling', 'Young')
# Examples of the official partitions train, validation and test.
SIZES = (48, 12, 12)


def write(root):
  """Writes 8x8 images, attributes and partitions into a folder; returns it."""
  (root / 'img_align_celeba').mkdir()
  rng = np.random.default_rng(0)
  attributes, partitions = [], []
  for i in range(sum(SIZES)):
    name = f'{i + 1:06d}.png'
    values = rng.choice([-1, 1], 3)
    colour = np.where(values > 0, 200, 50)[None, None]
    noise = rng.integers(-40, 40, (8, 8, 3))
    image = Image.fromarray((colour + noise).astype(np.uint8))
    image.save(root / 'img_align_celeba' / name)
    attributes.append(f'{name} {" ".join(map(str, values))}')
    partition = int(np.searchsorted(np.cumsum(SIZES), i, side='right'))
    partitions.append(f'{name} {partition}')
  lines = [str(sum(SIZES)), ' '.join(NAMES), *attributes]
  (root / 'list_attr_celeba.txt').write_text('\n'.join(lines) + '\n')
  (root / 'list_eval_partition.txt').write_text('\n'.join(partitions) + '\n')
  return root
