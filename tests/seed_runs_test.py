"""Tests of experiments.seed_runs. What they train: seeds_test."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import seed_runs
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import steps as training

WEIGHTS = config.LossWeights()
CHAIN = (
    config.Stage('teacher', 'teacher', None, 0, 1, WEIGHTS),
    config.Stage('student_d01', 'student', 'teacher', 1, 1, WEIGHTS),
    config.Stage('scratch', 'scratch', None, 1, 1, WEIGHTS, 'teacher'),
)
VALUES = {'seed': 4, 'seeds': 3, 'train_seeds': 'auto'}
TOGETHER = seed_runs.Plan((4, 5, 6), True)
IN_TURN = seed_runs.Plan((4, 5, 6), False)
ONE = seed_runs.Plan((4,), False)


def _model(stage, value):
  """A model of one number, or of as many as are stacked."""
  state = training.TrainState(
      np.int32(7), {'w': jnp.asarray(value, jnp.float32)}, {}, ()
  )
  return stages.Trained(stage, None, state, '')


class _Run:
  """Stands in for `stages.run`, and keeps what it was given."""

  def __init__(self):
    self.chains, self.given = [], []

  def __call__(self, chain, recipe, *, evaluate, given):
    self.chains.append([stage.name for stage in chain])
    self.given.append(list(given))
    return [_model(stage, recipe) for stage in chain]


def _train(plan, given=None):
  run = _Run()
  trained = seed_runs.train(
      plan,
      CHAIN,
      run,
      make_solo=float,
      make_stack=lambda seeds: [float(seed) for seed in seeds],
      evaluate=None,
      given=given or {seed: [] for seed in plan.seeds},
  )
  return trained, run


def _plan(workdir=None, *, memory=100, obstacle=None, **changes):
  values = {**VALUES, **changes}
  return seed_runs.make_plan(
      values, workdir, obstacle=obstacle, estimate=lambda n: 30 * n
  )


@pytest.fixture(name='run')
def fixture_run(tmp_path):
  return workdirs.WorkDir(tmp_path / 'run')


def _begin(run, plan, **changes):
  run.begin('mnist', {**VALUES, **changes}, {}, [], **plan.entries)
  return workdirs.WorkDir(run.path)


# Values.


@pytest.mark.parametrize(
    ('memory', 'changes', 'together'),
    [
        (101, {}, True),  # 3 x 30 of 90 % of it.
        (99, {}, False),
        (None, {}, False),
        (99, {'train_seeds': 'together'}, True),
        (10**9, {'train_seeds': 'in_turn'}, False),
        (10**9, {'obstacle': '--cache=none'}, False),
    ],
)
def test_memory_decides_unless_a_flag_does(
    run, monkeypatch, capsys, memory, changes, together
):
  monkeypatch.setattr(parallel, 'device_memory', lambda: memory)
  assert _plan(run, **changes) == seed_runs.Plan((4, 5, 6), together)
  said = capsys.readouterr().err
  how = 'together' if together else 'one after the other'
  assert '--seeds=3' in said and how in said and said.count('\n') == 1


def test_one_seed_is_neither_and_says_nothing(run, capsys):
  assert _plan(run, seeds=1) == ONE
  assert not ONE.entries and not capsys.readouterr().err
  # Runs from before the flag.
  assert seed_runs.list_seeds({'seed': 2}) == (2,)


def test_a_run_goes_on_as_it_was_begun(run, monkeypatch):
  monkeypatch.setattr(parallel, 'device_memory', lambda: 10**9)
  assert _plan(_begin(run, IN_TURN)) == IN_TURN
  assert seed_runs.read_plan(workdirs.WorkDir(run.path)) == IN_TURN


def test_metrics_of_the_first_seed(run):
  for plan, records in (
      (TOGETHER, [{'stage': 'teacher', 'step': 1, 'loss': [0.5, 0.6, 0.7]}]),
      (
          IN_TURN,
          [
              {'stage': 'teacher_seed5', 'step': 1, 'loss': 0.6},
              {'stage': 'teacher_seed4', 'step': 1, 'loss': 0.5},
          ],
      ),
      (ONE, [{'stage': 'teacher', 'step': 1, 'loss': 0.5}]),
  ):
    own = _begin(workdirs.WorkDir(run.path / str(id(plan))), plan)
    for record in records:
      own.append_metrics({'epoch': 1, **record})
    [found] = seed_runs.read_metrics(plan, own)
    assert (found['stage'], found['loss']) == ('teacher', 0.5)


# Invariants.


@pytest.mark.parametrize('plan', [TOGETHER, IN_TURN, ONE])
def test_each_seed_has_its_models_by_their_solo_names(plan):
  trained, run = _train(plan)
  assert tuple(trained) == plan.seeds
  for seed, models in trained.items():
    assert [model.stage for model in models] == list(CHAIN)
    assert {float(model.state.params['w']) for model in models} == {seed}
  assert len(run.chains) == (3 if plan is IN_TURN else 1)
  # As the manifest has them.
  named = [stage.name for stage in seed_runs.list_stages(plan, CHAIN)]
  assert named == [name for chain in run.chains for name in chain]


@pytest.mark.parametrize('plan', [TOGETHER, IN_TURN, ONE])
def test_restored_models_are_those_that_were_trained(plan):
  restored = seed_runs.restore(
      plan,
      seed_runs.list_stages(plan, CHAIN),
      lambda stage, count: _model(
          stage,
          [4.0, 5.0, 6.0] if count else float(stage.name[-1:].isdigit() and 1),
      ),
  )
  assert tuple(restored) == plan.seeds
  for models in restored.values():
    assert [model.stage for model in models] == list(CHAIN)


def test_seeds_in_turn_grow_from_what_is_given():
  given = {seed: [_model(CHAIN[0], 10.0 * seed)] for seed in IN_TURN.seeds}
  _, run = _train(IN_TURN, given)
  for seed, [model] in zip(IN_TURN.seeds, run.given):
    assert model.stage.name == f'teacher_seed{seed}'
    assert float(model.state.params['w']) == 10 * seed
  _, run = _train(TOGETHER, given)
  [[model]] = run.given
  np.testing.assert_array_equal(model.state.params['w'], [40, 50, 60])


def test_names_of_one_seed_lead_to_one_another():
  for stage in seed_runs.list_stages(IN_TURN, CHAIN)[3:6]:
    for name in (stage.name, stage.parent, stage.teacher):
      assert name is None or name.endswith('_seed5')
  plan = dataclasses.replace(IN_TURN, seeds=(4,))
  assert seed_runs.list_stages(plan, CHAIN) == list(CHAIN)


# Mistakes.


def test_together_with_what_prevents_it_is_refused():
  values = {**VALUES, 'train_seeds': 'together'}
  with pytest.raises(errors.InputError, match='together with --cache=none'):
    seed_runs.check_together(values, '--cache=none')
  seed_runs.check_together({**values, 'seeds': 1}, '--cache=none')
  seed_runs.check_together(VALUES, '--cache=none')


@pytest.mark.parametrize('seeds', [0, -1, 1001, 10**9])
def test_a_manifest_of_too_many_seeds_is_refused(run, seeds):
  with pytest.raises(errors.InputError, match=f'--seeds={seeds}'):
    seed_runs.read_plan(_begin(run, TOGETHER, seeds=seeds))


@pytest.mark.parametrize('entry', [None, 'yes', 1])
def test_a_manifest_that_does_not_say_how_is_refused(run, entry):
  entries = {} if entry is None else {'seeds_together': entry}
  run.begin('mnist', VALUES, {}, [], **entries)
  with pytest.raises(errors.InputError, match='seeds_together'):
    seed_runs.read_plan(workdirs.WorkDir(run.path))
