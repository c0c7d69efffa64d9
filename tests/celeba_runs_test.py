"""Tests of experiments.celeba_runs: what flags mean. Runs: celeba_test."""

import dataclasses

import pytest

from experiments import celeba_runs
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import steps as training

# The flags' defaults. That they are defined: celeba_test.
DEFAULTS = {
    'nuisance_dims': ['2048', '4096', '8192'],
    'students': ['student'],
    'teacher_workdir': None,
    'supervisor': 'teacher',
    'epochs': 100,
    'cycle_epochs': 100,
    'student_epochs': 200,
    'fader_epochs': 0,
    'fader_learning_rate': 2e-4,
    'lambda_adversarial': 1e-4,
    'adversarial_ramp_steps': 500_000,
    'lambda_reconstruction': 1e2,
    'lambda_prediction': 1e-1,
    'lambda_xcov': 1e-1,
    'lambda_attribute_cycle': 1e-4,
    'lambda_nuisance_cycle': 1e-5,
    'lambda_y': 1.0,
    'lambda_diff': 50.0,
    'student_lambda_prediction': 0.0,
    'student_lambda_xcov': 0.0,
    'xcov': 'squared',
    'eval_split': 'test',
    'held_out': 0,
    'image_size': 8,
    'first_width': 4,
    'last_width': 4,
    'linear_factors': False,
    'compute_dtype': 'float32',
    'learning_rate': 2e-3,
    'weight_decay': 0.0,
    'adam_b1': 0.5,
    'seed': 0,
}
NAMES = ('Bald', 'Smiling')


def _values(**changes):
  return {**DEFAULTS, **changes}


# Values.


def test_stages_are_the_papers_by_default():
  chain = celeba_runs.make_stages(_values())
  found = [(s.name, s.parent, s.nuisance_dim, s.epochs) for s in chain]
  # Section 4.2: growths at epochs 200 and 400.
  assert found == [
      ('teacher_phase_1', None, 2048, 100),
      ('teacher', 'teacher_phase_1', 2048, 100),
      ('student_d4096', 'teacher', 4096, 200),
      ('student_d8192', 'student_d4096', 8192, 200),
  ]
  # As released, the first teacher supervises all growths.
  assert [s.supervisor for s in chain[2:]] == ['teacher', 'teacher']
  first, second, student, _ = (s.weights for s in chain)
  assert dataclasses.astuple(first)[:5] == (100, 0.1, 0.1, 0, 0)
  assert dataclasses.astuple(second)[:5] == (100, 0.1, 0.1, 1e-4, 1e-5)
  assert dataclasses.astuple(student)[:7] == (100, 0, 0, 0, 0, 1, 50)
  assert not first.needs_cycle and second.needs_cycle
  assert student.needs_teacher and not student.needs_cycle


def test_last_student_supervises_where_a_flag_says_so():
  chain = celeba_runs.make_stages(_values(supervisor='parent'))
  assert [s.supervisor for s in chain[2:]] == ['teacher', 'student_d4096']


def test_comparison_rows_lack_the_jacobian():
  values = _values(students=['student_cycle', 'student_no_jacobian'])
  chain = celeba_runs.make_stages(values)
  cycle, without = chain[2].weights, chain[4].weights
  # Table 5 of Lezama (2019): lambda_4 and lambda_5, lambda_diff = lambda_y = 0.
  assert dataclasses.astuple(cycle)[:7] == (100, 0, 0, 1e-4, 1e-5, 0, 0)
  assert not without.needs_teacher and not without.needs_cycle
  assert without.lambda_prediction == 0


def test_students_have_labels_where_a_flag_says_so():
  values = _values(students=['student_cycle'], student_lambda_prediction=10.0)
  assert celeba_runs.make_stages(values)[-1].weights.lambda_prediction == 10


def test_teacher_alone_may_be_one_phase():
  values = _values(nuisance_dims=['8'], students=[], cycle_epochs=0)
  [stage] = celeba_runs.make_stages(values)
  assert (stage.name, stage.model, stage.parent) == ('teacher', 'teacher', None)
  assert not stage.weights.needs_cycle


def test_student_from_scratch_is_supervised_but_not_grown():
  values = _values(students=['student', 'student_from_scratch'])
  *_, last, scratch = celeba_runs.make_stages(values)
  assert scratch.name == 'student_from_scratch_d8192'
  assert (scratch.parent, scratch.supervisor) == (None, 'teacher')
  # As large, and trained for as long, as the chain of 4096 and 8192.
  assert (scratch.nuisance_dim, scratch.epochs) == (last.nuisance_dim, 400)
  assert scratch.weights == last.weights


def test_fader_networks_are_of_the_teachers_size():
  *_, fader = celeba_runs.make_stages(_values(fader_epochs=7))
  assert (fader.name, fader.model, fader.parent) == ('fader', 'fader', None)
  assert (fader.nuisance_dim, fader.epochs) == (2048, 7)
  assert fader.weights == config.FaderLossWeights(1e-4, 500_000)
  settings = celeba_runs.make_fader_settings(
      _values(batch_size=8, parallel='jit', growth='random', keep_moments=True,
              cache='device', weight_decay=0.1)
  )  # pyformat: disable
  # As published.
  assert (settings.learning_rate, settings.adam_b1) == (2e-4, 0.5)
  assert settings.weight_decay == 0


