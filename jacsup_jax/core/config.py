"""Configuration as frozen dataclasses whose fields are command-line flags.

A field made by `option` is a flag of the same name and default; its metadata
hold the help text and the accepted values. A field that is another dataclass
contributes the flags of that dataclass.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any, Self

import jax
import numpy as np

from jacsup_jax.core import errors

COMPUTE_DTYPES = ('float32', 'bfloat16')
JACOBIANS = ('secant', 'tangent', 'path', 'full')
MODES = ('jit', 'pmap')
MAX_DECAY = 0.9999  # At 1 a moving average would never move.
# Largest width of a layer or a code: 8 times the paper's largest. A mistyped
# number is refused before it exhausts the machine's memory.
LARGEST_WIDTH = 2**16
LARGEST_INTEGER = 2**31 - 1  # JAX's default integers have 32 bits.


def option(
  default: Any,
  help: str,
  *,
  low: float | None = None,
  high: float | None = None,
  choices: Sequence[str] | None = None,
  group: str | None = None,
) -> Any:
  """Makes a dataclass field that is a flag, listed by --help in its group.

  Accepted are numbers from `low` to `high`, or `choices`. Its annotation may
  allow None; tuples are lists of values separated by commas.
  """
  given = {'low': low, 'high': high, 'choices': choices, 'group': group}
  metadata = {k: v for k, v in given.items() if v is not None} | {'help': help}
  return dataclasses.field(default=default, metadata=metadata)


def check(config: Any) -> None:
  """Raises InputError if a field of a dataclass made by `option` is refused.

  Tracers and other stand-ins that JAX puts into a pytree are not checked.
  """
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    entries = value if isinstance(value, tuple) else (value,)
    if choices := field.metadata.get('choices'):
      if set(entries) - set(choices) or len(entries) > len(set(entries)):
        each = ', each at most once' if isinstance(value, tuple) else ''
        raise errors.InputError(
          f'--{field.name}={",".join(map(str, entries))}; accepted:'
          f' {", ".join(choices)}{each}.'
        )
      continue
    low = field.metadata.get('low', -math.inf)
    high = field.metadata.get('high', math.inf)
    for entry in entries:
      if not isinstance(entry, (int, float, np.number, np.ndarray)):
        continue
      for number in np.ravel(entry).tolist():
        # The comparison also refuses NaN.
        if not low <= number <= high or math.isinf(number):
          bounds = (
            f'from {low} to {high}' if high < math.inf else f'{low} or more'
          )
          raise errors.InputError(
            f'--{field.name}={number}; accepted: finite numbers, {bounds}.'
          )


class Options:
  """Base of dataclasses of options, which refuses what is out of bounds.

  A subclass may name the heading of its flags: `class A(Options, group='x')`.
  """

  flag_group = 'training'

  def __init_subclass__(cls, group: str | None = None, **options: Any):
    super().__init_subclass__(**options)
    if group is not None:
      cls.flag_group = group

  def __post_init__(self):
    check(self)


@dataclasses.dataclass(frozen=True)
class Ramp(Options):
  """How the weights of a student's terms rise within its stage."""

  ramp: str = option(
    'constant',
    "How a student's weights, except reconstruction's, rise in a stage.",
    choices=('constant', 'linear', 'cosine'),
  )
  ramp_start: float = option(
    0.0, 'Fraction of the weights at the first step of a stage.', low=0, high=1
  )
  ramp_epochs: int | None = option(
    None, 'Epochs until the weights are full; default: the whole stage.', low=1
  )


@dataclasses.dataclass(frozen=True)
class Supervision(Options):
  """How the Jacobians of a student and its teacher are compared."""

  jacobian: str = option(
    'secant',
    "How a student's Jacobian is compared with its teacher's, eq. (9): secant"
    " (the paper's), the change of the image under a swap of factors; tangent,"
    ' the directional derivative towards the swap; path, that derivative'
    ' averaged along the swap over --jacobian_nodes points; full, the whole'
    ' Jacobian, for small codes and images.',
    choices=JACOBIANS,
  )
  jacobian_nodes: int = option(
    3,
    'Nodes of the Gauss-Legendre quadrature of --jacobian=path.',
    low=1,
    high=100,  # NumPy's nodes are tested up to 100.
  )
  num_swaps: int = option(
    1,
    'Permutations of the batch per step; their losses are averaged.',
    low=1,
    high=64,
  )

  def __post_init__(self):
    super().__post_init__()
    if self.jacobian == 'full' and self.num_swaps != 1:
      raise errors.InputError(
        f'--num_swaps={self.num_swaps} with --jacobian=full, which uses no'
        ' swaps; accepted: 1.'
      )


