"""What experiments.edit edits, and with which model."""

from collections.abc import Callable
import functools
import os
import pathlib
import re
from typing import NamedTuple

import numpy as np

from experiments import command_line
from experiments import edited_runs
from experiments import samples
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.data import photos
from jacsup_jax.editor import editor
from jacsup_jax.editor import editor_files
from jacsup_jax.runs import workdir as workdirs

DEMO = pathlib.Path(__file__).with_name('demo') / 'faces.safetensors'
_SAMPLE = re.compile(r'sample:(.*)', re.DOTALL)
_LARGEST_INDEX = 10**9
# Of names in a folder: what else is in it is no photo.
_ENDINGS = (
    '.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif',
)  # pyformat: disable


class Source(NamedTuple):
  """A model, and where images for it come from."""

  own: editor.Editor
  open_samples: Callable[[], samples.Samples]  # raises InputError


class Input(NamedTuple):
  """An image to edit."""

  name: str
  path: pathlib.Path | None  # None of a sample
  load: Callable[[], np.ndarray]  # -> [H, W, C] uint8; raises InputError


def is_file(workdir: str) -> bool:
  """Whether --workdir names a file of --export."""
  return untrusted.exists(workdir) and not pathlib.Path(workdir).is_dir()


def open_source(
    workdir: str | None,
    *,
    stage: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Source:
  """Loads a model to edit with.

  Args:
    workdir: of a run of experiments.mnist, svhn or celeba; or a file of
      `editor_files.write`; None takes the demo model.
    stage: see `edited_runs.load`; of a run alone.
    data_dir: see `edited_runs.load`.

  Raises:
    InputError: if there is none, or it is damaged.
  """
  if workdir is not None and not untrusted.exists(workdir):
    raise errors.InputError(
        f'--workdir={workdir} is not there; accepted: the work directory of a'
        ' run, or a file of experiments.edit --export.'
    )
  if workdir is not None and not is_file(workdir):
    run = workdirs.WorkDir(workdir)
    own = edited_runs.load(run, stage=stage, data_dir=data_dir)
    return Source(
        own, functools.partial(samples.of_run, run, data_dir=data_dir)
    )
  check_no_stage(stage)
  own = editor_files.read(find_demo() if workdir is None else workdir)
  return Source(own, functools.partial(samples.of_package, own))


def check_no_stage(stage: str | None) -> None:
  """Raises InputError if a stage is given, where there is no run."""
  if stage is not None:
    raise errors.InputError(
        f'--stage={stage} without a run; accepted: with the work directory of a'
        ' run as --workdir.'
    )


def find_demo() -> pathlib.Path:
  """Returns the file of the demo model; raises InputError if there is none."""
  if not DEMO.exists():
    raise errors.InputError(
        '--workdir is not given, and this installation has no demo model;'
        ' accepted: the work directory of a run, or a file of --export.'
    )
  return DEMO


def list_inputs(
    text: str, source: Source, align: photos.AlignFn | None
) -> list[Input]:
  """Lists what --input names; nothing is read but a folder's names.

  Args:
    text: of a file, of a folder, or `sample:N`.
    source: of samples, and of the model that photos are made images for.
    align: see `photos.read`.

  Returns:
    One image, or those of the folder in the order of their names.

  Raises:
    InputError: if there is none.
  """
  sample = _SAMPLE.fullmatch(text)
  if sample:
    index = _parse_index(text, sample[1])
    load = functools.partial(_read_sample, source.open_samples, index)
    return [Input(text, None, load)]
  path = pathlib.Path(text)
  shape = source.own.image_shape
  if not is_folder(text):
    load = functools.partial(_load_photo, path, shape, align)
    return [Input(str(path), path, load)]
  try:
    found = sorted(
        own
        for own in path.iterdir()
        if own.suffix.lower() in _ENDINGS and not own.name.startswith('.')
    )
  except OSError as error:
    raise errors.InputError(
        f'--input={path} cannot be read ({error.strerror}); accepted: a folder'
        ' that can.'
    ) from error
  if not found:
    raise errors.InputError(
        f'--input={path} has no pictures; accepted: a folder with files of'
        f' {", ".join(_ENDINGS)}.'
    )
  return [
      Input(own.name, own, functools.partial(_load_photo, own, shape, align))
      for own in found
  ]


def is_folder(text: str | None) -> bool:
  """Whether --input is given, and names a folder."""
  # Of an empty name pathlib makes the current folder.
  if not text or _SAMPLE.fullmatch(text):
    return False
  return untrusted.exists(text) and pathlib.Path(text).is_dir()


def _parse_index(text, number):
  if not re.fullmatch(r'[0-9]{1,10}', number) or int(number) > _LARGEST_INDEX:
    raise errors.InputError(
        f'--input={text}; accepted: sample:N, N a whole number from 0.'
    )
  return int(number)


def _load_photo(path, image_shape, align):
  content = untrusted.read(path, photos.MOST_BYTES)
  found = photos.read(content, image_shape, str(path), align=align)
  if align is not None and not found.is_aligned:
    command_line.note(
        f'{path}: no face was found in it; its centre square is taken.'
    )
  return found.image


def _read_sample(open_samples, index):
  samples_here = open_samples()
  if index >= samples_here.count:
    raise errors.InputError(
        f'--input=sample:{index} of {samples_here.count} images; accepted:'
        f' sample:0 to sample:{samples_here.count - 1}.'
    )
  return samples_here.read([index])[0]
