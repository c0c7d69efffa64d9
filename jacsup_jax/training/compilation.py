"""How programs are compiled: kept, with the same bits, and in what time."""

import contextlib
from collections.abc import Iterator
import dataclasses
import os

import jax

from jacsup_jax.core import errors

# No atomic additions, and no choice among kernels by how fast they were.
_DETERMINISTIC = '--xla_gpu_deterministic_ops=true'
_COMPILED = '/jax/core/compile/backend_compile_duration'


@dataclasses.dataclass
class Clock:
  """What was compiled while it ran.

  Attributes:
    seconds: that compilers took, or the reading of programs that were kept.
    programs: how many, of any size.
  """

  seconds: float = 0.0
  programs: int = 0


@contextlib.contextmanager
def measured() -> Iterator[Clock]:
  """Measures what is compiled in a `with` block, by this process."""
  clock = Clock()
  _clocks.append(clock)
  try:
    yield clock
  finally:
    _clocks.remove(clock)


def keep_programs(directory: str) -> None:
  """Keeps compiled programs in a directory, for the next run to read.

  Args:
    directory: made when something is kept.
  """
  jax.config.update('jax_compilation_cache_dir', directory)
  # Small ones too: a run has many, and they take most of a restart.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


def ask_for_determinism() -> None:
  """Asks XLA for programs that give the same bits every time on a GPU.

  Before anything uses a device. XLA ignores it for CPU and TPU.

  Raises:
    InputError: if XLA_FLAGS names a file, which nothing can be added to.
  """
  found = os.environ.get('XLA_FLAGS', '').strip()
  if found and not found.startswith('-'):
    raise errors.InputError(
        f'--deterministic with XLA_FLAGS={found}, a file; accepted: flags in'
        f' XLA_FLAGS, or {_DETERMINISTIC} in that file and no --deterministic.'
    )
  # The last one counts, should it be there as false.
  if found.split()[-1:] != [_DETERMINISTIC]:
    os.environ['XLA_FLAGS'] = f'{found} {_DETERMINISTIC}'.strip()


_clocks = []


def _on_duration(event, seconds, **unused_kwargs):
  if event == _COMPILED:
    for clock in _clocks:
      clock.seconds += seconds
      clock.programs += 1


# Once: a listener cannot be taken away by itself.
jax.monitoring.register_event_duration_secs_listener(_on_duration)
