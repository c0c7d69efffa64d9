"""The sets of faces by name: their builders, how they are prepared and read.

A prepared set holds the faces at one size, except TFDS's own `celeb_a`, which
holds the original pictures, made square when they are read.
"""

from collections.abc import Callable, Sequence
from concurrent import futures
import dataclasses
import functools
import os
import pathlib
import sys

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from jacsup_jax.core import errors
from jacsup_jax.data import decoded
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import face_folder
from jacsup_jax.data import face_records
from jacsup_jax.data import preparing
from jacsup_jax.data import squares
from jacsup_jax.data.celeba_folder import celeba_folder_dataset_builder
from jacsup_jax.data.synthetic_faces import synthetic_faces_dataset_builder

SYNTHETIC = 'synthetic_faces'
FOLDER = 'celeba_folder'
TFDS_CELEB_A = 'celeb_a'
KNOWN_FACES = (SYNTHETIC, FOLDER, TFDS_CELEB_A)

_READ_SIZE = 500  # Examples decoded at a time.
# Of one core, for the line that announces how long preparing takes.
_SECONDS_A_DRAWING = 4e-3
_SECONDS_AN_IMAGE = 1e-3
_SECONDS_A_PIXEL = 1e-7

ReadFn = Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class FaceSet:
  """A set at one image size, prepared or not.

  Attributes:
    name: one of `KNOWN_FACES`.
    image_size: S, in pixels.
    attribute_names: of its K attributes, in order.
    splits: those that have examples.
    make_builder: makes its builder, for a folder of prepared sets.
    root: that folder.
    prepare: prepares it there.
    skip_bad_images: whether one that left out images is accepted.
  """

  name: str
  image_size: int
  attribute_names: tuple[str, ...]
  splits: tuple[str, ...]
  make_builder: Callable[[pathlib.Path], tfds.core.DatasetBuilder]
  root: pathlib.Path
  prepare: Callable[[], None]
  skip_bad_images: bool


def open_set(
    name: str,
    *,
    data_dir: str | os.PathLike | None,
    image_size: int,
    skip_bad_images: bool,
) -> FaceSet:
  """Finds a set and checks its sources; nothing is prepared yet.

  Args:
    name: one of `KNOWN_FACES`.
    data_dir: see `faces.load_faces`.
    image_size: S, a power of two.
    skip_bad_images: see `faces.load_faces`.

  Returns:
    The set.

  Raises:
    InputError: if the set, its folder or its size is not usable.
  """
  if name == FOLDER:
    return _open_folder(data_dir, image_size, skip_bad_images)
  root = preparing.data_root(data_dir)
  explicit = data_dir is not None
  if name == SYNTHETIC:
    side = drawn_faces.IMAGE_SIZE
    squares.check_fits(image_size, side, side, name)
    make_builder = _own_builder(
        synthetic_faces_dataset_builder.Builder,
        synthetic_faces_dataset_builder.make_config(image_size),
    )
    prepare = functools.partial(
        _prepare_own, name, make_builder, root,
        seconds=sum(drawn_faces.SPLIT_SIZES.values()) * _SECONDS_A_DRAWING,
        explicit=explicit,
    )
    attribute_names = drawn_faces.ATTRIBUTES
    splits = tuple(drawn_faces.SPLIT_SIZES)
  else:
    make_builder = functools.partial(preparing.make_builder, name)
    features = make_builder(root).info.features
    height, width, _ = features['image'].shape
    squares.check_fits(image_size, height, width, name)
    prepare = functools.partial(
        preparing.prepare, name, root, explicit=explicit
    )
    attribute_names = tuple(features['attributes'].keys())
    splits = face_folder.SPLITS
  return FaceSet(
      name=name,
      image_size=image_size,
      attribute_names=attribute_names,
      splits=splits,
      make_builder=make_builder,
      root=root,
      prepare=prepare,
      skip_bad_images=skip_bad_images,
  )


