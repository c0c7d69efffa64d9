"""Tests of jacsup_jax.training.devices: one device, a mesh and pmap agree."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.training import devices

ROOT = pathlib.Path(__file__).parents[2]
WORKER = pathlib.Path(__file__).with_name('devices_worker.py')
CASES = ('teacher', 'student_of_nuisance', 'student_checked', 'face_edits')
MORE = (
  *('student_cached', 'student_computed', 'student_by_path', 'replicas'),
  *('face_teacher', 'face_cycle', 'face_student', 'face_fed'),
  *('fader', 'cvae', 'icgan', 'attgan', 'stargan'),
  *('annealed_vae', 'tcvae', 'factor_vae', 'xcov', 'mixing'),
)


@pytest.mark.parametrize(
  ('platform', 'error', 'install'),
  [
    ('cuda', AssertionError(), "'jax[cuda12]'"),
    ('tpu', RuntimeError('no libtpu.so (set JAX_PLATFORMS=)'), "'jax[tpu]'"),
    ('nonsense', RuntimeError('x'), ' unset.'),
  ],
)
def test_a_device_that_is_missing_is_one_line_that_says_what_there_is(
  monkeypatch, platform, error, install
):
  def refuse():
    raise error

  monkeypatch.setenv('JAX_PLATFORMS', platform)
  monkeypatch.setattr(jax, 'devices', refuse)
  with pytest.raises(errors.InputError) as info:
    devices.check_available()
  line = str(info.value)
  assert line.startswith(f'JAX_PLATFORMS={platform}: no such device starts')
  assert 'this machine has cpu' in line and install in line
  # What is not asked for is left to JAX.
  monkeypatch.delenv('JAX_PLATFORMS')
  devices.check_available()


def test_the_place_of_compiled_programs_is_expanded(monkeypatch):
  found = []
  monkeypatch.setattr(jax.config, 'update', lambda *pair: found.append(pair))
  monkeypatch.setenv('HOME', '/home/x')
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '~/cache')
  devices.expand_cache_dir()
  assert found == [('jax_compilation_cache_dir', '/home/x/cache')]
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 's3://bucket/cache')
  with pytest.raises(errors.InputError, match='JAX_COMPILATION_CACHE_DIR=.s3:'):
    devices.expand_cache_dir()


def _start(num_devices, *args):
  flags = (
    f'--xla_force_host_platform_device_count={num_devices}'
    # Programs that run once need not be fast.
    ' --xla_backend_optimization_level=0'
    ' --xla_llvm_disable_expensive_passes=true'
    ' --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters'
    ' --xla_cpu_parallel_codegen_split_count=1'
  )
  settings = {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  return subprocess.Popen(
    [sys.executable, str(WORKER), *map(str, args)],
    cwd=ROOT,
    env={**os.environ, **settings, 'PYTHONPATH': str(ROOT)},
    stderr=subprocess.PIPE,
    text=True,
  )


def _finish(process):
  _, err = process.communicate(timeout=900)
  assert process.returncode == 0, err[-3000:]


def test_one_process_shares_with_itself():
  assert devices.is_first() and not devices.has_others()
  assert devices.share({'a': [1]}) == {'a': [1]}
  assert devices.in_turn(lambda: 3) == 3
  assert all(':' in line for line in devices.describe_devices())
  assert devices.axis_name('jit') is None and devices.axis_name('pmap')


@pytest.mark.parametrize(
  'cases', [CASES, pytest.param(MORE, marks=pytest.mark.slow)]
)
def test_eight_devices_are_one(cases):
  _finish(_start(8, 'compare', *cases))


def test_two_processes_of_two_devices_are_one_of_four(tmp_path):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  whole = _start(4, 'save', tmp_path / 'whole.npz', '-', 1, 0)
  parts = [
    _start(2, 'save', tmp_path / f'part{i}.npz', address, 2, i)
    for i in range(2)
  ]
  for process in (whole, *parts):
    _finish(process)
  expected = np.load(tmp_path / 'whole.npz')
  assert len(set(expected)) > 50
  for i in range(2):
    found = np.load(tmp_path / f'part{i}.npz')
    assert set(found) == set(expected)
    for name in found:
      np.testing.assert_allclose(
        found[name], expected[name], rtol=1e-9, atol=1e-10, err_msg=name
      )
