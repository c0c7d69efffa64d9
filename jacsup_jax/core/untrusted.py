"""Reads files that may hold anything, in bounded time and memory.

A work directory may have been copied, cut short or edited, and data come from
elsewhere. What is read here is a regular file (a pipe would never end) of no
more than a stated size, and nothing in it is ever executed.
"""

from collections.abc import Mapping
import json
import os
import pathlib
import stat
import types as python_types
import typing
from typing import Any

from jacsup_jax.core import errors

# results.json of a table of a thousand models with forty attributes each has
# some 20 MB.
LONGEST_JSON = 32 * 2**20


def check_file(path: str | os.PathLike[str]) -> int:
  """Checks that a path is a regular file.

  Args:
    path: links are followed.

  Returns:
    Its size in bytes.

  Raises:
    InputError: if it is none, such as a directory or a pipe.
  """
  try:
    status = os.stat(path)
  except (OSError, ValueError) as error:  # The latter of names with a NUL.
    refuse_unreadable(path, error)
  if not stat.S_ISREG(status.st_mode):
    what = 'a directory' if stat.S_ISDIR(status.st_mode) else 'a pipe or device'
    raise errors.InputError(f'{path} is {what}; accepted: a regular file.')
  return status.st_size


def read(path: str | os.PathLike[str], limit: int) -> bytes:
  """Reads a regular file of a bounded size.

  Args:
    path: of the file.
    limit: how many bytes are accepted.

  Raises:
    InputError: if it is none, is larger, or cannot be read.
  """
  size = check_file(path)
  if size <= limit:
    try:
      with open(path, 'rb') as file:
        # No more, though it may have grown.
        content = file.read(limit + 1)
    except OSError as error:
      refuse_unreadable(path, error)
    size = len(content)
  if size > limit:
    raise errors.InputError(
        f'{path} has {size:,} bytes; accepted: {limit:,} at most.'
    )
  return content


def read_json(
    path: str | os.PathLike[str], limit: int = LONGEST_JSON
) -> dict[str, Any]:
  """Reads a file that holds a JSON object.

  Args:
    path: of the file.
    limit: how many bytes are accepted.

  Raises:
    InputError: if it cannot be read, or holds something else.
  """
  return parse_json(path, read(path, limit))


def parse_json(where: str | os.PathLike[str], content: bytes) -> dict[str, Any]:
  """Parses a JSON object.

  Args:
    where: it was found, for the error.
    content: UTF-8.

  Raises:
    InputError: if it is something else.
  """
  try:
    value = json.loads(content.decode())
  except (ValueError, RecursionError) as error:  # The latter if deeply nested.
    raise errors.InputError(
        f'{where} is not JSON ({str(error)[:200]}); accepted: an object as'
        ' this package writes it.'
    ) from error
  if not isinstance(value, dict):
    raise errors.InputError(
        f'{where} holds {describe(value)}; accepted: a JSON object.'
    )
  return value


def check_entries(
    where: str | os.PathLike[str],
    entries: Mapping[str, Any],
    kinds: Mapping[str, Any],
    *,
    optional: bool = False,
) -> None:
  """Checks the types of what a JSON object holds.

  Args:
    where: it was found, for the error.
    entries: the object; more than what is checked may be in it.
    kinds: annotations by name: str, bool, int, float, None, dict, list,
      list[X], tuple[X, ...], dict[str, X], and unions of them. Whole numbers
      are floats too.
    optional: entries may be missing.

  Raises:
    InputError: if one is missing or of another type.
  """
  for name, kind in kinds.items():
    if name not in entries:
      if optional:
        continue
      raise errors.InputError(
          f'{where} has no {name!r}; accepted: {_name(kind)}.'
      )
    if not _fits(entries[name], kind):
      raise errors.InputError(
          f'{where} has {name!r} {describe(entries[name])}; accepted:'
          f' {_name(kind)}.'
      )


def describe(value: Any) -> str:
  """Shows a JSON value of any size in few characters."""
  # Not repr of the whole: it may be large, or nested beyond what Python takes.
  if isinstance(value, (dict, list, tuple)):
    kind = 'an object' if isinstance(value, dict) else 'a list'
    return f'{kind} of {len(value)}'
  if isinstance(value, int) and value.bit_length() > 200:
    return f'a number of {value.bit_length()} bits'
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:60]}...'


def refuse_unreadable(
    path: str | os.PathLike[str], error: Exception
) -> typing.NoReturn:
  """Raises InputError that says why a path cannot be read."""
  reason = getattr(error, 'strerror', None) or str(error)
  raise errors.InputError(
      f'{path} cannot be read ({reason}); accepted: a regular file.'
  ) from error


def exists(path: str | os.PathLike[str]) -> bool:
  """Says whether something is there, also where the name is none.

  `pathlib` raises for names that are too long.

  Args:
    path: of any characters.
  """
  try:
    return pathlib.Path(path).exists()
  except (OSError, ValueError):
    return False


def _fits(value, kind):
  """Whether a JSON value is of an annotated type."""
  if kind is None or kind is type(None):
    return value is None
  if isinstance(kind, python_types.UnionType):
    return any(_fits(value, k) for k in typing.get_args(kind))
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin is dict:
    return isinstance(value, dict) and all(
        _fits(v, args[1]) for v in value.values()
    )
  if origin is list:
    return isinstance(value, list) and all(_fits(v, args[0]) for v in value)
  if origin is tuple:  # JSON has lists in their place.
    if not isinstance(value, (list, tuple)):
      return False
    if args[-1] is Ellipsis:
      return all(_fits(v, args[0]) for v in value)
    return len(value) == len(args) and all(map(_fits, value, args))
  if isinstance(value, bool):
    return kind is bool
  if kind is float:
    # An integer may be beyond what a float can be.
    return isinstance(value, float) or (
        isinstance(value, int) and value.bit_length() < 1000
    )
  if kind is int:
    # What is larger is no count of anything, and overflows in JAX.
    return isinstance(value, int) and value.bit_length() < 64
  return isinstance(value, kind)


def _name(kind):
  """Names an annotation in the words of JSON."""
  if kind is None or kind is type(None):
    return 'null'
  if isinstance(kind, python_types.UnionType):
    return ' or '.join(_name(k) for k in typing.get_args(kind))
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin in (list, tuple):
    return f'a list ({_name(args[0])})'
  if origin is dict:
    return f'an object ({_name(args[1])})'
  words = {
      str: 'a string', bool: 'true or false', int: 'a whole number',
      float: 'a number', dict: 'an object', list: 'a list',
  }  # pyformat: disable
  return words[kind]
