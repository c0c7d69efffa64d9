"""The training steps that are measured, with noise for their data.

On digits a student of Section 3 of Lezama (2019) that has grown by one unit; on
faces the steps of Section 4: a teacher without and with cycle losses (d =
2048), and a student of d = 8192 with that teacher in its step; k = 40.
`**sizes` are fields of the modules, for smaller ones such as `TINY_DIGITS` and
`TINY_FACES`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.models import autoencoders
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import devices
from jacsup_jax.training import discovery_steps
from jacsup_jax.training import steps

NUM_FACTORS = 2  # of a first teacher on digits
FACE_WEIGHTS = {
  'phase_one': config.AttributeLossWeights(),
  'phase_two': config.AttributeLossWeights(
    lambda_attribute_cycle=1e-4, lambda_nuisance_cycle=1e-5
  ),
  'student': config.AttributeLossWeights(
    lambda_prediction=0.0, lambda_xcov=0.0, lambda_y=1.0, lambda_diff=50.0
  ),
}
FACE_STEPS = list(FACE_WEIGHTS)
TINY_DIGITS = {'image_shape': (2, 2, 1), 'widths': (2,)}
TINY_FACES = {
  'num_factors': 2,
  'nuisance_channels': 3,
  'first_width': 4,
  'last_width': 6,
}
# Of the products: the type, and JAX's name of the precision.
PRECISIONS = {
  'float32': (jnp.float32, 'highest'),
  'bfloat16': (jnp.bfloat16, 'default'),
  'TF32': (jnp.float32, 'tensorfloat32'),
}
_FACE_OPTIMIZATION = config.Optimization(
  learning_rate=2e-3, adam_b1=0.5, weight_decay=0.0
)


class Problem(NamedTuple):
  """A step, and its inputs."""

  step: Any  # (state, constants, rows, bounds) -> (state, metrics)
  variables: codes.Variables  # that it starts from
  teacher: codes.Variables | None  # of step.teacher_module
  state: steps.TrainState
  constants: Any
  images: np.ndarray  # [M, H, W, C] uint8
  attributes: np.ndarray | None = None  # [M, K] int8; None for digits

  def make_program(self, num_steps: int) -> Callable[[], codes.Metrics]:
    """Makes a program of steps in one loop, as an epoch takes them."""
    compiled = devices.compile_epoch('jit', self.step.batch_size, self.step)
    order = np.arange(num_steps * self.step.batch_size) % len(self.images)
    rows = order.reshape(num_steps, self.step.batch_size).astype(np.int32)
    return repeat(compiled, self.state, devices.replicate(self.constants), rows)


def repeat(
  take_steps: Callable[..., tuple[steps.TrainState, codes.Metrics]],
  state: steps.TrainState,
  *args: Any,
) -> Callable[[], codes.Metrics]:
  """Makes a program that takes steps from where its last call ended.

  `take_steps` is `(state, *args) -> (state, metrics)`.
  """
  # A copy: the steps reuse the memory of their state.
  state = jax.tree.map(jnp.copy, state)

  def program():
    nonlocal state
    state, metrics = take_steps(state, *args)
    return metrics

  return program


def make_digits(
  batch_size: int,
  nuisance_dim: int,
  num_batches: int,
  weights: config.LossWeights = config.LossWeights(),
  *,
  is_cached: bool = True,
  **sizes: Any,
) -> Problem:
  """Makes a student's step on digits, with `num_batches` of data.

  The outputs of its teacher are computed once for all steps, as in
  `experiments.mnist`, or in every step.
  """
  # In training, a student's factors are all units of its teacher.
  num_factors = NUM_FACTORS + nuisance_dim - 1
  module = autoencoders.MlpAutoencoder(num_factors, 1, **sizes)
  teacher_module = module.clone(nuisance_dim=0)
  variables = autoencoders.init_variables(module, 0)
  teacher = autoencoders.init_variables(teacher_module, 1)
  shape = (num_batches * batch_size, *module.image_shape)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  constants = discovery_steps.TrainingData(
    jnp.asarray(images), jnp.zeros((), jnp.int32), teacher
  )
  if is_cached:
    cache = discovery_steps.compute_teacher_cache(
      teacher_module, teacher, constants.images, weights.supervision
    )
    constants = constants._replace(teacher=cache)
  optimization = config.Optimization()
  step = discovery_steps.DiscoverySteps(
    module, teacher_module, weights, optimization, batch_size
  )
  state = steps.create_train_state(
    variables, steps.make_optimizer(optimization)
  )
  return Problem(step, variables, teacher, state, constants, images)


def make_faces(
  name: str, image_size: int, batch_size: int, **sizes: Any
) -> Problem:
  """Makes a step of `FACE_STEPS` with one batch of data."""
  step = _make_face_step(name, image_size, batch_size, False, sizes)
  variables, teacher, state = _init_faces(step)
  rng = np.random.default_rng(0)
  shape = (batch_size, *step.module.image_shape)
  images = rng.integers(0, 256, shape, np.uint8)
  signs = np.array([-1, 1], np.int8)
  attributes = rng.choice(signs, (batch_size, step.module.num_factors))
  data = attribute_steps.FaceData(jnp.asarray(images), jnp.asarray(attributes))
  constants = attribute_steps.FaceConstants(
    jnp.zeros((), jnp.int32), teacher, data
  )
  return Problem(step, variables, teacher, state, constants, images, attributes)


def compile_faces(
  name: str,
  image_size: int,
  there: list[jax.Device],
  per_device: int,
  **sizes: Any,
) -> jax.stages.Compiled:
  """Compiles a step of fed faces for devices that need not be here."""
  batch_size = per_device * len(there)
  step = _make_face_step(name, image_size, batch_size, True, sizes)
  _, teacher, state = jax.eval_shape(lambda: _init_faces(step))
  shaped = lambda shape, dtype: jax.ShapeDtypeStruct((*shape,), dtype)
  constants = attribute_steps.FaceConstants(
    shaped((), jnp.int32), teacher, None
  )
  rows = attribute_steps.FaceData(
    shaped((1, batch_size, *step.module.image_shape), jnp.uint8),
    shaped((1, batch_size, step.module.num_factors), jnp.int8),
  )
  return devices.compile_for(there, step, state, constants, rows, fed=True)


def _make_face_step(name, image_size, batch_size, is_fed, sizes):
  make = lambda channels: autoencoders.FaceAutoencoder(
    **{'num_factors': 40, 'nuisance_channels': channels} | sizes,
    image_size=image_size,
  )
  is_student = name == 'student'
  return attribute_steps.FaceSteps(
    make(2048 if is_student else 512),
    make(512) if is_student else None,
    FACE_WEIGHTS[name],
    _FACE_OPTIMIZATION,
    batch_size,
    is_fed,
  )


def _init_faces(step):
  variables, teacher = (
    module and autoencoders.init_variables(module, seed)
    for seed, module in enumerate((step.module, step.teacher_module))
  )
  optimizer = steps.make_optimizer(step.optimization)
  state = attribute_steps.create_train_state(variables, optimizer)
  return variables, teacher, state
