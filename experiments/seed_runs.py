"""Seeds as an axis: what --seeds=N makes of a run.

The chains of N seeds are trained together, as one `vmap` over their stacked
states, where the devices have the memory; else one after the other. Either way
a run has one work directory. Trained together, a stage has one checkpoint with
the states of all; in turn, stages have the seed in their names. One seed is
neither: its run is what it is without --seeds.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from absl import flags
from flax import linen as nn
import jax

from experiments import command_line
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import replicas as grid

FLAGS = flags.FLAGS
# Flags that functions here define belong to the binary that calls them, whose
# --help then shows them.
flags.disclaim_key_flags()

# Each has a model for every stage.
MOST_SEEDS = 1000
# Of a manifest's flags, which older ones lack.
MAYBE_KINDS = {'seeds': int, 'train_seeds': str}
# What is left to a device's own programs and to what is fragmented.
_USABLE = 0.9
# Of a manifest: whether the seeds are trained together.
_ENTRY = 'seeds_together'


@dataclasses.dataclass(frozen=True)
class Plan:
  """Which seeds a run has, and how they are trained.

  Attributes:
    seeds: in order.
    together: as one program, on stacked states.
  """

  seeds: tuple[int, ...]
  together: bool

  @property
  def entries(self) -> dict[str, Any]:
    """Returns what a manifest has of it; nothing for a single seed."""
    return {_ENTRY: self.together} if len(self.seeds) > 1 else {}


def define_flags() -> None:
  """Defines the flags of a binary whose runs may have several seeds."""
  flags.DEFINE_integer(
      'seeds',
      1,
      'How many of every model: of --seed and those that follow it. Tables then'
      ' have means and deviations, figures are of the first.',
  )
  flags.DEFINE_enum(
      'train_seeds',
      'auto',
      ['auto', 'together', 'in_turn'],
      'How several seeds are trained: together, as one program, or in_turn, one'
      ' after the other. auto: together, unless they are estimated to need more'
      ' memory than a device has, or another flag prevents it; it says which.',
  )


def check_inputs(
    name: str, fingerprint: str, given: Mapping[int, Sequence[stages.Trained]]
) -> None:
  """Checks that all processes train on the same, and a repetition as well.

  Args:
    name: of the data.
    fingerprint: of the data.
    given: models from other runs, by seed; none may be.

  Raises:
    InputError: if they do not.
  """
  parallel.check_same({
      f'fingerprint of {name}': fingerprint,
      'sha256 of the teacher': [
          model.sha256 for models in given.values() for model in models
      ],
  })
  command_line.check_data(name, fingerprint)


def check_flags() -> None:
  """Raises InputError unless --seed and --seeds are of accepted seeds."""
  command_line.check_at_least(1, 'seeds')
  command_line.check_at_most(MOST_SEEDS, 'seeds')
  if FLAGS.seed + FLAGS.seeds > 2**31:
    raise errors.InputError(
        f'--seeds={FLAGS.seeds} after --seed={FLAGS.seed} go beyond 2147483647;'
        ' accepted: fewer.'
    )


def list_seeds(values: Mapping[str, Any]) -> tuple[int, ...]:
  """Returns the seeds of a run.

  Args:
    values: of its flags, by name; older ones have no --seeds.
  """
  first = values['seed']
  return tuple(range(first, first + values.get('seeds', 1)))


def for_seed(values: Mapping[str, Any], seed: int) -> dict[str, Any]:
  """Returns the flags' values that a solo run of a seed would have."""
  return {**values, 'seed': seed}


def check_together(values: Mapping[str, Any], obstacle: str | None) -> None:
  """Raises InputError where --train_seeds=together cannot be.

  Args:
    values: of the flags, by name.
    obstacle: what prevents it, None if nothing does.
  """
  if values['train_seeds'] == 'together' and obstacle and values['seeds'] > 1:
    raise errors.InputError(
        f'--train_seeds=together with {obstacle}; accepted:'
        ' --train_seeds=in_turn, or auto.'
    )


