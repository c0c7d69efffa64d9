"""Tests of experiments.svhn: what flags mean, and runs end to end."""

import contextlib
import io
import json
import pathlib
import subprocess
import sys

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments import command_line
from experiments import evaluate
from experiments import svhn
from experiments import svhn_runs

ROOT = pathlib.Path(__file__).parents[1]
FLAGFILES = ROOT / 'experiments' / 'flagfiles'
SVHN = ROOT.parent / 'shared' / 'data' / 'svhn32' / 'svhn32_crops.npz'
SIZES = {'train': 168, 'test': 136}
TINY = (
    '--first_width=2', '--epochs=1', '--eval_every=1', '--batch_size=32',
)  # pyformat: disable
RUN = (*TINY, '--nuisance_dim=2')

pytestmark = pytest.mark.usefixtures('svhn_flags')


def _invoke(*args):
  """Runs the binary in this process; returns status, stdout and stderr."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.ExitStack() as stack:
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(sys, 'argv', ['experiments/svhn.py', *args])
    stack.enter_context(flagsaver.flagsaver())
    stack.enter_context(contextlib.redirect_stdout(out))
    stack.enter_context(contextlib.redirect_stderr(err))
    exit_info = stack.enter_context(pytest.raises(SystemExit))
    command_line.run(svhn.main)
  return exit_info.value.code or 0, out.getvalue(), err.getvalue()


def _places(root):
  return f'--workdir={root / "run"}', f'--judge_workdir={root / "judge"}'


def _write_arrays(path, shape=(32, 32, 3)):
  """Writes images whose class is a colour."""
  rng = np.random.default_rng(0)
  count = sum(SIZES.values())
  labels = rng.integers(0, 4, count)
  colours = rng.integers(40, 215, (4, 1, 1, shape[-1]))[labels]
  images = colours + rng.integers(-40, 40, (count, *shape))
  split = np.repeat(list(SIZES), list(SIZES.values()))
  np.savez(path, images=images.astype(np.uint8), labels=labels, split=split)


@pytest.fixture(scope='module')
def finished(svhn_flags, tmp_path_factory):
  """A whole run: its directory, its judges' beside it, its data."""
  del svhn_flags
  root = tmp_path_factory.mktemp('svhn')
  _write_arrays(root / 'mine.npz')
  status, _, err = _invoke(
      *RUN, '--dataset=arrays', f'--data_dir={root / "mine.npz"}',
      *_places(root),
  )  # pyformat: disable
  assert status == 0, err
  return root


def _values(**changes):
  """The flags' defaults, with changes."""
  return {**flags.FLAGS.flag_values_dict(), **changes}


# Values.


def test_defaults_are_the_papers():
  program = (
      'import json; from absl import flags; from experiments import svhn;'
      'svhn.define_flags(); flags.FLAGS.mark_as_parsed();'
      'print(json.dumps(flags.FLAGS.flag_values_dict(), default=str))'
  )
  # In a process of its own: here experiments.mnist has defined its flags.
  output = subprocess.run(
      [sys.executable, '-c', program],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=True,
  ).stdout
  expected = {
      'dataset': 'svhn_cropped', 'num_factors': 2, 'nuisance_dim': 16,
      'epochs': 25, 'lambda_y': 0.025, 'lambda_diff': 0.01,
      'learning_rate': 3e-4, 'weight_decay': 1e-6, 'batch_size': 128,
      'first_width': 64, 'normalize_students': True, 'linear_code': False,
  }  # pyformat: disable
  found = json.loads(output)
  assert {name: found[name] for name in expected} == expected


def test_models_are_the_papers():
  model = svhn_runs.make_model(_values(), 2, 16, False)
  assert model.widths == (64, 128, 256)
  assert model.image_shape == (32, 32, 3)
  assert (model.num_factors, model.nuisance_dim) == (2, 16)
  assert model.normalize_code and not model.linear_code


def test_only_the_first_teacher_is_normalized_where_asked_for():
  values = _values(normalize_students=False)
  assert svhn_runs.make_model(values, 2, 0, True).normalize_code
  assert not svhn_runs.make_model(values, 2, 1, False).normalize_code


@pytest.mark.parametrize(
    ('growth', 'normalize_students', 'folded'),
    [
        ('preserving', False, True),
        # A BatchNorm that stays is not folded.
        ('preserving', True, False),
        ('random', False, False),
    ],
)
def test_normalization_is_folded_where_students_have_none(
    growth, normalize_students, folded
):
  values = _values(
      growth=growth, normalize_students=normalize_students, linear_code=True
  )
  assert svhn_runs.make_settings(values).fold_normalization == folded


def test_results_have_a_row_per_model(finished):
  results = json.loads((finished / 'run' / 'results.json').read_text())
  assert results['experiment'] == 'svhn'
  rows = results['rows']
  assert [(r['stage'], r['nuisance_dim']) for r in rows] == [
      ('teacher', 0), ('student_d01', 1), ('student_d02', 2), ('random', 2),
  ]  # pyformat: disable
  for row in rows:
    assert 0 < row['mse'] < 1
    assert 0 <= row['judge_accuracy'] <= 1


def test_figures_are_there(finished):
  found = {path.stem for path in (finished / 'run' / 'figures').iterdir()}
  assert found == {
      'figure_9', 'figure_10', 'figure_11', 'figure_12', 'curves',
      'reconstructions',
  }  # pyformat: disable


