"""How students are supervised: its flags, and what runs say of it."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from absl import flags

from jacsup_jax.core import config

FLAGS = flags.FLAGS
# Flags that functions here define belong to the binary that calls them, whose
# --help then shows them.
flags.disclaim_key_flags()

# Of the manifest; runs from before these flags have no such values.
MAYBE_KINDS = {'jacobian': str, 'jacobian_nodes': int}
MAYBE_KINDS_OF_CHAINS = {
    'num_swaps': int, 'supervise': str, 'lambda_hsic': float,
    'hsic_bandwidth': float | None, 'lambda_orthogonal': float,
    'lambda_orthogonal_factors': float, 'ramp': str, 'ramp_start': float,
    'ramp_epochs': int | None, 'lambda_check': float,
}  # pyformat: disable
_DEFAULT = config.Supervision()
_WEIGHTS = config.LossWeights()
# Fields of weights that rows name where they are not the paper's.
_CONSTRAINTS = (
    'lambda_hsic', 'hsic_bandwidth', 'lambda_orthogonal',
    'lambda_orthogonal_factors', 'lambda_check',
)  # pyformat: disable


def define_flags() -> None:
  """Defines the flags, with the paper's values."""
  flags.DEFINE_enum(
      'jacobian',
      _DEFAULT.jacobian,
      config.JACOBIANS,
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


def define_chain_flags() -> None:
  """Defines further flags, of chains of Section 3; by default all are off."""
  flags.DEFINE_integer(
      'num_swaps', 1, 'Permutations of the batch that a step swaps factors by.'
  )
  flags.DEFINE_enum(
      'supervise',
      'parent',
      ['parent', 'history'],
      'Who supervises a student: the model that it grew from, in all units'
      ' (the paper\'s), or each unit the model of the chain that found it.',
  )
  flags.DEFINE_float(
      'lambda_hsic',
      _WEIGHTS.lambda_hsic,
      'Weight of HSIC between factors and nuisance, another measure of'
      ' dependence than the cross-covariance; students without Jacobian'
      ' supervision have it too.',
  )
  flags.DEFINE_float(
      'hsic_bandwidth',
      _WEIGHTS.hsic_bandwidth,
      'Of the Gaussian kernels of HSIC; by default the median distance in the'
      ' batch.',
  )
  flags.DEFINE_float(
      'lambda_orthogonal',
      _WEIGHTS.lambda_orthogonal,
      'Weight of the squared cosines between what factors and what nuisance'
      ' units change in an image; students without Jacobian supervision have'
      ' it too, as the next.',
  )
  flags.DEFINE_float(
      'lambda_orthogonal_factors',
      _WEIGHTS.lambda_orthogonal_factors,
      'Weight of the same cosines between factors.',
  )
  flags.DEFINE_float(
      'lambda_check',
      _WEIGHTS.lambda_check,
      'Weight of what the teacher sees in a student\'s swapped images against'
      ' the factors that they were given.',
  )
  flags.DEFINE_enum(
      'ramp',
      _WEIGHTS.ramp.shape,
      config.RAMPS,
      'How the weights of a student\'s terms, but reconstruction, rise within'
      ' each stage.',
  )
  flags.DEFINE_float(
      'ramp_start',
      _WEIGHTS.ramp.start,
      'Share of the weights at the first step of a stage, from 0 to 1; without'
      ' effect with --ramp=constant.',
  )
  flags.DEFINE_integer(
      'ramp_epochs',
      _WEIGHTS.ramp.epochs,
      'Epochs over which the weights rise; by default all of a stage.',
  )


def make(values: Mapping[str, Any]) -> config.Supervision:
  """Returns how a run supervises; the paper's way in runs from before.

  Args:
    values: of its flags, by name.

  Raises:
    InputError: if a value is not accepted.
  """
  return config.Supervision(
      jacobian=values.get('jacobian', _DEFAULT.jacobian),
      nodes=values.get('jacobian_nodes', _DEFAULT.nodes),
      num_swaps=values.get('num_swaps', _DEFAULT.num_swaps),
      history=values.get('supervise', 'parent') == 'history',
      check=values.get('lambda_check', 0.0) > 0,
  )


def make_constraints(values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns fields of `config.LossWeights`, without effect in runs from before.

  Args:
    values: of a run's flags, by name.

  Raises:
    InputError: if a value is not accepted.
  """
  take = lambda name: values.get(name, getattr(_WEIGHTS, name))
  ramp = config.Ramp(
      values.get('ramp', _WEIGHTS.ramp.shape),
      values.get('ramp_start', _WEIGHTS.ramp.start),
      values.get('ramp_epochs', _WEIGHTS.ramp.epochs),
  )
  return {name: take(name) for name in _CONSTRAINTS} | {'ramp': ramp}


def describe_constraints(weights: config.LossWeights) -> dict[str, Any]:
  """Returns what a row of results.json says: what is not the paper's."""
  found = {
      name: getattr(weights, name)
      for name in _CONSTRAINTS
      if getattr(weights, name) != getattr(_WEIGHTS, name)
  }
  if weights.ramp != _WEIGHTS.ramp:
    found['ramp'] = weights.ramp.shape
  return found


def describe(supervision: config.Supervision) -> dict[str, Any]:
  """Returns what a row of results.json says: what is not the paper's way."""
  default = dataclasses.asdict(_DEFAULT)
  return {
      name: value
      for name, value in dataclasses.asdict(supervision).items()
      # The weight is named by itself.
      if value != default[name] and name != 'check'
  }
