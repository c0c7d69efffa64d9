"""Makes TFDS builders and prepares their sets, with or without TensorFlow.

Whatever goes wrong is an InputError of one line, and leaves nothing on disk.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import difflib
import errno
import functools
import glob
import importlib
import io
import os
import pathlib
import re
import shutil
import sys
import tempfile
import urllib.parse

from absl import logging
import requests
import tensorflow_datasets as tfds

from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.data import idx
from jacsup_jax.data.mnist_embedded import mnist_embedded_dataset_builder

EMBEDDED = 'mnist_embedded'
KNOWN_DATASETS = (EMBEDDED, 'mnist', 'fashion_mnist', 'kmnist')

# A file of a user's own, see array_file.
ARRAYS = 'arrays'

_CONNECTION_SECONDS = 10


def make_builder(
    name: str, root: pathlib.Path
) -> tfds.core.DatasetBuilder:
  """Makes the builder of a set, prepared or not.

  Args:
    name: `EMBEDDED`, or a TFDS name, with its configuration or without.
    root: the folder of prepared sets; it may be missing.

  Returns:
    The builder.

  Raises:
    InputError: if TFDS does not know the name, or cannot make its builder.
  """
  if name == EMBEDDED:
    with making(name, root):
      return mnist_embedded_dataset_builder.Builder(data_dir=os.fspath(root))
  # A name with a colon would make TFDS look on the network.
  if re.fullmatch(r'[A-Za-z]\w*(/[\w.\-]+)?', name):
    try:
      with quiet():
        return tfds.builder(name, data_dir=os.fspath(root))
    except tfds.core.DatasetNotFoundError:
      pass
    except Exception as error:
      # Anything may be raised by some hundred builders, missing packages first.
      raise errors.InputError(
          f'--dataset={name} cannot be made by TFDS: {one_line(error)}'
      ) from error
  names = (*KNOWN_DATASETS, ARRAYS) + tuple(
      tfds.list_builders(with_community_datasets=False)
  )
  nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
  raise errors.InputError(
      f'--dataset={name!r} is unknown, did you mean {nearest}? Accepted are'
      f' {", ".join(KNOWN_DATASETS)}, {ARRAYS} (a file of your own), and TFDS'
      ' sets of images with a class label'
  )


def data_root(data_dir: str | os.PathLike | None) -> pathlib.Path:
  """Gives the folder of prepared sets.

  Args:
    data_dir: an existing folder, or None for that of TFDS, which may be
      missing.

  Returns:
    The folder.

  Raises:
    InputError: if data_dir is not an existing folder.
  """
  if data_dir is None:
    return pathlib.Path(
        os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    ).expanduser()
  root = pathlib.Path(data_dir).expanduser()
  if not untrusted.exists(root) or not root.is_dir():
    raise errors.InputError(
        f'--data_dir={data_dir} is not an existing folder: make it, or leave'
        ' the flag out'
    )
  return root


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
  """Says whether a builder's set is complete on disk."""
  with quiet():  # TFDS warns if it is not.
    return builder.is_prepared()


def prepare(name: str, root: pathlib.Path, *, explicit: bool) -> None:
  """Prepares a set in a private folder, then moves it to its place at once.

  Processes that prepare the same set do not see each other: the first to
  finish wins, and what the others made is thrown away.

  Args:
    name: as for `make_builder`; the set is not prepared in `root` yet.
    root: the folder of prepared sets, made if missing.
    explicit: whether the user named `root`. One that holds other sets is then
      taken for a mistake in one of the two names.

  Raises:
    InputError: if the set cannot be prepared.
  """
  originals = checksums = None
  if name != EMBEDDED:
    checksums = _original_checksums(make_builder(name, root))
    originals = checksums and _find_originals(name, root)
  prepared = prepared_sets(root)
  if explicit and prepared and not originals:
    raise errors.InputError(
        f'--data_dir={root} does not hold {name}, it holds'
        f' {", ".join(prepared)}: choose one of these with --dataset, or'
        f' prepare {name} in another folder (--data_dir of an empty one)'
    )
  if originals:
    idx.check_sha256(originals, checksums)

  def make(folder):
    builder = make_builder(name, folder)
    if originals:
      # TFDS extracts and encodes these files with TensorFlow; idx does not,
      # and gives the same examples under the same keys, so the same order.
      builder._split_generators = lambda dl_manager: {
          split: idx.generate_examples(originals, split)
          for split in idx.FILES
      }
    elif name != EMBEDDED:
      builder._split_generators = _before_downloads(builder)
    return builder

  if originals:
    duration = 'half a minute'
  else:
    duration = '15 seconds' if name == EMBEDDED else None
  prepare_builder(
      make, name, root, duration=duration, has_originals=bool(checksums)
  )


def prepare_builder(
    make: Callable[[pathlib.Path], tfds.core.DatasetBuilder],
    name: str,
    root: pathlib.Path,
    *,
    duration: str | None = None,
    has_originals: bool = False,
) -> None:
  """Prepares what a builder makes, all of it or nothing; see `prepare`.

  Args:
    make: makes the builder whose set is then in the folder that it is given.
    name: of the set, for messages.
    root: the folder of prepared sets, made if missing.
    duration: how long it takes, for the line that announces it; none if None.
    has_originals: whether the set could be made from original IDX files.

  Raises:
    InputError: if the set cannot be prepared.
  """
  made_root = not root.exists()
  try:
    root.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(dir=root, prefix='.preparing-'))
  except OSError as error:
    raise errors.InputError(_unwritable(root, error)) from error
  try:
    builder = make(staging)
    if duration:
      print(
          f'Preparing {name} in {root}, once: about {duration}.',
          file=sys.stderr,
      )
    with quiet():
      builder.download_and_prepare(file_format='array_record')
    _move(builder, staging, root)
  except errors.InputError:
    raise
  except Exception as error:
    # Downloading and writing fail in many ways; the user gets one line.
    raise errors.InputError(
        _failure(name, root, error, has_originals=has_originals)
    ) from error
  finally:
    shutil.rmtree(staging, ignore_errors=True)
    if made_root:
      with contextlib.suppress(OSError):
        root.rmdir()  # Only if nothing came into it.


