"""A teacher's training step on faces, beside PyTorch's.

The first half of its training: reconstruction, prediction of the attributes and
cross-covariance, without cycle losses.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments import timing
from jacsup_jax import attribute_training
from jacsup_jax import networks
from jacsup_jax import parallel
from jacsup_jax import training
from jacsup_jax import types

# Of the paper's experiment on faces; d = 2048.
NUM_FACTORS = 40
NUISANCE_CHANNELS = 512
LEARNING_RATE = 2e-3
B1 = 0.5
WEIGHTS = types.AttributeLossWeights()
# Of one measurement.
NUM_STEPS = 3


def make_batch(
    model: networks.FaceAutoencoder, batch_size: int
) -> types.Batch:
  """Makes noise of the shape of a batch.

  Args:
    model: that it is for.
    batch_size: examples.

  Returns:
    `[B, S, S, 3]` float32 images in [-1, 1] and `[B, K]` attributes.
  """
  rng = np.random.default_rng(0)
  shape = (batch_size, *model.image_shape)
  attributes = rng.choice([-1.0, 1.0], (batch_size, model.num_factors))
  return types.Batch(
      rng.uniform(-1, 1, shape).astype(np.float32),
      attributes.astype(np.float32),
  )


def measure_celeba_step(
    model: networks.FaceAutoencoder,
    mode: parallel.Mode,
    batch_size: int,
    repeats: int,
    against: str | None,
) -> str:
  """Measures a teacher's step on faces, on one device.

  Args:
    model: the teacher.
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
    raise types.InputError(
        f'--parallel={mode} with --what=celeba_step, which is measured on one'
        ' device; accepted: jit.'
    )
  machine = timing.describe_machine()
  torch_face_step = (
      timing.import_torch_module('torch_face_step')
      if against == 'torch'
      else None
  )
  variables = networks.init_variables(model, 0, model.image_shape)
  batch = make_batch(model, batch_size)
  programs = {'ours': _make_steps(model, variables, batch)}
  if torch_face_step:
    train_step = torch_face_step.make_train_step(
        variables['params'],
        weights=WEIGHTS,
        learning_rate=LEARNING_RATE,
        b1=B1,
    )
    programs['torch'] = torch_face_step.make_steps(
        train_step, batch, NUM_STEPS, timing.count_threads()
    )
  times = timing.measure(programs, repeats, NUM_STEPS)
  heading = (
      f'Teacher step on faces: {model.image_size}x{model.image_size} pixels,'
      f' k = {model.num_factors}, d = {model.nuisance_dim}, batch {batch_size},'
      f' float32, one of {machine}; medians of {repeats} x {NUM_STEPS} steps.'
  )
  rows = [timing.Row('ours', times['ours'])]
  if 'torch' not in times:
    return '\n'.join([heading, timing.format_table(rows, batch_size)])
  rows.append(timing.Row('PyTorch eager', times['torch']))
  ratio = timing.compare(times['ours'], times['torch'])
  return '\n'.join([
      heading,
      timing.format_table(rows, batch_size),
      f'ours / PyTorch: {ratio:.2f}.',
  ])


def _make_steps(model, variables, batch):
  """Makes a program of NUM_STEPS steps of the batch."""
  optimizer = training.make_optimizer(LEARNING_RATE, 0.0, B1)
  # A copy: the step takes its state's memory.
  variables = jax.tree.map(jnp.copy, variables)
  state = attribute_training.create_train_state(variables, optimizer)
  inputs = attribute_training.StepInputs(
      *jax.device_put(batch), teacher=None, permutation=None
  )
  step = jax.jit(
      functools.partial(
          attribute_training.train_step,
          model=model,
          weights=WEIGHTS,
          optimizer=optimizer,
      ),
      donate_argnums=0,
  )

  def steps():
    nonlocal state
    for _ in range(NUM_STEPS):
      state, metrics = step(state, inputs)
    return metrics

  return steps
