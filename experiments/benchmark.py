"""Measures the speed of training, and how near its arithmetic limit it is.

  python -m experiments.benchmark --what=mnist_step
  python -m experiments.benchmark --what=mnist_step --against=torch

The limit of a step is the time of its matrix products and of nothing else: as
many, of the same shapes and layouts, by the same compiler, measured in the same
process in turn with the step. PyTorch, where asked for, takes its turn too.

Measure on an idle machine, or the ratio means nothing: where another program
holds up one of PyTorch's threads, its step takes tens of times as long.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import itertools
import math
import os
import statistics
import time
from typing import Any, NamedTuple

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from experiments import command_line
from jacsup_jax import networks
from jacsup_jax import parallel
from jacsup_jax import training
from jacsup_jax import types

FLAGS = flags.FLAGS
# Of the paper's experiment on digits.
NUM_FACTORS = 2
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 1e-6
WEIGHTS = types.LossWeights()
# Of one measurement, and batches of the data that it goes through.
NUM_STEPS = 100


class Product(NamedTuple):
  """A matrix product, with its operands as the step has them in memory."""

  left: tuple[int, int]  # shape
  right: tuple[int, int]  # shape
  contract: tuple[int, int]  # the axis of each that is summed over

  @property
  def flops(self) -> int:
    """Multiplications and additions."""
    summed = self.left[self.contract[0]]
    return 2 * math.prod(self.left) * math.prod(self.right) // summed


class Row(NamedTuple):
  """A line of the table; times are milliseconds a step, one a measurement."""

  name: str
  times: Sequence[float]
  flops: int | None = None  # of a step's products
  limit_times: Sequence[float] | None = None  # of these products alone


def define_flags() -> None:
  """Defines the flags; not on import, where other experiments have the same."""
  flags.DEFINE_enum(
      'what',
      'mnist_step',
      ['mnist_step'],
      'What to measure. mnist_step: a student\'s training step on digits.',
  )
  flags.DEFINE_enum(
      'against',
      None,
      ['torch'],
      'Measure PyTorch\'s eager step of the same model, batch and losses too.',
  )
  flags.DEFINE_enum(
      'parallel',
      'jit',
      parallel.MODES,
      'How devices share a step: jit over a mesh, or pmap.',
  )
  flags.DEFINE_integer('batch_size', 128, 'Examples per step, on all devices.')
  flags.DEFINE_integer(
      'nuisance_dim',
      10,
      'd of the student, whose teacher has k + d - 1 units; one unit is new.',
  )
  flags.DEFINE_integer('repeats', 10, 'Measurements of each program, in turn.')


def student_products(
    model: networks.MlpAutoencoder, batch_size: int
) -> list[Product]:
  """Lists the products of a student's step whose teacher is cached.

  The encoder on the batch, the decoder on the codes and the swapped codes as
  one batch of twice the size, and their gradients: of all weights, and of the
  inputs of all layers but the first. Left out are those of the cross-covariance
  (one in 10,000 of the multiplications) and the padding of the code's layer
  (two in a thousand).

  Args:
    model: the student.
    batch_size: of one device.

  Returns:
    In the order of the step.
  """
  encoder, decoder = _layer_sizes(model)
  return (
      _forward_products(encoder, batch_size)
      + _forward_products(decoder, 2 * batch_size)
      + _backward_products(decoder, 2 * batch_size)
      # The last is the gradient of the images, which nothing asks for.
      + _backward_products(encoder, batch_size)[:-1]
  )


def teacher_products(
    model: networks.MlpAutoencoder, batch_size: int
) -> list[Product]:
  """Lists the products of a teacher that is computed in its student's step.

  Encoder and decoder on the batch, once: the swapped images of a teacher
  without nuisance units are images of its batch.

  Args:
    model: the teacher, its whole code as factors.
    batch_size: of one device.

  Returns:
    In the order of the step.
  """
  encoder, decoder = _layer_sizes(model)
  return _forward_products(encoder + decoder[1:], batch_size)


def make_products_fn(
    products: Sequence[Product], num_steps: int
) -> Callable[[], list[jax.Array]]:
  """Makes a program of `num_steps` times these products and nothing else."""
  rng = np.random.default_rng(0)
  draw = lambda shape: jnp.asarray(rng.standard_normal(shape, np.float32))
  operands = [(draw(p.left), draw(p.right)) for p in products]

  # In a loop of the compiler's, equal products would be computed once for all.
  # Calls that hand on their results' memory run one after the other.
  @functools.partial(jax.jit, donate_argnums=1, keep_unused=True)
  def multiply(operands, memory):
    del memory
    results = []
    for p, (left, right) in zip(products, operands):
      axes = ((p.contract[0],), (p.contract[1],))
      results.append(jax.lax.dot_general(left, right, (axes, ((), ()))))
    return results

  results = jax.eval_shape(multiply, operands, None)

  def program():
    memory = [jnp.zeros(x.shape, x.dtype) for x in results]
    for _ in range(num_steps):
      memory = multiply(operands, memory)
    return memory

  return program


def measure(
    programs: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, list[float]]:
  """Measures programs in turn, so that a slow minute is slow for all.

  Args:
    programs: each of NUM_STEPS steps, called once before, to compile. What they
      return is waited for.
    repeats: measurements of each.

  Returns:
    Milliseconds a step by the names of the programs, one a measurement.
  """
  times = {name: [] for name in programs}
  for program in programs.values():
    jax.block_until_ready(program())
  for _ in range(repeats):
    for name, program in programs.items():
      start = time.perf_counter()
      jax.block_until_ready(program())
      times[name].append(1e3 * (time.perf_counter() - start) / NUM_STEPS)
  return times


def compare(times: Sequence[float], with_times: Sequence[float]) -> float:
  """Returns the median over the repeats of `times / with_times`."""
  pairs = zip(times, with_times, strict=True)
  return statistics.median(a / b for a, b in pairs)


def format_table(rows: Sequence[Row], batch_size: int) -> str:
  """Formats measurements as a table of fixed width.

  Args:
    rows: one a program; what has no limit shows '-'.
    batch_size: examples of a step.

  Returns:
    Lines: a heading and one a row. Times are medians, `share` is the median of
    limit / step.
  """
  lines = [
      f'{"":20} {"ms/step":>8} {"fastest":>8} {"images/s":>9} {"GFLOP":>6}'
      f' {"limit ms":>8} {"share":>5}'
  ]
  for row in rows:
    median = statistics.median(row.times)
    flops, limit, share = '-', '-', '-'
    if row.limit_times is not None:
      flops = f'{row.flops / 1e9:.3f}'
      limit = f'{statistics.median(row.limit_times):.2f}'
      share = f'{compare(row.limit_times, row.times):.2f}'
    lines.append(
        f'{row.name:20} {median:8.2f} {min(row.times):8.2f}'
        f' {1e3 * batch_size / median:9.0f} {flops:>6} {limit:>8} {share:>5}'
    )
  return '\n'.join(lines)


def measure_mnist_step(
    mode: parallel.Mode,
    batch_size: int,
    nuisance_dim: int,
    repeats: int,
    against: str | None,
) -> str:
  """Measures a student's step on digits, as `experiments.mnist` trains it.

  Args:
    mode: how devices are used, see `parallel`.
    batch_size: of all devices together.
    nuisance_dim: d of the student.
    repeats: measurements of each program.
    against: 'torch', or None.

  Returns:
    The table, with a heading.

  Raises:
    InputError: if PyTorch is missing, or JAX is not on the CPU as it is.
  """
  load = os.getloadavg()[0]
  torch_step = _import_torch_step() if against == 'torch' else None
  devices = parallel.describe_devices()
  if torch_step and not devices[0].startswith('cpu:'):
    raise types.InputError(
        '--against=torch measures PyTorch on the CPU, but JAX is on'
        f' {devices[0]}; accepted: JAX_PLATFORMS=cpu in the environment.'
    )
  parallel.check_batch_size(batch_size)
  step = _make_mnist_step(batch_size, nuisance_dim)
  # A device multiplies its share of the batch.
  local_size = batch_size // len(devices)
  cached = student_products(step.model, local_size)
  computed = teacher_products(step.teacher_model, local_size) + cached
  cached_fn, computed_fn = _make_epochs(step, mode, batch_size)
  programs = {
      'cached': cached_fn,
      'cached_limit': make_products_fn(cached, NUM_STEPS),
      'computed': computed_fn,
      'computed_limit': make_products_fn(computed, NUM_STEPS),
  }
  if torch_step:
    programs['torch'] = _make_torch_epoch(torch_step, step, batch_size)
  times = measure(programs, repeats)
  heading = (
      f'Student step on digits: k = {NUM_FACTORS}, d = {nuisance_dim}, batch'
      f' {batch_size}, float32, {mode}, {len(devices)} device(s) like'
      f' {devices[0]}, {_count_threads()} CPU threads, load average {load:.1f}'
      f' before; medians of {repeats} x {NUM_STEPS} steps.'
  )
  return '\n'.join(
      [heading, *_format_mnist_step(times, cached, computed, batch_size)]
  )


def main() -> None:
  command_line.check_at_least(1, 'batch_size', 'nuisance_dim', 'repeats')
  if FLAGS.what == 'mnist_step':
    table = measure_mnist_step(
        FLAGS.parallel,
        FLAGS.batch_size,
        FLAGS.nuisance_dim,
        FLAGS.repeats,
        FLAGS.against,
    )
  print(table)


class _MnistStep(NamedTuple):
  """A student, its teacher and the data of NUM_STEPS steps."""

  model: networks.MlpAutoencoder
  student: types.Variables
  teacher_model: networks.MlpAutoencoder
  teacher: types.Variables
  images: np.ndarray


def _make_mnist_step(batch_size, nuisance_dim):
  # While it trains, a student's factors are all that its teacher has.
  num_factors = NUM_FACTORS + nuisance_dim - 1
  model = networks.MlpAutoencoder(num_factors, 1)
  teacher_model = networks.MlpAutoencoder(num_factors, 0)
  return _MnistStep(
      model,
      networks.init_variables(model, 0, model.image_shape),
      teacher_model,
      networks.init_variables(teacher_model, 1, model.image_shape),
      np.random.default_rng(0).integers(
          0, 256, (NUM_STEPS * batch_size, *model.image_shape), np.uint8
      ),
  )


def _format_mnist_step(times, cached, computed, batch_size):
  """Returns the lines of the table, and of the ratio to PyTorch's times."""
  flops = lambda products: sum(product.flops for product in products)
  rows = [
      Row('teacher cached', times['cached'], flops(cached),
          times['cached_limit']),
      Row('teacher in the step', times['computed'], flops(computed),
          times['computed_limit']),
  ]  # pyformat: disable
  if 'torch' not in times:
    return [format_table(rows, batch_size)]
  rows.append(Row('PyTorch eager', times['torch']))
  return [
      format_table(rows, batch_size),
      'PyTorch / ours:'
      f' {compare(times["torch"], times["cached"]):.2f} (teacher cached),'
      f' {compare(times["torch"], times["computed"]):.2f} (in the step).',
  ]


