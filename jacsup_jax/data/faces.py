"""Read sets of faces with attributes, preparing them at one size when needed.

Every set is kept at that size by `face_store`, in the folder of prepared sets.
"""

from collections.abc import Callable, Sequence
import hashlib
import pathlib

import numpy as np
from PIL import Image

from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.data import celeba
from jacsup_jax.data import dataset
from jacsup_jax.data import drawn_canvas
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import drawn_parts
from jacsup_jax.data import face_store
from jacsup_jax.data import files
from jacsup_jax.data import images as image_files
from jacsup_jax.data import prepared

_IMAGE_SIZE = 64  # by default, as in the paper


def load(
  name: str,
  split: str,
  *,
  data_dir: files.Path | None,
  image_size: int | None,
  attributes: Sequence[str] | None,
  in_memory: bool,
  skip_bad_images: bool,
  held_out: int,
  report: Callable[[str], None],
) -> dataset.Dataset:
  """Loads one split of a set of faces; see `registry.load`."""
  image_size = _IMAGE_SIZE if image_size is None else image_size
  config_lib.check_image_size(image_size)
  if name == 'celeba_folder':
    source = celeba.find_source(
      data_dir, prepared.find_root(None), image_size, skip_bad_images
    )
  elif name == 'celeb_a':
    source = _find_celeb_a(data_dir, image_size, report)
  else:
    source = _find_drawn(data_dir, image_size)
  stored_split = 'train' if split == 'held_out' and held_out else split
  if stored_split not in source.splits or held_out < 0:
    raise errors.InputError(
      f'there is no split {split!r} with --held_out={held_out}; accepted:'
      f' {", ".join(source.splits)}, and held_out with --held_out above 0.'
    )
  columns = _find_columns(attributes, source.attribute_names)
  folder = source.root / name / f'{source.key[:12]}-{image_size}px'
  if not files.exists(folder):
    face_store.prepare(folder, source, report)
  notes = face_store.read_notes(folder)
  skipped = [file for note in notes.values() for file in note['skipped']]
  if skipped:
    bad = f'{len(skipped)} images cannot be decoded: {files.some(skipped)}'
    if not skip_bad_images:
      raise errors.InputError(
        f'{bad}; accepted: none, or --skip_bad_images, which leaves them out.'
      )
    report(f'Left out: {bad}.')

  images, values = face_store.read(folder, stored_split, image_size)
  part = _select(split, held_out, len(values))
  values = np.ascontiguousarray(values[part][:, columns])
  values.flags.writeable = False
  mapped, images = images[part], None
  if in_memory:
    images = np.array(mapped)
    images.flags.writeable = False
  names = tuple(source.attribute_names[column] for column in columns)
  # What was prepared from TFDS's own set is known by the files of that.
  is_celeb_a = name == 'celeb_a'
  digest = source.key if is_celeb_a else notes[stored_split]['sources_sha256']
  key = (
    f'{digest} {stored_split} {image_size} {part.start} {part.stop}'
    f' {" ".join(names)}'
  )
  return dataset.Dataset(
    name=name,
    split=split,
    images=images,
    labels=values,
    fingerprint=hashlib.sha256(key.encode()).hexdigest()[:16],
    attribute_names=names,
    image_shape=(image_size, image_size, 3),
    read_images=lambda rows: np.array(mapped[rows]),
  )


def _find_celeb_a(data_dir, image_size, report) -> face_store.Source:
  name, root = 'celeb_a', prepared.find_root(data_dir)
  builder = prepared.find_builder(name, root)
  features = builder.info.features
  image_files.check_fits(image_size, *features['image'].shape[:2], name)
  if not builder.is_prepared():
    builder = prepared.prepare(name, root, report)

  def generate(split):
    count, take = prepared.open_split(name, builder, split)
    for row in range(count):
      (example,) = take([row])
      image = image_files.resize(Image.fromarray(example['image']), image_size)
      values = list(example['attributes'].values())
      yield face_store.Example(image, np.where(values, 1, -1).astype(np.int8))

  return face_store.Source(
    prepared.find_root(None),
    prepared.compute_key(builder.data_dir),
    tuple(features['attributes'].keys()),
    celeba.SPLITS,
    generate,
  )


def _find_drawn(data_dir, image_size) -> face_store.Source:
  side = drawn_faces.IMAGE_SIZE
  image_files.check_fits(image_size, side, side, dataset.DEFAULT_FACES)
  # Other code draws another set.
  code = hashlib.sha256()
  for module in (drawn_canvas, drawn_parts, drawn_faces):
    code.update(pathlib.Path(module.__file__).read_bytes())

  def generate(split):
    # No threads: many small operations under Python's lock, which two threads
    # took twice as long for as one.
    for index in range(drawn_faces.SPLIT_SIZES[split]):
      image, attributes = drawn_faces.draw(index, split)
      source = attributes.tobytes() + hashlib.sha256(image.tobytes()).digest()
      image = image_files.resize(Image.fromarray(image), image_size)
      yield face_store.Example(image, attributes, source)

  return face_store.Source(
    prepared.find_root(data_dir),
    code.hexdigest(),
    drawn_faces.ATTRIBUTES,
    tuple(drawn_faces.SPLIT_SIZES),
    generate,
  )


def _find_columns(
  wanted: Sequence[str] | None, names: tuple[str, ...]
) -> list[int]:
  wanted = names if wanted is None else wanted
  if not wanted or len(set(wanted) & set(names)) < len(wanted):
    raise errors.InputError(
      f'--attributes={",".join(wanted)}; accepted: one or more of'
      f' {", ".join(names)}, each once.'
    )
  return [names.index(name) for name in wanted]


def _select(split: str, held_out: int, count: int) -> slice:
  """Finds the part of the stored split that a split is."""
  if split not in ('train', 'held_out') or not held_out:
    return slice(0, count)
  if held_out >= count:
    raise errors.InputError(
      f'--held_out={held_out} of {count} training examples; accepted: 0 to'
      f' {count - 1}.'
    )
  start = count - held_out
  return slice(0, start) if split == 'train' else slice(start, count)
