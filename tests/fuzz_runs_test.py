"""Fuzz tests of what is read of work directories, judges and checkpoints."""

import json
import os
import pathlib
import shutil

import fuzzing
import jax
from hypothesis import strategies as st
import numpy as np
import pytest

from experiments import celeba_runs
from experiments import discovery_runs
from experiments import evaluate
from experiments import paper_numbers
from experiments import paper_tables
from experiments import reproduced_runs
from jacsup_jax.core import errors
from jacsup_jax.data import registry as datasets
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import judge_files
from jacsup_jax.evaluation import judges
from jacsup_jax.evaluation import tables
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import workdir as workdirs

RESULTS = pathlib.Path(__file__).parents[1] / 'results'
FLAGS = {
    'dataset': 'small', 'seed': 0, 'batch_size': 128, 'epochs': 1,
    'num_factors': 2, 'nuisance_dim': 1, 'students': ['student'],
    'lambda_y': 0.25, 'lambda_diff': 0.1, 'lambda_xcov': 1e-3,
    'xcov': 'squared', 'learning_rate': 3e-4, 'weight_decay': 1e-6,
    'compute_dtype': 'float32', 'eval_split': 'test', 'grow_by': 1,
    'grow_when': 'schedule', 'patience': 3, 'growth': 'random',
}  # pyformat: disable
FACE_FLAGS = {
    'dataset': 'synthetic_faces', 'image_size': 8, 'attributes': [],
    'skip_bad_images': False, 'held_out': 0, 'eval_split': 'test', 'seed': 0,
    'batch_size': 8, 'epochs': 1, 'cycle_epochs': 0, 'student_epochs': 1,
    'nuisance_dims': ['4', '8'], 'students': ['student'],
    'supervisor': 'teacher', 'teacher_workdir': None, 'first_width': 4,
    'last_width': 4, 'linear_factors': False, 'compute_dtype': 'float32',
    'learning_rate': 2e-3, 'adam_b1': 0.5, 'weight_decay': 0.0,
    'strengths': ['1', '2'], 'selection_images': 4, 'xcov': 'squared',
    'lambda_reconstruction': 1.0, 'lambda_prediction': 1.0, 'lambda_xcov': 1.0,
    'lambda_attribute_cycle': 0.0, 'lambda_nuisance_cycle': 0.0,
    'lambda_y': 1.0, 'lambda_diff': 1.0, 'student_lambda_prediction': 0.0,
    'student_lambda_xcov': 0.0, 'fader_epochs': 0,
}  # pyformat: disable
MANIFEST = {
    'experiment': 'mnist', 'flags': FLAGS, 'devices': ['cpu:0 cpu'],
    'dataset': {'name': 'small', 'fingerprint': 'small-train'},
    'versions': {'jax': '0.9'},
    'stages': {
        'teacher': {
            'parent': None, 'parent_sha256': None, 'supervisor': None,
            'sha256': 'ab' * 32, 'nuisance_dim': 0, 'epochs': 1,
        },
    },
}  # pyformat: disable
FACE_MANIFEST = {
    **MANIFEST, 'experiment': 'celeba', 'flags': FACE_FLAGS,
    'dataset': {'name': 'x', 'fingerprint': 'y', 'attributes': ['Bald', 'Male']}
}  # pyformat: disable
ROW = {
    'model': 'student', 'stage': 'student_d03', 'nuisance_dim': 14, 'seed': 0,
    'epochs': 1, 'lambda_y': 0.25, 'lambda_diff': 0.1, 'lambda_xcov': 1e-3,
    'sha256': 'ab' * 32, 'mse': 0.01, 'psnr': 20.0, 'class_swaps': 0.6,
    'class_swaps_by_judge': [0.6],
}  # pyformat: disable
FACE_ROW = {
    'model': 'student', 'nuisance_dim': 8192, 'seed': 0, 'epochs': 1,
    'sha256': 'x', 'mse': 0.01, 'attribute_flips': 0.7, 'strength': 5.0,
    'preservation': None,
}  # pyformat: disable
RECORDS = [
    {'stage': 'teacher', 'epoch': i, 'step': 10 * i, 'loss': 0.5}
    for i in (1, 2)
]
JUDGES = {
    'num_classes': 10, 'image_shape': [28, 28, 1], 'dataset': 'small',
    'seeds': [0, 1], 'epochs': 1, 'accuracy': [0.9, 0.8], 'sha256': 'x',
}  # pyformat: disable
FACE_JUDGE = {
    'attribute_names': ['Bald'], 'image_size': 8, 'dataset': 'small',
    'fingerprint': 'x', 'seed': 0, 'epochs': 1, 'best_epoch': 1,
    'batch_size': 8, 'first_width': 4, 'last_width': 4, 'hidden': 4,
    'accuracy': [0.9], 'balanced_accuracy': [0.9], 'sha256': 'x',
}  # pyformat: disable


