"""Tests of jacsup_jax.circumstances."""

import sys

import pytest

from jacsup_jax.runs import circumstances


# Values.


@pytest.mark.parametrize(
    ('variables', 'expected'),
    [
        # As XLA decides: the first of them counts, if it is a number.
        ({'PJRT_NPROC': '3', 'NPROC': '5'}, 3),
        ({'NPROC': '5'}, 5),
        ({'PJRT_NPROC': 'many', 'NPROC': '5'}, 5),
    ],
)
def test_threads_are_those_of_xla(monkeypatch, variables, expected):
  for name in ('PJRT_NPROC', 'NPROC'):
    monkeypatch.delenv(name, raising=False)
  assert circumstances.count_threads() >= 1
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  assert circumstances.count_threads() == expected


def test_environment_has_what_decides_numbers(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_enable_fast_math=true')
  monkeypatch.setenv('JAX_DISABLE_JIT', '0')
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '/somewhere')
  monkeypatch.setenv('HOME', '/home')
  found = circumstances.describe_environment()
  assert found['XLA_FLAGS'] == '--xla_cpu_enable_fast_math=true'
  assert found['JAX_DISABLE_JIT'] == '0'
  assert found['jax_enable_x64'] is False
  assert 'jax_default_matmul_precision' in found
  assert not {'JAX_COMPILATION_CACHE_DIR', 'HOME'} & set(found)


def test_a_processor_is_known_by_its_name_and_instructions(monkeypatch):
  monkeypatch.setattr(
      circumstances,
      '_read_processor',
      lambda: {
          'model name': 'A', 'cpu family': '25', 'model': '17', 'stepping': '1',
          'flags': 'fpu vme sse2 avx512f fma avx2 msr',
      },
  )  # pyformat: disable
  found = circumstances.describe_machine()
  assert found['processor'] == 'A 25 17 1'
  assert found['vectors'] == 'avx2 avx512f fma sse2'


def test_a_machine_that_tells_nothing_has_its_threads(monkeypatch):
  monkeypatch.setattr(circumstances, '_read_processor', dict)
  found = circumstances.describe_machine()
  assert found['vectors'] == '' and found['threads'] >= 1


def test_differences_have_both_values():
  there = {'machine': {'threads': 2}, 'devices': ['cpu:0 cpu'], 'flags': {}}
  here = {'machine': {'threads': 4}, 'devices': [], 'flags': {'seed': 1}}
  assert circumstances.compare(there, here) == [
      "devices: ['cpu:0 cpu'] there, [] here",
      'threads: 2 there, 4 here',
  ]
  # What an older manifest lacks is not known to differ.
  assert not circumstances.compare({}, here)


# Invariants.


def _write_package(root, files):
  for name, text in files.items():
    path = root / 'oddly_named' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _hash(root, monkeypatch):
  monkeypatch.syspath_prepend(str(root))
  sys.modules.pop('oddly_named', None)
  return circumstances.hash_code('oddly_named')


def test_code_is_the_same_wherever_it_is(monkeypatch, tmp_path):
  files = {'__init__.py': '', 'a.py': 'x = 1\n', 'deep/b.py': 'y = 2\n'}
  hashes = []
  for name, changes in (
      ('one', {}),
      # What is no source does not count.
      ('two', {'notes.txt': 'z', '__pycache__/a.pyc': 'z'}),
      ('changed', {'a.py': 'x = 2\n'}),
      ('moved', {'a.py': '', 'c.py': 'x = 1\n'}),
  ):
    _write_package(tmp_path / name, {**files, **changes})
    hashes.append(_hash(tmp_path / name, monkeypatch))
  assert hashes[0] == hashes[1]
  assert len(set(hashes)) == 3
  assert all(len(text) == 64 for text in hashes)
