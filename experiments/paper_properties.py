"""Table 3 of Lezama (2019): what methods can do, ours read from the code."""

import csv
import dataclasses
import io
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.baselines import fader as fader_networks
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import attribute_steps as attribute_training

# Of CelebA, as of the paper's experiments.
_NUM_ATTRIBUTES = 40
_IMAGE_SIZE = 256
_NUISANCE_DIM = 2048


@dataclasses.dataclass(frozen=True)
class Method:
  """A row of Table 3.

  Attributes:
    name: of the method.
    end_to_end: trained at once.
    aligned_pairs: needs pairs of images of the same face.
    adversarial: needs adversarial training.
    resolution: of faces, (H, W).
    attributes: of one model.
    continuous: their strength is any number.
  """

  name: str
  end_to_end: bool
  aligned_pairs: bool
  adversarial: bool
  resolution: tuple[int, int]
  attributes: int
  continuous: bool


# As printed; the last row is what the paper says of itself.
OF_PAPER = (
    Method('CoGAN', True, False, True, (128, 128), 1, False),
    Method('IcGAN', False, False, True, (64, 64), 18, False),
    Method('Attribute2Image', False, False, False, (64, 64), 1, True),
    Method('StarGAN', True, False, True, (128, 128), 7, False),
    Method('Fader Networks', True, False, True, (256, 256), 3, True),
    Method('Jacobian supervision', True, False, False, (256, 256), 32, True),
)


def describe_ours() -> tuple[Method, ...]:
  """Finds the properties of the two methods that the package has.

  From the models and steps at the paper's sizes, of which nothing is computed.
  """
  channels = _NUISANCE_DIM // 4
  predicting = networks.FaceAutoencoder(
      _NUM_ATTRIBUTES, channels, image_size=_IMAGE_SIZE
  )
  labelled = fader_networks.FaderAutoencoder(
      _NUM_ATTRIBUTES, channels, image_size=_IMAGE_SIZE
  )
  supervised = config.AttributeLossWeights(lambda_y=1.0, lambda_diff=50.0)
  return (
      _describe('Jacobian supervision, here', predicting, supervised),
      _describe('Fader Networks, here', labelled, config.FaderLossWeights()),
  )


def format_markdown() -> str:
  """Formats Table 3 as Markdown: the paper's rows, then what this code does."""
  heading, *lines = _table()
  lines = [
      f'| {" | ".join(heading)} |',
      f'|{" --- |" * len(heading)}',
      *(f'| {" | ".join(cells)} |' for cells in lines),
  ]
  return '\n'.join(lines) + '\n'


def format_csv() -> str:
  """Formats the same cells as comma-separated values."""
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows(_table())
  return text.getvalue()


def _table():
  """Yields the cells of Table 3, the first row its heading."""
  yield (
      'method', 'trained at once', 'needs aligned pairs',
      'needs an adversary', 'faces', 'attributes a model',
      'continuous strength',
  )  # pyformat: disable
  for method in (*OF_PAPER, *describe_ours()):
    yield _cells(method)


def _describe(name: str, model: nn.Module, weights: Any) -> Method:
  variables = jax.eval_shape(
      lambda: networks.init_variables(model, 0, model.image_shape)
  )
  code = codes.Code(
      jax.ShapeDtypeStruct((1, model.num_factors), jnp.float32),
      jax.ShapeDtypeStruct((1, 2, 2, model.nuisance_channels), jnp.float32),
  )

  def change_of_images(params, batch_stats, code):
    # The derivative by the factors: no strength is singled out.
    decode = networks.make_decode(model, batch_stats)
    at = lambda factors: decode(params, code._replace(factors=factors))
    tangents = jnp.ones_like(code.factors)
    return jax.jvp(at, (code.factors,), (tangents,))[1]

  changes = jax.eval_shape(
      change_of_images, variables['params'], variables['batch_stats'], code
  )
  return Method(
      name,
      end_to_end=not weights.needs_teacher,
      # A step reads images and their labels, no second image of a face.
      aligned_pairs=attribute_training.FaceData._fields
      != ('images', 'attributes'),
      adversarial='discriminator' in variables['params'],
      resolution=changes.shape[1:3],
      attributes=model.num_factors,
      continuous=bool(jnp.issubdtype(changes.dtype, jnp.floating)),
  )


def _cells(method):
  say = lambda is_so: 'yes' if is_so else 'no'
  height, width = method.resolution
  return (
      method.name,
      say(method.end_to_end),
      say(method.aligned_pairs),
      say(method.adversarial),
      f'{height}x{width}',
      str(method.attributes),
      say(method.continuous),
  )
