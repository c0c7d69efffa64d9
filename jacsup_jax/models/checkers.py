"""Networks that learn a teacher's factors and then look at swapped images.

Images `[B, H, W, C]` in the range of the teacher -> its factors `[B, K]`. H and
W are multiples of 4, 8 at least. They differ from each other, and from the
judges of `evaluation` (no convolutions here), so that no single kind of network
decides what a swapped image shows. All are small, and made of matrix products.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.models import layers
from jacsup_jax.models import model


class _Checker(nn.Module):
  """The fields of a checker, and its layers."""

  num_factors: int
  dtype: jnp.dtype = jnp.float32

  def _dense(self, x, features):
    init = nn.initializers.he_normal()
    return nn.Dense(features, kernel_init=init, dtype=self.dtype)(x)

  def _predict(self, x):
    return layers.widen(nn.Dense(self.num_factors, dtype=self.dtype)(x))


@model.register
class PatchesChecker(_Checker):
  """A bag of patches (Brendel and Bethge, 2019): parts without their places.

  Each patch of 8x8 pixels, every fourth, is seen by itself by two layers; what
  they see is averaged over the image, and a hidden layer follows.
  """

  width: int = 64

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    x = _cut(images)
    x = jnp.concatenate(
      [x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]], axis=-1
    )
    for _ in range(2):
      x = nn.relu(self._dense(x, self.width))
    x = jnp.mean(x, axis=(1, 2))
    return self._predict(nn.relu(self._dense(x, self.width)))


@model.register
class MixerChecker(_Checker):
  """An MLP-Mixer (Tolstikhin et al., 2021) of patches of 4x4 pixels.

  Dense layers across patches and across channels in turn; no normalization.
  """

  width: int = 32
  hidden: int = 64
  depth: int = 2

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    x = _cut(images)
    x = self._dense(x.reshape(x.shape[0], -1, x.shape[-1]), self.width)
    for _ in range(self.depth):
      x += self._mix(x.swapaxes(1, 2)).swapaxes(1, 2)
      x += self._mix(x)
    return self._predict(jnp.mean(x, axis=1))

  def _mix(self, x):
    return self._dense(nn.relu(self._dense(x, self.hidden)), x.shape[-1])


def _cut(images):
  """Cuts images into patches of 4x4: `[B, H / 4, W / 4, 16 C]`."""
  batch, height, width, channels = images.shape
  x = images.reshape(batch, height // 4, 4, width // 4, 4, channels)
  return x.swapaxes(2, 3).reshape(batch, height // 4, width // 4, -1)


# By the names that flags have for them.
CHECKERS: dict[str, Callable[..., nn.Module]] = {
  'patches': PatchesChecker,
  'mixer': MixerChecker,
}
