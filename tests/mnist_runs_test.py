"""Tests of experiments.mnist_runs: what flags mean. Runs: experiments_test."""

from absl import flags
import pytest

from experiments import discovery_runs
from experiments import mnist_runs
from jacsup_jax.core import errors


def _values(**changes):
  """The flags' defaults, with changes."""
  defaults = flags.FLAGS.flag_values_dict()
  return {**defaults, **changes}


# Values.


def test_weights_are_the_papers_by_default():
  [teacher, first, second] = discovery_runs.make_stages(_values(nuisance_dim=2))
  assert (teacher.parent, first.parent) == (None, 'teacher')
  assert (second.parent, second.nuisance_dim) == (first.name, 2)
  weights = second.weights
  assert (weights.lambda_y, weights.lambda_diff) == (0.25, 0.1)
  assert weights.lambda_xcov == 1e-3
  assert weights.squared_xcov


def test_student_without_supervision_keeps_the_cross_covariance():
  students = ['student_no_jacobian']
  values = _values(nuisance_dim=1, students=students, xcov='norm')
  weights = discovery_runs.make_stages(values)[-1].weights
  assert not weights.needs_teacher
  assert weights.lambda_xcov == 1e-3
  assert not weights.squared_xcov


def test_students_have_a_new_optimizer_by_default():
  assert not mnist_runs.make_settings(_values()).keep_moments


@pytest.mark.parametrize(
    ('growth', 'flag', 'folded'),
    [
        ('random', None, False),
        # Else it would not start equal to the first teacher.
        ('preserving', None, True),
        ('random', True, True),
        ('preserving', False, False),
    ],
)
def test_normalization_is_folded_to_preserve(growth, flag, folded):
  values = _values(growth=growth, fold_normalization=flag)
  assert mnist_runs.make_settings(values).fold_normalization == folded


@pytest.mark.parametrize(
    ('dim', 'by', 'expected'),
    [(3, 1, [1, 2, 3]), (6, 3, [3, 6]), (7, 3, [3, 6, 7]), (2, 2, [2])],
)
def test_code_grows_by_so_many_units(dim, by, expected):
  values = _values(nuisance_dim=dim, grow_by=by)
  chain = discovery_runs.make_stages(values)[1:]
  assert [stage.nuisance_dim for stage in chain] == expected
  assert [stage.name for stage in chain] == [
      f'student_d{dim:02d}' for dim in expected
  ]


@pytest.mark.parametrize('by', [0, 4])
def test_refuses_growths_of_no_or_too_many_units(by):
  with pytest.raises(errors.InputError, match=f'--grow_by={by}'):
    discovery_runs.make_stages(_values(nuisance_dim=3, grow_by=by))


def test_stages_have_patience_on_a_plateau_alone():
  for when, expected in (('schedule', None), ('plateau', 5)):
    values = _values(nuisance_dim=1, grow_when=when, patience=5)
    chain = discovery_runs.make_stages(values)
    assert {stage.patience for stage in chain} == {expected}


def test_student_from_scratch_is_as_large_and_trained_as_long():
  values = _values(
      nuisance_dim=3, students=['student', 'student_from_scratch'], epochs=7
  )
  *_, last, scratch = discovery_runs.make_stages(values)
  assert scratch.name == 'student_from_scratch_d03'
  assert (scratch.parent, scratch.supervisor) == (None, 'teacher')
  assert (scratch.nuisance_dim, scratch.epochs) == (last.nuisance_dim, 21)
  assert scratch.weights == last.weights


def test_unconstrained_student_has_the_reconstruction_alone():
  values = _values(nuisance_dim=1, students=['student_unconstrained'])
  weights = discovery_runs.make_stages(values)[-1].weights
  assert not weights.needs_teacher
  assert weights.lambda_xcov == 0