def _make_torch_epoch(torch_step, step, batch_size):
  train_step = torch_step.make_train_step(
      step.student['params'],
      step.teacher['params'],
      num_factors=step.model.num_factors,
      weights=WEIGHTS,
      learning_rate=LEARNING_RATE,
      weight_decay=WEIGHT_DECAY,
  )
  return torch_step.make_epoch(
      train_step, step.images, batch_size, _count_threads()
  )


def _make_epochs(step, mode, batch_size):
  """Makes an epoch with the teacher cached, and one with it in the step."""
  optimizer = training.make_optimizer(LEARNING_RATE, WEIGHT_DECAY)
  epoch_fn = parallel.make_epoch_fn(
      mode,
      batch_size,
      functools.partial(training.make_student_objective, weights=WEIGHTS),
      step.model,
      step.teacher_model,
      optimizer=optimizer,
      seed=0,
  )
  images = jnp.asarray(step.images)
  cache = jax.jit(training.compute_teacher_cache, static_argnums=0)(
      step.teacher_model, step.teacher, images
  )

  def make_epoch(teacher):
    # A copy: the epoch takes its state's memory.
    variables = jax.tree.map(jnp.copy, step.student)
    state = training.create_train_state(variables, optimizer)
    data = training.TrainingData(images, teacher)

    def epoch():
      nonlocal state
      state, metrics = epoch_fn(state, data, 0)
      return metrics

    return epoch

  return make_epoch(cache), make_epoch(step.teacher)