def _files(folder):
  return {
      path: path.read_bytes() if path.is_file() else None
      for path in folder.rglob('*')
  }


def test_manifests(tmp_path):
  path = tmp_path / 'manifest.json'

  def check(content):
    path.write_bytes(content)

    def use():
      run = workdirs.WorkDir(tmp_path)
      run.check(FLAGS)
      run.begin('mnist', FLAGS, MANIFEST['dataset'], [])
      return run

    # Of flags that differ the directory is named, of others the file.
    fuzzing.read(use, tmp_path)
    after = path.read_bytes()
    if after != content:
      # It goes on in other circumstances, which are added.
      entries = json.loads(after)
      assert entries.pop('continued')
      assert entries == json.loads(content)
    assert [p.name for p in tmp_path.iterdir()] == ['manifest.json']

  fuzzing.run('manifests', fuzzing.json_of(MANIFEST), check)


def test_runs_that_are_measured(tmp_path, monkeypatch):
  def load(name, split, **unused_kwargs):
    return datasets.Dataset(
        name, split, np.zeros((12, 28, 28, 1), np.uint8),
        np.zeros(12, np.int32), 10, f'{name}-{split}',
    )  # pyformat: disable

  monkeypatch.setattr(datasets, 'load', load)
  path = tmp_path / 'manifest.json'

  def check(content):
    path.write_bytes(content)
    try:
      evaluate.evaluate(tmp_path)
      raise AssertionError('there is no checkpoint to be measured')
    except errors.InputError as error:
      fuzzing.check_message(str(error))
    assert list(_files(tmp_path)) == [path]

  # Flags of the wrong type, most of all: there are most of them.
  fuzzing.run(
      'runs that are measured',
      st.one_of(fuzzing.json_of(MANIFEST), fuzzing.json_of(FACE_MANIFEST)),
      check,
  )


def test_results(tmp_path):
  (tmp_path / 'manifest.json').write_text(json.dumps(MANIFEST))
  path = tmp_path / 'results.json'
  results = {
      'experiment': 'mnist', 'protocol': 'as always', 'judges': {'sha256': 'x'}
  }  # pyformat: disable

  def check(case):
    content, table = case
    path.write_bytes(content)

    def use():
      rows = reproduced_runs.read_rows([tmp_path])
      paper_tables.format_markdown(paper_numbers.TABLES[table], rows)
      paper_tables.format_csv(paper_numbers.TABLES[table], rows)
      return tables.format_results(workdirs.WorkDir(tmp_path).read_results())

    fuzzing.read(use, path)

  fuzzing.run(
      'results',
      st.one_of(
          st.tuples(
              fuzzing.json_of({**results, 'rows': [ROW, ROW]}),
              st.sampled_from([1, 4]),
          ),
          st.tuples(
              fuzzing.json_of({**results, 'rows': [FACE_ROW]}), st.just(2)
          ),
      ),
      check,
  )


@pytest.mark.parametrize(
    'path', sorted(RESULTS.glob('*/results.json')), ids=str
)
def test_results_of_real_runs_are_read(tmp_path, path):
  shutil.copyfile(path, tmp_path / 'results.json')
  assert workdirs.WorkDir(tmp_path).read_results()['rows']


def test_metrics(tmp_path):
  (tmp_path / 'manifest.json').write_text(json.dumps(MANIFEST))
  path = tmp_path / 'metrics.jsonl'
  line = json.dumps(RECORDS[0]).encode() + b'\n'

  def check(content):
    path.write_bytes(line + content + b'\n' + line)

    def use():
      run = workdirs.WorkDir(tmp_path)
      run.drop_metrics_after('teacher', 10)
      return run.read_metrics()

    if fuzzing.read(use, path) is None:
      # What is refused is left as it is.
      assert path.read_bytes() == line + content + b'\n' + line

  fuzzing.run('metrics', fuzzing.json_of(RECORDS[1]), check)


