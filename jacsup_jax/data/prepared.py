"""Prepare TFDS sets, which takes TensorFlow, and read them without it."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import difflib
import errno
import hashlib
import importlib
import logging as python_logging
import os
import pathlib
import re
from typing import Any

from absl import logging
import tensorflow_datasets as tfds

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.data import registry

# TFDS warns of each set that is not prepared yet.
logging.get_absl_logger().addFilter(
  lambda record: (
    'tensorflow_datasets' not in record.pathname
    or record.levelno >= python_logging.ERROR
  )
)


def find_root(data_dir: files.Path | None) -> pathlib.Path:
  """Finds the folder of prepared sets: `data_dir`, else that of TFDS.

  InputError if `data_dir` is not a folder, or either is not a path.
  """
  if data_dir is None:
    default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    return files.expand_path('TFDS_DATA_DIR', default).absolute()
  root = files.expand_path('--data_dir', data_dir).absolute()
  if not os.path.isdir(root):
    raise errors.InputError(
      f'--data_dir={data_dir} is no folder; accepted: one that exists.'
    )
  return root


def find_builder(name: str, root: pathlib.Path) -> tfds.core.DatasetBuilder:
  """Makes the builder of a TFDS set, prepared or not.

  InputError if TFDS has no such set, or its files are damaged.
  """
  # A name with a colon would make TFDS look on the network.
  if re.fullmatch(r'[A-Za-z]\w*(/[\w.\-]+)?', name):
    try:
      return tfds.builder(name, data_dir=os.fspath(root))
    except tfds.core.DatasetNotFoundError:
      pass
    except Exception as error:  # Hundreds of builders fail in many ways.
      raise errors.InputError(
        f'--dataset={name} cannot be made by TFDS, or is damaged in {root}:'
        f' {_describe(error)}'
      ) from error
  known = (*registry.KNOWN_DATASETS, registry.ARRAYS)
  names = [*known, *tfds.list_builders(with_community_datasets=False)]
  nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
  raise errors.InputError(
    f'--dataset={name!r} is unknown, did you mean {nearest}? Accepted:'
    f' {", ".join(known)}, and TFDS sets of images with a class label.'
  )


def prepare(
  name: str, root: pathlib.Path, report: Callable[[str], None], hint: str = ''
) -> tfds.core.DatasetBuilder:
  """Downloads and prepares a TFDS set; `hint` says what else one could do.

  InputError, with the hint, if that fails.
  """
  try:
    importlib.import_module('tensorflow')  # Fails before the download.
    report(f'Preparing {name} in {root}, once; it may take some minutes.')
    builder = find_builder(name, root)
    builder.download_and_prepare(file_format='array_record')
  except Exception as error:  # Downloading and writing fail in many ways.
    # Another process may have been first.
    if not find_builder(name, root).is_prepared():
      raise errors.InputError(
        f'{name} cannot be prepared in --data_dir={root}: {_describe(error)};'
        ' accepted: a folder that holds it, or one to write to with network'
        f' and TensorFlow (pip install tensorflow-cpu){hint}.'
      ) from error
  return find_builder(name, root)


@contextlib.contextmanager
def reading(name: str, directory: files.Path) -> Iterator[None]:
  """Turns what reading a set raises into one line; only damage is deleted."""
  try:
    yield
  except (errors.InputError, errors.RunError, ImportError):
    raise
  except MemoryError as error:
    raise errors.RunError(
      f'{name} takes more memory than there is ({error}): end other programs.'
    ) from error
  except Exception as error:
    # Damaged records show as errors of libraries, which share no class.
    paths = [pathlib.Path(directory), *pathlib.Path(directory).rglob('*')]
    reason = f'is damaged ({_describe(error)}): delete that folder'
    if isinstance(error, NotImplementedError):
      reason = 'is not in the format array_record: name another folder'
    elif not all(os.access(path, os.R_OK) for path in paths):
      reason = 'cannot be read (Permission denied): make it readable'
    elif getattr(error, 'errno', None) not in (None, errno.ENOENT):
      reason = f'cannot be read ({error.strerror}): try again'
    raise errors.InputError(
      f'{name} in {directory} {reason} and run again.'
    ) from error


def open_split(
  name: str, builder: tfds.core.DatasetBuilder, split: str
) -> tuple[int, Callable[[Sequence[int]], list[Any]]]:
  """Counts a split's examples; makes a function from positions to examples.

  InputError if there is no such split. Counting and reading raise InputError if
  the set is damaged, and RunError if there is too little memory.
  """
  if split not in builder.info.splits:
    accepted = ', '.join(builder.info.splits)
    raise errors.InputError(
      f'{name} has no split {split!r}; accepted: {accepted}.'
    )
  with reading(name, builder.data_dir):
    source = builder.as_data_source(split)
    count = len(source)

  def take(rows):
    with reading(name, builder.data_dir):
      return source.__getitems__(list(rows))  # Faster than one by one.

  return count, take


def compute_key(directory: files.Path) -> str:
  """Computes the sha256 of a prepared set's metadata and sizes of records."""
  sha256 = hashlib.sha256()
  for path in sorted(pathlib.Path(directory).iterdir()):
    if path.suffix == '.json' and path.is_file():
      sha256.update(f'{path.name};'.encode() + path.read_bytes())
    elif '.array_record' in path.name:
      sha256.update(f'{path.name} {path.stat().st_size};'.encode())
  return sha256.hexdigest()


def _describe(error: Exception) -> str:
  return f'{type(error).__name__}: {errors.one_line(str(error))[:300]}'
