"""Models of faces, measured with given and with predicted labels.

Fader Networks and others read the labels of an image to reconstruct it; an
image from elsewhere has none, so another model predicts them. Our own models
predict them, and decode labels as well if they were trained to.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.models import model as models_lib


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=['model'], meta_fields=[]
)
@dataclasses.dataclass(frozen=True, eq=False)
class GivenLabels:
  """A model that predicts factors, but decodes the labels it is given."""

  model: models_lib.Model

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

  def encode(self, images: jax.Array, attributes: jax.Array) -> codes.Code:
    """Encodes images; `attributes` `[B, K]` are the factors of their codes."""
    code = self.model.encode(images)
    return code._replace(factors=attributes.astype(code.factors.dtype))

  def decode(self, code: codes.Code) -> jax.Array:
    """Decodes to `[B, H, W, C]` floats."""
    return self.model.decode(code)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['model', 'predictor', 'thresholds'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True, eq=False)
class PredictedLabels(GivenLabels):
  """A model that is given the labels that another predicts."""

  predictor: models_lib.Model  # With a factor per attribute.
  thresholds: jax.Array  # [K], factors from which on a label is +1

  def encode(
    self, images: jax.Array, unused_attributes: jax.Array | None = None
  ) -> codes.Code:
    """Encodes `[B, H, W, C]` images, uint8 or floats in `image_range`."""
    factors = self.predictor.encode(images).factors
    is_present = factors >= self.thresholds[jnp.newaxis]
    return self.model.encode(images, jnp.where(is_present, 1, -1))


def list_versions(
  models: Sequence[Any], find_thresholds: Callable[[Any], np.ndarray]
) -> Iterator[tuple[Any, str, models_lib.Model | GivenLabels]]:
  """Lists models of faces, where labels come from, and what is measured.

  Models are `training.steps.Trained`. Those that need labels are measured with
  labels 'given', and 'predicted' by the first trained model of the same seed
  that needs none, if there is one; `find_thresholds` returns its `[K]`. Those
  that predict factors are also measured with labels given if they were trained
  to decode them.
  """
  predictors: dict[int, Any] = {}
  thresholds: dict[int, jax.Array] = {}
  for own in models:
    if not own.model.factors_are_labels and own.stage.model != 'random':
      predictors.setdefault(own.stage.seed, own)
  for own in models:
    if not own.model.factors_are_labels:
      yield own, 'predicted', own.model
      is_random = own.stage.model == 'random'
      if getattr(own.stage.weights, 'decode_labels', 0) and not is_random:
        yield own, 'given', GivenLabels(own.model)
      continue
    yield own, 'given', own.model
    if (seed := own.stage.seed) in predictors:
      predictor = predictors[seed]
      if seed not in thresholds:
        thresholds[seed] = jnp.asarray(find_thresholds(predictor))
      version = PredictedLabels(own.model, predictor.model, thresholds[seed])
      yield own, 'predicted', version