def test_judges(tmp_path):
  path = tmp_path / 'judge.json'

  def check(case):
    content, is_faces = case
    path.write_bytes(content)

    def use():
      if is_faces:
        return attribute_judges.restore(
            tmp_path, attribute_names=('Bald',), image_size=8, dataset='small'
        )
      return judges.restore(
          tmp_path, dataset='small', num_classes=10, image_shape=(28, 28, 1)
      )

    assert fuzzing.read(use, tmp_path) is None  # There are no parameters.

  fuzzing.run(
      'judge.json',
      st.one_of(
          st.tuples(fuzzing.json_of(JUDGES), st.just(False)),
          st.tuples(fuzzing.json_of(FACE_JUDGE), st.just(True)),
      ),
      check,
  )


@pytest.mark.parametrize(
    ('entries', 'message'),
    [
        ({'seeds': []}, 'have 0 seeds'),
        ({'seeds': [-1]}, 'have 1 seeds'),
        ({'seeds': [2**31]}, 'each from 0 to 2147483647'),
        ({'seeds': 3}, "has 'seeds' 3; accepted: a list"),
        ({'epochs': 1.5}, "has 'epochs' 1.5; accepted: a whole number"),
        ({'epochs': True}, "has 'epochs' True"),
        ({'image_shape': [28, 28]}, "has 'image_shape' a list of 2"),
        ({'more': 1}, "it has 'more'"),
    ],
)
def test_judges_that_were_found_out(tmp_path, entries, message):
  (tmp_path / 'judge.json').write_text(json.dumps({**JUDGES, **entries}))
  with pytest.raises(errors.InputError, match=message):
    judges.restore(
        tmp_path, dataset='small', num_classes=10, image_shape=(28, 28, 1)
    )


@pytest.mark.parametrize(
    ('entries', 'message'),
    [
        ({'first_width': 0}, 'has first_width 0'),
        ({'hidden': 2**17}, 'has hidden 131072; accepted: 1 to 65536'),
    ],
)
def test_judges_of_faces_that_were_found_out(tmp_path, entries, message):
  (tmp_path / 'judge.json').write_text(json.dumps({**FACE_JUDGE, **entries}))
  with pytest.raises(errors.InputError, match=message):
    attribute_judges.restore(
        tmp_path, attribute_names=('Bald',), image_size=8, dataset='small'
    )


@pytest.mark.parametrize(
    'name', ['manifest.json', 'results.json', 'metrics.jsonl', 'judge.json']
)
@pytest.mark.parametrize('kind', ['pipe', 'folder', 'large'])
def test_what_is_no_file(tmp_path, monkeypatch, name, kind):
  if name != 'manifest.json':
    (tmp_path / 'manifest.json').write_text(json.dumps(MANIFEST))
  path = tmp_path / name
  if kind == 'pipe':
    os.mkfifo(path)
  elif kind == 'folder':
    path.mkdir()
  else:
    # Sparse: nothing of it is on the disk.
    with open(path, 'wb') as file:
      file.truncate(2**40)

  def use():
    run = workdirs.WorkDir(tmp_path)
    run.read_metrics()
    if name == 'results.json':
      run.read_results()
    judge_files.read(tmp_path, judges.Judges, 'params')

  with fuzzing.limited(), pytest.raises(errors.InputError) as error:
    use()
  fuzzing.check_message(str(error.value), path)


