"""Tests of jacsup_jax.compilation."""

import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from jacsup_jax.core import errors
from jacsup_jax.training import compilation

# A program that no other test has.
_PROGRAM = """
import jax
from jacsup_jax.training import compilation
compilation.keep_programs({directory!r})
with compilation.measured() as clock:
  jax.jit(lambda x: (x @ x.T + {number}).sum())(jax.numpy.ones((64, 32)))
assert clock.programs
"""

# Additions whose order is that of atomic operations on a GPU by default.
_SCATTER = """
import sys
from jacsup_jax.training import compilation
if len(sys.argv) > 1:
  compilation.ask_for_determinism()
import jax
import jax.numpy as jnp
if {chip!r} == 'cpu':
  device = jax.devices()[0]
else:
  from experiments import benchmark_compile
  device = benchmark_compile.get_devices({chip!r})[0]
sharding = jax.sharding.SingleDeviceSharding(device)
shape = lambda s, dtype: jax.ShapeDtypeStruct(s, dtype, sharding=sharding)
print(jax.jit(lambda x, i, y: x.at[i].add(y)).lower(
    shape((1000,), jnp.float32), shape((5000,), jnp.int32),
    shape((5000,), jnp.float32),
).compile().as_text())
"""
_HAS_CUDA = importlib.util.find_spec('jax_cuda12_plugin') is not None
_FLAG = '--xla_gpu_deterministic_ops=true'


def _compile_scatter(chip, *args):
  return subprocess.run(
      [sys.executable, '-c', _SCATTER.format(chip=chip), *args],
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
      check=True,
  ).stdout


# Values.


@pytest.mark.parametrize(
    ('found', 'expected'),
    [
        (None, _FLAG),
        ('', _FLAG),
        ('--xla_a=1', f'--xla_a=1 {_FLAG}'),
        (_FLAG, _FLAG),
        # The last one counts.
        (
            '--xla_gpu_deterministic_ops=false',
            f'--xla_gpu_deterministic_ops=false {_FLAG}',
        ),
    ],
)
def test_flag_is_added_to_those_that_are_there(monkeypatch, found, expected):
  monkeypatch.setenv('XLA_FLAGS', found or '')
  if found is None:
    monkeypatch.delenv('XLA_FLAGS')
  for _ in range(2):
    compilation.ask_for_determinism()
    assert os.environ['XLA_FLAGS'] == expected


def test_nothing_is_added_to_a_file(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', 'flags.txt')
  with pytest.raises(errors.InputError, match='XLA_FLAGS=flags.txt, a file'):
    compilation.ask_for_determinism()
  assert os.environ['XLA_FLAGS'] == 'flags.txt'


def test_flag_is_known_and_changes_nothing_on_a_cpu():
  # An unknown flag would end the process.
  assert _compile_scatter('cpu', 'ask') == _compile_scatter('cpu')


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_CUDA, reason='the CUDA plugin is not installed')
def test_additions_have_an_order_on_a_gpu_if_asked():
  plain, asked = (
      _compile_scatter('gpu:h100:1', *args) for args in ((), ('ask',))
  )
  assert ' scatter(' in plain and ' sort(' not in plain
  assert 'unique_indices=true' not in plain
  # Rows of the same index are sorted and summed before.
  assert ' sort(' in asked and 'unique_indices=true' in asked


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
