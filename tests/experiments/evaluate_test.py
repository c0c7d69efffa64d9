"""Tests of experiments.evaluate, figures and others that read a run."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from experiments import evaluate
from experiments import figures
from experiments import judge

METRICS = ('mig', 'sap', 'modularity')


def _evaluate(invoke, run, *args):
  return invoke(evaluate.main, evaluate.Config(), f'--workdir={run}', *args)


def _snapshot(folder):
  return {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}


@pytest.fixture(scope='module')
def copy(mnist_run, root):
  """A copy of the run of digits that a test may change."""
  return pathlib.Path(shutil.copytree(mnist_run, root / 'copy'))


def test_a_run_of_digits_is_measured_again(copy, root, invoke):
  before = _snapshot(copy)
  status, out, err = _evaluate(
      invoke, copy, f'--judge_workdir={root / "judges"}',
      '--diagnostics_images=8', f'--metrics={",".join(METRICS)}',
  )  # fmt: skip
  assert status == 0, err
  # Nothing else in the work directory changes.
  assert {p: t for p, t in _snapshot(copy).items() if p in before} == before
  folder = copy / 'evaluations'
  found = json.loads((folder / 'arrays_test.json').read_text())
  own = json.loads((copy / 'results.json').read_text())
  assert found['judges'] == own['judges']
  for row, expected in zip(found['rows'], own['rows'], strict=True):
    assert {name: row[name] for name in expected} == expected
    assert {*METRICS} <= row.keys()
  student = found['rows'][1]
  assert -1 <= student['jacobian_cosine'] <= 1
  # The first teacher supervises the first student.
  assert student['jacobian_cosine'] == student['jacobian_cosine_first_teacher']
  assert student.keys() >= {'class_swaps_ceiling_cnn', 'residual_share'}
  assert student['class_swaps_ceiling'] == min(
    (student[f'class_swaps_ceiling_{f}'] for f in ('mlp', 'cnn', 'svm')
     if student[f'class_swaps_ceiling_{f}'] is not None), default=None,
  )  # fmt: skip
  assert 'MIG' in out
  details = json.loads((folder / 'arrays_test_diagnostics.json').read_text())
  assert [entry['stage'] for entry in details['models']] == [
      'teacher', 'student_d01', 'student_no_jacobian_d01', 'random'
  ]  # fmt: skip
  assert (folder / 'arrays_test_directions_student_d01.png').exists()
  scores = json.loads((folder / 'arrays_test_metrics.json').read_text())
  assert scores['rows'][0]['mig']['value'] == found['rows'][0]['mig']


def test_unfinished_stages_are_noted_and_other_data_are_named(
  copy, root, invoke
):
  manifest = json.loads((copy / 'manifest.json').read_text())
  del manifest['stages']['student_no_jacobian_d01']
  manifest['dataset']['fingerprint'] = 'of another file'
  (copy / 'manifest.json').write_text(json.dumps(manifest))
  status, _, err = _evaluate(
      invoke, copy, f'--judge_workdir={root / "judges"}', '--split=train',
      '--diagnostics_images=0',
  )  # fmt: skip
  assert status == 0, err
  assert 'not measured, as unfinished: student_no_jacobian_d01' in err
  [path] = (copy / 'evaluations').glob('arrays_*_train.json')
  found = json.loads(path.read_text())
  assert found['dataset']['fingerprint'] in path.name
  assert 'trained on' not in found['protocol']
  assert len(found['rows']) == 3


def test_a_run_of_faces_is_measured_again(celeba_run, root, invoke):
  status, _, err = _evaluate(
      invoke, celeba_run, f'--judge_workdir={root / "face_judge"}',
      '--split=train', '--diagnostics_images=0', '--metrics=mig',
  )  # fmt: skip
  assert status == 0, err
  assert 'fader: its factors are the labels' in err
  path = celeba_run / 'evaluations' / 'celeba_folder_train.json'
  found = json.loads(path.read_text())
  chosen = 'train split, strengths chosen on validation by the run'
  assert found['protocol'].startswith(chosen)
  own = json.loads((celeba_run / 'results.json').read_text())['rows']
  for row, again in zip(own, found['rows'], strict=True):
    assert again['strength'] == row['strength']
    assert again['deviations_by_attribute'] == row['deviations_by_attribute']
    assert again['thresholds_by_attribute'] == row['thresholds_by_attribute']
  # Of labels they are 0.
  used = [any(row['thresholds_by_attribute'].values()) for row in own]
  assert used == [True, False, True, False, False, False, used[-1]]
  status, _, err = _evaluate(
      invoke, celeba_run, f'--judge_workdir={root / "face_judge"}',
      '--split=train', '--diagnostics_images=0', '--choose_strength',
      '--kept_weight=3',
  )  # fmt: skip
  assert status == 0, err
  found = json.loads(path.read_text())
  assert 'kept counts 3 times as much as flips' in found['protocol']
  assert [row['deviations_by_attribute'] for row in found['rows']] != [
    row['deviations_by_attribute'] for row in own
  ]
  own = json.loads((celeba_run / 'results.json').read_text())
  assert found['judges'] == own['judges']
  kinds = [judge['kind'] for judge in found['judges']]
  assert kinds == ['strided', 'residual']
  assert [row['stage'] for row in found['rows']] == [
    row['stage'] for row in own['rows']
  ]


def test_other_faces_may_have_a_test_split_alone(
  celeba_run, faces, root, invoke
):
  folder = root / 'test_alone'
  images = folder / 'img_align_celeba'
  images.mkdir(parents=True)
  lines = (faces / 'list_attr_celeba.csv').read_text().splitlines()[:9]
  (folder / 'list_attr_celeba.csv').write_text('\n'.join(lines))
  chosen = [line.split(',')[0] for line in lines[1:]]
  for name in chosen:
    (images / name).symlink_to(faces / images.name / images.name / name)
  split = ''.join(f'{name} 2\n' for name in chosen)
  (folder / 'list_eval_partition.txt').write_text(split)
  args = (f'--data_dir={folder}', f'--judge_workdir={root / "face_judge"}')
  status, _, err = _evaluate(
    invoke, celeba_run, *args, '--split=test', '--diagnostics_images=0'
  )
  assert status == 0, err
  [path] = (celeba_run / 'evaluations').glob('celeba_folder_*_test.json')
  found = json.loads(path.read_text())
  assert 'chosen on validation by the run' in found['protocol']
  status, _, err = _evaluate(
    invoke, celeba_run, *args, '--split=test', '--choose_strength'
  )
  assert status != 0 and 'validation' in err


@pytest.mark.parametrize(
  ('args', 'part'),
  [
    (['--split=validation'], 'another split'),
    (['--dataset=synthetic_faces'], 'the same data'),
    (['--judge_workdir=nowhere'], 'has no judge'),
    (['--kept_weight=2'], 'without --choose_strength'),
    (['--factor_units=1'], 'a run of classes'),
    (['--metrics=mig,x'], '--metrics=mig,x'),
  ],
)
def test_mistakes_of_faces(celeba_run, root, invoke, args, part):
  before = _snapshot(celeba_run)
  status, _, err = _evaluate(
    invoke, celeba_run, f'--judge_workdir={root / "face_judge"}', *args
  )
  assert status == 2 and err.count('\n') == 1 and part in err, err
  assert _snapshot(celeba_run) == before


def test_strengths_are_of_faces_alone(mnist_run, invoke):
  before = _snapshot(mnist_run)
  status, _, err = _evaluate(invoke, mnist_run, '--choose_strength')
  assert status == 2 and err.count('\n') == 1 and 'a run of faces' in err, err
  assert _snapshot(mnist_run) == before


def test_figures_of_a_run_are_drawn_again(mnist_run, tmp_path, invoke):
  status, _, err = invoke(
      figures.main, figures.FiguresConfig(), f'--workdir={mnist_run}',
      '--figure=2', f'--output_dir={tmp_path}', '--format=png',
  )  # fmt: skip
  assert status == 0, err
  # As the run drew it.
  own = mnist_run / 'figures' / 'figure_2.png'
  assert (tmp_path / 'figure_2.png').read_bytes() == own.read_bytes()


def test_judges_are_trained_once(mnist_run, digits, root, invoke):
  before = _snapshot(root / 'judges')
  status, out, err = invoke(
      judge.main, judge.Config(), '--dataset=arrays', f'--data_dir={digits}',
      f'--workdir={root / "judges"}',
  )  # fmt: skip
  assert status == 0, err
  first, *lines = out.splitlines()
  assert first.startswith('judges: right on mlp ')
  assert [line.split(':')[0] for line in lines] == [
      'mlp 0', 'mlp 1', 'mlp 2', lines[3], 'cnn 0', 'cnn 1', 'cnn 2',
      lines[7], 'svm 0', lines[9],
  ]  # fmt: skip
  assert _snapshot(root / 'judges') == before
  own = json.loads((mnist_run / 'results.json').read_text())['judges']
  for one in own:
    assert f'{one["family"]} mean {np.mean(one["accuracy"]):.2%}' in out


def test_judges_of_faces_are_trained_once(celeba_run, faces, root, invoke):
  folder = root / 'face_judge'
  before = _snapshot(folder)
  kinds = {'strided', 'residual', 'robust'}  # The last of the edit check.
  assert {path.parent.name for path in before} == kinds
  # The flags of the run, and a batch of all its images.
  status, out, err = invoke(
      judge.main, judge.Config(), '--dataset=celeba_folder',
      f'--data_dir={faces}', '--image_size=8', '--batch_size=8',
      '--judge_epochs=1', '--judge_first_width=4', '--judge_last_width=8',
      '--judge_hidden=8', f'--workdir={folder}',
  )  # fmt: skip
  assert status == 0, err
  assert _snapshot(folder) == before
  lines = out.splitlines()
  shown = [line.split()[0] for line in lines if 'accuracy' in line]
  assert shown == ['strided', 'residual']
  own = json.loads((celeba_run / 'results.json').read_text())['judges']
  for found in own:
    assert f'mean {np.mean(found["accuracy"]):.2%}' in out
