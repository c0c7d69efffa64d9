"""The drawn faces as a set of classes of which every factor is a label.

The class of a face is its hair. Numbers of the nuisance, which are uniform,
count as `BINS` values of equal width.
"""

from collections.abc import Callable

import numpy as np

from jacsup_jax.data import drawn_faces
from jacsup_jax.data import files
from jacsup_jax.data import registry

BINS = 4
# Attributes of which a face has one at most, or other hair.
HAIR = ('Bald', 'Black_Hair', 'Blond_Hair')
_OTHERS = tuple(name for name in drawn_faces.ATTRIBUTES if name not in HAIR)
_POSE = drawn_faces.Nuisance._fields.index('face_width')
LABEL_NAMES = ('hair', *_OTHERS, *drawn_faces.Nuisance._fields)


def load(
  name: str,
  split: str,
  *,
  data_dir: files.Path | None,
  image_shape: tuple[int, int, int] | None,
  report: Callable[[str], None],
) -> registry.Dataset:
  """Loads one split of the faces with their factors; see `registry.load`.

  Training and validation faces of the drawn set are the training examples.
  """
  size = image_shape[0] if image_shape else drawn_faces.IMAGE_SIZE
  registry.check_image_shape(f'--dataset={name}', (size, size, 3), image_shape)
  parts = ('test',) if split == 'test' else ('train', 'validation')
  images, labels = [], []
  for part in parts:
    faces = registry.load(
      registry.DEFAULT_FACES,
      part,
      data_dir=data_dir,
      image_size=size,
      report=report,
    )
    images.append(faces.images)
    labels += [
      list_factors(*drawn_faces.sample(index, part))
      for index in range(len(faces))
    ]
  return registry.make_classes(
    name,
    split,
    np.concatenate(images),
    np.array(labels, np.int32),
    len(HAIR) + 1,
    LABEL_NAMES,
    class_name='hair',
  )


def list_factors(
  attributes: np.ndarray, nuisance: drawn_faces.Nuisance
) -> list[int]:
  """Lists the factors of a face as ints from 0, in order of `LABEL_NAMES`.

  Hair is 0, 1 or 2 for those of `HAIR`, 3 for any other.
  """
  has = dict(zip(drawn_faces.ATTRIBUTES, (attributes > 0).tolist()))
  hair = [name for name in HAIR if has[name]]
  bins = [
    # Pose and light, which come first, are in [-1, 1], all others in [0, 1].
    int(BINS * ((value + 1) / 2 if i < _POSE else value))
    for i, value in enumerate(nuisance)
  ]
  return [
    HAIR.index(hair[0]) if hair else len(HAIR),
    *(int(has[name]) for name in _OTHERS),
    *(min(value, BINS - 1) for value in bins),
  ]
