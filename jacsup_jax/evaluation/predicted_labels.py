"""Models that are given labels, measured with labels that another predicts.

Fader Networks and others read the labels of an image to reconstruct it; an
image from elsewhere has none.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.models import model as models_lib


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['model', 'predictor'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True, eq=False)
class PredictedLabels:
  """A model that is given the signs of a predictor's factors as labels."""

  model: models_lib.Model
  predictor: models_lib.Model  # With a factor per attribute.

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
  models: Sequence[Any],
) -> Iterator[tuple[Any, str, models_lib.Model | PredictedLabels]]:
  """Lists models of faces, where labels come from, and what is measured.

  Models are `training.steps.Trained`. Those that need labels are measured with
  labels 'given', and 'predicted' by the first trained model of the same seed
  that needs none, if there is one.
  """
  predictors: dict[int, models_lib.Model] = {}
  for own in models:
    if not own.model.factors_are_labels and own.stage.model != 'random':
      predictors.setdefault(own.stage.seed, own.model)
  for own in models:
    if not own.model.factors_are_labels:
      yield own, 'predicted', own.model
      continue
    yield own, 'given', own.model
    if own.stage.seed in predictors:
      predictor = predictors[own.stage.seed]
      yield own, 'predicted', PredictedLabels(own.model, predictor)
