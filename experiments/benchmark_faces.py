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
from jacsup_jax.datasets import batches

# Of the paper's experiment on faces; d = 2048.
NUM_FACTORS = 40
NUISANCE_CHANNELS = 512
LEARNING_RATE = 2e-3
B1 = 0.5
WEIGHTS = types.AttributeLossWeights()
# Of one measurement, and of the loop that is one program, as an epoch is.
NUM_STEPS = 10


def make_data(
    model: networks.FaceAutoencoder, batch_size: int
) -> attribute_training.FaceData:
  """Makes noise of the shape of a batch, as a data set holds it.

  Args:
    model: that it is for.
    batch_size: examples.

  Returns:
    `[B, S, S, 3]` uint8 images and `[B, K]` int8 attributes, NumPy arrays.
  """
  rng = np.random.default_rng(0)
  shape = (batch_size, *model.image_shape)
  return attribute_training.FaceData(
      rng.integers(0, 256, shape, np.uint8),
      rng.choice(np.array([-1, 1], np.int8), (batch_size, model.num_factors)),
  )


def to_batch(data: attribute_training.FaceData) -> types.Batch:
  """Converts a batch as a model is given it.

  Args:
    data: of `make_data`.

  Returns:
    `[B, S, S, 3]` float32 images in [-1, 1] and `[B, K]` attributes, NumPy
    arrays.
  """
  return types.Batch(
      # A copy: PyTorch wants memory that it may write to.
      np.array(batches.to_signed_float(jnp.asarray(data.images))),
      data.attributes.astype(np.float32),
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
  data = make_data(model, batch_size)
  programs = {'ours': _make_steps(model, variables, data)}
  if torch_face_step:
    train_step = torch_face_step.make_train_step(
        variables['params'],
        weights=WEIGHTS,
        learning_rate=LEARNING_RATE,
        b1=B1,
    )
    programs['torch'] = torch_face_step.make_steps(
        train_step, to_batch(data), NUM_STEPS, timing.count_threads()
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


def _make_steps(model, variables, data):
  """Makes a program of NUM_STEPS steps, as an epoch takes them.

  Step by step it would take a fifth longer: memory that a program asks for is
  new to it, and a loop asks once.
  """
  optimizer = training.make_optimizer(LEARNING_RATE, 0.0, B1)
  # A copy: the steps take their state's memory.
  variables = jax.tree.map(jnp.copy, variables)
  state = attribute_training.create_train_state(variables, optimizer)
  data = jax.device_put(data)

  @functools.partial(jax.jit, donate_argnums=0)
  def take_steps(state, data):
    return attribute_training.train_steps(
        state,
        None,
        jnp.arange(NUM_STEPS),
        read=lambda unused_row: data,
        model=model,
        teacher_model=None,
        weights=WEIGHTS,
        optimizer=optimizer,
        seed=0,
        batch_size=data.images.shape[0],
    )

  def steps():
    nonlocal state
    state, metrics = take_steps(state, data)
    return metrics

  return steps
