"""Models that are given labels, measured with labels that another predicts.

Fader Networks and others read the labels of an image to reconstruct it; an
image from elsewhere has none.
"""

from collections.abc import Iterator
import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.models import model as models


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['model', 'predictor'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True, eq=False)
class PredictedLabels:
  """A model that is given the signs of a predictor's factors as labels."""

  model: models.Model
  predictor: models.Model  # With a factor per attribute.

  factors_are_labels = True
  has_bounded_factors = False

  @property
  def module(self) -> nn.Module:
    """That of the model."""
    return self.model.module

  @property
  def image_range(self) -> tuple[float, float]:
    """That of the model."""
    return self.model.image_range

  def encode(
    self, images: jax.Array, unused_attributes: jax.Array | None = None
  ) -> codes.Code:
    """Encodes `[B, H, W, C]` images, uint8 or floats in `image_range`."""
    factors = self.predictor.encode(images).factors
    return self.model.encode(images, jnp.where(factors >= 0, 1, -1))

  def decode(self, code: codes.Code) -> jax.Array:
    """Decodes to `[B, H, W, C]` floats."""
    return self.model.decode(code)


def list_versions(
  model: models.Model, predictor: models.Model | None
) -> Iterator[tuple[str, models.Model | PredictedLabels]]:
  """Lists where labels come from, 'given' or 'predicted', and what to measure.

  Without a predictor a model that needs labels is measured with them alone.
  """
  if not model.factors_are_labels:
    yield 'predicted', model
    return
  yield 'given', model
  if predictor is not None:
    yield 'predicted', PredictedLabels(model, predictor)