def _import_torch_step():
  """Imports `torch_step`, the only module that needs PyTorch."""
  try:
    from experiments import torch_step  # pylint: disable=g-import-not-at-top
  except ModuleNotFoundError as error:
    if error.name != 'torch':
      raise
    raise types.InputError(
        '--against=torch needs PyTorch, which is not installed; to install it:'
        ' pip install torch'
    ) from error
  return torch_step


def _count_threads():
  """Returns the CPUs of this process, of which XLA makes a thread each."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count()


def _forward_products(sizes, batch_size):
  """Lists the products of `[batch_size, sizes[0]]` through dense layers."""
  return [
      Product((batch_size, fan_in), (fan_in, fan_out), (1, 0))
      for fan_in, fan_out in itertools.pairwise(sizes)
  ]


def _backward_products(sizes, batch_size):
  """Lists the products of the gradients of weights and inputs, last first."""
  products = []
  for inputs, weights, _ in reversed(_forward_products(sizes, batch_size)):
    outputs = (batch_size, weights[1])
    products.append(Product(inputs, outputs, (0, 0)))
    products.append(Product(outputs, weights, (1, 1)))
  return products


def _layer_sizes(model):
  """Returns the sizes of the layers of a model's encoder and decoder."""
  encoder = [math.prod(model.image_shape), *model.widths, model.code_dim]
  return encoder, encoder[::-1]


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
