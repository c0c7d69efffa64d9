"""dSprites and Shapes3D: drawn shapes whose every label is known.

TFDS has them as one split, `train`, of 737,280 grey and 480,000 colour images
of 64x64, all combinations of their labels once, 3.0 and 5.9 GB decoded. A part
is kept in memory here: of the records, which TFDS has shuffled, the last 10,000
are the test split and the first 100,000 that for training, with validation. A
set of fewer than 20,000 gives its last sixth as test.

The class of an image, which judges see, is its shape.
"""

import dataclasses

import numpy as np

TEST_SIZE = 10_000
MOST_TRAINING = 100_000


@dataclasses.dataclass(frozen=True)
class Layout:
  """What TFDS has of a set.

  Attributes:
    image_shape: (H, W, C).
    label_names: of the labels, whose features are called `label_NAME`.
  """

  image_shape: tuple[int, int, int]
  label_names: tuple[str, ...]

  @property
  def features(self) -> tuple[str, ...]:
    return tuple(f'label_{name}' for name in self.label_names)

  @property
  def class_index(self) -> int:
    """Which label is the class of an image."""
    return self.label_names.index('shape')


LAYOUTS = {
    'dsprites': Layout(
        (64, 64, 1),
        ('shape', 'scale', 'orientation', 'x_position', 'y_position'),
    ),
    'shapes3d': Layout(
        (64, 64, 3),
        (
            'floor_hue', 'wall_hue', 'object_hue', 'scale', 'shape',
            'orientation',
        ),
    ),
}  # pyformat: disable


def choose_rows(num_examples: int, part: str) -> range:
  """Chooses the records of a part.

  Args:
    num_examples: of all.
    part: 'train' or 'test'.

  Returns:
    Their indices.
  """
  size = TEST_SIZE
  if num_examples < 2 * TEST_SIZE:
    size = num_examples // 6
  start = num_examples - size
  if part == 'test':
    return range(start, num_examples)
  return range(min(start, MOST_TRAINING))


def brighten(images: np.ndarray) -> np.ndarray:
  """Makes white 255 where it is 1, as dSprites has it.

  Args:
    images: `[N, H, W, C]` uint8.

  Returns:
    The same shape and type.
  """
  if images.size and images.max() <= 1:
    return images * np.uint8(255)
  return images