def open_prepared(faces: FaceSet) -> tfds.core.DatasetBuilder:
  """Prepares a set if it is not yet.

  Args:
    faces: from `open_set`.

  Returns:
    The builder of the prepared set.

  Raises:
    InputError: if the set cannot be prepared, or left out images.
  """
  builder = faces.make_builder(faces.root)
  if not preparing.is_prepared(builder):
    faces.prepare()
    builder = faces.make_builder(faces.root)
  if faces.name == FOLDER:
    _report_skipped(builder, faces)
  return builder


def compute_source_digest(
    builder: tfds.core.DatasetBuilder, split: str
) -> str:
  """Computes a digest of what a split of a prepared set was made from.

  Args:
    builder: from `open_prepared`.
    split: its name.

  Returns:
    sha256 in hexadecimal digits; for TFDS's own set, over its records' names
    and sizes and its metadata.
  """
  if builder.name != TFDS_CELEB_A:
    return face_records.read_notes(builder, split)[0]
  if not preparing.is_prepared(builder):
    return 'mocked'
  return decoded.prepared_key(builder.data_dir)


def make_read(
    faces: FaceSet, builder: tfds.core.DatasetBuilder, split: str
) -> tuple[int, ReadFn]:
  """Makes a function that reads examples of a split by their positions.

  Args:
    faces: from `open_set`.
    builder: from `open_prepared`.
    split: its name.

  Returns:
    The number of examples N, and the function: positions from 0 to N - 1 ->
    images `[n, S, S, 3]` uint8 and attributes `[n, K]` int8. It may be called
    from several threads.
  """
  with preparing.reading(faces.name, builder), preparing.quiet():
    source = builder.as_data_source(split)
  singly = not preparing.is_prepared(builder)

  def read(indices):
    indices = [int(index) for index in indices]
    with preparing.reading(faces.name, builder):
      if singly or not indices:  # All that a mocked source can.
        examples = [source[index] for index in indices]
      else:
        examples = source.__getitems__(indices)
    images = np.empty(
        (len(indices), faces.image_size, faces.image_size, 3), np.uint8
    )
    attributes = np.empty((len(indices), len(faces.attribute_names)), np.int8)
    for position, example in enumerate(examples):
      images[position], attributes[position] = _convert(example, faces)
    return images, attributes

  return len(source), read


