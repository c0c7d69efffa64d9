"""How long programs take to compile, and how many are."""

import contextlib
from collections.abc import Iterator
import dataclasses

import jax

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


_clocks = []


def _on_duration(event, seconds, **unused_kwargs):
  if event == _COMPILED:
    for clock in _clocks:
      clock.seconds += seconds
      clock.programs += 1


# Once: a listener cannot be taken away by itself.
jax.monitoring.register_event_duration_secs_listener(_on_duration)
