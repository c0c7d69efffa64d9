"""Read what --input names: a photo, a folder of photos, or a sample."""

from collections.abc import Callable
import functools
import logging
import os
import pathlib
import re
from typing import NamedTuple

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.editor import editor
from jacsup_jax.editor import photos

_log = logging.getLogger(__name__)
# Other files in a folder are not photos.
_ENDINGS = (
    '.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif',
)  # fmt: skip


class Input(NamedTuple):
  """An image to edit."""

  name: str
  load: Callable[[], np.ndarray]  # -> [H, W, C] uint8; raises InputError


def is_folder(text: str | None) -> bool:
  """Checks whether --input names a folder."""
  # pathlib turns an empty name into the current folder.
  return bool(text) and files.exists(text) and pathlib.Path(text).is_dir()


def list_inputs(
  text: str,
  choice: editor.Choice,
  own: editor.Editor,
  align: photos.AlignFn | None,
) -> list[Input]:
  """Lists the images that --input names: one, or those of a folder by name.

  None is read yet. Raises InputError if there is none.
  """
  if text.startswith('sample:'):
    return [Input(text, lambda: _read_sample(text, choice.open_samples(own)))]
  path = pathlib.Path(text)
  if not is_folder(text):
    return [Input(text, lambda: _read_photo(path, own, align))]
  try:
    names = sorted(os.listdir(path))
  except OSError as error:
    raise files.unreadable(path, error) from error
  found = [
    Input(name, functools.partial(_read_photo, path / name, own, align))
    for name in names
    if name.lower().endswith(_ENDINGS) and not name.startswith('.')
  ]
  if not found:
    raise errors.InputError(
      f'--input={path} has no pictures; accepted: a folder with files of'
      f' {", ".join(_ENDINGS)}.'
    )
  return found


def _read_photo(path, own, align):
  content = files.read_bytes(path)
  found = photos.read(content, own.image_shape, str(path), align=align)
  if align is not None and not found.is_aligned:
    _log.warning('%s: no face found; its centre square is taken.', path)
  return found.image


def _read_sample(text, samples):
  number = text.removeprefix('sample:')
  if not re.fullmatch('[0-9]{1,9}', number) or int(number) >= samples.count:
    raise errors.InputError(
      f'--input={text[:80]}; accepted: sample:0 to sample:{samples.count - 1}.'
    )
  return samples.read([int(number)])[0]
