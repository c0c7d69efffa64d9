"""How students are supervised: its flags, and what runs say of it."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from absl import flags

from jacsup_jax import types

FLAGS = flags.FLAGS
# Flags that functions here define belong to the binary that calls them, whose
# --help then shows them.
flags.disclaim_key_flags()

# Of the manifest; runs from before these flags have no such values.
MAYBE_KINDS = {'jacobian': str, 'jacobian_nodes': int, 'lambda_check': float}
_DEFAULT = types.Supervision()


def define_flags() -> None:
  """Defines the flags, with the paper's values."""
  flags.DEFINE_enum(
      'jacobian',
      _DEFAULT.jacobian,
      types.JACOBIANS,
      'How a student\'s Jacobian is compared with its teacher\'s, eq. (9):'
      ' secant (the paper\'s) by the images before and after a swap of factors;'
      ' tangent by the derivative in the direction of the swap; path by that'
      ' derivative averaged along the swap, over --jacobian_nodes; full by all'
      ' of the Jacobian, for small codes and images.',
  )
  flags.DEFINE_integer(
      'jacobian_nodes',
      _DEFAULT.nodes,
      'Nodes of the Gauss-Legendre quadrature of --jacobian=path.',
  )
  flags.DEFINE_float(
      'lambda_check',
      0.0,
      'Weight of what the teacher sees in a student\'s swapped images against'
      ' the factors that they were given; not of the paper.',
  )


def make(values: Mapping[str, Any]) -> types.Supervision:
  """Returns how a run supervises; the paper's way in runs from before.

  Args:
    values: of its flags, by name.

  Raises:
    InputError: if a value is not accepted.
  """
  return types.Supervision(
      jacobian=values.get('jacobian', _DEFAULT.jacobian),
      nodes=values.get('jacobian_nodes', _DEFAULT.nodes),
      check=values.get('lambda_check', 0.0) > 0,
  )


def describe(
    weights: types.LossWeights | types.AttributeLossWeights,
) -> dict[str, Any]:
  """Returns what a row of results.json says: what is not the paper's way."""
  default = dataclasses.asdict(_DEFAULT)
  described = {
      name: value
      for name, value in dataclasses.asdict(weights.supervision).items()
      if value != default[name] and name != 'check'
  }
  if weights.supervision.check:
    described['lambda_check'] = weights.lambda_check
  return described
