"""A student's step on digits with each way to compare Jacobians.

Measured in turn in one process; memory is what the compiler plans for an
epoch, beside its arguments.
"""

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp

from experiments import benchmark_digits
from experiments import timing
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.training import steps as training

SUPERVISIONS = {
    'secant': config.Supervision(),
    'tangent': config.Supervision('tangent'),
    'path, 1 node': config.Supervision('path', nodes=1),
    'path, 3 nodes': config.Supervision('path', nodes=3),
    'path, 8 nodes': config.Supervision('path', nodes=8),
    'full': config.Supervision('full'),
}
_MB = 1e6


def measure_jacobian(batch_size: int, nuisance_dim: int, repeats: int) -> str:
  """Measures a student's step on digits for each of `SUPERVISIONS`.

  Args:
    batch_size: examples of a step, on one device.
    nuisance_dim: d of the student.
    repeats: measurements of each program.

  Returns:
    The table, with a heading.
  """
  machine = timing.describe_machine()
  step = benchmark_digits.make_mnist_step(batch_size, nuisance_dim)
  programs, memory = {}, {}
  for name, supervision in SUPERVISIONS.items():
    programs[name], memory[name] = _make_epoch(step, batch_size, supervision)
  times = timing.measure(programs, repeats, benchmark_digits.NUM_STEPS)
  rows = [timing.Row(name, values) for name, values in times.items()]
  lines = timing.format_table(rows, batch_size).splitlines()
  lines[0] += f' {"of secant":>9} {"MB":>7}'
  for i, name in enumerate(SUPERVISIONS, 1):
    ratio = timing.compare(times[name], times['secant'])
    lines[i] += f' {ratio:9.2f} {memory[name] / _MB:7.2f}'
  return '\n'.join([
      f'Student step on digits: k = {benchmark_digits.NUM_FACTORS}, d ='
      f' {nuisance_dim}, {step.teacher_model.code_dim} factors while it trains,'
      f' batch {batch_size}, float32, one of {machine}; medians of {repeats} x'
      f' {benchmark_digits.NUM_STEPS} steps; MB of temporary memory.',
      *lines,
  ])


def _make_epoch(
    step: benchmark_digits.MnistStep,
    batch_size: int,
    supervision: config.Supervision,
) -> tuple[Callable[[], codes.Metrics], int]:
  """Makes an epoch, and tells its temporary memory in bytes."""
  weights = dataclasses.replace(
      benchmark_digits.WEIGHTS, supervision=supervision
  )
  optimizer = training.make_optimizer(
      benchmark_digits.LEARNING_RATE, benchmark_digits.WEIGHT_DECAY
  )
  epoch_fn = functools.partial(
      training.train_epoch,
      objective=training.make_student_objective(step.model, weights),
      optimizer=optimizer,
      teacher_model=step.teacher_model,
      supervision=supervision,
      seed=0,
      batch_size=batch_size,
  )
  images = jnp.asarray(step.images)
  cache = jax.jit(training.compute_teacher_cache, static_argnums=(0, 3))(
      step.teacher_model, step.teacher, images, supervision
  )
  data = training.TrainingData(images, cache)
  # A copy: the epoch takes its state's memory.
  variables = jax.tree.map(jnp.copy, step.student)
  state = training.create_train_state(variables, optimizer)
  epoch = jnp.zeros((), jnp.int32)
  compiled = (
      jax.jit(epoch_fn, donate_argnums=0).lower(state, data, epoch).compile()
  )

  def program():
    nonlocal state
    state, metrics = compiled(state, data, epoch)
    return metrics

  return program, compiled.memory_analysis().temp_size_in_bytes
