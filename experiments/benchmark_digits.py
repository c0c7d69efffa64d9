"""A student's training step on digits, beside its limit and PyTorch's step.

The limit of a step is the time of its matrix products and of nothing else: as
many, of the same shapes and layouts, by the same compiler, measured in the same
process in turn with the step.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import timing
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import steps as training

# Of the paper's experiment on digits.
NUM_FACTORS = 2
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 1e-6
WEIGHTS = config.LossWeights()
# Of one measurement, and batches of the data that it goes through.
NUM_STEPS = 100


def student_products(
    model: networks.MlpAutoencoder, batch_size: int
) -> list[timing.Product]:
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
) -> list[timing.Product]:
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
  machine = timing.describe_machine()
  torch_step = (
      timing.import_torch_module('torch_step') if against == 'torch' else None
  )
  parallel.check_batch_size(batch_size)
  step = make_mnist_step(batch_size, nuisance_dim)
  # A device multiplies its share of the batch.
  local_size = batch_size // jax.device_count()
  cached = student_products(step.model, local_size)
  computed = teacher_products(step.teacher_model, local_size) + cached
  cached_fn, computed_fn = _make_epochs(step, mode, batch_size)
  programs = {
      'cached': cached_fn,
      'cached_limit': timing.make_products_fn(cached, NUM_STEPS),
      'computed': computed_fn,
      'computed_limit': timing.make_products_fn(computed, NUM_STEPS),
  }
  if torch_step:
    for name, make_epoch in (
        ('torch', torch_step.make_epoch),
        ('torch_loaded', torch_step.make_loaded_epoch),
    ):
      programs[name] = _make_torch_epoch(
          torch_step, make_epoch, step, batch_size
      )
  times = timing.measure(programs, repeats, NUM_STEPS)
  heading = (
      f'Student step on digits: k = {NUM_FACTORS}, d = {nuisance_dim}, batch'
      f' {batch_size}, float32, {mode}, {machine}; medians of {repeats} x'
      f' {NUM_STEPS} steps.'
  )
  return '\n'.join(
      [heading, *_format_mnist_step(times, cached, computed, batch_size)]
  )


class MnistStep(NamedTuple):
  """A student, its teacher and the data of NUM_STEPS steps."""

  model: networks.MlpAutoencoder
  student: codes.Variables
  teacher_model: networks.MlpAutoencoder
  teacher: codes.Variables
  images: np.ndarray


def make_mnist_step(batch_size: int, nuisance_dim: int) -> MnistStep:
  """Makes a student that has grown by one unit, with noise for its data.

  Args:
    batch_size: of all devices together.
    nuisance_dim: d of the student.
  """
  # While it trains, a student's factors are all that its teacher has.
  num_factors = NUM_FACTORS + nuisance_dim - 1
  model = networks.MlpAutoencoder(num_factors, 1)
  teacher_model = networks.MlpAutoencoder(num_factors, 0)
  return MnistStep(
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
      timing.Row(
          'teacher cached',
          times['cached'],
          flops(cached),
          times['cached_limit'],
      ),
      timing.Row(
          'teacher in the step',
          times['computed'],
          flops(computed),
          times['computed_limit'],
      ),
  ]
  if 'torch' not in times:
    return [timing.format_table(rows, batch_size)]
  rows += [
      timing.Row('PyTorch eager', times['torch']),
      timing.Row('  with its loader', times['torch_loaded']),
  ]
  ratios = [
      timing.compare(times['torch'], times[name])
      for name in ('cached', 'computed')
  ]
  # Ours read and shuffle the data in any case.
  whole = timing.compare(times['torch_loaded'], times['cached'])
  return [
      timing.format_table(rows, batch_size),
      f'PyTorch / ours: {ratios[0]:.2f} (teacher cached), {ratios[1]:.2f} (in'
      f' the step); of a whole epoch, data included: {whole:.2f}.',
  ]


def _make_torch_epoch(torch_step, make_epoch, step, batch_size):
  train_step = torch_step.make_train_step(
      step.student['params'],
      step.teacher['params'],
      num_factors=step.model.num_factors,
      weights=WEIGHTS,
      learning_rate=LEARNING_RATE,
      weight_decay=WEIGHT_DECAY,
  )
  return make_epoch(
      train_step, step.images, batch_size, timing.count_threads()
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


def _forward_products(sizes, batch_size):
  """Lists the products of `[batch_size, sizes[0]]` through dense layers."""
  return [
      timing.Product((batch_size, fan_in), (fan_in, fan_out), (1, 0))
      for fan_in, fan_out in itertools.pairwise(sizes)
  ]


def _backward_products(sizes, batch_size):
  """Lists the products of the gradients of weights and inputs, last first."""
  products = []
  for inputs, weights, _ in reversed(_forward_products(sizes, batch_size)):
    outputs = (batch_size, weights[1])
    products.append(timing.Product(inputs, outputs, (0, 0)))
    products.append(timing.Product(outputs, weights, (1, 1)))
  return products


def _layer_sizes(model):
  """Returns the sizes of the layers of a model's encoder and decoder."""
  encoder = [math.prod(model.image_shape), *model.widths, model.code_dim]
  return encoder, encoder[::-1]
