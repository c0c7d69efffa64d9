"""Configuration: frozen dataclasses of weights, stages and supervision."""

import dataclasses
import math

import jax
import numpy as np

from jacsup_jax.core import errors

# What products may be computed in.
COMPUTE_DTYPES = ('float32', 'bfloat16')
# Of a layer, a code or an ensemble: 8 times the paper's largest, and no more
# than what a mistyped number may ask of a machine before it can be refused.
LARGEST_WIDTH = 2**16
# Faces are published at 1024x1024 at most.
_LARGEST_IMAGE = 4096


def check_image_size(image_size: int) -> None:
  """Raises InputError unless a size in pixels is a power of two from 8."""
  if not 8 <= image_size <= _LARGEST_IMAGE or image_size & (image_size - 1):
    raise errors.InputError(
        f'--image_size={image_size}: accepted are powers of two from 8 to'
        f' {_LARGEST_IMAGE}'
    )


JACOBIANS = ('secant', 'tangent', 'path', 'full')
# Of the quadrature of a path: NumPy's nodes are good up to about 100.
_MOST_NODES = 100
_MOST_SWAPS = 64

RAMPS = ('constant', 'linear', 'cosine')


@dataclasses.dataclass(frozen=True)
class Ramp:
  """How the weights of a student's terms rise within its stage.

  Attributes:
    shape: of `RAMPS`; constant does not rise.
    start: share of each weight at the first step of the stage, from 0 to 1.
    epochs: after which the weights are reached; None takes all of the stage.
  """

  shape: str = 'constant'
  start: float = 0.0
  epochs: int | None = None

  def __post_init__(self):
    if self.shape not in RAMPS:
      raise errors.InputError(f'--ramp={self.shape}; accepted: {", ".join(RAMPS)}.')
    if not 0 <= self.start <= 1:
      raise errors.InputError(f'--ramp_start={self.start}; accepted: from 0 to 1.')
    if self.epochs is not None and self.epochs < 1:
      raise errors.InputError(f'--ramp_epochs={self.epochs}; accepted: 1 or more.')


