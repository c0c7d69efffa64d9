"""The flags of the models of faces, for experiments.celeba and ablation."""

import dataclasses
from typing import Any

from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.evaluation import attribute_flips
from jacsup_jax.models import autoencoders

_WIDTH = {'low': 1, 'high': config_lib.LARGEST_WIDTH, 'group': 'what'}


@dataclasses.dataclass(frozen=True)
class FaceDataConfig(config_lib.Options, group='data'):
  """How faces are loaded."""

  image_size: int = config_lib.option(
    64, 'Side of the face images in pixels, a power of two.'
  )
  attributes: tuple[str, ...] = config_lib.option(
    (), 'Names of the attributes of faces; default: all.'
  )
  skip_bad_images: bool = config_lib.option(
    False,
    'Skip images of celeba_folder that cannot be decoded, and say how many;'
    ' otherwise the set is refused.',
  )
  skip_missing_images: bool = config_lib.option(
    False,
    'Skip images that the lists of celeba_folder name but that are missing,'
    ' and say how many; otherwise the set is refused.',
  )
  held_out: int = config_lib.option(
    0,
    'Number of faces at the end of the training split to hold out; alpha and'
    " the judges' best epochs are chosen on them.",
    low=0,
  )

  def __post_init__(self):
    super().__post_init__()
    errors.check_image_size(self.image_size)

  def load_options(self) -> dict[str, Any]:
    """Returns options of `registry.load`."""
    return {**dataclasses.asdict(self), 'attributes': self.attributes or None}


@dataclasses.dataclass(frozen=True)
class FaceModelConfig(config_lib.Options):
  """The size of models of faces, and how their flips are measured."""

  first_width: int = config_lib.option(
      16, 'Channels of the first layer; each further layer has twice as many.',
      **_WIDTH,
  )  # fmt: skip
  last_width: int = config_lib.option(
    512, 'Largest number of channels of a hidden layer.', **_WIDTH
  )
  factor_activation: str = config_lib.option(
    'leaky_relu',
    "Activation of the factors: leaky_relu, the paper's; linear, which treats"
    ' both signs of an attribute alike; or tanh, which leaves factors no room'
    ' for more than the attributes, and is trained by cross-entropy instead of'
    ' the hinge.',
    choices=autoencoders.FACTOR_ACTIVATIONS,
    group='what',
  )
  strengths: tuple[float, ...] = config_lib.option(
    attribute_flips.STRENGTHS,
    "Values of alpha to choose from, for each model, in the paper's flips.",
    group='what',
  )
  selection_images: int = config_lib.option(
    256, 'Number of images on which strengths are chosen.', low=1, group='what'
  )
  edit_images: int = config_lib.option(
    1000,
    'Largest number of images whose edits are counted.',
    low=1,
    group='what',
  )

  def __post_init__(self):
    super().__post_init__()
    if not self.strengths or min(self.strengths) <= 0:
      raise errors.InputError(
        f'--strengths={",".join(map(str, self.strengths))}; accepted: numbers'
        ' above 0, separated by commas.'
      )