def make_plan(
    values: Mapping[str, Any],
    workdir: workdirs.WorkDir | None,
    *,
    obstacle: str | None,
    estimate: Callable[[int], int],
) -> Plan:
  """Decides how the seeds of a run are trained, and says so.

  A run that goes on is trained as it was begun, wherever it goes on. The first
  of several processes decides for all.

  Args:
    values: of the flags, by name.
    workdir: of the run; None on all processes but the first.
    obstacle: what prevents that they are trained together, or None.
    estimate: number of seeds -> bytes of a device that they need together.
  """
  seeds = list_seeds(values)
  if len(seeds) == 1:
    return Plan(seeds, together=False)
  together = None
  if parallel.is_first():
    recorded = (workdir.manifest or {}).get(_ENTRY)
    if isinstance(recorded, bool):
      together = recorded
    else:
      together, why = _decide(values, len(seeds), obstacle, estimate)
      how = 'together, as one program' if together else 'one after the other'
      command_line.note(f'--seeds={len(seeds)}: trained {how}, {why}')
  return Plan(seeds, parallel.share(together))


def read_plan(run: workdirs.WorkDir) -> Plan:
  """Returns the plan of a run that was begun.

  Args:
    run: with a manifest whose flags were checked.

  Raises:
    InputError: if the manifest has another number of seeds than is accepted, or
      does not say how they were trained.
  """
  values = run.manifest['flags']
  # Before they are listed.
  count = values.get('seeds', 1)
  if not 1 <= count <= MOST_SEEDS or values['seed'] + count > 2**31:
    raise errors.InputError(
        f'{run.path} has a run of --seeds={count} after'
        f' --seed={values["seed"]}; accepted: 1 to {MOST_SEEDS}, below 2**31.'
    )
  seeds = list_seeds(values)
  if len(seeds) == 1:
    return Plan(seeds, together=False)
  untrusted.check_entries(
      f'{run.path / "manifest.json"},', run.manifest, {_ENTRY: bool}
  )
  return Plan(seeds, run.manifest[_ENTRY])


def list_stages(
    plan: Plan, chain: Sequence[config.Stage]
) -> list[config.Stage]:
  """Returns the stages that a run trains, as its manifest names them.

  Args:
    plan: of the run.
    chain: of one seed.
  """
  if plan.together or len(plan.seeds) == 1:
    return list(chain)
  return [_name_stage(stage, seed) for seed in plan.seeds for stage in chain]


def name_stages(
    plan: Plan, chain: Sequence[config.Stage], seed: int
) -> dict[str, config.Stage]:
  """Returns the stages of one seed: as manifests name them, by their own names.

  Args:
    plan: of the run.
    chain: of one seed.
    seed: of the plan.
  """
  if plan.together or len(plan.seeds) == 1:
    return {stage.name: stage for stage in chain}
  return {stage.name: _name_stage(stage, seed) for stage in chain}


def train(
    plan: Plan,
    chain: Sequence[config.Stage],
    run_stages: Callable[..., list[stages.Trained]],
    *,
    make_solo: Callable[[int], stages.Recipe],
    make_stack: Callable[[Sequence[int]], stages.Recipe],
    evaluate: stages.EvaluateFn | None,
    given: Mapping[int, Sequence[stages.Trained]],
) -> dict[int, list[stages.Trained]]:
  """Trains what is missing of the chains of all seeds.

  Args:
    plan: how.
    chain: stages of one seed.
    run_stages: `stages.run` but for `evaluate` and `given`.
    make_solo: seed -> recipe.
    make_stack: seeds -> recipe of all at once.
    evaluate: of a single model, for curves; None where nothing is measured.
    given: by seed: models of another run, which stages may grow from.

  Returns:
    By seed: the trained models in the order of `chain`, named as in it.
  """
  if plan.together:
    stacked = run_stages(
        chain,
        make_stack(plan.seeds),
        evaluate=evaluate and make_evaluate_stack(evaluate),
        given=[grid.stack_members(same) for same in zip(*given.values())],
    )
    return _take_members(plan, stacked)
  if len(plan.seeds) == 1:
    [seed] = plan.seeds
    recipe = make_solo(seed)
    trained = run_stages(chain, recipe, evaluate=evaluate, given=given[seed])
    return {seed: trained}
  trained = {}
  for seed in plan.seeds:
    own = run_stages(
        [_name_stage(stage, seed) for stage in chain],
        make_solo(seed),
        evaluate=evaluate,
        given=[_rename(model, seed, _name_stage) for model in given[seed]],
    )
    trained[seed] = [_rename(model, seed, _unname_stage) for model in own]
  return trained


