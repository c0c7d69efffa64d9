"""A linear model, and runs on tiny faces, for the tests of adversaries."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import registry
from jacsup_jax.training import attributes
from jacsup_jax.training import objectives

NAMES = ('Pale_Skin', 'Wearing_Hat')
_RANDOM = np.random.default_rng(0)
PERMUTATION = np.array([1, 2, 0])
INPUTS = objectives.Inputs(
  jnp.asarray(_RANDOM.uniform(-1, 1, (3, 2, 2, 1)), jnp.float32),
  jnp.asarray(PERMUTATION[np.newaxis]),
  attributes=jnp.array([[1.0, 1], [-1, 1], [1, -1]]),
  uniform=jnp.array([[0.1], [0.5], [0.9]]),
)


class LinearGan(nn.Module):
  """z = e x; x = z + sum_i y_i d_i; a score w.x; logits v mean(x)."""

  axis_name: str | None = None

  def setup(self):
    normal = nn.initializers.normal(1.0)
    self.gain = self.param('encoder', normal, ())
    self.directions = self.param('decoder', normal, (2,))
    self.linear = self.param('discriminator', normal, (2, 2, 3))

  def encode(self, images, attributes, train=False):
    return codes.Code(attributes, self.gain * images)

  def decode(self, code, train=False):
    shift = code.factors @ self.directions
    return code.nuisance + shift[:, None, None, None]

  def discriminate(self, images):
    weights, rest = self.linear[..., :1], self.linear[0, 0, 1:]
    means = jnp.mean(images, axis=(1, 2))
    return jnp.sum(images * weights[None], axis=(1, 2, 3)), means * rest[None]

  @property
  def num_factors(self):
    return 2

  def __call__(self, images):
    code = self.encode(images, jnp.ones((images.shape[0], 2)))
    return self.decode(code), self.discriminate(images)


MODULE = LinearGan()
PARAMS = MODULE.init(jax.random.key(0), INPUTS.images)['params']


def compute_terms():
  """Computes what objectives need of the linear model by NumPy."""
  gain, directions, linear = (
    np.asarray(PARAMS[name], np.float64)
    for name in ('encoder', 'decoder', 'discriminator')
  )
  images, own = np.asarray(INPUTS.images), np.asarray(INPUTS.attributes)
  targets, column = own[PERMUTATION], np.s_[:, None, None, None]
  edited = gain * images + (targets @ directions)[column]
  score = lambda x: np.mean(np.sum(x * linear[..., :1], axis=(1, 2, 3)))

  def cross_entropy(x, labels):  # Mean over examples and attributes.
    logits = x.mean(axis=(1, 2)) * linear[0, 0, 1:]
    return np.mean(np.log1p(np.exp(-logits * labels)))

  return {
    'error': np.abs(gain * images + (own @ directions)[column] - images).mean(),
    'cycle': np.abs(edited + (own @ directions)[column] - images).mean(),
    'adversarial': -score(edited),
    'edit_score': score(edited) - score(images),
    'classification': cross_entropy(images, own),
    'edit_classification': cross_entropy(edited, targets),
    'gradient_penalty': (np.linalg.norm(linear[..., 0]) - 1) ** 2,
  }


def draw(split, count):
  """Draws faces of 8x8 pixels, means of 8x8 each."""
  columns = [drawn_faces.ATTRIBUTES.index(name) for name in NAMES]
  images, labels = zip(*(drawn_faces.draw(i, split) for i in range(count)))
  small = np.stack(images).reshape(count, 8, 8, 8, 8, 3).mean(axis=(2, 4))
  labels = np.where(np.stack(labels)[:, columns] > 0, 1, -1).astype(np.int8)
  small = small.round().astype(np.uint8)
  return registry.Dataset('drawn', split, small, labels, attribute_names=NAMES)


def make_run(module, weights, steps_type, learning_rate):
  """Returns the first state of a run of 16 steps an epoch, and its epochs."""
  flags = attributes.AttributesConfig(
    batch_size=16, learning_rate=learning_rate, adam_b1=0.5
  )
  recipe = attributes.Attributes(
    flags, lambda dim: module, draw('train', 256), steps_type
  )
  stage = config.Stage('gan', 'gan', None, module.nuisance_dim, 1, weights)
  module, state = recipe.create(stage, {})
  return state, recipe.make_epoch(stage, module, {})
