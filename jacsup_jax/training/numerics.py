"""Numbers that are not finite: at which step, and which term broke."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes

# params -> (loss, (metrics, anything)).
TermsFn = Callable[
    [codes.Params], tuple[jax.Array, tuple[codes.Metrics, Any]]
]
# Of metrics: what is made of others.
_TOTAL = 'loss'
_PARAMETERS = 'the parameters'
_PLURALS = (
    _PARAMETERS, 'the images', 'the attributes', 'the outputs of the teacher',
    'the statistics of BatchNorm',
)  # pyformat: disable


class NonFiniteError(Exception):
  """A step has found what is not finite.

  Attributes:
    step: of the epoch, from 0; the number of its steps where only the state
      after the last one shows it.
    broken: names of the metrics that are not finite, without the total if
      others are there.
    members: of a grid, those whose metrics are not finite.
  """

  def __init__(
      self,
      step: int,
      broken: Sequence[str] = (),
      members: Sequence[int] = (),
  ):
    super().__init__(step)
    self.step = step
    self.broken = tuple(broken)
    self.members = tuple(members)


def check_metrics(first: int, metrics: Mapping[str, np.ndarray]) -> None:
  """Checks what steps have found.

  Args:
    first: step of the epoch that the first of them is.
    metrics: by name `[n]`, or `[n, N]` of the N members of a grid.

  Raises:
    NonFiniteError: at the first step that has something not finite.
  """
  finite = {name: np.isfinite(values) for name, values in metrics.items()}
  of_steps = [f.reshape(len(f), -1).all(axis=1) for f in finite.values()]
  bad = np.flatnonzero(~np.all(of_steps, axis=0)) if of_steps else []
  if not len(bad):
    return
  row = {name: f[bad[0]] for name, f in finite.items()}
  broken = [name for name, f in row.items() if not np.all(f)]
  members = sorted({
      int(i) for f in row.values() if np.ndim(f) for i in np.flatnonzero(~f)
  })
  raise NonFiniteError(
      first + int(bad[0]),
      [name for name in broken if name != _TOTAL] or broken,
      members,
  )


@jax.jit
def is_finite(tree: chex.ArrayTree) -> jax.Array:
  """Returns whether all numbers of a tree, `[...]` arrays, are finite."""
  checks = [
      jnp.all(jnp.isfinite(x))
      for x in jax.tree.leaves(tree)
      if jnp.issubdtype(x.dtype, jnp.inexact)
  ]
  return jnp.all(jnp.array(checks)) if checks else jnp.array(True)


def examine(
    params: codes.Params,
    inputs: Mapping[str, chex.ArrayTree],
    objectives: Sequence[TermsFn],
) -> dict[str, jax.Array]:
  """Tells what of a step is finite, in the order that one thing makes another.

  Args:
    params: before the step.
    inputs: of the step, by what they are called.
    objectives: `params -> (loss, (metrics, ...))`, all that it minimises.

  Returns:
    Scalar bools by name: the parameters, the inputs, the terms, and 'the
    gradient of TERM'.
  """
  found = {_PARAMETERS: is_finite(params)}
  found |= {name: is_finite(tree) for name, tree in inputs.items()}
  gradients = {}
  for objective in objectives:
    _, (metrics, _) = objective(params)
    for name in metrics:
      if name == _TOTAL:
        continue
      found[name] = is_finite(metrics[name])
      take = lambda p, name=name: objective(p)[1][0][name]
      gradients[f'the gradient of {name}'] = is_finite(jax.grad(take)(params))
  return found | gradients


def compile_examination(
    function: Callable[..., dict[str, jax.Array]],
) -> Callable[..., dict[str, bool]]:
  """Compiles a function that ends in `examine`; its results keep their order.

  Args:
    function: arrays -> scalar bools by name.
  """
  names = []

  def values(*args):
    found = function(*args)
    names[:] = found
    return list(found.values())

  compiled = jax.jit(values)
  return lambda *args: dict(
      zip(names, map(bool, jax.device_get(compiled(*args))))
  )


def describe(error: NonFiniteError, found: Mapping[str, bool] | None) -> str:
  """Returns in words what is not finite.

  Args:
    error: of the step.
    found: what `examine` tells of it; None if that is not known.
  """
  names = []
  if found is not None:
    names = [name for name, is_well in found.items() if not is_well]
    # Gradients of terms that are not finite are none either; nor is anything
    # that is made of such inputs.
    inputs = [n for n in names if n.startswith('the ') and 'gradient' not in n]
    terms = [n for n in names if not n.startswith('the ')]
    names = inputs or terms or names
  names = names or list(error.broken) or ['the state after the step']
  of_members = ''
  if error.members:
    of_members = f' of member {", ".join(map(str, error.members))} of the grid'
  is_one = len(names) == 1 and names[0] not in _PLURALS
  verb = 'is' if is_one else 'are'
  return f'{" and ".join(names)}{of_members} {verb} not finite'