def prepared_sets(root: pathlib.Path) -> list[str]:
  """Lists NAME/VERSION or NAME/CONFIG/VERSION of each set in a data folder."""
  found = []
  for pattern in ('*/*/dataset_info.json', '*/*/*/dataset_info.json'):
    for path in glob.glob(os.path.join(glob.escape(os.fspath(root)), pattern)):
      directory = pathlib.Path(path).parent
      if re.fullmatch(r'\d+\.\d+\.\d+', directory.name):
        found.append(directory.relative_to(root).as_posix())
  return sorted(found)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Hides what TFDS prints, its progress bars and its warnings."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
      yield
  finally:
    logging.set_verbosity(verbosity)


@contextlib.contextmanager
def making(name: str, root: pathlib.Path) -> Iterator[None]:
  """Turns whatever a builder of this package raises into an InputError.

  It reads what describes its prepared set, where there is one.

  Args:
    name: of the set.
    root: the folder of prepared sets.
  """
  try:
    yield
  except errors.InputError:
    raise
  except Exception as error:
    raise errors.InputError(
        f'{name} in {root} cannot be read ({one_line(error)}): delete it there'
        ' and run again, or name another folder'
    ) from error


@contextlib.contextmanager
def reading(name: str, builder: tfds.core.DatasetBuilder) -> Iterator[None]:
  """Turns whatever reading a prepared set raises into an InputError."""
  try:
    yield
  except errors.InputError:
    raise
  except NotImplementedError as error:
    raise errors.InputError(
        f'{builder.data_dir} holds {name} as'
        f' {builder.info.file_format.value}, accepted is array_record: prepare'
        ' it in another folder (--data_dir)'
    ) from error
  except Exception as error:
    # Damaged records show as errors of array_record, protobuf, Pillow or
    # OpenCV, which share no class.
    raise errors.InputError(
        f'{builder.data_dir} cannot be read ({one_line(error)}): delete that'
        ' folder and run again'
    ) from error


def one_line(error: Exception) -> str:
  """Gives an error's class and message on one line of sensible length."""
  text = ' '.join(str(error).split())
  return f'{type(error).__name__}: {text[:300]}'


def _original_checksums(
    builder: tfds.core.DatasetBuilder,
) -> dict[str, str] | None:
  """Gives the sha256 of the four IDX files, for a set published as such."""
  checksums = {
      info.filename: info.checksum
      for info in (builder.url_infos or {}).values()
  }
  return checksums if set(checksums) == set(idx.FILE_NAMES) else None


def _find_originals(name: str, root: pathlib.Path) -> pathlib.Path | None:
  for folder in (root, root / name, root / 'downloads' / 'manual'):
    if all((folder / file).is_file() for file in idx.FILE_NAMES):
      return folder
  return None


def _before_downloads(builder: tfds.core.DatasetBuilder):
  """Wraps a builder's `_split_generators`: no download begins in vain."""
  split_generators = builder._split_generators

  @functools.wraps(split_generators)
  def wrapped(*args, **kwargs):
    importlib.import_module('tensorflow')
    _check_network(builder.url_infos or {})
    return split_generators(*args, **kwargs)

  return wrapped


def _check_network(urls: Iterable[str]) -> None:
  """Fails within seconds where a download would try again for minutes."""
  hosts = {
      f'{parts.scheme}://{parts.netloc}/'
      for parts in map(urllib.parse.urlsplit, urls)
      if parts.scheme in ('http', 'https')
  }
  for host in sorted(hosts):
    try:
      # Any answer will do. Proxies of the environment are obeyed.
      requests.head(host, timeout=_CONNECTION_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
      raise ConnectionError(f'{host} does not answer') from error


def _move(
    builder: tfds.core.DatasetBuilder,
    staging: pathlib.Path,
    root: pathlib.Path,
) -> None:
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


def _failure(
    name: str, root: pathlib.Path, error: Exception, *, has_originals: bool
) -> str:
  """Says in one line why a set was not prepared and what to do."""
  if isinstance(error, ImportError) and 'tensorflow' in str(error):
    message = (
        f'{name} is not in {root}, and preparing it needs TensorFlow:'
        ' pip install tensorflow-cpu (a folder that holds it prepared needs'
        ' neither TensorFlow nor network)'
    )
  elif isinstance(error, OSError) and error.errno in (
      errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EROFS
  ):
    return _unwritable(root, error)
  else:
    message = f'preparing {name} in {root} failed: {one_line(error)}'
  if has_originals:
    message += (
        '; or put the original files into'
        f' {root / "downloads" / "manual"}: {", ".join(idx.FILE_NAMES)}'
    )
  return message


def _unwritable(root: pathlib.Path, error: OSError) -> str:
  return (
      f'--data_dir={root} cannot be written to ({error.strerror}): name a'
      ' folder that can, or one that holds the set prepared'
  )