def restore(
    plan: Plan,
    finished: Sequence[config.Stage],
    restore_stage: Callable[[config.Stage, int], stages.Trained],
) -> dict[int, list[stages.Trained]]:
  """Restores the models of finished stages.

  Args:
    plan: of the run.
    finished: of `list_stages`.
    restore_stage: `(stage, members of its stack, 0 for a solo one) -> model`.

  Returns:
    As `train`; a seed may have fewer than another.
  """
  if plan.together:
    count = len(plan.seeds)
    stacked = [restore_stage(stage, count) for stage in finished]
    return _take_members(plan, stacked)
  models = [restore_stage(stage, 0) for stage in finished]
  if len(plan.seeds) == 1:
    return {plan.seeds[0]: models}
  restored = {}
  for seed in plan.seeds:
    own = [m for m in models if m.stage.name.endswith(_suffix(seed))]
    restored[seed] = [_rename(model, seed, _unname_stage) for model in own]
  return restored


def read_metrics(
    plan: Plan, workdir: workdirs.WorkDir
) -> list[dict[str, Any]]:
  """Returns metrics.jsonl of the first seed, as a solo run has them.

  Args:
    plan: of the run.
    workdir: of the run.
  """
  records = workdir.read_metrics()
  if plan.together:
    first = lambda x: x[0] if isinstance(x, list) else x
    return [{n: first(x) for n, x in r.items()} for r in records]
  if len(plan.seeds) == 1:
    return records
  suffix = _suffix(plan.seeds[0])
  return [
      {**record, 'stage': record['stage'].removesuffix(suffix)}
      for record in records
      if record['stage'].endswith(suffix)
  ]


def make_evaluate_stack(
    evaluate: Callable[[nn.Module, codes.Variables], dict[str, Any]],
    names: Sequence[str] = ('mse', 'class_swaps'),
) -> stages.EvaluateFn:
  """Makes an evaluation of stacked models, for curves.

  Args:
    evaluate: of one model.
    names: of its entries to keep, as far as it has them.

  Returns:
    `(model, variables) -> {'mse': [...], ...}`, a value for each member.
  """

  def evaluate_stack(model, variables):
    count = len(jax.tree.leaves(variables)[0])
    take = lambda i: jax.tree.map(lambda x: x[i], variables)
    rows = [evaluate(model, take(i)) for i in range(count)]
    return {n: [row[n] for row in rows] for n in names if n in rows[0]}

  return evaluate_stack


def _decide(values, count, obstacle, estimate):
  """Returns whether seeds are trained together, and why."""
  if values['train_seeds'] != 'auto':
    return values['train_seeds'] == 'together', 'as --train_seeds says'
  if obstacle:
    return False, f'since that is how it goes with {obstacle}'
  needed, there = estimate(count), parallel.device_memory()
  if there is None:
    return False, 'since the device does not say how much memory it has'
  fits = needed <= _USABLE * there
  return fits, (
      f'which {"takes" if fits else "together would take"} an estimated'
      f' {needed / 2**30:.1f} GiB, of {there / 2**30:.1f} that a device has'
  )


def _suffix(seed):
  return f'_seed{seed}'


def _name_stage(stage, seed):
  """Returns a stage of one seed of several that are trained in turn."""
  add = lambda name: name and name + _suffix(seed)
  return _change_names(stage, add)


def _unname_stage(stage, seed):
  remove = lambda name: name and name.removesuffix(_suffix(seed))
  return _change_names(stage, remove)


def _change_names(stage, change):
  return dataclasses.replace(
      stage,
      name=change(stage.name),
      parent=change(stage.parent),
      teacher=change(stage.teacher),
  )


def _rename(model, seed, change):
  return dataclasses.replace(model, stage=change(model.stage, seed))


def _take_members(plan, stacked):
  return {
      seed: [grid.take_member(model, i) for model in stacked]
      for i, seed in enumerate(plan.seeds)
  }
