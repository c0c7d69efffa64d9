"""The baselines of Section 3: their flags and their stages.

Methods of the field that learn a code without a teacher, on the encoder and
decoder of our students and with as many units; `field_recipe` trains them.
"""

import dataclasses
from typing import ClassVar

from jacsup_jax.core import config
from jacsup_jax.core import errors

_option = config.option


@dataclasses.dataclass(frozen=True)
class Likelihood(config.Options):
  """The Gaussian p(x | z) that the VAEs share."""

  pixel_variance: float = _option(
    0.02,
    'Variance of a pixel, in [0, 1], given the code of a VAE. The squared'
    ' error, summed over pixels, is divided by twice this variance before the'
    ' divergence, in nats, is added.',
    low=1e-6,
  )


@dataclasses.dataclass(frozen=True)
class BetaVaeWeights(config.Weights):
  """Weights of a beta-VAE."""

  main: ClassVar[str] = 'lambda_beta_vae'
  lambda_beta_vae: float = _option(
    4.0, 'beta of the beta-VAE: weight of the divergence from the prior.', low=0
  )
  likelihood: Likelihood = Likelihood()


@dataclasses.dataclass(frozen=True)
class AnnealedVaeWeights(config.Weights):
  """Weights of a VAE whose divergence follows a rising capacity."""

  main: ClassVar[str] = 'annealed_capacity'
  annealed_capacity: float = _option(
    25.0, 'C, the divergence in nats with which the annealed VAE ends.', low=0
  )
  lambda_annealed: float = _option(
    10.0,
    'gamma, weight of the distance of the divergence from the capacity.',
    low=0,
  )
  annealed_share: float = _option(
    0.5,
    'Share of the steps over which the capacity rises from 0.',
    low=0.01,
    high=1,
  )
  likelihood: Likelihood = Likelihood()


@dataclasses.dataclass(frozen=True)
class TcVaeWeights(config.Weights):
  """Weights of a beta-TCVAE."""

  main: ClassVar[str] = 'lambda_tcvae'
  lambda_tcvae: float = _option(
    6.0, 'beta of the beta-TCVAE: weight of the total correlation.', low=0
  )
  likelihood: Likelihood = Likelihood()


@dataclasses.dataclass(frozen=True)
class FactorVaeWeights(config.Weights):
  """Weights of FactorVAE."""

  main: ClassVar[str] = 'lambda_factor_vae'
  lambda_factor_vae: float = _option(
    10.0, 'gamma of FactorVAE: weight of the total correlation.', low=0
  )
  factor_vae_width: int = _option(
    1000,
    'Units of each of the five hidden layers of the discriminator of'
    ' FactorVAE.',
    low=1,
    high=config.LARGEST_WIDTH,
  )
  likelihood: Likelihood = Likelihood()


@dataclasses.dataclass(frozen=True)
class QlaeWeights(config.Weights):
  """Weights of the quantized-latent autoencoder."""

  main: ClassVar[str] = 'qlae_weight_decay'
  qlae_weight_decay: float = _option(
    0.1, "Decoupled weight decay of QLAE's encoder and decoder.", low=0
  )
  lambda_qlae: float = _option(
    0.01,
    'Weight of each of the two distances between units of QLAE and their'
    ' quantized values.',
    low=0,
  )
  qlae_values: int = _option(
    10, 'Values that a unit of QLAE may take.', low=2, high=1000
  )


@dataclasses.dataclass(frozen=True)
class ClassXcovWeights(config.Weights):
  """Weights of the autoencoder with a class output and cross-covariance."""

  main: ClassVar[str] = 'lambda_class_xcov'
  lambda_class_xcov: float = _option(
    10.0,
    'Weight of the cross-covariance of class probabilities and nuisance in'
    ' xcov, the baseline with labels.',
    low=0,
  )
  lambda_class: float = _option(
    10.0, 'Weight of the cross-entropy of classes in the baseline xcov.', low=0
  )