def test_fader_networks_may_be_alone():
  values = _values(epochs=0, students=[], fader_epochs=7)
  [fader] = celeba_runs.make_stages(values)
  assert fader.model == 'fader'
  # A run from before the flag.
  values = _values()
  del values['fader_epochs']
  assert celeba_runs.make_stages(values) == celeba_runs.make_stages(_values())


def test_teacher_of_another_run_leaves_the_students():
  chain = celeba_runs.make_stages(_values(teacher_workdir='there'))
  assert [s.name for s in chain] == ['student_d4096', 'student_d8192']


@pytest.mark.parametrize(
    ('changes', 'parts'),
    [
        ({'nuisance_dims': ['6']}, ['--nuisance_dims=6', 'multiples of 4']),
        ({'nuisance_dims': ['8', '8']}, ['--nuisance_dims=8,8', 'larger']),
        ({'nuisance_dims': ['8', 'x']}, ['--nuisance_dims=8,x', 'accepted']),
        ({'nuisance_dims': []}, ['--nuisance_dims=', 'accepted']),
        ({'nuisance_dims': ['8']}, ['--nuisance_dims=8 ', 'more than one']),
        ({'students': ['pupil']}, ['--students=pupil', 'student_cycle']),
        ({'students': ['student'] * 2}, ['student,student', 'each once']),
        (
            {'students': [], 'teacher_workdir': 'there'},
            ['--students is empty', '--teacher_workdir'],
        ),
        ({'epochs': 0}, ['--epochs=0', '--students=student', 'accepted: 1']),
        (
            {'students': [], 'epochs': 0},
            ['--epochs is 0', 'nothing to train', '--fader_epochs'],
        ),
        ({'lambda_y': -1.0}, ['--lambda_y is -1.0', 'accepted: 0']),
    ],
)
def test_mistakes_name_what_is_accepted(changes, parts):
  with pytest.raises(errors.InputError) as info:
    celeba_runs.make_stages(_values(**changes))
  for part in parts:
    assert part in str(info.value)
  assert '\n' not in str(info.value)


def test_alpha_is_never_chosen_where_it_is_reported():
  choose = celeba_runs.choose_selection_split
  assert choose(_values()) == 'validation'
  assert choose(_values(eval_split='validation', held_out=9)) == 'held_out'
  with pytest.raises(errors.InputError, match='--held_out=0; accepted: 1'):
    choose(_values(eval_split='validation'))


# A teacher of another run.


@pytest.fixture(scope='module')
def teacher_run(tmp_path_factory):
  """A run whose teacher is finished; of no training."""
  path = tmp_path_factory.mktemp('teacher')
  values = _values(nuisance_dims=['8'], students=[])
  run = workdirs.WorkDir(path)
  run.begin('celeba', values, {'attributes': list(NAMES)}, [])
  model = celeba_runs.make_model(values, len(NAMES), 8)
  state = attribute_training.create_train_state(
      networks.init_variables(model, 0, model.image_shape),
      training.make_optimizer(2e-3, 0.0, 0.5),
  )
  with checkpoints.StageCheckpoints(run.checkpoints('teacher')) as saved:
    saved.save(0, state)
  run.record_stage('teacher', {'sha256': checkpoints.hash_tree(state.params)})
  return path


def _restore(path, names=NAMES, **changes):
  changes = {'nuisance_dims': ['8', '12'], **changes}
  values = _values(teacher_workdir=str(path), **changes)
  return celeba_runs.restore_teachers(values, names, [0])[0]


def test_teacher_of_another_run_is_restored(teacher_run):
  teacher = _restore(teacher_run)
  assert (teacher.stage.name, teacher.model.nuisance_dim) == ('teacher', 8)
  assert teacher.model.num_factors == 2


@pytest.mark.parametrize(
    ('changes', 'parts'),
    [
        ({'names': ('Bald',)}, ['(2: Bald, Smiling)', '(1: Bald)']),
        ({'names': NAMES[::-1]}, ['(2: Smiling, Bald)', 'same order']),
        ({'image_size': 16}, ['--image_size=8 there, 16 now']),
        ({'last_width': 8}, ['--last_width=4 there, 8 now']),
        ({'nuisance_dims': ['16', '20']}, ['d = 8', 'begins with 16']),
    ],
)
def test_teacher_of_other_shape_is_refused(teacher_run, changes, parts):
  with pytest.raises(errors.InputError) as info:
    _restore(teacher_run, **changes)
  for part in ['--teacher_workdir=', *parts]:
    assert part in str(info.value)


def test_teacher_of_digits_is_refused(tmp_path):
  run = workdirs.WorkDir(tmp_path)
  run.begin('mnist', {}, {}, [])
  run.record_stage('teacher', {})
  with pytest.raises(errors.InputError, match='run of experiments.celeba'):
    _restore(tmp_path)


def test_missing_teacher_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match='no finished teacher'):
    _restore(tmp_path / 'nothing')
