"""Keep faces of one size in a folder, as arrays that are mapped into memory."""

from collections.abc import Callable
import contextlib
import hashlib
import json
import pathlib
import shutil
import tempfile

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.data import registry


def prepare(
  folder: pathlib.Path,
  source: registry.FaceSource,
  report: Callable[[str], None],
) -> None:
  """Writes the faces of all splits into a new folder, whole or not at all.

  Of several processes that prepare the same set, the first to finish wins.
  `report` receives the line that announces it, and names of images left out.
  """
  parent = folder.parent
  files.check_writable(f'--data_dir={parent}', parent)
  report(f'Preparing {folder}, once; it may take some minutes.')
  with files.writing(folder), contextlib.ExitStack() as stack:
    parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(dir=parent, prefix='.preparing-'))
    stack.callback(shutil.rmtree, staging, ignore_errors=True)
    made = staging / folder.name
    made.mkdir()
    notes = {
      split: _write(made, split, source.generate(split), report)
      for split in source.splits
    }
    files.write_whole(made / 'notes.json', json.dumps(notes))
    with contextlib.suppress(FileExistsError):
      made.rename(folder)


def read(
  folder: pathlib.Path, split: str, image_size: int
) -> tuple[np.ndarray, np.ndarray, str]:
  """Maps images `[M, S, S, 3]` uint8 into memory.

  Returns them, attributes `[M, K]` int8, and the sha256 of their sources.
  """
  images = folder / f'{split}_images'
  sha256 = files.read_json(folder / 'notes.json')[split]
  try:
    attributes = np.load(folder / f'{split}_attributes.npy', allow_pickle=False)
    shape = (len(attributes), image_size, image_size, 3)
    return np.memmap(images, np.uint8, 'r', shape=shape), attributes, sha256
  except OSError as error:
    raise files.unreadable(folder, error) from error
  except ValueError as error:
    raise errors.InputError(
      f'{folder} is damaged ({error}): delete that folder and run again.'
    ) from error


def _write(folder: pathlib.Path, split: str, faces, report) -> str:
  """Writes a split; returns the sha256 of the sources."""
  sha256, attributes, skipped = hashlib.sha256(), [], []
  # Not a memory map: a full disk would end the process.
  with open(folder / f'{split}_images', 'wb') as file:
    for face in faces:
      if face.image is None:
        skipped.append(face.name)
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
