"""Tests of jacsup_jax.parallel: one device, jit over a mesh and pmap agree."""

import json
import os
import pathlib
import subprocess
import sys
import types

import pytest

from jacsup_jax.training import devices as parallel

ROOT = pathlib.Path(__file__).parents[1]
CASES = (
    'teacher', 'student_cached', 'student_computed', 'student_of_nuisance',
    'student_by_path',
)  # pyformat: disable
# Rounding of sums in another order, relative to the largest of a leaf.
TOLERANCES = {'float32': 1e-5, 'float64': 1e-10}
# BatchNorm of a small code that a ReLU cut leaves few digits of float32, up to
# 3e-4 of the gradients' size; in float64 they are equal as the others are.
KINDS = (
    pytest.param(('mnist', 'float32'), marks=pytest.mark.slow),
    ('mnist', 'float64'),
    pytest.param(('svhn', 'float64'), marks=pytest.mark.slow),
)


@pytest.fixture(scope='module', params=KINDS)
def kind_and_report(request):
  environment = {
      **os.environ,
      'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(ROOT),
  }
  done = subprocess.run(
      [sys.executable, 'tests/parallel_worker.py', *request.param],
      cwd=ROOT,
      env=environment,
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return request.param, json.loads(done.stdout.splitlines()[-1])


# Values.


def test_indivisible_batch_names_both_numbers(kind_and_report):
  _, report = kind_and_report
  assert report['devices'] == 8
  assert '--batch_size=12 ' in report['error']
  assert ' 8 devices' in report['error']
  assert 'accepted: a multiple of 8' in report['error']


def test_every_device_has_a_line():
  lines = parallel.describe_devices()
  assert len(lines) >= 1
  assert all(':' in line for line in lines)


def test_only_pmap_names_an_axis():
  assert parallel.axis_name('jit') is None
  assert parallel.axis_name('pmap')


# Invariants.


@pytest.mark.parametrize('mode', parallel.MODES)
@pytest.mark.parametrize('case', CASES)
def test_eight_devices_are_one(kind_and_report, case, mode):
  (architecture, precision), report = kind_and_report
  entry = dict(report[f'{case}/{mode}'])
  assert entry.pop('dtype') == precision
  # Of the models of digits the first teacher alone has BatchNorm.
  has_norm = case == 'teacher' or architecture == 'svhn'
  assert ('batch_stats' in entry) == has_norm
  for name, value in entry.items():
    assert value <= TOLERANCES[precision], (name, value)


@pytest.mark.parametrize('case', CASES)
def test_a_difference_would_be_seen(kind_and_report, case):
  _, report = kind_and_report
  assert report[f'{case}/other_epoch']['gradients'] > 1e-2


@pytest.mark.parametrize(
    'platform, capability, has',
    [
        ('tpu', None, True),
        ('gpu', '9.0', True),
        ('gpu', '8.0', True),
        ('gpu', '7.5', False),
    ],
)
def test_devices_without_bfloat16_say_so(
    monkeypatch, platform, capability, has
):
  device = types.SimpleNamespace(
      platform=platform, compute_capability=capability, device_kind='Some chip'
  )
  monkeypatch.setattr(parallel.jax, 'local_devices', lambda: [device])
  line = parallel.describe_bfloat16()
  assert (line is None) == has
  if line:
    assert line.startswith('Some chip has no arithmetic in bfloat16: ')
