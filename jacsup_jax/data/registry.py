"""Load image sets by name: classes and faces, from TFDS or from your own files.

Classes: `mnist_embedded` prepares itself from files of this package; `arrays`
is your own .npz file (see arrays.py); any other name is a TFDS set of images
with a class label. It is read from a data folder that holds it; else prepared
from its original files in the data folder, in DATA_DIR/NAME or in
DATA_DIR/downloads/manual; else downloaded, which takes TensorFlow. Validation
is the last 10,000 training examples, or the last sixth of a training set
smaller than 20,000; train_minus_validation is the rest, train is both.

Faces: `synthetic_faces` is drawn by this package; `celeba_folder` is a folder
in the layout of CelebA (see celeba.py); `celeb_a` is TFDS's own. train,
validation and test are the official partitions; with `held_out`, the last
examples of train are the split held_out instead.
"""

from collections.abc import Callable, Sequence

from absl import logging

from jacsup_jax.core import errors
from jacsup_jax.data import dataset
from jacsup_jax.data import files

ARRAYS = dataset.ARRAYS
DEFAULT_DATASET = dataset.DEFAULT_DATASET
DEFAULT_FACES = dataset.DEFAULT_FACES
Dataset = dataset.Dataset
IMAGE_SHAPES = dataset.IMAGE_SHAPES
KNOWN_FACES = dataset.KNOWN_FACES
SPLITS = dataset.SPLITS


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
  held_out: int = 0,
  report: Callable[[str], None] = logging.warning,
) -> Dataset:
  """Loads one split of a set, preparing the set first if needed.

  Args:
    name: see above.
    split: see above.
    data_dir: the folder of prepared sets (default: TFDS_DATA_DIR, else
      ~/tensorflow_datasets), the file of `arrays` or that `celeba_folder`.
    image_shape: (H, W, C) that images must have, None for any.
    image_size: S of faces, a power of two from 8; 64 by default.
    attributes: names of the attributes of faces, in order; all by default.
    in_memory: whether all faces are read at once, not when asked for.
    skip_bad_images: whether `celeba_folder` may leave out damaged images.
    held_out: how many faces train gives up.
    report: receives one line when the set is prepared.
  """
  if name in KNOWN_FACES:  # TFDS takes a second to import.
    from jacsup_jax.data import faces

    return faces.load(
      name,
      split,
      data_dir=data_dir,
      image_size=64 if image_size is None else image_size,
      attributes=attributes,
      in_memory=in_memory,
      skip_bad_images=skip_bad_images,
      held_out=held_out,
      report=report,
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
  if name == ARRAYS:
    from jacsup_jax.data import arrays

    return arrays.load(split, data_dir=data_dir, image_shape=image_shape)
  from jacsup_jax.data import classes

  return classes.load(
    name, split, data_dir=data_dir, image_shape=image_shape, report=report
  )
