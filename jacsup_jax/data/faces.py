"""Read sets of faces, prepared at one size as arrays mapped into memory."""

from collections.abc import Callable, Sequence
import hashlib
import json
import pathlib
import tempfile

import numpy as np
from PIL import Image

from jacsup_jax.core import errors
from jacsup_jax.data import celeba
from jacsup_jax.data import drawn_canvas
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import drawn_parts
from jacsup_jax.data import files
from jacsup_jax.data import images as image_files
from jacsup_jax.data import prepared
from jacsup_jax.data import registry


def load(
  name: str,
  split: str,
  data_dir: files.Path | None,
  image_size: int,
  attributes: Sequence[str] | None,
  in_memory: bool,
  skipped: tuple[bool, bool],  # bad and missing images
  held_out: int,
  report: Callable[[str], None],
) -> registry.Dataset:
  """Loads one split of a set of faces; see `registry.load`, for errors too."""
  errors.check_image_size(image_size)
  if name == 'celeba_folder':
    source = celeba.find_source(data_dir, image_size, *skipped)
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
  known = source.attribute_names
  names = known if attributes is None else tuple(attributes)
  if not names or len(set(names) & set(known)) < len(names):
    raise errors.InputError(
      f'--attributes={",".join(names)}; accepted: one or more of'
      f' {", ".join(known)}, each once.'
    )
  folder = source.root / name / f'{source.key}-{image_size}px'
  if not files.exists(folder):
    _prepare(folder, source, report)
  mapped, values, digest = _read(folder, stored_split, image_size)
  start = len(values) - (held_out if stored_split == 'train' else 0)
  if start < 1:
    raise errors.InputError(
      f'--held_out={held_out} of {len(values)} examples; accepted: fewer.'
    )
  part = slice(0, start) if split == stored_split else slice(start, len(values))
  columns = [known.index(name) for name in names]
  mapped, values = mapped[part], np.array(values[part][:, columns], order='C')
  values.flags.writeable = False
  images = None
  if in_memory:
    images = np.array(mapped)
    images.flags.writeable = False
  if name == 'celeb_a':
    digest = source.key  # It is known by the files of TFDS.
  key = (digest, stored_split, image_size, part.start, part.stop, *names)
  key = hashlib.sha256(' '.join(map(str, key)).encode()).hexdigest()[:16]
  is_drawn = name == registry.DEFAULT_FACES
  return registry.Dataset(
    *(name, split, images, values, key, names),
    image_shape=(image_size, image_size, 3),
    exclusive=(drawn_faces if is_drawn else celeba).EXCLUSIVE,
    read_images=lambda rows: np.array(mapped[rows]),
  )


def _find_celeb_a(data_dir, image_size, report) -> registry.FaceSource:
  name, root = 'celeb_a', prepared.find_root(data_dir)
  builder = prepared.find_builder(name, root)
  features = builder.info.features
  image_files.check_fits(image_size, *features['image'].shape[:2], name)
  if not builder.is_prepared():
    hint = '; or --dataset=celeba_folder with a --data_dir of CelebA'
    builder = prepared.prepare(name, root, report, hint)

  def generate(split):
    count, take = prepared.open_split(name, builder, split)
    for row in range(count):
      (example,) = take([row])
      image = image_files.resize(Image.fromarray(example['image']), image_size)
      values = list(example['attributes'].values())
      yield registry.Face(image, np.where(values, 1, -1).astype(np.int8))

  root, key = prepared.find_root(None), prepared.compute_key(builder.data_dir)
  names = tuple(features['attributes'].keys())
  return registry.FaceSource(root, key, names, celeba.SPLITS, generate)


def _find_drawn(data_dir, image_size) -> registry.FaceSource:
  largest = drawn_faces.LARGEST_SIZE
  image_files.check_fits(image_size, largest, largest, registry.DEFAULT_FACES)
  drawn_size = max(image_size, drawn_faces.IMAGE_SIZE)
  # Other code draws another set.
  code = hashlib.sha256()
  for module in (drawn_canvas, drawn_parts, drawn_faces):
    code.update(pathlib.Path(module.__file__).read_bytes())

  def generate(split):
    # No threads: these are many small operations under Python's lock.
    for index in range(drawn_faces.SPLIT_SIZES[split]):
      image, attributes = drawn_faces.draw(index, split, drawn_size)
      source = attributes.tobytes() + hashlib.sha256(image.tobytes()).digest()
      image = image_files.resize(Image.fromarray(image), image_size)
      yield registry.Face(image, attributes, source)

  root, key = prepared.find_root(data_dir), code.hexdigest()[:12]
  splits = tuple(drawn_faces.SPLIT_SIZES)
  return registry.FaceSource(
    root, key, drawn_faces.ATTRIBUTES, splits, generate
  )


def _prepare(folder, source, report) -> None:
  """Writes the faces of all splits into a new folder, whole or not at all."""
  parent = folder.parent
  files.check_writable(f'--data_dir={parent}', parent)
  for note in source.notes:
    report(note)
  report(f'Preparing {folder}, once; it may take some minutes.')
  with files.writing(folder):
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
      dir=parent, prefix='.preparing-', ignore_cleanup_errors=True
    ) as staging:
      made = pathlib.Path(staging) / folder.name
      made.mkdir()
      notes = {}
      for split in source.splits:
        notes[split] = _write(made, split, source.generate(split), report)
      files.write_whole(made / 'notes.json', json.dumps(notes))
      try:
        made.rename(folder)
      except OSError:
        if not folder.exists():  # Another process may have been first.
          raise


def _write(folder, split, faces, report) -> str:
  """Writes a split; returns the sha256 of the sources."""
  sha256, attributes, skipped = hashlib.sha256(), [], []
  # Not a memory map: a full disk would end the process.
  with open(folder / f'{split}_images', 'wb') as file:
    for face in faces:
      if isinstance(face, str):
        skipped.append(face)
        continue
      file.write(face.image.tobytes())
      attributes.append(face.attributes)
      sha256.update(face.source)
  if skipped:
    report(f'Left out {len(skipped)} images: {files.some(skipped)}.')
  if not attributes:
    raise errors.InputError(
      f'no image of the split {split!r} can be decoded; accepted: at least one.'
    )
  np.save(folder / f'{split}_attributes.npy', np.stack(attributes))
  return sha256.hexdigest()


def _read(folder, split, image_size) -> tuple[np.ndarray, np.ndarray, str]:
  """Maps the images; also returns attributes and the sha256 of the sources."""
  sha256 = files.read_json(folder / 'notes.json')[split]
  try:
    attributes = np.load(folder / f'{split}_attributes.npy', allow_pickle=False)
    shape = (len(attributes), image_size, image_size, 3)
    images = np.memmap(folder / f'{split}_images', np.uint8, 'r', shape=shape)
  except (OSError, ValueError) as error:
    raise errors.InputError(
      f'{folder} is damaged or not readable ({error}): make it readable, or'
      ' delete that folder and run again.'
    ) from error
  return images, attributes, sha256
