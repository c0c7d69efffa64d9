"""Tests of experiments.benchmark_compile and benchmark_whole."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from experiments import benchmark_compile
from experiments import benchmark_whole
from experiments import compiled_programs
from experiments import face_steps
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders as networks

ROOT = pathlib.Path(__file__).parents[1]
_HAS_LIBTPU = importlib.util.find_spec('libtpu') is not None
# A chip of round numbers.
_CHIP = benchmark_compile.Chip(flops=1e9, hbm=1e6, memory=1e9, links=1e6)


def _array(*shape):
  return compiled_programs.Array('f32', shape, '')


def _make_report(**fields):
  return dataclasses.replace(
      benchmark_compile.Report(
          name='step',
          per_chip=10,
          flops=1e9,
          bytes_accessed=9e6,
          traffic=compiled_programs.Traffic(4_000_000, 0, 1_000_000),
          padding=0.25,
          peak_memory=500_000_000,
          collectives=[
              compiled_programs.Collective('all-reduce', (_array(16),)),
              compiled_programs.Collective(
                  'all-reduce', (_array(4, 4, 25, 625), _array(3))
              ),
          ],
      ),
      **fields,
  )


def _make_tiny_step(name='student'):
  make_model = lambda channels: networks.FaceAutoencoder(
      2, channels, image_size=8, first_width=4, last_width=4,
      dtype=jnp.bfloat16,
  )  # pyformat: disable
  teacher = make_model(2) if name == 'student' else None
  return face_steps.FaceStep(name, make_model(3), teacher)


# Values.


@pytest.mark.parametrize(
    'target, parts',
    [
        ('tpu:v5e:2x2', ('tpu', 'v5e', '2x2')),
        ('tpu:v5p:2x2x1', ('tpu', 'v5p', '2x2x1')),
        ('gpu:h100:8', ('gpu', 'h100', '8')),
    ],
)
def test_targets(target, parts):
  assert benchmark_compile.parse_target(target) == parts
  assert parts[1] in benchmark_compile.CHIPS


@pytest.mark.parametrize(
    'target', ['', 'tpu', 'tpu:v9:2x2', 'tpu:v5e:2x2x1', 'gpu:h100:9', 'v5e']
)
def test_other_targets_are_refused(target):
  with pytest.raises(errors.InputError, match=f'^--target={target}; accepted:'):
    benchmark_compile.parse_target(target)


@pytest.mark.skipif(_HAS_LIBTPU, reason='libtpu is installed')
def test_missing_compiler_names_the_command():
  with pytest.raises(
      errors.InputError, match=r"pip install 'libtpu==[\d.]+\*'$"
  ):
    benchmark_compile.get_devices('tpu:v5e:2x2')
  with pytest.raises(errors.InputError, match=r"'jax\[cuda12-local\]==[\d.]+'$"):
    benchmark_compile.get_devices('gpu:h100:1')


def test_roofline_is_the_slower_of_arithmetic_and_memory():
  # 1 s of arithmetic, 4 s of main memory.
  assert _make_report().time(_CHIP) == 4.0
  assert _make_report(flops=5e9).time(_CHIP) == 5.0
  # Without a program's text, by what XLA counts.
  assert _make_report(traffic=None).time(_CHIP) == 9.0


def test_gradients_are_told_from_statistics():
  report = _make_report()
  assert [c.num_bytes for c in report.gradients] == [1_000_012]
  assert not report.moves_images(64)
  moved = compiled_programs.Collective('all-to-all', (_array(2, 64, 64, 3),))
  assert _make_report(collectives=[moved]).moves_images(64)


def test_scaling_is_that_of_a_ring():
  lines = benchmark_compile.format_scaling(_make_report(), _CHIP).splitlines()
  assert lines[0] == 'step: 1.0 MB of collectives a step'
  one, two = lines[2].split(), lines[3].split()
  # 10 images in 4 s.
  assert one == ['1', '0.00', '2', '100.0%', '0.0']
  # Half of twice 1 MB, at 1 MB a second: 20 images in 5 s, and 2.5 images of
  # 0.4 s take as long as the exchange.
  assert two == ['2', '1000.08', '4', '80.0%', '2.5']


def test_schedule_is_epochs_of_celeba():
  reports = [_make_report()] * 3
  text = benchmark_compile.format_schedule(reports, _CHIP)
  # 162,770 images of 0.4 s: 18.1 hours an epoch.
  assert 'phase_one 100 epochs 1808.6' in text
  assert 'together 10851.3' in text


def test_report_names_what_it_counts():
  text = benchmark_compile.format_report(_make_report(), _CHIP)
  assert 'GFLOP an image             0.100' in text
  assert 'MB an image, as XLA         0.90' in text
  assert 'padding                    25.0%' in text
  assert '2 all-reduce of 1.00 MB' in text
  assert 'with gradients      1 all-reduce of 1.00 MB' in text


# Invariants.


@pytest.mark.parametrize('name', face_steps.STEPS)
def test_steps_compile_for_devices_that_are_here(name):
  report = benchmark_compile.compile_step(
      _make_tiny_step(name), jax.devices()[:1], 4
  )
  assert report.flops > 0
  assert report.bytes_accessed > 0
  assert report.peak_memory > 0
  assert report.collectives == []
  table = benchmark_compile.report_weak_scaling(
      _make_tiny_step(name), (1,), 4
  )
  assert table.splitlines()[2].split()[0] == '1'


@pytest.mark.slow
def test_weak_scaling_is_flat_but_for_the_collectives():
  code = (
      'import sys; sys.path.insert(0, "tests")\n'
      'import benchmark_compile_test as test\n'
      'from experiments import benchmark_compile\n'
      'import jax, json\n'
      'step = test._make_tiny_step()\n'
      'print(json.dumps([(r.flops, r.peak_memory, r.moves_images(8),'
      ' sum(c.num_bytes for c in r.collectives)) for r in ('
      'benchmark_compile.compile_step(step, jax.devices()[:n], 4)'
      ' for n in (1, 2, 4))]))\n'
  )
  done = subprocess.run(
      [sys.executable, '-c', code],
      cwd=ROOT,
      env={
          **os.environ,
          'XLA_FLAGS': '--xla_force_host_platform_device_count=4',
          'JAX_PLATFORMS': 'cpu',
          'PYTHONPATH': str(ROOT),
      },
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  one, two, four = json.loads(done.stdout)
  assert one[2:] == [False, 0]
  params = jax.eval_shape(
      lambda: face_steps.init_variables(_make_tiny_step().model, 0)
  )['params']
  num_params = sum(x.size for x in jax.tree.leaves(params))
  for other in (two, four):
    # Sums over devices are arithmetic too.
    assert other[0] == pytest.approx(one[0], rel=0.05)
    assert other[1] == pytest.approx(one[1], rel=0.2)
    # All gradients, in two bytes or four, and nothing of the size of images.
    assert not other[2]
    assert other[3] > 2 * num_params
  # What is exchanged does not grow with the devices, but for the factors, of
  # which each has all.
  assert four[3] == pytest.approx(two[3], rel=0.1)


def test_too_few_devices_are_the_users_mistake():
  count = jax.device_count() + 1
  with pytest.raises(errors.InputError, match=f'{count} devices, found'):
    benchmark_compile.report_weak_scaling(_make_tiny_step(), (count,), 4)


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_LIBTPU, reason='libtpu is not installed')
def test_gradients_on_tpu_are_few_all_reduces_and_no_image_moves():
  devices = benchmark_compile.get_devices('tpu:v5e:2x2')
  step = face_steps.make_step('student', 64, jnp.bfloat16)
  report = benchmark_compile.compile_step(step, devices, 8)
  assert 1 <= len(report.gradients) <= 4
  assert not report.moves_images(64)


# What surrounds a step.


def test_reading_is_measured(monkeypatch):
  monkeypatch.setattr(benchmark_whole, '_NUM_READ', 64)
  heading, rate = benchmark_whole.measure_input(16, 1).splitlines()
  assert heading.startswith('Reading faces: 16x16 pixels')
  assert float(rate.split()[0]) > 0


def test_flips_are_measured(monkeypatch):
  monkeypatch.setattr(face_steps, 'NUM_FACTORS', 2)
  monkeypatch.setattr(face_steps, 'TEACHER_CHANNELS', 3)
  monkeypatch.setattr(benchmark_whole, '_NUM_FLIPPED', 2)
  monkeypatch.setattr(
      benchmark_whole,
      '_JUDGE_WIDTHS',
      {'first_width': 4, 'last_width': 4, 'hidden': 4},
  )
  heading, rate = benchmark_whole.measure_flips(8, 1).splitlines()
  assert 'k = 2, d = 12' in heading and 'median of 1 x 4.' in heading
  assert float(rate.split()[0]) > 0


@pytest.mark.slow
def test_start_is_measured():
  lines = benchmark_whole.measure_start(16).splitlines()
  new, kept = (float(line.split()[-2]) for line in lines[2:])
  assert kept < new
