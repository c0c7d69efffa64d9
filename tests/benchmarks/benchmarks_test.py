"""One tiny run of each benchmark."""

import importlib
import subprocess
import sys

import jax
import pytest

from benchmarks import compiled
from benchmarks import input as reading
from benchmarks import problems
from benchmarks import steps
from benchmarks import timing
from jacsup_jax.core import errors

TINY_DIGITS, TINY_FACES = problems.TINY_DIGITS, problems.TINY_FACES
BATCH_SIZE = jax.device_count()


def _measures(programs, *names):
  times = timing.measure(programs, 1, 2)
  assert tuple(times) == names
  assert all(values[0] > 0 for values in times.values())


def test_table():
  times = {'ours': [4.0, 2.0, 3.0], 'theirs': [8.0, 6.0, 9.0]}
  # 128 images in 3 ms; ratios of the same repeat are 2, 3 and 3.
  assert timing.format_table(times, 128).splitlines() == [
    '                      ms/step  fastest  images/s  ratio',
    'ours                     3.00     2.00     42667   1.00',
    'theirs                   8.00     6.00     16000   3.00',
  ]


def test_jacobian(monkeypatch):
  few = {'secant': steps.SUPERVISIONS['secant']}
  monkeypatch.setattr(steps, 'SUPERVISIONS', few)
  _measures(steps.list_supervisions(BATCH_SIZE, 1, 2, **TINY_DIGITS), *few)


@pytest.mark.slow
def test_digits():
  programs = steps.list_digits(BATCH_SIZE, 1, 2, **TINY_DIGITS)
  _measures(programs, 'teacher cached', 'teacher in the step')


@pytest.mark.slow
def test_faces():
  _measures(steps.list_faces('phase_one', 8, 8, 2, **TINY_FACES), 'ours')


@pytest.mark.slow
def test_grid():
  programs = steps.list_grid(BATCH_SIZE, 1, 2, 2, **TINY_DIGITS)
  _measures(programs, 'at once', 'one by one')


@pytest.mark.parametrize(
  'name',
  [
    'phase_one',
    pytest.param('phase_two', marks=pytest.mark.slow),
    pytest.param('student', marks=pytest.mark.slow),
  ],
)
def test_compiled(name):
  report = compiled.compile_step(
    name, 8, jax.devices()[:1], 4, compiled.CHIPS['v5e'], **TINY_FACES
  )
  assert report.startswith(f'{name}, 8x8 pixels, batch 4 a device')
  assert 'collectives: none' in report and 'roofline: ' in report


def test_reading():
  assert reading.measure(8, 1, num_images=32) > 0


def test_mistakes_are_one_line():
  for target in ('', 'tpu', 'tpu:v9:2x2', 'gpu:h100:1'):
    with pytest.raises(errors.InputError, match=f'^--target={target}; accept'):
      compiled.get_devices(target)
  command = [sys.executable, '-m', 'benchmarks.steps', '--what=jacobian']
  done = subprocess.run(
    [*command, '--against=torch'], capture_output=True, text=True, check=False
  )
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert done.stderr.startswith('error: --against=torch with --what=jacobian')


@pytest.mark.parametrize('names', [('input', 'input'), ('steps', 'bundle')])
def test_one_process_may_run_several_benchmarks(monkeypatch, capsys, names):
  monkeypatch.setattr(sys, 'argv', ['notebook'])
  for name in names:
    module = importlib.import_module(f'benchmarks.{name}')
    with pytest.raises(SystemExit) as info:
      timing.run(lambda name=name: f'table of {name}', module.define_flags)
    assert not info.value.code
  assert capsys.readouterr().out.endswith(f'table of {names[1]}\n')