def read_all(
    faces: FaceSet, builder: tfds.core.DatasetBuilder, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Reads a whole split, from its decoded arrays if they are there.

  Args:
    faces: from `open_set`.
    builder: from `open_prepared`.
    split: its name.

  Returns:
    images `[N, S, S, 3]` uint8 and attributes `[N, K]` int8.
  """
  def make():
    count, read = make_read(faces, builder, split)
    size = faces.image_size
    images = np.empty((count, size, size, 3), np.uint8)
    attributes = np.empty((count, len(faces.attribute_names)), np.int8)

    def fill(start):
      part = slice(start, min(start + _READ_SIZE, count))
      images[part], attributes[part] = read(range(part.start, part.stop))

    with futures.ThreadPoolExecutor() as pool:
      list(pool.map(fill, range(0, count, _READ_SIZE)))
    return images, attributes

  if not preparing.is_prepared(builder):
    return make()
  return decoded.load_or_make(
      builder.data_dir, f'{split}_{faces.image_size}px', make,
      ('images', 'attributes'),
  )


def read_attributes(
    faces: FaceSet, builder: tfds.core.DatasetBuilder, split: str
) -> np.ndarray:
  """Reads the attributes of a split, without its images.

  Args:
    faces: from `open_set`.
    builder: from `open_prepared`.
    split: its name.

  Returns:
    `[N, K]` int8.
  """
  # A mocked source can only decode.
  decoders = {'image': tfds.decode.SkipDecoding()}
  if not preparing.is_prepared(builder):
    decoders = None

  def make():
    with preparing.reading(faces.name, builder), preparing.quiet():
      source = builder.as_data_source(split, decoders=decoders)
      rows = [_convert_attributes(example) for example in source]
    return (np.array(rows, np.int8).reshape(-1, len(faces.attribute_names)),)

  if preparing.is_prepared(builder):
    (attributes,) = decoded.load_or_make(
        builder.data_dir, f'{split}_attributes', make, ('attributes',)
    )
  else:
    (attributes,) = make()
  return attributes


def _open_folder(
    data_dir: str | os.PathLike | None,
    image_size: int,
    skip_bad_images: bool,
) -> FaceSet:
  if data_dir is None:
    raise errors.InputError(
        f'--dataset={FOLDER} needs --data_dir: the folder with'
        f' {face_folder.ATTRIBUTE_FILE}, {face_folder.PARTITION_FILE} and the'
        f' images, {face_folder.IMAGES} or {face_folder.IMAGES}.zip'
    )
  root = preparing.data_root(None)
  seconds = _SECONDS_AN_IMAGE + _SECONDS_A_PIXEL * image_size**2
  # Images are read by a thread per core; faces are drawn by one.
  seconds /= os.cpu_count() or 1
  folder = face_folder.open_folder(data_dir)
  make_builder = _own_builder(
      celeba_folder_dataset_builder.Builder,
      celeba_folder_dataset_builder.make_config(
          folder, image_size, skip_bad_images=skip_bad_images
      ),
  )
  return FaceSet(
      name=FOLDER,
      image_size=image_size,
      attribute_names=folder.attribute_names,
      splits=tuple(
          split for split in face_folder.SPLITS if len(folder.find(split))
      ),
      make_builder=make_builder,
      root=root,
      prepare=functools.partial(
          _prepare_own, FOLDER, make_builder, root,
          seconds=len(folder.names) * seconds, explicit=False,
      ),
      skip_bad_images=skip_bad_images,
  )


def _own_builder(
    builder_class: type[tfds.core.DatasetBuilder],
    config: tfds.core.BuilderConfig,
) -> Callable[[pathlib.Path], tfds.core.DatasetBuilder]:
  def make_builder(root):
    # TFDS warns of a configuration that is new to it.
    with preparing.making(builder_class.name, root), preparing.quiet():
      return builder_class(config=config, data_dir=os.fspath(root))

  return make_builder


def _prepare_own(
    name: str,
    make_builder: Callable[[pathlib.Path], tfds.core.DatasetBuilder],
    root: pathlib.Path,
    *,
    seconds: float,
    explicit: bool,
) -> None:
  """Prepares a set of the package, with the manners of `preparing.prepare`.

  Args:
    name: of the set.
    make_builder: makes its builder, for a folder of prepared sets.
    root: that folder.
    seconds: about how long it takes.
    explicit: whether the user named `root`.
  """
  prepared = preparing.prepared_sets(root)
  own = any(other.startswith(f'{name}/') for other in prepared)
  if explicit and prepared and not own:
    raise errors.InputError(
        f'--data_dir={root} does not hold {name}, it holds'
        f' {", ".join(prepared)}: choose one of these with --dataset, or'
        f' prepare {name} in another folder (--data_dir of an empty one)'
    )
  minutes = round(seconds / 60)
  if minutes < 1:
    duration = f'{max(round(seconds / 10) * 10, 10)} seconds'
  else:
    duration = f'{minutes} minute{"s" if minutes > 1 else ""}'
  preparing.prepare_builder(make_builder, name, root, duration=duration)


def _report_skipped(
    builder: tfds.core.DatasetBuilder, faces: FaceSet
) -> None:
  names = [
      name
      for split in faces.splits
      for name in face_records.read_notes(builder, split)[1]
  ]
  if not names:
    return
  message = (
      f'{len(names)} images cannot be decoded:'
      f' {face_folder.first_names(names)}'
  )
  if not faces.skip_bad_images:
    raise errors.InputError(
        f'{message}: replace them, or leave them out with --skip_bad_images'
    )
  print(f'Left out: {message}.', file=sys.stderr)


def _convert(example, faces: FaceSet) -> tuple[np.ndarray, np.ndarray]:
  """Gives one example's image at its size and attributes in {-1, +1}."""
  image = example['image']
  if faces.name == TFDS_CELEB_A:
    image = squares.resize(Image.fromarray(image), faces.image_size)
  return image, _convert_attributes(example)


def _convert_attributes(example) -> np.ndarray:
  attributes = example['attributes']
  if isinstance(attributes, dict):  # Of bools: TFDS's own set.
    return np.where(list(attributes.values()), 1, -1).astype(np.int8)
  return attributes
