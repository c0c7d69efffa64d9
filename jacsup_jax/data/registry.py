"""Load image sets by name: classes and faces, from TFDS or from your own files.

`batches` says which examples make a batch, `feeding` reads batches of large
sets ahead of use.
"""

from collections.abc import Callable, Sequence
import dataclasses
import os

import numpy as np

from jacsup_jax.core import errors

DEFAULT_DATASET = 'mnist_embedded'
DEFAULT_FACES = 'synthetic_faces'
ARRAYS = 'arrays'  # an .npz file of the user's own
KNOWN_DATASETS = (DEFAULT_DATASET, 'mnist', 'fashion_mnist', 'kmnist')
KNOWN_FACES = (DEFAULT_FACES, 'celeba_folder', 'celeb_a')
SPLITS = ('train', 'train_minus_validation', 'validation', 'test')
FACE_SPLITS = ('train', 'validation', 'test', 'held_out')


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """One split of an image set. The arrays are read-only.

  Attributes:
    name: of the set.
    split: one of `SPLITS` or, of faces, of `FACE_SPLITS`.
    images: `[M, H, W, C]` uint8, or None if they are read when asked for.
    labels: `[M]` int32 classes from 0, or `[M, K]` int8 attributes in {-1, +1}.
    fingerprint: 16 hexadecimal digits that change with the examples and their
      order, and not with where they are kept.
    attribute_names: of the K attributes, in order; None for classes.
    num_classes: C; None for attributes.
    all_labels: `[M, L]` int32, of a set with more labels than its class.
    label_names: of these L labels.
    image_shape: (H, W, C).
    read_images: rows -> images, where `images` is None.
  """

  name: str
  split: str
  images: np.ndarray | None
  labels: np.ndarray
  fingerprint: str = ''
  attribute_names: tuple[str, ...] | None = None
  num_classes: int | None = None
  all_labels: np.ndarray | None = None
  label_names: tuple[str, ...] = ()
  image_shape: tuple[int, int, int] | None = None
  read_images: Callable[[np.ndarray], np.ndarray] | None = dataclasses.field(
      default=None, repr=False
  )

  def __post_init__(self):
    filled = {}
    if self.image_shape is None:
      filled['image_shape'] = tuple(self.images.shape[1:])
    if self.attribute_names is None and self.num_classes is None:
      filled['num_classes'] = int(self.labels.max()) + 1
    for name, value in filled.items():
      object.__setattr__(self, name, value)  # The dataclass is frozen.

  def __len__(self) -> int:
    return len(self.labels)

  def read(
      self, rows: Sequence[int] | np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Reads examples by their positions, in the order asked for.

    It may be called from several threads.

    Args:
      rows: `[n]` int, from 0 to M - 1.

    Returns:
      images `[n, H, W, C]` uint8, and labels `[n]` or `[n, K]`.

    Raises:
      IndexError: if a position is not from 0 to M - 1.
      InputError: if a record is damaged.
    """
    rows = np.asarray(rows, np.int64)
    if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
      raise IndexError(
          f'positions {rows.min()} to {rows.max()} of {len(self)} examples'
      )
    if self.images is None:
      return self.read_images(rows), self.labels[rows]
    return self.images[rows], self.labels[rows]


def load(
    name: str,
    split: str = 'train',
    *,
    data_dir: str | os.PathLike | None = None,
    image_shape: tuple[int, int, int] | None = None,
    image_size: int | None = None,
    attributes: Sequence[str] | None = None,
    in_memory: bool = True,
    skip_bad_images: bool = False,
    held_out: int = 0,
    report: Callable[[str], None] | None = None,
) -> Dataset:
  """Loads one split of a set, preparing the set first if needed.

  Classes: `mnist_embedded` prepares itself from files of this package; `arrays`
  is your own .npz file (see arrays.py); any other name is a TFDS set of images
  with a class label. It is read from a data folder that holds it; else prepared
  from its original files where they lie in the data folder, in DATA_DIR/NAME or
  in DATA_DIR/downloads/manual; else downloaded, which takes TensorFlow.
  Validation is the last 10,000 training examples, or the last sixth of a
  training set smaller than 20,000; train_minus_validation is the rest, train
  is both.

  Faces: `synthetic_faces` is drawn by this package; `celeba_folder` is a folder
  in the layout of CelebA (see celeba.py); `celeb_a` is TFDS's own. train,
  validation and test are the official partitions; with `held_out`, the last
  examples of train are the split held_out instead.

  Args:
    name: one of `KNOWN_DATASETS`, `KNOWN_FACES`, `arrays`, or a TFDS name.
    split: one of `SPLITS`, or of `FACE_SPLITS` for faces.
    data_dir: the folder of prepared sets, which must exist; by default
      TFDS_DATA_DIR, else ~/tensorflow_datasets. For `arrays` the file; for
      `celeba_folder` the folder of images and lists, or the archive of images
      with the lists beside it.
    image_shape: (H, W, C) that the images must have, None for any.
    image_size: S of faces, a power of two from 8; 64 by default.
    attributes: names of the attributes wanted of faces, in the order wanted;
      all by default.
    in_memory: whether all images of faces are decoded at once, and kept for
      the next time.
    skip_bad_images: whether images of `celeba_folder` that cannot be decoded
      are left out, instead of refused.
    held_out: how many faces train gives up.
    report: receives one line when something takes long, such as preparing the
      set; by default the line is logged.

  Returns:
    The split.

  Raises:
    InputError: if anything asked for is not usable, in one line that says
      which and what is accepted; nothing is left on disk then.
  """
  del report
  # TFDS takes a second to import, and not every command loads data.
  # pylint: disable=import-outside-toplevel
  if name in KNOWN_FACES:
    from jacsup_jax.data import faces

    found = faces.load_faces(
        name,
        split,
        data_dir=data_dir,
        image_size=64 if image_size is None else image_size,
        attributes=attributes,
        in_memory=in_memory,
        skip_bad_images=skip_bad_images,
        held_out=held_out,
    )
    read = found.read_images
    return Dataset(
        name=name,
        split=split,
        images=found.images,
        labels=found.attributes,
        fingerprint=found.fingerprint,
        attribute_names=found.attribute_names,
        image_shape=(found.image_size, found.image_size, 3),
        read_images=None if read is None else lambda rows: read(rows)[0],
    )
  if attributes is not None or image_size is not None or held_out:
    raise errors.InputError(
        f'--dataset={name} is not a set of faces: --attributes, --image_size'
        f' and --held_out are accepted for {", ".join(KNOWN_FACES)}.'
    )
  from jacsup_jax.data import sources

  found = sources.load(name, split, data_dir=data_dir, image_shape=image_shape)
  return Dataset(
      **{field: getattr(found, field) for field in (
          'name', 'split', 'images', 'labels', 'fingerprint', 'num_classes',
          'all_labels', 'label_names',
      )}
  )


# Until the other rooms are rewritten.
FaceDataset = Dataset
IMAGE_SHAPE = (28, 28, 1)


def load_faces(name, split, **options):
  return load(name, split, **options)
