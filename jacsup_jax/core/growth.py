"""Growing a code: trained trees -> the same trees, larger.

Growth follows shapes: a leaf with a longer axis in a freshly initialised larger
tree is enlarged along that axis, whatever the model. It serves parameters,
batch statistics and optimizer states alike.
"""

from typing import Literal

import chex
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import errors

Initialization = Literal['random', 'preserving']
INITIALIZATIONS = ('random', 'preserving')


def grow(
  small: chex.ArrayTree,
  fresh: chex.ArrayTree,
  *,
  position: int,
  initialization: Initialization = 'random',
) -> chex.ArrayTree:
  """Enlarges a trained tree to the shapes of a fresh one.

  Leaves of equal shape are kept. In the others the new units stand at
  `position` on the axis that grew (first in the nuisance: `num_factors` in the
  flat order of codes), the newest first, and take their values from the last
  units of the fresh leaf.

  'random' keeps the fresh values of the new units (the paper's). 'preserving'
  zeroes their weights in the decoder (leaves below the key `decoder`), so that
  the student starts equal to its teacher.

  Raises:
    ValueError: for another initialization; if the structures differ, or a
      leaf's shapes differ in rank, in more than one axis, or the fresh one is
      smaller; it names the leaf.

  Example:
    >>> trained = {'decoder': {'kernel': jnp.ones((3, 1))}}  # k = 2, d = 1
    >>> fresh = {'decoder': {'kernel': jnp.zeros((4, 1))}}  # k = 2, d = 2
    >>> grow(trained, fresh, position=2)['decoder']['kernel'][:, 0].tolist()
    [1.0, 1.0, 0.0, 1.0]
  """
  if initialization not in INITIALIZATIONS:
    raise ValueError(f'{initialization!r}; accepted: {INITIALIZATIONS}')

  def grow_leaf(path, old, new):
    axis = _grown_axis(path, old.shape, new.shape, position)
    if axis is None:
      return old
    units = jax.lax.slice_in_dim(new, old.shape[axis], None, axis=axis)
    units = jnp.flip(units, axis)
    in_decoder = any(getattr(x, 'key', None) == 'decoder' for x in path)
    if initialization == 'preserving' and in_decoder:
      units = jnp.zeros_like(units)
    before, after = jnp.split(old, [position], axis)
    return jnp.concatenate([before, units.astype(old.dtype), after], axis)

  return jax.tree_util.tree_map_with_path(grow_leaf, small, fresh)


def fold_normalization(
  variables: codes.Variables, epsilon: float = 1e-5
) -> codes.Variables:
  """Folds a first teacher's BatchNorm into the linear layer before it.

  For students without BatchNorm: the folded layer `code` computes the factors
  of `code` and `code_norm`, up to rounding. The released code drops the
  BatchNorm instead.

  Example:
    >>> stats = {'mean': jnp.ones(1), 'var': jnp.full(1, 4.0)}
    >>> layer = {'kernel': jnp.ones((3, 1)), 'bias': jnp.zeros(1)}
    >>> folded = fold_normalization({
    ...   'params': {'encoder': {'code': layer}},
    ...   'batch_stats': {'encoder': {'code_norm': stats}},
    ... })
    >>> round(float(folded['params']['encoder']['code']['bias'][0]), 3)
    -0.5
  """
  stats = variables['batch_stats']['encoder']['code_norm']
  scale = jax.lax.rsqrt(stats['var'] + epsilon)
  params = variables['params']
  last = params['encoder']['code']
  folded = {
    'kernel': last['kernel']
    * jnp.expand_dims(scale, range(last['kernel'].ndim - 1)),
    'bias': (last['bias'] - stats['mean']) * scale,
  }
  encoder = {**params['encoder'], 'code': folded}
  return {'params': {**params, 'encoder': encoder}, 'batch_stats': {}}


def _grown_axis(path, old_shape, new_shape, position):
  """Returns the axis on which a leaf grows, None if its shape stays."""
  name = jax.tree_util.keystr(path)
  shapes = f'leaf {name} has shape {old_shape}, the larger one {new_shape}'
  if len(old_shape) != len(new_shape):
    raise errors.InputError(f'{shapes}; accepted: equal ranks.')
  axes = [i for i, (a, b) in enumerate(zip(old_shape, new_shape)) if a != b]
  if not axes:
    return None
  axis = axes[0]
  if len(axes) > 1 or new_shape[axis] < old_shape[axis]:
    raise errors.InputError(f'{shapes}; accepted: one axis may be larger.')
  if not 0 <= position <= old_shape[axis]:
    raise errors.InputError(
      f'{shapes}; position {position} is not within 0 to {old_shape[axis]}.'
    )
  return axis
