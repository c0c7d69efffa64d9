"""A training step on faces, beside its limit and PyTorch's step."""

import functools

import jax
import jax.numpy as jnp

from experiments import face_steps
from experiments import timing
from jacsup_jax.core import errors
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import devices as parallel

# Of one measurement, and of the loop that is one program, as an epoch is.
NUM_STEPS = 10


def measure_celeba_step(
    step: face_steps.FaceStep,
    mode: parallel.Mode,
    batch_size: int,
    repeats: int,
    against: str | None,
) -> str:
  """Measures a step on faces, on one device.

  Its limit is the time of the products that its convolutions are, and of
  nothing else, in the same process in turn.

  Args:
    step: which, see `face_steps.make_step`.
    mode: 'jit'.
    batch_size: examples of a step.
    repeats: measurements of each program.
    against: 'torch', or None.

  Returns:
    The table, with a heading.

  Raises:
    InputError: if the mode is another, PyTorch is missing, or JAX is not on the
      CPU as it is.
  """
  if mode != 'jit':
    raise errors.InputError(
        f'--parallel={mode} with --what=celeba_step, which is measured on one'
        ' device; accepted: jit.'
    )
  machine = timing.describe_machine()
  torch_face_step = (
      timing.import_torch_module('torch_face_step')
      if against == 'torch'
      else None
  )
  variables, teacher = (
      face_steps.init_variables(model, seed)
      for seed, model in enumerate((step.model, step.teacher_model))
  )
  data = face_steps.make_data(step.model, batch_size)
  products = face_steps.list_products(step, batch_size)
  programs = {
      'ours': _make_steps(step, variables, teacher, data),
      'limit': timing.make_products_fn(products, NUM_STEPS),
  }
  if torch_face_step:
    train_step = torch_face_step.make_train_step(
        variables,
        teacher,
        weights=step.weights,
        learning_rate=face_steps.LEARNING_RATE,
        b1=face_steps.B1,
    )
    programs['torch'] = torch_face_step.make_steps(
        train_step,
        face_steps.to_batch(data),
        NUM_STEPS,
        timing.count_threads(),
    )
  times = timing.measure(programs, repeats, NUM_STEPS)
  heading = (
      f'Step on faces: {step.describe()}, batch {batch_size}, float32, one of'
      f' {machine}; medians of {repeats} x {NUM_STEPS} steps.'
  )
  flops = sum(product.flops for product in products)
  rows = [timing.Row('ours', times['ours'], flops, times['limit'])]
  if 'torch' not in times:
    return '\n'.join([heading, timing.format_table(rows, batch_size)])
  rows.append(timing.Row('PyTorch eager', times['torch']))
  ratio = timing.compare(times['ours'], times['torch'])
  return '\n'.join([
      heading,
      timing.format_table(rows, batch_size),
      f'ours / PyTorch: {ratio:.2f}.',
  ])


def _make_steps(step, variables, teacher, data):
  """Makes a program of NUM_STEPS steps, as an epoch takes them.

  Step by step it would take longer: memory that a program asks for is new to
  it, and a loop asks once.
  """
  # A copy: the steps take their state's memory.
  variables = jax.tree.map(jnp.copy, variables)
  state = attribute_training.create_train_state(variables, step.optimizer)
  teacher, data = jax.device_put((teacher, data))
  take_steps = jax.jit(
      functools.partial(face_steps.take_steps, step, num_steps=NUM_STEPS),
      donate_argnums=0,
  )

  def steps():
    nonlocal state
    state, metrics = take_steps(state, teacher, data)
    return metrics

  return steps
