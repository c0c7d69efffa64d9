"""What a step of training needs of memory, estimated without compiling it.

The arrays of a program are followed from where they are made to where they are
last read: their largest sum at any one point is what it needs, were nothing
fused. What a compiler fuses is not kept at all, so that this is an upper bound,
by some factor, of what the program will take.
"""

from collections.abc import Callable, Iterator
import math
from typing import Any

from flax import linen as nn
import jax
from jax.extend import core
import jax.numpy as jnp

from jacsup_jax.core import config
from jacsup_jax.models import autoencoders
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import steps


def estimate_bytes(function: Callable[..., Any], *args: Any) -> int:
  """Estimates the memory that a function needs, its arguments included.

  Args:
    function: of arrays, as `jax.jit` takes it.
    *args: arrays, or their shapes, see `jax.eval_shape`.

  Returns:
    Bytes.
  """
  closed = jax.make_jaxpr(function)(*args)
  constants = sum(_size(x) for x in closed.consts)
  return constants + _peak(closed.jaxpr)


def estimate_discovery(
    model: nn.Module,
    teacher_model: nn.Module,
    weights: config.LossWeights,
    *,
    batch_size: int,
    keeps_outputs: bool,
) -> int:
  """Estimates what one more member of a grid needs in a step of a student.

  Args:
    model: of the student.
    teacher_model: that supervises it, its whole code as factors.
    weights: of its objective.
    batch_size: of one device.
    keeps_outputs: its teacher's outputs are kept, which is not counted here.

  Returns:
    Bytes of its state, its gradients and what is between.
  """
  optimizer = steps.make_optimizer(1e-3, 0.0)
  shape = (batch_size, *model.image_shape)
  factors = teacher_model.code_dim
  # As it is trained, see `discovery`.
  model = model.clone(
      num_factors=factors, nuisance_dim=model.code_dim - factors
  )
  variables = _describe_variables(model)
  teacher = None
  if weights.needs_teacher and keeps_outputs:
    teacher = steps.TeacherCache(
        jax.ShapeDtypeStruct((batch_size, factors), jnp.float32),
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )
  elif weights.needs_teacher:
    teacher = _describe_variables(teacher_model)

  def step(variables, images, teacher):
    return steps.train_epoch(
        steps.create_train_state(variables, optimizer),
        steps.TrainingData(images, teacher),
        0,
        objective=steps.make_student_objective(model, weights),
        optimizer=optimizer,
        teacher_model=teacher_model,
        seed=0,
        batch_size=batch_size,
    )

  images = jax.ShapeDtypeStruct(shape, jnp.uint8)
  return estimate_bytes(step, variables, images, teacher)


def estimate_editing(
    model: nn.Module,
    teacher_model: nn.Module | None,
    weights: config.AttributeLossWeights,
    *,
    batch_size: int,
) -> int:
  """Estimates what one member of an editing grid needs in a step.

  Args:
    model: a face autoencoder.
    teacher_model: that supervises it, None for a teacher.
    weights: of its objective.
    batch_size: of one device.

  Returns:
    Bytes of its state, its gradients and what is between.
  """
  optimizer = steps.make_optimizer(1e-3, 0.0)
  shape = (1, batch_size, *model.image_shape)
  data = attribute_steps.FaceData(
      jax.ShapeDtypeStruct(shape, jnp.uint8),
      jax.ShapeDtypeStruct((1, batch_size, model.num_factors), jnp.int8),
  )
  teacher = None
  if weights.needs_teacher:
    teacher = _describe_variables(teacher_model)

  def step(variables, data, teacher):
    return attribute_steps.train_steps(
        attribute_steps.create_train_state(variables, optimizer),
        teacher,
        data,
        read=lambda row: row,
        model=model,
        teacher_model=teacher_model,
        weights=weights,
        optimizer=optimizer,
        seed=0,
        batch_size=batch_size,
    )

  return estimate_bytes(step, _describe_variables(model), data, teacher)


def _describe_variables(model):
  """Returns the shapes of a model's variables; nothing is computed."""
  return jax.eval_shape(
      lambda: autoencoders.init_variables(model, 0, model.image_shape)
  )


def _peak(jaxpr: core.Jaxpr) -> int:
  """Returns the largest sum of the arrays that are live at one equation."""
  last = {}
  for i, eqn in enumerate(jaxpr.eqns):
    last.update({var: i for var in _variables(eqn.invars)})
  # What is returned stays, and arguments are the caller's.
  kept = {*jaxpr.invars, *jaxpr.constvars, *_variables(jaxpr.outvars)}
  live = {*jaxpr.invars, *jaxpr.constvars}
  total = sum(_size(var) for var in live)
  peak = total
  for i, eqn in enumerate(jaxpr.eqns):
    for var in eqn.outvars:
      if var not in live:
        live.add(var)
        total += _size(var)
    inner = max((_extra(sub) for sub in _inner(eqn.params)), default=0)
    peak = max(peak, total + inner)
    for var in {*_variables(eqn.invars), *eqn.outvars}:
      # Of results that nothing reads, `last` knows nothing.
      if var in live and var not in kept and last.get(var, i) <= i:
        live.discard(var)
        total -= _size(var)
  return peak


def _extra(jaxpr):
  """Returns what an inner program needs besides what its equation has."""
  outside = {*jaxpr.invars, *_variables(jaxpr.outvars)}
  return max(0, _peak(jaxpr) - sum(_size(var) for var in outside))


def _inner(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
  """Yields the programs within an equation: of loops, branches and calls."""
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      if isinstance(item, core.ClosedJaxpr):
        yield item.jaxpr
      elif isinstance(item, core.Jaxpr):
        yield item


def _variables(atoms):
  return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def _size(var):
  """Returns the bytes of a variable or an array; 0 of what has no shape."""
  aval = getattr(var, 'aval', var)
  shape, dtype = getattr(aval, 'shape', None), getattr(aval, 'dtype', None)
  if shape is None or dtype is None:
    return 0
  # Keys and the like have types that NumPy does not know.
  return math.prod(shape) * getattr(dtype, 'itemsize', 4)
