"""Loads sets of faces with attributes, preparing them when needed."""

from collections.abc import Sequence
import dataclasses
import difflib
import functools
import hashlib
import os

import numpy as np

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import face_folder
from jacsup_jax.data import face_sets

KNOWN_FACES = face_sets.KNOWN_FACES
DEFAULT_FACES = face_sets.SYNTHETIC
FACE_SPLITS = (*face_folder.SPLITS, 'held_out')


@dataclasses.dataclass(frozen=True, eq=False)
class FaceDataset:
  """One split of a set of faces. The arrays are read-only.

  Attributes:
    name: of the set.
    split: one of `FACE_SPLITS`.
    attribute_names: of the K attributes, in order.
    image_size: S, in pixels.
    fingerprint: 16 digits that change with the examples, their size, their
      order and the attributes, and not with where they are kept.
    attributes: `[N, K]` int8 in {-1, +1}.
    images: `[N, S, S, 3]` uint8, or None if they are read when asked for.
    read_images: reads images by their positions, where they are not in memory.
  """

  name: str
  split: str
  attribute_names: tuple[str, ...]
  image_size: int
  fingerprint: str
  attributes: np.ndarray
  images: np.ndarray | None
  read_images: face_sets.ReadFn | None = dataclasses.field(
      default=None, repr=False
  )

  def __len__(self) -> int:
    return len(self.attributes)

  def read(
      self, indices: Sequence[int] | np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Reads examples by their positions, in the order asked for.

    It may be called from several threads.

    Args:
      indices: `[n]` int, from 0 to N - 1.

    Returns:
      images `[n, S, S, 3]` uint8 and attributes `[n, K]` int8.

    Raises:
      IndexError: if a position is not from 0 to N - 1.
      InputError: if a record is damaged.
    """
    indices = np.asarray(indices, np.int64)
    if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
      raise IndexError(
          f'positions {indices.min()} to {indices.max()} of {len(self)}'
          ' examples'
      )
    if self.images is None:
      images, _ = self.read_images(indices)
    else:
      images = self.images[indices]
    return images, self.attributes[indices]


def load_faces(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_size: int = 64,
    attributes: Sequence[str] | None = None,
    in_memory: bool = True,
    skip_bad_images: bool = False,
    held_out: int = 0,
) -> FaceDataset:
  """Loads one split of a set of faces, preparing the set first if needed.

  `synthetic_faces` is drawn by this package. `celeba_folder` is a folder in
  the layout of CelebA (see `face_folder`), whose prepared set goes to the
  folder of TFDS: the environment variable TFDS_DATA_DIR, else
  ~/tensorflow_datasets. `celeb_a` is TFDS's own CelebA, read where it is
  prepared, else downloaded, which takes TensorFlow.

  train, validation and test are the official partitions 0, 1 and 2. With
  `held_out`, the last examples of train are the split held_out instead; it
  does not touch the other splits.

  Args:
    name: one of `KNOWN_FACES`.
    split: one of `FACE_SPLITS`.
    data_dir: for `celeba_folder` the folder of the images and lists, or the
      archive of the images with the lists beside it; else the folder of
      prepared sets, which must exist, by default that of TFDS.
    image_size: S, a power of two from 8, not larger than the centre square of
      the sources.
    attributes: names of the attributes wanted, in the order wanted; all by
      default.
    in_memory: whether all images are decoded at once, and kept for the next
      time.
    skip_bad_images: whether images of `celeba_folder` that cannot be decoded
      are left out, with a line on stderr, instead of refused.
    held_out: how many examples train gives up.

  Returns:
    The split.

  Raises:
    InputError: if anything asked for is not usable, in one line that says
      which and what is accepted; nothing is left on disk then.
  """
  if name not in KNOWN_FACES:
    nearest = difflib.get_close_matches(name, KNOWN_FACES, n=1, cutoff=0.0)[0]
    raise errors.InputError(
        f'--dataset={name!r} is not a set of faces, did you mean {nearest}?'
        f' Accepted are {", ".join(KNOWN_FACES)}'
    )
  config.check_image_size(image_size)
  faces = face_sets.open_set(
      name,
      data_dir=data_dir,
      image_size=image_size,
      skip_bad_images=skip_bad_images,
  )
  stored_split = _check_split(split, held_out, faces.splits)
  columns = _find_columns(attributes, faces.attribute_names)
  builder = face_sets.open_prepared(faces)
  if in_memory:
    images, values = face_sets.read_all(faces, builder, stored_split)
    count, read = len(images), None
  else:
    images = None
    values = face_sets.read_attributes(faces, builder, stored_split)
    count, read = face_sets.make_read(faces, builder, stored_split)

  part = _select(split, held_out, count)
  names = tuple(faces.attribute_names[column] for column in columns)
  if read is not None and part.start:
    read = functools.partial(_read_from, read, part.start)
  values = np.ascontiguousarray(values[part][:, columns])
  values.flags.writeable = False
  if images is not None:
    images = images[part]
    images.flags.writeable = False
  source = face_sets.compute_source_digest(builder, stored_split)
  key = (
      f'{source} {stored_split} {image_size} {part.start} {part.stop}'
      f' {" ".join(names)}'
  )
  return FaceDataset(
      name=name,
      split=split,
      attribute_names=names,
      image_size=image_size,
      fingerprint=hashlib.sha256(key.encode()).hexdigest()[:16],
      attributes=values,
      images=images,
      read_images=read,
  )


def _check_split(split: str, held_out: int, existing: tuple[str, ...]) -> str:
  """Checks a split's name; returns the stored split that it is part of."""
  if held_out < 0:
    raise errors.InputError(f'--held_out={held_out}: accepted is 0 or more')
  accepted = existing
  if held_out and 'train' in existing:
    accepted = (*existing, 'held_out')
  if split not in accepted:
    hint = ' (held_out needs --held_out)' if split == 'held_out' else ''
    raise errors.InputError(
        f'there is no split {split!r}: this set has'
        f' {", ".join(accepted)}{hint}'
    )
  return 'train' if split == 'held_out' else split


def _find_columns(
    wanted: Sequence[str] | None, names: tuple[str, ...]
) -> list[int]:
  if wanted is None:
    return list(range(len(names)))
  if isinstance(wanted, str) or not wanted:
    raise errors.InputError(
        f'--attributes={wanted!r}: accepted are one or more of'
        f' {", ".join(names)}'
    )
  for name in wanted:
    if name not in names:
      nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
      raise errors.InputError(
          f'unknown attribute {name!r}, the nearest are {", ".join(nearest)}'
      )
    if list(wanted).count(name) > 1:
      raise errors.InputError(
          f'--attributes names {name} more than once: expected each once'
      )
  return [names.index(name) for name in wanted]


def _select(split: str, held_out: int, count: int) -> slice:
  """Gives the part of the stored split that a split is."""
  if split not in ('train', 'held_out') or not held_out:
    return slice(0, count)
  if held_out >= count:
    raise errors.InputError(
        f'--held_out={held_out} leaves nothing of {count} training examples:'
        f' accepted are 0 to {count - 1}'
    )
  start = count - held_out
  return slice(0, start) if split == 'train' else slice(start, count)


def _read_from(read: face_sets.ReadFn, start: int, indices: np.ndarray):
  return read(np.asarray(indices) + start)