@pytest.mark.parametrize(
    ('manifest', 'kwargs', 'message'),
    [
        ({**MANIFEST, 'experiment': 'judge'}, {}, 'is a run of judge; acc'),
        (FACE_MANIFEST, {'dataset': 'x'}, '--dataset=x, and the run in .* is'),
        (FACE_MANIFEST, {'split': 'validation'}, 'what alpha is chosen on'),
        ({**MANIFEST, 'stages': {}}, {}, 'has no finished stage'),
    ],
)
def test_runs_that_are_not_measured(tmp_path, manifest, kwargs, message):
  (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
  with pytest.raises(errors.InputError, match=message):
    evaluate.evaluate(tmp_path, **kwargs)


def test_a_teacher_that_its_flags_do_not_train(tmp_path):
  stages = {'teacher': {'sha256': 'x'}}
  flags = {
      **FACE_FLAGS, 'epochs': 0, 'students': [], 'fader_epochs': 1,
      'lambda_adversarial': 0.0, 'adversarial_ramp_steps': 0,
  }  # pyformat: disable
  manifest = {**FACE_MANIFEST, 'flags': flags, 'stages': stages}
  (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
  values = {**FACE_FLAGS, 'teacher_workdir': str(tmp_path)}
  with pytest.raises(errors.InputError, match='flags that train none'):
    celeba_runs.restore_teachers(values, ['Bald', 'Male'], [0])


# Checkpoints.


def test_checkpoints(tmp_path):
  state = {
      'params': {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3)},
      'step': np.int32(3),
  }
  whole = tmp_path / 'whole'
  with checkpoints.StageCheckpoints(whole) as saved:
    saved.save(3, state)
  files = sorted(p.relative_to(whole) for p in whole.rglob('*') if p.is_file())
  contents = {path: (whole / path).read_bytes() for path in files}
  folder = tmp_path / 'damaged'

  def check(case):
    path, content, is_forged = case
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    if content is None:
      (folder / path).unlink()
    else:
      (folder / path).write_bytes(content)
    if is_forged:
      # Its checksums are right: Orbax reads what was damaged.
      (folder / '3' / 'manifest.json').unlink(missing_ok=True)
      listed = checkpoints._list_files(folder / '3')
      checkpoints._write_manifest(folder / '3', 3, None, listed)
    before = set(p for p in tmp_path.rglob('*') if folder not in p.parents)

    def restore():
      with checkpoints.StageCheckpoints(folder) as damaged:
        found = checkpoints.recover(damaged, {}, lambda line: None)
        return damaged.restore(found.step, state)

    found = fuzzing.read(restore, folder)
    if isinstance(found, dict):
      assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, state)
      if not is_forged:
        np.testing.assert_array_equal(
            found['params']['kernel'], state['params']['kernel']
        )
    after = set(p for p in tmp_path.rglob('*') if folder not in p.parents)
    assert after == before

  fuzzing.run(
      'checkpoints',
      st.sampled_from(files).flatmap(
          lambda path: st.tuples(
              st.just(path),
              st.one_of(st.none(), fuzzing.bytes_of(contents[path])),
              st.booleans(),
          )
      ),
      check,
  )


# Values: of flags that a run is made of.


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'nuisance_dim': 10**9}, '--nuisance_dim=1000000000; accepted: 65536'),
        ({'num_factors': 0}, '--num_factors=0; accepted: 1 to'),
        ({'compute_dtype': 'float8'}, 'float8'),
        ({'seed': -1}, '--seed=-1'),
        ({'students': 'student'}, "'students' 'student'; accepted: a list"),
        ({'lambda_y': '1'}, "has 'lambda_y' '1'; accepted: a number"),
    ],
)
def test_recorded_flags_that_were_found_out(tmp_path, change, message):
  manifest = {**MANIFEST, 'flags': {**FLAGS, **change}}
  (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
  run = workdirs.WorkDir(tmp_path)
  with fuzzing.limited(), pytest.raises(errors.InputError, match=message):
    discovery_runs.check_recorded(run)
    discovery_runs.make_stages(run.manifest['flags'])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'image_size': 9}, '--image_size=9'),
        ({'first_width': 2**20}, '--first_width=1048576; accepted: 1 to'),
        ({'compute_dtype': 'x'}, '--compute_dtype=x'),
        ({'strengths': ['nan']}, '--strengths=nan'),
        ({'strengths': ['x']}, '--strengths=x'),
        ({'nuisance_dims': ['4000000']}, '--nuisance_dims=4000000'),
    ],
)
def test_recorded_flags_of_faces_that_were_found_out(tmp_path, change, message):
  manifest = {**FACE_MANIFEST, 'flags': {**FACE_FLAGS, **change}}
  (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
  with fuzzing.limited(), pytest.raises(errors.InputError, match=message):
    evaluate.evaluate(tmp_path)
