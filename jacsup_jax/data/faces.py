"""Read sets of faces with attributes, preparing them when needed.

A prepared set holds the faces at one size, except TFDS's own `celeb_a`, which
holds the original pictures, made square when they are read.
"""

from collections.abc import Callable, Sequence
from concurrent import futures
import dataclasses
import difflib
import functools
import hashlib
import os
import pathlib

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.data import celeba
from jacsup_jax.data import dataset
from jacsup_jax.data import decoded
from jacsup_jax.data import drawn_canvas
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import drawn_parts
from jacsup_jax.data import face_builder
from jacsup_jax.data import images as image_files
from jacsup_jax.data import prepared

_CELEB_A = 'celeb_a'
_IMAGE_SIZE = 64  # by default, as in the paper
_READ_SIZE = 500  # examples decoded at a time
# For the line that announces how long preparing takes, on one core.
_SECONDS_A_DRAWING = 4e-3
_SECONDS_AN_IMAGE = 1e-3
_SECONDS_A_PIXEL = 1e-7


class SyntheticFaces(face_builder.FaceBuilder):
  """Drawn faces with the attributes that they show."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Source:
  """A set at one image size, prepared or not."""

  name: str
  image_size: int
  root: pathlib.Path  # the folder of prepared sets
  make: prepared.MakeFn
  attribute_names: tuple[str, ...]
  splits: tuple[str, ...]
  seconds: float | None = None  # that preparing takes


def load(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike | None,
    image_size: int | None,
    attributes: Sequence[str] | None,
    in_memory: bool,
    skip_bad_images: bool,
    held_out: int,
    report: prepared.ReportFn,
) -> dataset.Dataset:
  """Loads one split of a set of faces; see `registry.load`."""
  image_size = _IMAGE_SIZE if image_size is None else image_size
  config_lib.check_image_size(image_size)
  source = _find_source(name, data_dir, image_size, skip_bad_images)
  stored_split = _check_split(split, held_out, source.splits)
  columns = _find_columns(attributes, source.attribute_names)
  builder = source.make(source.root)
  if not builder.is_prepared():
    prepared.prepare(
        name,
        source.make,
        source.root,
        explicit=data_dir is not None and name != 'celeba_folder',
        report=report,
        duration=_show_seconds(source.seconds),
    )
    builder = source.make(source.root)
  if name == 'celeba_folder':
    _check_skipped(builder, source.splits, skip_bad_images, report)

  images, values, read = _read_split(source, builder, stored_split, in_memory)
  part = _select(split, held_out, len(values))
  values = np.ascontiguousarray(values[part][:, columns])
  values.flags.writeable = False
  if images is not None:
    images = images[part]
    images.flags.writeable = False
  names = tuple(source.attribute_names[column] for column in columns)
  key = (
      f'{_compute_digest(builder, stored_split)} {stored_split} {image_size}'
      f' {part.start} {part.stop} {" ".join(names)}'
  )
  return dataset.Dataset(
      name=name,
      split=split,
      images=images,
      labels=values,
      fingerprint=hashlib.sha256(key.encode()).hexdigest()[:16],
      attribute_names=names,
      image_shape=(image_size, image_size, 3),
      read_images=read and (lambda rows: read(rows + part.start)[0]),
  )


def _find_source(name, data_dir, image_size, skip_bad_images) -> _Source:
  """Finds a set and checks its sources; nothing is prepared yet."""
  if name == 'celeba_folder':
    if data_dir is None:
      raise errors.InputError(
          f'--dataset={name} needs --data_dir: the folder with'
          f' {celeba.ATTRIBUTE_FILE}, {celeba.PARTITION_FILE} and the images,'
          f' {celeba.IMAGES} or {celeba.IMAGES}.zip'
      )
    folder = celeba.open_folder(data_dir)
    config = celeba.make_config(
        folder, image_size, skip_bad_images=skip_bad_images
    )
    # Images are read by a thread per core; faces are drawn by one.
    seconds = _SECONDS_AN_IMAGE + _SECONDS_A_PIXEL * image_size**2
    seconds *= len(folder.names) / (os.cpu_count() or 1)
    root = prepared.find_root(None)
    make = functools.partial(_make_own, celeba.CelebaFolder, config)
    splits = folder.splits
  elif name == _CELEB_A:
    root = prepared.find_root(data_dir)
    make = _make_celeb_a
    features = make(root).info.features
    image_files.check_fits(image_size, *features['image'].shape[:2], name)
    names = tuple(features['attributes'].keys())
    return _Source(name, image_size, root, make, names, celeba.SPLITS)
  else:
    side = drawn_faces.IMAGE_SIZE
    image_files.check_fits(image_size, side, side, name)
    config = _make_drawn_config(image_size)
    root = prepared.find_root(data_dir)
    make = functools.partial(_make_own, SyntheticFaces, config)
    splits = tuple(drawn_faces.SPLIT_SIZES)
    seconds = sum(drawn_faces.SPLIT_SIZES.values()) * _SECONDS_A_DRAWING
  return _Source(
      name, image_size, root, make, config.attribute_names, splits, seconds
  )


def _make_own(builder_class, config, root) -> tfds.core.DatasetBuilder:
  with prepared.reading(builder_class.name, root / builder_class.name):
    return builder_class(config=config, data_dir=os.fspath(root))


def _make_drawn_config(image_size: int) -> face_builder.Config:
  """Makes a configuration whose name changes with the code that draws."""
  code = hashlib.sha256()
  for module in (drawn_canvas, drawn_parts, drawn_faces):
    code.update(pathlib.Path(module.__file__).read_bytes())
  return face_builder.Config(
      name=f'{image_size}px-{code.hexdigest()[:12]}',
      description=f'Faces of {image_size} pixels.',
      image_size=image_size,
      attribute_names=drawn_faces.ATTRIBUTES,
      generators={
          split: functools.partial(_draw_examples, split, image_size)
          for split in drawn_faces.SPLIT_SIZES
      },
  )


def _draw_examples(split: str, image_size: int):
  # No threads: many small operations under Python's lock, which two threads
  # took twice as long for as one.
  for index in range(drawn_faces.SPLIT_SIZES[split]):
    image, attributes = drawn_faces.draw(index, split)
    source = attributes.tobytes() + hashlib.sha256(image.tobytes()).digest()
    if image_size != drawn_faces.IMAGE_SIZE:
      image = image_files.resize(Image.fromarray(image), image_size)
    png = image_files.encode_png(image)
    yield index, face_builder.Example(png, attributes, source)


def _make_celeb_a(root) -> tfds.core.DatasetBuilder:
  builder = prepared.find_builder(_CELEB_A, root)
  prepared.check_before_download(builder)
  return builder


def _read_split(
    source: _Source, builder, split: str, in_memory: bool
) -> tuple[np.ndarray | None, np.ndarray, Callable | None]:
  """Reads images (if in memory) and attributes; else makes a read function."""
  size, width = source.image_size, len(source.attribute_names)
  count, take = prepared.open_split(source.name, builder, split)

  def read(rows):
    images = np.empty((len(rows), size, size, 3), np.uint8)
    attributes = np.empty((len(rows), width), np.int8)
    for position, example in enumerate(take(rows)):
      image = example['image']
      if source.name == _CELEB_A:
        image = image_files.resize(Image.fromarray(image), size)
      images[position] = image
      attributes[position] = _convert_attributes(example)
    return images, attributes

  def read_all():
    with futures.ThreadPoolExecutor() as pool:
      starts = range(0, count, _READ_SIZE)
      parts = pool.map(
          lambda start: read(range(start, min(start + _READ_SIZE, count))),
          starts,
      )
      images = np.empty((count, size, size, 3), np.uint8)
      attributes = np.empty((count, width), np.int8)
      for start, part in zip(starts, parts):
        stop = start + len(part[0])
        images[start:stop], attributes[start:stop] = part
    return images, attributes

  def read_attributes():
    # A mocked source can only decode.
    decoders = {'image': tfds.decode.SkipDecoding()}
    _, take_bytes = prepared.open_split(
        source.name, builder, split,
        decoders=decoders if builder.is_prepared() else None,
    )  # pyformat: disable
    rows = [_convert_attributes(e) for e in take_bytes(range(count))]
    return (np.array(rows, np.int8).reshape(-1, width),)

  with prepared.reading(source.name, builder.data_dir):
    if in_memory:
      label, names = f'{split}_{size}px', ('images', 'attributes')
      arrays = decoded.load_or_make(builder, label, read_all, names)
      return *arrays, None
    label, names = f'{split}_attributes', ('attributes',)
    arrays = decoded.load_or_make(builder, label, read_attributes, names)
    return None, *arrays, read


def _convert_attributes(example) -> np.ndarray:
  attributes = example['attributes']
  if isinstance(attributes, dict):  # of bools, in TFDS's own set
    return np.where(list(attributes.values()), 1, -1).astype(np.int8)
  return attributes


def _compute_digest(builder, split: str) -> str:
  """Computes a digest of what a split of a prepared set was made from."""
  if builder.name != _CELEB_A:
    return face_builder.read_notes(builder, split)[0]
  if not builder.is_prepared():
    return 'mocked'
  return decoded.compute_key(builder.data_dir)


def _check_skipped(builder, splits, skip_bad_images, report):
  names = [
      name
      for split in splits
      for name in face_builder.read_notes(builder, split)[1]
  ]
  if not names:
    return
  message = (
      f'{len(names)} images cannot be decoded: {celeba.first_names(names)}'
  )
  if not skip_bad_images:
    raise errors.InputError(
        f'{message}: replace them, or leave them out with --skip_bad_images'
    )
  report(f'Left out: {message}.')


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
  """Finds the part of the stored split that a split is."""
  if split not in ('train', 'held_out') or not held_out:
    return slice(0, count)
  if held_out >= count:
    raise errors.InputError(
        f'--held_out={held_out} leaves nothing of {count} training examples:'
        f' accepted are 0 to {count - 1}'
    )
  start = count - held_out
  return slice(0, start) if split == 'train' else slice(start, count)


def _show_seconds(seconds: float | None) -> str:
  if seconds is None:
    return ''
  if seconds < 60:
    return f'{max(round(seconds), 1)} seconds'
  minutes = round(seconds / 60)
  return f'{minutes} minute{"s" if minutes > 1 else ""}'
