"""Errors whose message is one line: a user's mistake, or a failed run."""

_LONGEST_MESSAGE = 2000

# Faces are published at 1024x1024 at most.
LARGEST_IMAGE = 4096


class InputError(ValueError):
  """A user's mistake in a flag, a file, a checkpoint or a data set.

  Its message is one line that names what was found and what is accepted; the
  binaries print it, without a traceback, and exit with status 2.
  """

  def __init__(self, message: str):
    super().__init__(one_line(message))


def one_line(text: str) -> str:
  """Folds text from anywhere into one line that is safe to print.

  Without line breaks, with control characters as escapes and the middle of a
  very long text left out.
  """
  if len(text) > _LONGEST_MESSAGE:
    half = _LONGEST_MESSAGE // 2
    text = f'{text[:half]} [...] {text[-half:]}'
  return ''.join(
    c if c.isprintable() else c.encode('unicode_escape').decode()
    for c in ' '.join(text.split())
  )


class RunError(Exception):
  """A failed run without a user's mistake: its numbers, or the disk.

  Its message is one line; the binaries print it, without a traceback, and exit
  with status 1. The last checkpoint is kept.
  """


class StorageError(RunError):
  """A file that cannot be written."""


def check_image_size(image_size: int) -> None:
  """Raises InputError unless a size in pixels is a power of two from 8."""
  if not 8 <= image_size <= LARGEST_IMAGE or image_size & (image_size - 1):
    raise InputError(
      f'--image_size={image_size}: accepted are powers of two from 8 to'
      f' {LARGEST_IMAGE}'
    )