@dataclasses.dataclass(frozen=True)
class Supervision:
  """How the Jacobians of a student and its teacher are compared.

  See `jacobian`. All of it is static: it decides what is computed.

  Attributes:
    jacobian: of `JACOBIANS`. secant: what a swap of factors changes, the
      paper's; tangent: the derivative in the direction of the swap; path: its
      average along the swap; full: all of the Jacobian.
    nodes: of the quadrature of a path.
    num_swaps: permutations of the batch a step, whose losses are averaged.
    history: each unit is supervised by the model that found it, see `history`;
      else all by the parent.
    blocks: how many factors are moved at a time, the others held: sizes of
      groups, which sum to K; None moves all at once.
    check: the teacher also looks at the student's swapped images, see
      `losses.swap_check_loss`.
  """

  jacobian: str = 'secant'
  nodes: int = 3
  num_swaps: int = 1
  history: bool = False
  blocks: tuple[int, ...] | None = None
  check: bool = False

  def __post_init__(self):
    if self.jacobian not in JACOBIANS:
      raise errors.InputError(
          f'--jacobian={self.jacobian}; accepted: {", ".join(JACOBIANS)}.'
      )
    if not 1 <= self.nodes <= _MOST_NODES:
      raise errors.InputError(
          f'--jacobian_nodes={self.nodes}; accepted: from 1 to {_MOST_NODES}.'
      )
    most = 1 if self.jacobian == 'full' else _MOST_SWAPS
    if not 1 <= self.num_swaps <= most:
      raise errors.InputError(
          f'--num_swaps={self.num_swaps} with --jacobian={self.jacobian};'
          f' accepted: from 1 to {_MOST_SWAPS}, and 1 with full, which has no'
          ' swaps.'
      )
    if self.check and self.history:
      raise errors.InputError(
          '--lambda_check with --supervise=history, which has several teachers;'
          ' accepted: with --supervise=parent.'
      )

  @property
  def is_one_swap(self) -> bool:
    """Whether two pairs of images are all that is compared, as in eq. (9)."""
    swaps_alone = dataclasses.replace(self, check=False)
    return swaps_alone == Supervision(nodes=self.nodes)


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Weights of the terms of the paper's unsupervised objective.

  A pytree, so that the weights may be traced, or be `[N]` arrays: those of the
  members of a grid, see `grid`.

  Attributes:
    lambda_y: of `factor_matching_loss`, eq. (9).
    lambda_diff: of `jacobian_loss`, eq. (9).
    lambda_xcov: of `cross_covariance_loss`, eq. (10).
    squared_xcov: eq. (10) as printed (sum of squares); False takes its root,
      as the released code does.
    supervision: how `jacobian_loss` compares a student with its teacher.
    lambda_hsic: of `constraints.hsic_loss`. Static, as those that follow: they
      decide what is computed.
    hsic_bandwidth: of its kernels; None takes the median distance.
    lambda_orthogonal: of `constraints.column_losses`, factors with nuisance.
    lambda_orthogonal_factors: of the same, factors with each other.
    lambda_check: of `losses.swap_check_loss`, where `supervision` has it.
    ramp: of all weights but that of reconstruction.
  """

  lambda_y: float = 0.25
  lambda_diff: float = 0.1
  lambda_xcov: float = 1e-3
  squared_xcov: bool = True
  supervision: Supervision = Supervision()
  lambda_hsic: float = 0.0
  hsic_bandwidth: float | None = None
  lambda_orthogonal: float = 0.0
  lambda_orthogonal_factors: float = 0.0
  lambda_check: float = 0.0
  ramp: Ramp = Ramp()

  def __post_init__(self):
    _check_weights(self)
    if self.hsic_bandwidth == 0:
      raise errors.InputError('--hsic_bandwidth is 0; accepted: larger, and finite.')

  @property
  def needs_teacher(self) -> bool:
    """Whether any term, of any member, compares with a teacher."""
    return bool(
        np.any(self.lambda_y)
        or np.any(self.lambda_diff)
        or np.any(self.lambda_check)
    )


jax.tree_util.register_dataclass(
    LossWeights,
    data_fields=['lambda_y', 'lambda_diff', 'lambda_xcov'],
    meta_fields=[
        'squared_xcov', 'supervision', 'lambda_hsic', 'hsic_bandwidth',
        'lambda_orthogonal', 'lambda_orthogonal_factors', 'lambda_check',
        'ramp',
    ],
)  # pyformat: disable


@dataclasses.dataclass(frozen=True)
class NeighborWeights:
  """What a first teacher that draws neighbours together is trained with.

  Attributes:
    num_neighbors: of an image, of which one is drawn for each step.
    lambda_neighbor: of `neighbor_embedding_loss`.
    neighbor_scale: of the factors there.
  """

  num_neighbors: int = 10
  lambda_neighbor: float = 0.1
  neighbor_scale: float = 20.0

  def __post_init__(self):
    _check_weights(self)
    if self.num_neighbors < 1:
      raise errors.InputError(
          f'--num_neighbors={self.num_neighbors}; accepted: 1 or more.'
      )


@dataclasses.dataclass(frozen=True)
class AttributeLossWeights:
  """Weights of the terms of the paper's objective for facial attributes.

  Defaults are those of the first half of the teacher's training.

  Attributes:
    lambda_reconstruction: lambda_1, of `reconstruction_loss`, eq. (8).
    lambda_prediction: lambda_2, of `attribute_hinge_loss`, eq. (11).
    lambda_xcov: lambda_3, of `cross_covariance_loss`, eq. (10).
    lambda_attribute_cycle: lambda_4, of `attribute_cycle_loss`, eq. (12).
    lambda_nuisance_cycle: lambda_5, of `nuisance_cycle_loss`, eq. (13).
    lambda_y: of `factor_matching_loss`, eq. (9).
    lambda_diff: of `jacobian_loss`, eq. (9).
    squared_xcov: eq. (10) as printed (sum of squares); False takes its root,
      as the released code does.
    supervision: how `jacobian_loss` compares a student with its teacher.
  """

  lambda_reconstruction: float = 1e2
  lambda_prediction: float = 1e-1
  lambda_xcov: float = 1e-1
  lambda_attribute_cycle: float = 0.0
  lambda_nuisance_cycle: float = 0.0
  lambda_y: float = 0.0
  lambda_diff: float = 0.0
  squared_xcov: bool = True
  supervision: Supervision = Supervision()

  def __post_init__(self):
    _check_weights(self)

  @property
  def needs_teacher(self) -> bool:
    return self.lambda_y > 0 or self.lambda_diff > 0

  @property
  def needs_cycle(self) -> bool:
    return self.lambda_attribute_cycle > 0 or self.lambda_nuisance_cycle > 0


@dataclasses.dataclass(frozen=True)
class FaderLossWeights:
  """Weights of the terms of Fader Networks, see `fader_networks`.

  Attributes:
    lambda_adversarial: of `attribute_cross_entropy_loss` with the opposite
      labels, at the end of its ramp; lambda_E there.
    ramp_steps: over which it rises linearly from 0; 0 for none.
  """

  lambda_adversarial: float = 1e-4
  ramp_steps: int = 500_000

  def __post_init__(self):
    _check_weights(self)

  @property
  def needs_teacher(self) -> bool:
    return False


@dataclasses.dataclass(frozen=True)
class Stage:
  """One training run in a chain: a first teacher, or a student grown from it.

  Attributes:
    name: directory of its checkpoints, `stage` in metrics and manifest.
    model: its kind in results.json, e.g. 'teacher' or 'student_no_jacobian'.
    parent: name of the stage that it grows from; None for a first teacher.
    nuisance_dim: of the grown model, counted from the first teacher on.
    epochs: passes over the training data.
    weights: of its objective.
    teacher: name of the stage that supervises it; None is its parent.
    patience: ends the stage before its epochs are over, after so many without
      a new lowest validation error; None never does.
  """

  name: str
  model: str
  parent: str | None
  nuisance_dim: int
  epochs: int
  weights: LossWeights | AttributeLossWeights | FaderLossWeights
  teacher: str | None = None
  patience: int | None = None

  @property
  def supervisor(self) -> str | None:
    """Name of the stage whose model supervises this one, if its weights ask."""
    return self.teacher or self.parent


def _check_weights(
    weights: (
        LossWeights | NeighborWeights | AttributeLossWeights | FaderLossWeights
    ),
) -> None:
  for field in dataclasses.fields(weights):
    value = getattr(weights, field.name)
    # Flags have no range, and leaves of a pytree may be traced, or be what JAX
    # puts in their place.
    if isinstance(value, bool) or not isinstance(
        value, (int, float, np.generic, np.ndarray)
    ):
      continue
    # The comparison also catches NaN.
    wrong = [x for x in np.ravel(value).tolist() if not 0 <= x < math.inf]
    if wrong:
      raise errors.InputError(
          f'--{field.name} is {wrong[0]}; accepted: 0 or larger, and finite.'
      )
