"""Tests of jacsup_jax.compilation."""

import subprocess
import sys

import jax
import jax.numpy as jnp

from jacsup_jax import compilation

# A program that no other test has.
_PROGRAM = """
import jax
from jacsup_jax import compilation
compilation.keep_programs({directory!r})
with compilation.measured() as clock:
  jax.jit(lambda x: (x @ x.T + {number}).sum())(jax.numpy.ones((64, 32)))
assert clock.programs
"""


# Values.


def test_programs_and_seconds_are_counted():
  f = jax.jit(lambda x: jnp.tanh(x) * 3.25)
  x = jnp.ones(7)
  with compilation.measured() as outer:
    with compilation.measured() as clock:
      f(x)
    assert clock.programs == 1
    assert 0 < clock.seconds < 60
    with compilation.measured() as again:
      f(x)
  assert (again.programs, again.seconds) == (0, 0.0)
  assert outer.programs == 1


def test_nothing_is_counted_outside():
  with compilation.measured() as clock:
    pass
  jax.jit(lambda x: jnp.tanh(x) * 4.75)(jnp.ones(3))
  assert clock.programs == 0


# Invariants.


def test_kept_programs_are_on_disk(tmp_path):
  directory = tmp_path / 'programs'
  # Time to compile, which decides what is kept, is the machine's: all is here.
  program = _PROGRAM.format(directory=str(directory), number=17).replace(
      'with comp',
      "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
      'with comp',
  )
  for _ in range(2):
    subprocess.run([sys.executable, '-c', program], check=True)
    names = sorted(path.name for path in directory.iterdir())
    assert any('lambda' in name for name in names)