class Weights(Options):
  """Base of the weights of an objective."""

  @property
  def needs_teacher(self) -> bool:
    """Whether any term compares with a teacher."""
    return False


_ALWAYS = 'also of students without Jacobian supervision'
_XCOV = option(
    'squared',
    'Cross-covariance as in the paper (squared: sum of squares, eq. (10)) or'
    ' as in the released code (norm: root of that sum).',
    choices=('squared', 'norm'),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LossWeights(Weights):
  """Weights of the terms of the paper's unsupervised objective.

  A pytree of `lambda_y`, `lambda_diff` and `lambda_xcov`: these may be traced,
  or be `[N]` arrays of the members of `training.replicas`. The rest is static.
  """

  lambda_y: float = option(0.25, 'Weight of factor matching, eq. (9).', low=0)
  lambda_diff: float = option(0.1, 'Weight of the Jacobian term (9).', low=0)
  lambda_xcov: float = option(1e-3, 'Weight of cross-covariance (10).', low=0)
  xcov: str = _XCOV
  lambda_hsic: float = option(
    0.0, f'Weight of HSIC of factors and nuisance; {_ALWAYS}.', low=0
  )
  hsic_bandwidth: float | None = option(
    None,
    'Bandwidth of the Gaussian kernels of HSIC; default: the median distance'
    ' in the batch.',
    low=0,
  )
  lambda_orthogonal: float = option(
    0.0,
    'Weight of the squared cosines between the Jacobian columns of factors'
    f' and nuisance units; {_ALWAYS}.',
    low=0,
  )
  lambda_orthogonal_factors: float = option(
    0.0, f'Weight of the same cosines between factors; {_ALWAYS}.', low=0
  )
  lambda_check: float = option(
    0.0,
    'Weight of the swap check: squared error between the factors that each of'
    " --checkers sees in a student's swapped image and the donor's factors.",
    low=0,
  )
  lambda_background: float = option(
    0.0,
    'Penalty on what a swapped image shows where both its sources are empty,'
    ' such as specks; for data whose background is 0.',
    low=0,
  )
  supervision: Supervision = Supervision()
  ramp: Ramp = Ramp()

  def __post_init__(self):
    super().__post_init__()
    if self.hsic_bandwidth == 0:
      raise errors.InputError('--hsic_bandwidth=0; accepted: above 0.')

  @property
  def needs_teacher(self) -> bool:
    """Whether any term, of any member, compares with a teacher."""
    return any(bool(np.any(getattr(self, name))) for name in SUPERVISED)


SUPERVISED = ('lambda_y', 'lambda_diff', 'lambda_check', 'lambda_background')
_TRACED = ['lambda_y', 'lambda_diff', 'lambda_xcov']
_NAMES = {field.name for field in dataclasses.fields(LossWeights)}
jax.tree_util.register_dataclass(
  LossWeights, data_fields=_TRACED, meta_fields=sorted(_NAMES - {*_TRACED})
)


@dataclasses.dataclass(frozen=True)
class NeighborWeights(Weights):
  """Weights of a first teacher that maps neighbours to nearby factors."""

  num_neighbors: int = option(
    10, 'Nearest neighbors per image, see --first_teacher.', low=1
  )
  lambda_neighbor: float = option(
    0.1, 'Weight of the neighbor embedding loss, see --first_teacher.', low=0
  )
  neighbor_scale: float = option(
    20.0,
    'Factor scale of the neighbor embedding loss: the extent of the code in'
    ' units of the distance between neighbors.',
    low=0,
  )


@dataclasses.dataclass(frozen=True)
class AttributeLossWeights(Weights):
  """Weights for facial attributes, by default of the teacher's first phase."""

  lambda_reconstruction: float = option(
    1e2, 'lambda_1: weight of reconstruction, eq. (8).', low=0
  )
  lambda_prediction: float = option(
    1e-1, 'lambda_2: weight of attribute prediction, eq. (11).', low=0
  )
  lambda_xcov: float = option(
    1e-1, 'lambda_3: weight of cross-covariance, eq. (10).', low=0
  )
  lambda_attribute_cycle: float = option(
    0.0, 'lambda_4: weight of the attribute cycle, eq. (12).', low=0
  )
  lambda_nuisance_cycle: float = option(
    0.0, 'lambda_5: weight of the nuisance cycle, eq. (13).', low=0
  )
  lambda_y: float = option(
    0.0, "Weight of a student's factor matching, eq. (9).", low=0
  )
  lambda_diff: float = option(
    0.0, "Weight of a student's Jacobian term, eq. (9).", low=0
  )
  lambda_edit_check: float = option(
    0.0,
    'Weight of the edit check: the cross-entropy of a classifier that looks at'
    ' edited images. The run first trains it to withstand small changes.',
    low=0,
  )
  decode_labels: float = option(
    0.0,
    'Share of the images that are decoded from their labels instead of the'
    ' predicted factors, in which the encoder could hide other information;'
    ' above 0, no gradient of the decoder reaches the predictions.',
    low=0,
    high=1,
  )
  edits: str = option(
    'swap',
    'What cycle losses and Jacobian supervision change: swap, all factors to'
    " those of another image (the paper's); flip, one factor to the opposite"
    ' label, and the factors that exclude it to absent.',
    choices=('swap', 'flip'),
  )
  largest_flip: float = option(
    1.0,
    'Jacobian supervision compares flips of 1 to this many labels: values are'
    ' spread evenly, by their logarithm, over the examples of a batch.',
    low=1,
  )
  xcov: str = _XCOV
  supervision: Supervision = Supervision()

  @property
  def needs_teacher(self) -> bool:
    """Whether a term compares with a teacher."""
    return self.lambda_y > 0 or self.lambda_diff > 0

  @property
  def needs_cycle(self) -> bool:
    """Whether a step has a second update."""
    cycle = self.lambda_attribute_cycle, self.lambda_nuisance_cycle
    return any((*cycle, self.lambda_edit_check))


@dataclasses.dataclass(frozen=True)
class Optimization(Options):
  """The optimizer; see `training.optimizers`."""

  optimizer: str = option(
    'adam',
    "adam (the paper's), or muon, which makes the updates of matrices"
    ' orthogonal: fewer but slower steps, with --learning_rate near 0.02.',
    choices=('adam', 'muon'),
  )
  learning_rate: float = option(3e-4, 'Learning rate.', low=0)
  learning_rate_schedule: str = option(
    'constant',
    'constant, or cosine: the learning rate falls to 0 within each stage.',
    choices=('constant', 'cosine'),
  )
  adam_b1: float = option(0.9, 'beta_1 of Adam.', low=0, high=MAX_DECAY)
  weight_decay: float = option(
    1e-6, 'Weight decay, added to the gradient as L2.', low=0
  )


@dataclasses.dataclass(frozen=True)
class Stage:
  """One training run in a chain: a first teacher, or a student grown from it.

  `teacher` is the stage that supervises it, by default its parent. It ends
  early after `patience` epochs without a new lowest validation error.
  """

  name: str  # Directory of its checkpoints, `stage` in metrics and manifest.
  model: str  # Its kind in results.json, e.g. 'student_no_jacobian'.
  parent: str | None  # The stage it grows from; None for a first teacher.
  nuisance_dim: int  # After the growth, counted from the first teacher on.
  epochs: int
  weights: Weights
  teacher: str | None = None
  patience: int | None = None
  seed: int = 0  # for initialisation, data order and swaps

  @property
  def supervisor(self) -> str | None:
    """Name of the stage whose model supervises this one, if its weights ask."""
    return self.teacher or self.parent

  def to_json(self) -> dict[str, Any]:
    """Returns JSON values from which `from_json` makes an equal stage."""
    entries = dataclasses.asdict(self)
    to_list = lambda x: x.tolist() if hasattr(x, 'tolist') else x
    weights = {k: to_list(x) for k, x in entries['weights'].items()}
    kind = type(self.weights).__name__
    return entries | {'weights': {'kind': kind, **weights}}

  @classmethod
  def from_json(cls, entries: Mapping[str, Any]) -> Self:
    """Makes a stage from what `to_json` returned; InputError if it cannot."""
    kinds = {kind.__name__: kind for kind in Weights.__subclasses__()}
    try:
      weights = dict(entries['weights'])
      kind = kinds[weights.pop('kind')]
      return cls(**{**entries, 'weights': _from_json(kind, weights)})
    except (KeyError, TypeError, ValueError) as error:
      raise errors.InputError(
        f'a stage of a manifest cannot be read ({error!r}); accepted: the'
        ' entries that this version writes.'
      ) from error


def _from_json(cls, entries):
  """Makes a dataclass; what an older run did not have gets its default."""

  def read(field):
    value = entries[field.name]
    if dataclasses.is_dataclass(field.type):
      return _from_json(field.type, value)
    # One value for each member.
    return np.array(value) if isinstance(value, list) else value

  known = [x for x in dataclasses.fields(cls) if x.name in entries]
  return cls(**{field.name: read(field) for field in known})
