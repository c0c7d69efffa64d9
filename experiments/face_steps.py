"""The training steps on faces that benchmarks measure and compile.

Those of Section 4 of Lezama (2019): a teacher without and with cycle losses
(d = 2048), and a student of d = 8192 with that teacher in its step; k = 40.
"""

from collections.abc import Callable
import itertools
from typing import Literal, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import timing
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import steps as training

NUM_FACTORS = 40
TEACHER_CHANNELS = 512
STUDENT_CHANNELS = 2048
LEARNING_RATE = 2e-3
B1 = 0.5
WEIGHTS = {
    'phase_one': config.AttributeLossWeights(),
    'phase_two': config.AttributeLossWeights(
        lambda_attribute_cycle=1e-4, lambda_nuisance_cycle=1e-5
    ),
    'student': config.AttributeLossWeights(
        lambda_prediction=0.0, lambda_xcov=0.0, lambda_y=1.0, lambda_diff=50.0
    ),
}
STEPS = tuple(WEIGHTS)
Name = Literal['phase_one', 'phase_two', 'student']


class FaceStep(NamedTuple):
  """A step to measure.

  Attributes:
    name: one of `STEPS`.
    model: that is trained.
    teacher_model: that supervises it; None for a teacher.
  """

  name: Name
  model: networks.FaceAutoencoder
  teacher_model: networks.FaceAutoencoder | None

  @property
  def weights(self) -> config.AttributeLossWeights:
    return WEIGHTS[self.name]

  @property
  def optimizer(self) -> optax.GradientTransformation:
    return training.make_optimizer(LEARNING_RATE, 0.0, B1)

  def describe(self) -> str:
    """Returns its name and sizes, for a heading."""
    size, model = self.model.image_size, self.model
    return (
        f'{self.name}, {size}x{size} pixels, k = {model.num_factors},'
        f' d = {model.nuisance_dim}'
    )


def make_step(
    name: Name, image_size: int, dtype: jnp.dtype = jnp.float32
) -> FaceStep:
  """Returns a step at the paper's widths.

  Args:
    name: one of `STEPS`.
    image_size: pixels of a side, a power of two.
    dtype: that convolutions are computed in.
  """
  make_model = lambda channels: networks.FaceAutoencoder(
      NUM_FACTORS, channels, image_size, dtype=dtype
  )
  teacher = make_model(TEACHER_CHANNELS)
  if name == 'student':
    return FaceStep(name, make_model(STUDENT_CHANNELS), teacher)
  return FaceStep(name, teacher, None)


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


def to_batch(data: attribute_training.FaceData) -> codes.Batch:
  """Converts a batch as a model is given it.

  Args:
    data: of `make_data`.

  Returns:
    `[B, S, S, 3]` float32 images in [-1, 1] and `[B, K]` attributes, NumPy
    arrays.
  """
  return codes.Batch(
      # A copy: PyTorch wants memory that it may write to.
      np.array(batches.to_signed_float(jnp.asarray(data.images))),
      data.attributes.astype(np.float32),
  )


def take_steps(
    step: FaceStep,
    state: training.TrainState,
    teacher: codes.Variables | None,
    data: attribute_training.FaceData,
    *,
    num_steps: int,
    shard: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> tuple[training.TrainState, codes.Metrics]:
  """Takes steps of one batch, as an epoch takes them.

  Args:
    step: which.
    state: before the first.
    teacher: variables of the step's `teacher_model`, if it has one.
    data: `[B, ...]` arrays, of all devices.
    num_steps: how many, in a loop that is one program.
    shard: see `attribute_training.train_steps`.

  Returns:
    The state after the last step, and the mean of the metrics.
  """
  return attribute_training.train_steps(
      state,
      teacher,
      jnp.arange(num_steps),
      read=lambda unused_row: jax.tree.map(shard, data),
      model=step.model,
      teacher_model=step.teacher_model,
      weights=step.weights,
      optimizer=step.optimizer,
      seed=0,
      batch_size=data.images.shape[0],
      shard=shard,
  )


def init_variables(
    model: nn.Module | None, seed: int
) -> codes.Variables | None:
  """Initialises a model; None if there is none."""
  return model and networks.init_variables(model, seed, model.image_shape)


def list_products(step: FaceStep, batch_size: int) -> list[timing.Product]:
  """Lists the products of matrices that a step's convolutions are.

  A convolution is the product of its windows, `[positions, 16 C]`, with its
  kernel. Of the factors' channels, constant over a map, nothing is counted.

  Args:
    step: which.
    batch_size: of one device.

  Returns:
    Those of all passes through encoders and decoders, forward and backward.
  """
  # Of each half: `[positions, 16 C] x [16 C, out]` of each layer.
  encoder, decoder = _list_layers(step.model, batch_size)
  forward = lambda layers: [timing.Product(*x, (1, 0)) for x in layers]
  of_weights = lambda layers: [
      timing.Product(windows, (windows[0], kernel[1]), (0, 0))
      for windows, kernel in layers
  ]
  of_inputs = lambda layers: [
      timing.Product((windows[0], kernel[1]), kernel, (1, 1))
      for windows, kernel in layers
  ]
  backward = lambda layers: of_weights(layers) + of_inputs(layers)
  products = forward(encoder) + of_weights(encoder) + of_inputs(encoder[1:])
  products += forward(decoder) + backward(decoder)
  if step.weights.needs_cycle:
    products += 2 * forward(encoder) + forward(decoder)
    # The encoder is frozen, and nothing before the code is asked for.
    products += of_inputs(encoder)
    products += of_weights(decoder) + of_inputs(decoder[1:])
  if step.weights.needs_teacher:
    products += forward(decoder) + backward(decoder)
    teacher_encoder, teacher_decoder = _list_layers(
        step.teacher_model, batch_size
    )
    products += forward(teacher_encoder) + 2 * forward(teacher_decoder)
  return products


def _list_layers(model, batch_size):
  """Lists (windows, kernel) of the layers of an encoder, and of a decoder."""
  depth = model.image_size.bit_length() - 3
  widths = networks.doubled_widths(model.first_width, model.last_width, depth)
  code = model.nuisance_channels + model.num_factors
  sizes = [model.image_size >> i for i in range(1, depth + 2)]
  shapes = lambda channels: [
      ((batch_size * size**2, 16 * fan_in), (16 * fan_in, fan_out))
      for size, (fan_in, fan_out) in zip(
          sizes, itertools.pairwise(channels), strict=True
      )
  ]
  encoder = shapes((3, *widths, code))
  # As many multiplications as the way down that it is the adjoint of.
  decoder = shapes((3, *widths, model.nuisance_channels))
  return encoder, decoder
