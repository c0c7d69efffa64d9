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
from jacsup_jax.data import drawn_canvas
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import drawn_parts
from jacsup_jax.data import face_store
from jacsup_jax.data import files
from jacsup_jax.data import images as image_files
from jacsup_jax.data import prepared
from jacsup_jax.data import registry


def load(
  name: str,
  split: str,
  *,
  data_dir: files.Path | None,
  image_size: int,
  attributes: Sequence[str] | None,
  in_memory: bool,
  skip_bad_images: bool,
  held_out: int,
  report: Callable[[str], None],
) -> registry.Dataset:
  """Loads one split of a set of faces; see `registry.load`."""
  config_lib.check_image_size(image_size)
  source = _find_source(name, data_dir, image_size, skip_bad_images, report)
  stored_split = 'train' if split == 'held_out' and held_out else split
  if stored_split not in source.splits or held_out < 0:
    raise errors.InputError(
      f'there is no split {split!r} with --held_out={held_out}; accepted:'
      f' {", ".join(source.splits)}, and held_out with --held_out above 0.'
    )
  known = source.attribute_names
  names = known if attributes is None else tuple(attributes)
  if not names or len(set(names) & set(known)) < len(names):
    raise errors.InputError(
      f'--attributes={",".join(names)}; accepted: one or more of'
      f' {", ".join(known)}, each once.'
    )
  folder = source.root / name / f'{source.key}-{image_size}px'
  if not files.exists(folder):
    face_store.prepare(folder, source, report)
  mapped, values, digest = face_store.read(folder, stored_split, image_size)
  start = len(values) - (held_out if stored_split == 'train' else 0)
  if start < 1:
    raise errors.InputError(
      f'--held_out={held_out} of {len(values)} examples; accepted: fewer.'
    )
  is_held_out = split != stored_split
  part = slice(start, len(values)) if is_held_out else slice(0, start)
  columns = [known.index(name) for name in names]
  mapped, values = mapped[part], np.array(values[part][:, columns], order='C')
  images = np.array(mapped) if in_memory else None
  for array in (values, *([images] if in_memory else [])):
    array.flags.writeable = False
  if name == 'celeb_a':
    digest = source.key  # It is known by the files of TFDS.
  key = (digest, stored_split, image_size, part.start, part.stop, *names)
  key = ' '.join(map(str, key))
  return registry.Dataset(
    name=name,
    split=split,
    images=images,
    labels=values,
    fingerprint=hashlib.sha256(key.encode()).hexdigest()[:16],
    attribute_names=names,
    image_shape=(image_size, image_size, 3),
    read_images=lambda rows: np.array(mapped[rows]),
  )


def _find_source(name, data_dir, image_size, skip_bad_images, report):
  if name == 'celeba_folder':
    root = prepared.find_root(None)
    return celeba.find_source(data_dir, root, image_size, skip_bad_images)
  if name == 'celeb_a':
    return _find_celeb_a(data_dir, image_size, report)
  return _find_drawn(data_dir, image_size)


def _find_celeb_a(data_dir, image_size, report) -> registry.FaceSource:
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
      yield registry.Face(image, np.where(values, 1, -1).astype(np.int8))

  return registry.FaceSource(
    prepared.find_root(None),
    prepared.compute_key(builder.data_dir),
    tuple(features['attributes'].keys()),
    celeba.SPLITS,
    generate,
  )


def _find_drawn(data_dir, image_size) -> registry.FaceSource:
  side = drawn_faces.IMAGE_SIZE
  image_files.check_fits(image_size, side, side, registry.DEFAULT_FACES)
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
      yield registry.Face(image, attributes, source)

  return registry.FaceSource(
    prepared.find_root(data_dir),
    code.hexdigest()[:12],
    drawn_faces.ATTRIBUTES,
    tuple(drawn_faces.SPLIT_SIZES),
    generate,
  )