@dataclasses.dataclass(frozen=True)
class MixingWeights(config.Weights):
  """Weights of the autoencoder that mixes chunks."""

  main: ClassVar[str] = 'lambda_mixing'
  lambda_mixing: float = _option(
    0.05,
    'Weight of the classifier of chunks and of the adversarial term in the'
    ' baseline mixing.',
    low=0,
  )
  lambda_unmixing: float = _option(
    0.5, 'Weight of the error after unmixing in the baseline mixing.', low=0
  )


@dataclasses.dataclass(frozen=True)
class FieldConfig(config.Options):
  """The flags of the baselines, with the weights of each."""

  baselines: tuple[str, ...] = _option(
    (),
    "Published methods to train at the students' last size: beta_vae,"
    ' annealed_vae (Burgess et al., 2018), tcvae, factor_vae, qlae (quantized'
    ' latents), xcov (uses labels; Cheung et al., 2014), mixing (Hu et al.,'
    ' 2018).',
    choices=(
      *('beta_vae', 'annealed_vae', 'tcvae', 'factor_vae'),
      *('qlae', 'xcov', 'mixing'),
    ),
  )
  baseline_epochs: int = _option(100, 'Epochs of each of --baselines.', low=1)
  baseline_learning_rate: float = _option(
    1e-3, 'Learning rate of Adam for --baselines.', low=0
  )
  baseline_strengths: tuple[float, ...] = _option(
    (1.0,),
    'Factors by which the main weight of each of --baselines is multiplied'
    ' (beta, gamma, capacity, weight decay); one model is trained for each.',
    low=0,
  )
  factor_units: tuple[int, ...] = _option(
    (),
    'Units of the baselines, counted from 0, whose swaps are also measured; as'
    ' many as --num_factors.',
    low=0,
    high=config.LARGEST_INTEGER,
  )
  beta_vae_weights: BetaVaeWeights = BetaVaeWeights()
  annealed_vae_weights: AnnealedVaeWeights = AnnealedVaeWeights()
  tcvae_weights: TcVaeWeights = TcVaeWeights()
  factor_vae_weights: FactorVaeWeights = FactorVaeWeights()
  qlae_weights: QlaeWeights = QlaeWeights()
  xcov_weights: ClassXcovWeights = ClassXcovWeights()
  mixing_weights: MixingWeights = MixingWeights()

  def __post_init__(self):
    super().__post_init__()
    factors = self.baseline_strengths
    if not factors or len({*factors}) < len(factors):
      raise errors.InputError(
        f'--baseline_strengths={",".join(map(str, factors))}; accepted: one or'
        ' more numbers, each once.'
      )


def make_stages(
  flags: FieldConfig, num_factors: int, nuisance_dim: int, num_classes: int
) -> list[config.Stage]:
  """Returns a stage for each baseline and strength.

  Codes have k + d units, k of which are factors; those of xcov are one for each
  class of the labels. InputError if that is impossible.
  """
  code_dim, stages = num_factors + nuisance_dim, []
  if 'xcov' in flags.baselines and code_dim <= num_classes:
    raise errors.InputError(
      f'--baselines=xcov with a code of {code_dim} units for {num_classes}'
      ' classes; accepted: a larger --nuisance_dim.'
    )
  if 'mixing' in flags.baselines and code_dim % num_factors:
    raise errors.InputError(
      f'--baselines=mixing with a code of {code_dim} units, which'
      f' --num_factors={num_factors} does not divide into chunks; accepted:'
      ' another --nuisance_dim.'
    )
  for name in flags.baselines:
    own = num_classes if name == 'xcov' else num_factors
    weights = getattr(flags, f'{name}_weights')
    for strength in flags.baseline_strengths:
      alone = len(flags.baseline_strengths) == 1
      named = name if alone else f'{name}_x{strength:g}'
      scaled = {weights.main: strength * getattr(weights, weights.main)}
      scaled = dataclasses.replace(weights, **scaled)
      args = named, named, None, code_dim - own, flags.baseline_epochs, scaled
      stages.append(config.Stage(*args))
  return stages
