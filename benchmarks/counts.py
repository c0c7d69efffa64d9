"""What a step must compute and move, and what its compiled program does."""

from typing import Any

import jax
import numpy as np

from benchmarks import problems
from benchmarks import records as records_lib

# Passes through encoder and decoder in a step: those of which all gradients
# are taken, those only passed by gradients, and those without.
_PASSES = {
  'phase_one': {'encoder': (1, 0, 0), 'decoder': (1, 0, 0)},
  'phase_two': {'encoder': (1, 1, 1), 'decoder': (2, 0, 0)},
  'student': {'encoder': (1, 0, 0), 'decoder': (2, 0, 0)},
}
_TEACHER_PASSES = {'encoder': (0, 0, 1), 'decoder': (0, 0, 2)}
# A map is written and read once forward, read once for the gradient, which is
# written and read once itself.
_TRAINED_MOVES, _APPLIED_MOVES = 5, 2
# Adam reads parameter, gradient and both moments, and writes all but the
# gradient, which was written before; all are float32.
_ADAM_BYTES = 32


def describe_program(
  compiled: jax.stages.Compiled, batch_size: int
) -> dict[str, Any]:
  """Returns the compiler's counts of a program; InputError never.

  Raises MemoryError, before anything runs, if it does not fit the device, with
  the batch that does.
  """
  memory, costs = compiled.memory_analysis(), compiled.cost_analysis() or {}
  fixed = memory.argument_size_in_bytes + memory.output_size_in_bytes
  fixed -= memory.alias_size_in_bytes
  needed = fixed + memory.temp_size_in_bytes
  stats = jax.devices()[0].memory_stats() or {}
  limit = stats.get('bytes_limit', 0)
  if limit and needed > limit:
    share = (limit - fixed) / max(memory.temp_size_in_bytes, 1)
    raise MemoryError(
      f'batch {batch_size} needs {needed / 1e9:.1f} of {limit / 1e9:.1f} GB;'
      f' a batch of {max(int(batch_size * share), 0)} fits'
    )
  if isinstance(costs, list):
    costs = costs[0]
  return {
    'predicted peak MB': needed / 1e6,
    'compiled GFLOP a step': costs.get('flops', 0.0) / 1e9,
    'compiled MB a step': costs.get('bytes accessed', 0.0) / 1e6,
  }


def compute_shares(
  records: records_lib.Records,
  problem: problems.Problem,
  precision: str,
  measured: dict[str, Any],
) -> dict[str, Any]:
  """Relates a step to what it must do, and to the card's measured rates."""
  seconds = measured['ms a step'] / 1e3
  flops, moved = count_faces(problem)
  found = {'GFLOP a step': flops / 1e9, 'MB a step': moved / 1e6}
  copied = records.value('card/copy')
  products = records.value(f'card/products in {precision}')
  if copied:
    rate = copied['bytes a second']
    found['share of the bandwidth'] = moved / seconds / rate
    compiled = 1e6 * measured['compiled MB a step']
    found['share of the bandwidth, as compiled'] = compiled / seconds / rate
  if products:
    found['share of the products'] = flops / seconds / products['FLOP a second']
  stats = jax.devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in stats:
    # Of all programs so far: it says something of the largest alone.
    found['peak MB so far'] = stats['peak_bytes_in_use'] / 1e6
  return found


def count_faces(problem: problems.Problem) -> tuple[float, float]:
  """Counts the operations of a step on faces, and the bytes it must move.

  Of convolutions alone, without those of constant channels; bytes are those of
  the layers' maps, of parameters and of Adam's moments, each as few times as an
  algorithm without recomputation moves them.
  """
  step = problem.step
  name = next(
    key for key, own in problems.FACE_WEIGHTS.items() if own == step.weights
  )
  width = np.dtype(step.module.dtype).itemsize
  flops = moved = 0.0
  parts = [(problem.variables, _PASSES[name])]
  if problem.teacher is not None:
    parts.append((problem.teacher, _TEACHER_PASSES))
  for variables, passes in parts:
    for part, (trained, passed, applied) in passes.items():
      params = variables['params'][part]
      products, maps = _count_pass(step, part, params)
      flops += (3 * trained + 2 * passed + applied) * products
      moves = _TRAINED_MOVES * (trained + passed) + _APPLIED_MOVES * applied
      moved += moves * maps * width
      size = sum(x.size for x in jax.tree.leaves(params))
      updates = 0
      if trained:  # A second update is that of the cycle losses.
        updates = trained if name == 'phase_two' else 1
      moved += size * (_ADAM_BYTES * updates + 4 * (not trained))
  return flops, moved


def _count_pass(step, part, params):
  """Counts the operations of a pass forward, and the numbers in its maps."""
  products = maps = 0.0
  for name, block in params.items():
    _, _, fan_in, features = block['kernel'].shape
    index = int(name.rpartition('_')[2])
    if part == 'encoder':
      side = step.module.image_size >> (index + 1)
      output = side
    else:
      side = 2 << index
      output = 2 * side
      fan_in -= step.module.num_factors
    products += 2 * 16 * fan_in * features * side**2 * step.batch_size
    maps += features * output**2 * step.batch_size
  return products, maps


def draw_roofline(records: records_lib.Records) -> None:
  """Draws our steps below the card's measured rates, as roofline.png."""
  copied = records.value('card/copy')
  points = []
  for key, entry in records.found.items():
    value = entry.get('value') or {}
    if key.endswith('/ours') and 'GFLOP a step' in value:
      intensity = 1e3 * value['GFLOP a step'] / value['MB a step']
      rate = 1e9 * value['GFLOP a step'] / (value['ms a step'] / 1e3)
      points.append((key.removesuffix('/ours'), intensity, rate))
  if not copied or not points:
    return
  # Imported here: measuring needs no figures.
  from jacsup_jax.figures import panels

  drawn = panels.Figure(figsize=(8, 5), layout='constrained')
  axes = drawn.subplots()
  x = np.geomspace(0.1, 1e4, 100)
  for key, entry in records.found.items():
    if key.startswith('card/products') and 'value' in entry:
      peak = entry['value']['FLOP a second']
      roof = np.minimum(x * copied['bytes a second'], peak)
      axes.loglog(x, roof, label=key.removeprefix('card/'))
  for name, intensity, rate in points:
    axes.loglog(intensity, rate, 'o', label=name)
  axes.set_xlabel('FLOP a byte that a step must move')
  axes.set_ylabel('FLOP a second')
  axes.legend(fontsize=6)
  drawn.savefig(records.folder / 'roofline.png', dpi=120)
