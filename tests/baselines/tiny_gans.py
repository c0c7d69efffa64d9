"""A linear model, and runs on tiny faces, for the tests of adversaries."""

import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import short_runs
import small_rivals

from jacsup_jax.baselines import wasserstein
from jacsup_jax.core import codes
from jacsup_jax.data import batches
from jacsup_jax.models import model as models
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


def check_objectives(baseline, weights, terms, autoencoder, discriminator):
  """Compares both objectives with terms, and with their weights by name."""
  options = {'module': MODULE, 'weights': weights}
  loss, (found, _) = baseline.autoencoder_objective(
    PARAMS, {}, INPUTS, **options
  )
  _check_terms(found, 'loss', loss, terms, autoencoder)
  edited = wasserstein.edit(PARAMS, {}, INPUTS, MODULE)[2]
  loss, found = baseline.discriminator_objective(
    PARAMS, INPUTS, edited, **options
  )
  _check_terms(found, 'discriminator', loss, terms, discriminator)


def _check_terms(found, name, loss, terms, weights):
  total = sum(weights[term] * terms[term] for term in weights)
  expected = {term: terms[term] for term in weights} | {name: total}
  assert found[name] == loss and found.keys() == expected.keys()
  for term, value in expected.items():
    np.testing.assert_allclose(found[term], value, rtol=1e-4, err_msg=term)


def check_refusals(module, nuisance):
  """Checks that one attribute, or three, of a module of two are refused."""
  images = jnp.zeros((2, 8, 8, 3))
  for method, *args in (
    ('encode', images, jnp.ones((2, 3))),
    ('decode', codes.Code(jnp.ones((2, 1)), nuisance)),
  ):
    init = functools.partial(module.init, jax.random.key(0), *args)
    with pytest.raises(AssertionError, match='shape'):
      jax.eval_shape(functools.partial(init, method=method))


def begin(module, steps_type, weights):
  """Returns a run at its first step.

  The learning rate is ten times the published: there are few steps.
  """
  data = small_rivals.draw(320, 8, NAMES)
  return small_rivals.Run(module, steps_type, weights, data)


def check_steps(run):
  """Checks which parts are trained, and that interruptions change nothing."""
  before, _ = run.take(4)  # No turn of the autoencoder yet.
  differing = short_runs.differing_parts
  assert differing(before, run.state) == {'discriminator'}
  after, _ = run.take(1, before)
  assert differing(after, before) == {*run.state.params}
  chex.assert_trees_all_equal(run.take(6, after)[0], run.take(11)[0])


@functools.partial(jax.jit, static_argnums=0)
def edit(module, state, images, labels, strength):
  """Returns a code, and the image and logits of `strength` times its labels."""
  model = models.Model(module, state.params, state.batch_stats)
  code = model.encode(images, labels)
  edited = model.decode(code._replace(factors=strength * code.factors))
  logits = module.apply(model.variables, edited, method='discriminate')[1]
  return code, edited, logits


def check_edits(module, state):
  """Checks that reconstructions show labels, and edits their opposites."""
  data = small_rivals.draw(64, 8, NAMES, 'test')
  images = batches.to_signed_float(jnp.asarray(data.images))
  labels = jnp.asarray(data.labels)
  code, *same = edit(module, state, images, labels, 1.0)
  np.testing.assert_array_equal(code.factors, labels)
  _, *opposite = edit(module, state, images, labels, -1.0)
  _, *strong = edit(module, state, images, labels, -3.0)
  assert np.mean(labels * same[1] > labels * opposite[1]) > 0.9
  distance = lambda other: np.mean(np.abs(other[0] - same[0]))
  distances = distance(opposite), distance(strong)
  assert min(distances) > 0.01
  return images, code, same[0], distances
