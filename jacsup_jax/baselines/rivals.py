"""The baselines of Section 4: their flags, their stages and how they train."""

from collections.abc import Callable
import dataclasses
import functools

from flax import linen as nn

from jacsup_jax.baselines import attgan
from jacsup_jax.baselines import cvae
from jacsup_jax.baselines import fader
from jacsup_jax.baselines import fader_steps
from jacsup_jax.baselines import icgan
from jacsup_jax.baselines import stargan
from jacsup_jax.core import config
from jacsup_jax.data import registry
from jacsup_jax.training import attributes

# Their steps, with the network, the learning rate and b1 of Adam as published.
BASELINES = {
  'fader': fader_steps.FaderSteps,
  'attgan': attgan.AttGanSteps,
  'stargan': stargan.StarGanSteps,
  'icgan': icgan.IcganSteps,
  'cvae': cvae.CvaeSteps,
}


@dataclasses.dataclass(frozen=True)
class BaselineConfig(config.Options):
  """The flags of the baselines, with the weights of each."""

  baselines: tuple[str, ...] = config.option(
    (),
    "Other methods to train at the teacher's size: fader (Fader Networks),"
    ' attgan, stargan, icgan, cvae (Attribute2Image).',
    choices=tuple(BASELINES),
  )
  baseline_epochs: int = config.option(
    100, 'Epochs of each of --baselines.', low=1
  )
  fader_weights: fader.FaderLossWeights = fader.FaderLossWeights()
  attgan_weights: attgan.AttGanLossWeights = attgan.AttGanLossWeights()
  stargan_weights: stargan.StarGanLossWeights = stargan.StarGanLossWeights()
  icgan_weights: icgan.IcganLossWeights = icgan.IcganLossWeights()
  cvae_weights: cvae.CvaeLossWeights = cvae.CvaeLossWeights()


def make_stages(flags: BaselineConfig, nuisance_dim: int) -> list[config.Stage]:
  """Returns a stage for each baseline asked for."""
  epochs = flags.baseline_epochs
  return [
    config.Stage(
      name, name, None, nuisance_dim, epochs, getattr(flags, f'{name}_weights')
    )
    for name in flags.baselines
  ]


def make_recipe(
  name: str,
  chain: attributes.AttributesConfig,
  make_model: Callable[..., nn.Module],
  dataset: registry.Dataset,
  supervises: bool = False,
) -> attributes.Attributes:
  """Makes the recipe of a baseline, with the optimizer that was published.

  `make_model(nuisance_dim, cls=network)` makes its module. A model that
  `supervises` our students is trained with their optimizer and schedule.
  """
  own = BASELINES[name]
  if not supervises:
    chain = dataclasses.replace(
      chain,
      learning_rate=own.learning_rate,
      adam_b1=own.adam_b1,
      weight_decay=0.0,
      learning_rate_schedule='constant',
    )
  make_own = functools.partial(make_model, cls=own.network)
  return attributes.Attributes(chain, make_own, dataset, own)
