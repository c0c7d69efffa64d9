"""Tests of jacsup_jax.training.devices: one device, a mesh and pmap agree."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from jacsup_jax.training import devices

ROOT = pathlib.Path(__file__).parents[2]
WORKER = pathlib.Path(__file__).with_name('devices_worker.py')
# Rounding of sums in another order, relative to the largest of a leaf.
# BatchNorm of a small code leaves few digits of float32.
TOLERANCES = {'float32': 3e-4, 'float64': 1e-10}
CASES = ('teacher', 'student_of_nuisance', 'face_cycle', 'fader')
MORE = (
  'student_cached',
  'student_computed',
  'student_by_path',
  'replicas',
  'face_teacher',
  'face_student',
  'face_fed',
)  # pyformat: disable
KINDS = (
  ('mnist', 'float64', *CASES),
  *(
    pytest.param(kind, marks=pytest.mark.slow)
    for kind in (
      ('mnist', 'float64', *MORE),
      ('mnist', 'float32', *CASES),
      ('svhn', 'float64', *CASES[:2], *MORE[:4]),
    )
  ),
)


def _start(num_devices, *args):
  flags = (
    f'--xla_force_host_platform_device_count={num_devices}'
    # Programs that run once need not be fast.
    ' --xla_backend_optimization_level=0'
    ' --xla_llvm_disable_expensive_passes=true'
  )
  return subprocess.Popen(
    [sys.executable, str(WORKER), *map(str, args)],
    cwd=ROOT,
    env={
      **os.environ,
      'XLA_FLAGS': flags,
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(ROOT),
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _finish(process):
  out, err = process.communicate(timeout=900)
  assert process.returncode == 0, err[-3000:]
  return out


@pytest.fixture(scope='module', params=KINDS)
def kind_and_report(request):
  out = _finish(_start(8, 'compare', *request.param))
  return request.param, json.loads(out.splitlines()[-1])


# Values.


def test_indivisible_batch_names_both_numbers(kind_and_report):
  _, report = kind_and_report
  assert report['devices'] == 8
  assert '--batch_size=12 ' in report['error']
  assert ' 8 devices' in report['error']
  assert 'accepted: multiples of 8' in report['error']


def test_one_process_shares_with_itself():
  assert devices.is_first() and not devices.has_others()
  assert devices.share({'a': [1]}) == {'a': [1]}
  assert devices.in_turn(lambda: 3) == 3
  devices.check_same({'seed': 0})
  assert all(':' in line for line in devices.describe_devices())
  assert devices.axis_name('jit') is None and devices.axis_name('pmap')


# Invariants.


def test_eight_devices_are_one(kind_and_report):
  (_, precision, *cases), report = kind_and_report
  for case in cases:
    for mode in ('jit', 'pmap'):
      entry = dict(report[f'{case}/{mode}'])
      assert entry.pop('dtype') == precision
      for name, value in entry.items():
        assert value <= TOLERANCES[precision], (case, mode, name, value)
    # A difference would be seen.
    assert report[f'{case}/other_epoch']['gradients'] > 1e-2


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
  assert expected['devices'] == 4 and expected['processes'] == 1
  assert not expected['error'].item()
  for i in range(2):
    found = np.load(tmp_path / f'part{i}.npz')
    assert found['devices'] == 4 and found['processes'] == 2
    assert 'differ in seed;' in found['error'].item()
    names = set(found) - {'devices', 'processes', 'error'}
    assert names == set(expected) - {'devices', 'processes', 'error'}
    assert len(names) > 50
    for name in names:
      np.testing.assert_allclose(
        found[name], expected[name], rtol=1e-9, atol=1e-10, err_msg=name
      )