@pytest.mark.slow
def test_paper_flags_compile_and_take_steps_of_two_stages(tmp_path):
  """At the paper's size: two stages of two steps."""
  _write_arrays(tmp_path / 'mine.npz')
  status, _, err = _invoke(
      f'--flagfile={FLAGFILES / "svhn_paper.flags"}', '--dataset=arrays',
      f'--data_dir={tmp_path}', '--nuisance_dim=1', '--epochs=1',
      '--batch_size=84', *_places(tmp_path),
  )  # pyformat: disable
  assert status == 0, err
  records = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(record)['step'] for record in records] == [2, 4]


# Invariants.


def test_same_command_again_is_complete(finished):
  before = (finished / 'run' / 'results.json').read_text()
  status, out, _ = _invoke(
      *RUN, '--dataset=arrays', f'--data_dir={finished / "mine.npz"}',
      *_places(finished),
  )  # pyformat: disable
  assert status == 0
  assert 'complete' in out and 'images/s' not in out
  assert (finished / 'run' / 'results.json').read_text() == before


def test_evaluating_again_gives_the_rows_of_the_run(finished):
  _, rows = evaluate.evaluate(
      finished / 'run',
      data_dir=finished / 'mine.npz',
      judge_workdir=finished / 'judge',
      diagnostics_images=0,
  )
  results = json.loads((finished / 'run' / 'results.json').read_text())
  assert [row['stage'] for row in rows] == [
      row['stage'] for row in results['rows']
  ]
  for row, expected in zip(rows, results['rows']):
    assert row['sha256'] == expected['sha256']
    # The same program on the same numbers.
    assert row['mse'] == pytest.approx(expected['mse'], rel=1e-6)


@pytest.mark.slow
def test_two_chains_without_normalization(finished, tmp_path):
  status, _, err = _invoke(
      *TINY, '--nuisance_dim=1', '--nonormalize_students', '--linear_code',
      '--growth=preserving', '--students=student,student_no_jacobian',
      '--dataset=arrays', f'--data_dir={finished}',
      f'--workdir={tmp_path / "run"}', f'--judge_workdir={finished / "judge"}',
  )  # pyformat: disable
  assert status == 0, err
  found = {path.stem for path in (tmp_path / 'run' / 'figures').iterdir()}
  assert {'figure_12', 'figure_12_no_jacobian'} <= found
  # No unit but the newest, which Figure 10 has.
  assert not {'figure_11', 'figure_11_no_jacobian'} & found


@pytest.mark.slow
def test_quick_flags_on_mocked_svhn(tmp_path):
  with tfds.testing.mock_data(num_examples=160):
    status, _, err = _invoke(
        f'--flagfile={FLAGFILES / "svhn_quick.flags"}', *TINY,
        '--nuisance_dim=1', '--dataset=svhn_cropped', f'--data_dir={tmp_path}',
        *_places(tmp_path),
    )  # pyformat: disable
  assert status == 0, err
  manifest = json.loads((tmp_path / 'run' / 'manifest.json').read_text())
  assert manifest['dataset']['name'] == 'svhn_cropped'


@pytest.mark.slow
def test_quick_flags_on_real_crops(tmp_path):
  if not SVHN.is_file():
    pytest.skip(f'{SVHN} is not there')
  status, _, err = _invoke(
      f'--flagfile={FLAGFILES / "svhn_quick.flags"}', *TINY,
      '--nuisance_dim=1', '--dataset=arrays', f'--data_dir={SVHN}',
      *_places(tmp_path),
  )  # pyformat: disable
  assert status == 0, err
  assert (tmp_path / 'run' / 'figures' / 'figure_12.png').is_file()


# Bad input.


@pytest.mark.parametrize(
    ('args', 'parts'),
    [
        (['--first_width=0'], ['--first_width=0', 'accepted: 1']),
        (['--nuisance_dim=0'], ['--nuisance_dim=0', 'accepted: 1']),
        (
            ['--growth=preserving', '--nonormalize_students'],
            ['--growth=preserving', '--linear_code'],
        ),
        (['--dataset=arrays'], ['--data_dir', 'not given', 'images, labels']),
        (
            ['--dataset=arrays', '--data_dir=nowhere.npz'],
            ['nowhere.npz does not exist'],
        ),
        (['--dataset=mnist'], ['28x28x1', 'accepted are 32x32x3']),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(tmp_path, args, parts):
  status, _, err = _invoke(*args, *_places(tmp_path))
  assert status == 2
  assert err.count('\n') == 1 and err.startswith('error: '), err
  for part in parts:
    assert part in err
  assert not list(tmp_path.iterdir())


def test_images_of_another_size_are_refused(tmp_path):
  _write_arrays(tmp_path / 'mine.npz', (28, 28, 1))
  status, _, err = _invoke(
      '--dataset=arrays', f'--data_dir={tmp_path}', *_places(tmp_path)
  )
  assert status == 2
  assert '28x28x1: accepted are 32x32x3' in err
  assert [path.name for path in tmp_path.iterdir()] == ['mine.npz']


def test_judges_of_another_file_are_refused(finished, tmp_path):
  with np.load(finished / 'mine.npz') as content:
    arrays = dict(content)
  arrays['images'] = 255 - arrays['images']
  np.savez(tmp_path / 'inverted.npz', **arrays)
  status, _, err = _invoke(
      *RUN, '--dataset=arrays', f'--data_dir={tmp_path}',
      f'--workdir={tmp_path / "run"}', f'--judge_workdir={finished / "judge"}',
  )  # pyformat: disable
  assert status == 2
  assert err.count('arrays of fingerprint') == 2
  assert not (tmp_path / 'run').exists()
