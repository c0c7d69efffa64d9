"""Prepare TFDS sets and read their records, without TensorFlow.

A set is prepared once, as array_record files, which TFDS reads without
TensorFlow. `decoded` keeps its decoded arrays beside them.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import difflib
import errno
import functools
import importlib
import logging as python_logging
import os
import pathlib
import re
import shutil
import tempfile
from typing import Any

from absl import logging
import tensorflow_datasets as tfds

from jacsup_jax.core import errors
from jacsup_jax.data import dataset
from jacsup_jax.data import files

MakeFn = Callable[[pathlib.Path], tfds.core.DatasetBuilder]
ReportFn = Callable[[str], None]

_CONNECTION_SECONDS = 10


def _is_worth_showing(record: python_logging.LogRecord) -> bool:
  from_tfds = 'tensorflow_datasets' in record.pathname
  return not from_tfds or record.levelno >= python_logging.ERROR


# TFDS warns of each set that is not prepared yet.
logging.get_absl_logger().addFilter(_is_worth_showing)


def find_builder(name: str, root: pathlib.Path) -> tfds.core.DatasetBuilder:
  """Makes the builder of a TFDS set, prepared or not.

  Args:
    name: its TFDS name, with or without a configuration.
    root: the folder of prepared sets; it may be missing.
  """
  # A name with a colon would make TFDS look on the network.
  if re.fullmatch(r'[A-Za-z]\w*(/[\w.\-]+)?', name):
    try:
      return tfds.builder(name, data_dir=os.fspath(root))
    except tfds.core.DatasetNotFoundError:
      pass
    except Exception as error:  # Hundreds of builders fail in many ways.
      directory = root / name.partition('/')[0]
      if files.exists(directory):
        with reading(name, directory):
          raise
      raise errors.InputError(
          f'--dataset={name} cannot be made by TFDS: {_describe(error)}'
      ) from error
  known = (*dataset.KNOWN_DATASETS, dataset.ARRAYS)
  names = [*known, *tfds.list_builders(with_community_datasets=False)]
  nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
  raise errors.InputError(
      f'--dataset={name!r} is unknown, did you mean {nearest}? Accepted are'
      f' {", ".join(known)}, and TFDS sets of images with a class label'
  )


def find_root(data_dir: str | os.PathLike | None) -> pathlib.Path:
  """Finds the folder of prepared sets.

  Args:
    data_dir: an existing folder, or None for that of TFDS, which may be
      missing.
  """
  if data_dir is None:
    default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    return files.expand_path('TFDS_DATA_DIR', default)
  root = files.expand_path('--data_dir', data_dir)
  if not files.exists(root) or not root.is_dir():
    raise errors.InputError(
        f'--data_dir={data_dir} is not an existing folder: make it, or leave'
        ' the flag out'
    )
  return root


def prepare(
    name: str,
    make: MakeFn,
    root: pathlib.Path,
    *,
    explicit: bool,
    report: ReportFn,
    duration: str = '',
    hint: str = '',
) -> None:
  """Prepares a set in a private folder, then moves it to its place at once.

  Processes that prepare the same set do not see each other: the first to
  finish wins, and what the others made is thrown away.

  Args:
    name: of the set, for messages.
    make: makes the builder whose set is then in the folder that it is given.
    root: the folder of prepared sets, made if missing.
    explicit: whether the user named `root`. One that holds other sets is then
      taken for a mistake in one of the two names.
    report: receives the line that announces it.
    duration: about how long it takes.
    hint: what else the user could do if it fails.

  Raises:
    InputError: if it cannot be prepared; nothing is left on disk then.
  """
  others = _list_prepared(root)
  if explicit and others and not any(o.startswith(f'{name}/') for o in others):
    raise errors.InputError(
        f'--data_dir={root} does not hold {name}, it holds'
        f' {", ".join(others)}: choose one of these with --dataset, or prepare'
        f' {name} in another folder (--data_dir of an empty one)'
    )
  made_root = not root.exists()
  staging = None
  try:
    root.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(dir=root, prefix='.preparing-'))
    builder = make(staging)
    about = f': about {duration}' if duration else ''
    report(f'Preparing {name} in {root}, once{about}.')
    # TFDS has no option for the lines that it prints.
    builder._log_download_bytes = builder._log_download_done = lambda: None
    tfds.disable_progress_bar()
    builder.download_and_prepare(file_format='array_record')
    _move(builder, staging, root)
  except (errors.InputError, errors.RunError):
    raise
  except MemoryError as error:
    raise _out_of_memory(f'preparing {name}', error) from error
  except Exception as error:  # Downloading and writing fail in many ways.
    raise errors.InputError(_explain(name, root, error, hint)) from error
  finally:
    if staging is not None:
      shutil.rmtree(staging, ignore_errors=True)
    if made_root:
      with contextlib.suppress(OSError):
        root.rmdir()  # only if it is empty


def check_before_download(builder: tfds.core.DatasetBuilder) -> None:
  """Makes a builder fail within seconds where a download would be in vain.

  Args:
    builder: of a set that TFDS downloads, which takes TensorFlow and network.
  """
  split_generators = builder._split_generators

  @functools.wraps(split_generators)
  def check_first(*args, **kwargs):
    # pylint: disable=import-outside-toplevel
    import requests

    importlib.import_module('tensorflow')
    urls = ' '.join(builder.url_infos or ())
    for host in sorted(set(re.findall(r'https?://[^/ ]+/', urls))):
      try:  # Any answer will do. Proxies of the environment are used.
        requests.head(host, timeout=_CONNECTION_SECONDS)
      except requests.RequestException as error:
        raise ConnectionError(f'{host} does not answer') from error
    return split_generators(*args, **kwargs)

  builder._split_generators = check_first


@contextlib.contextmanager
def reading(name: str, directory: str | os.PathLike) -> Iterator[None]:
  """Turns whatever reading a prepared set raises into an error of one line.

  Only damage advises to delete the set.

  Args:
    name: of the set.
    directory: its folder.
  """
  try:
    yield
  except (errors.InputError, errors.RunError, ImportError):
    raise
  except MemoryError as error:
    raise _out_of_memory(f'reading {name} from {directory}', error) from error
  except NotImplementedError as error:
    raise errors.InputError(
        f'{directory} holds {name} in another format than array_record:'
        f' prepare it in another folder (--data_dir). {_describe(error)}'
    ) from error
  except Exception as error:
    # Damaged records show as errors of array_record, protobuf, Pillow or
    # OpenCV, which share no class. A missing record is damage, too; other
    # errors of the system are not.
    number = getattr(error, 'errno', None)
    if number is None and _has_unreadable_file(directory):
      number = errno.EACCES
    if number not in (None, errno.ENOENT):
      raise errors.InputError(
          f'{name} in {directory} cannot be read ({os.strerror(number)}): make'
          ' its files readable for this user and run again'
      ) from error
    raise errors.InputError(
        f'{name} in {directory} is damaged ({_describe(error)}): delete that'
        ' folder and run again'
    ) from error


def open_split(
    name: str,
    builder: tfds.core.DatasetBuilder,
    split: str,
    **options: Any,
) -> tuple[int, Callable[[Sequence[int]], list[Any]]]:
  """Opens a split of a prepared set.

  Args:
    name: of the set.
    builder: of the prepared set.
    split: its name.
    **options: of `as_data_source`.

  Returns:
    The number of examples, and a function from positions to decoded examples,
    which may be called from several threads.

  Raises:
    InputError: if the split does not exist or cannot be read.
  """
  # A mocked builder knows no splits.
  if builder.info.splits and split not in builder.info.splits:
    raise errors.InputError(
        f'{name} has no split {split!r}: it has'
        f' {", ".join(builder.info.splits)}'
    )
  with reading(name, builder.data_dir):
    source = builder.as_data_source(split, **options)
    count = len(source)
  is_mocked = not builder.is_prepared()

  def take(rows):
    rows = [int(row) for row in rows]
    with reading(name, builder.data_dir):
      # Three times as fast at once; a mocked source cannot.
      if rows and not is_mocked:
        return source.__getitems__(rows)
      return [source[row] for row in rows]

  return count, take


def _list_prepared(root: pathlib.Path) -> list[str]:
  """Lists NAME/VERSION or NAME/CONFIG/VERSION of each set in a data folder."""
  return sorted(
      path.parent.relative_to(root).as_posix()
      for pattern in ('*/*/dataset_info.json', '*/*/*/dataset_info.json')
      for path in root.glob(pattern)
      if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)
  )


def _move(builder, staging, root):
  source = pathlib.Path(builder.data_dir)
  if not source.is_relative_to(staging):
    return  # tfds.testing.mock_data has put the builder elsewhere.
  target = root / source.relative_to(staging)
  target.parent.mkdir(parents=True, exist_ok=True)
  try:
    source.rename(target)
  except OSError as error:
    # Another process was first, and its set is as good.
    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
      raise


def _explain(name, root, error, hint) -> str:
  """Says in one line why a set was not prepared and what to do."""
  if isinstance(error, OSError) and error.errno in (
      errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EROFS
  ):
    return (
        f'--data_dir={root} cannot be written to ({error.strerror}): name a'
        ' folder that can, or one that holds the set prepared'
    )
  if isinstance(error, ImportError) and 'tensorflow' in str(error):
    return (
        f'{name} is not in {root}, and preparing it needs TensorFlow: pip'
        ' install tensorflow-cpu (a folder that holds it prepared needs neither'
        f' TensorFlow nor network){hint}'
    )
  return f'preparing {name} in {root} failed: {_describe(error)}{hint}'


def _out_of_memory(doing, error) -> errors.RunError:
  return errors.RunError(
      f'{doing} takes more memory than there is ({_describe(error)}): end other'
      ' programs, or use a smaller set'
  )


def _has_unreadable_file(directory) -> bool:
  """Checks whether permissions hide a part of a folder."""
  try:
    return any(
        _has_unreadable_file(path) if path.is_dir()
        else not os.access(path, os.R_OK)
        for path in pathlib.Path(directory).iterdir()
    )
  except PermissionError:
    return True
  except OSError:
    return False


def _describe(error: Exception) -> str:
  return f'{type(error).__name__}: {errors.one_line(str(error))[:300]}'
