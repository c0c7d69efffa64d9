"""Convert PyTorch state dicts of the released code to our variables and back.

`_list_mlp`, `_list_judge` and `_list_faces` say which tensor is which leaf.
"""

from collections.abc import Callable, Iterable, Mapping
import math
from typing import NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers

StateDict = Mapping[str, np.ndarray]


class Converted(NamedTuple):
  """A model of the released code, with variables of numpy arrays."""

  module: nn.Module
  variables: codes.Variables
  steps: int  # batches that its BatchNorm has seen; 0 if the file has no count


class _Entry(NamedTuple):
  """A tensor of a state dict, and the leaf that it is here."""

  name: str
  path: tuple[str, ...]
  to_ours: Callable[[np.ndarray], np.ndarray]
  to_theirs: Callable[[np.ndarray], np.ndarray]


def from_state_dict(
  where: str, state: StateDict, num_factors: int = 2
) -> Converted:
  """Converts a state dict to variables of the module that its names imply.

  `num_factors` is k of a student on digits, whose shapes give only k + d.
  Raises InputError, which names the file `where`, if tensors do not fit.
  """
  module = _find_module(where, state, num_factors)
  entries = _list_entries(module)
  expected = _list_shapes(where, module, entries)
  # PyTorch before 0.4.1 had no counts.
  counters = {_counter_after(entry) for entry in entries}
  expected |= {name: () for name in state if name in counters}
  for name in {**expected, **state}:
    shape = state[name].shape if name in state else None
    if shape != expected.get(name):
      raise errors.InputError(
        f'{where} has {files.describe(name)} of shape {shape}; accepted:'
        f' {expected.get(name)}.'
      )
  flat, steps = {}, 0
  for entry in entries:
    array = _to_float32(where, entry.name, state[entry.name])
    flat[entry.path] = np.ascontiguousarray(entry.to_ours(array))
    steps = max(steps, int(state.get(_counter_after(entry), 0)))
  variables = {'params': {}, 'batch_stats': {}}
  variables |= traverse_util.unflatten_dict(flat)
  return Converted(module, variables, steps)


def to_state_dict(converted: Converted) -> dict[str, np.ndarray]:
  """Converts a model to float32 arrays `[...]` by name, in PyTorch's order.

  Raises InputError if the released code has no such module.
  """
  module, variables, steps = converted
  flat, state = traverse_util.flatten_dict(dict(variables)), {}
  for entry in _list_entries(module):
    array = np.asarray(flat[entry.path], np.float32)
    state[entry.name] = np.ascontiguousarray(entry.to_theirs(array))
    if counter := _counter_after(entry):
      state[counter] = np.asarray(steps, np.int64)
  return state


# Changes of an array, from theirs to ours and from ours to theirs.
_SAME = (lambda x: x, lambda x: x)
_LINEAR = (np.transpose, np.transpose)  # [out, in] <-> [in, out]
# [out, in, 4, 4] <-> [4, 4, in, out]
_DOWN = (lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
# [in, out, 4, 4] <-> [4, 4, in, out], reversed: theirs is an adjoint.
_UP = (
  lambda x: x.transpose(2, 3, 0, 1)[::-1, ::-1],
  lambda x: x[::-1, ::-1].transpose(2, 3, 0, 1),
)


def _permuted(order, change, axis):
  """Makes a change of arrays whose `axis`, in theirs, is that of the code."""
  inverse = np.argsort(order)
  return (
    lambda x: change[0](np.take(x, order, axis)),
    lambda x: np.take(change[1](x), inverse, axis),
  )


def _list_mlp(module) -> Iterable[_Entry]:
  """Lists linear layers with an activation after each, hence 0, 2, 4 and 6.

  A code is (nuisance, factors), the newest nuisance unit first; here (factors,
  nuisance), the newest unit last. Factors keep their order.
  """
  last, nuisance_dim = len(module.widths), module.nuisance_dim
  # Where in their code each unit of ours is.
  units = np.arange(module.num_factors + nuisance_dim)
  order = np.r_[units[nuisance_dim:], units[:nuisance_dim][::-1]]
  of_vector = _permuted(order, _SAME, 0)
  for i in range(last):
    yield from _dense(f'encoder.{2 * i}', ('encoder', f'dense_{i}'))
  kernel, name = _permuted(order, _LINEAR, 0), f'encoder.{2 * last}'
  yield from _dense(name, ('encoder', 'code'), kernel, of_vector)
  if module.normalize_code:
    path, name = ('encoder', 'code_norm'), f'encoder.{2 * last + 1}'
    yield from _norm(name, path, ('mean', 'var'), of_vector)
  for i in range(last + 1):
    change = _LINEAR if i else _permuted(order, _LINEAR, 1)
    yield from _dense(f'decoder.{2 * i}', ('decoder', f'dense_{i}'), change)


def _list_judge(unused_module) -> Iterable[_Entry]:
  yield from _dense('model.fc1', ('dense_0',))
  yield from _dense('model.fc2', ('dense_1',))
  yield from _dense('model.out', ('logits',))


def _list_faces(module) -> Iterable[_Entry]:
  """Lists convolutions, each but the first and last with a BatchNorm."""
  depth = module.image_size.bit_length() - 2
  for i in range(depth):
    name, path = f'enc_layers.{i}', ('encoder', f'down_{i}')
    yield from _dense(f'{name}.0', path, _DOWN)
    if i > 0:
      yield from _norm(f'{name}.1', (*path, 'norm'))
  for i in range(depth):
    name, path = f'dec_layers.{i}', ('decoder', f'up_{i}')
    yield _Entry(f'{name}.0.weight', ('params', *path, 'kernel'), *_UP)
    if i < depth - 1:
      yield from _norm(f'{name}.1', (*path, 'norm'))


_ENTRIES = {
  autoencoders.MlpAutoencoder: _list_mlp,
  autoencoders.FaceAutoencoder: _list_faces,
  classifiers.MlpJudge: _list_judge,
}


def _list_entries(module) -> list[_Entry]:
  # The released encoder of faces has a LeakyReLU after the factors.
  activation = getattr(module, 'factor_activation', 'leaky_relu')
  if type(module) not in _ENTRIES or activation != 'leaky_relu':
    raise errors.InputError(
      f'a model {type(module).__name__} is none of the released networks;'
      f' accepted: {", ".join(cls.__name__ for cls in _ENTRIES)}, with'
      " the factor_activation 'leaky_relu' if any."
    )
  return list(_ENTRIES[type(module)](module))


def _dense(name, path, kernel=_LINEAR, bias=_SAME):
  yield _Entry(f'{name}.weight', ('params', *path, 'kernel'), *kernel)
  yield _Entry(f'{name}.bias', ('params', *path, 'bias'), *bias)


_NORM = {
  'scale': ('params', 'weight'), 'bias': ('params', 'bias'),
  'mean': ('batch_stats', 'running_mean'),
  'var': ('batch_stats', 'running_var'),
}  # fmt: skip


def _norm(name, path, leaves=tuple(_NORM), change=_SAME):
  for leaf in leaves:
    collection, theirs = _NORM[leaf]
    yield _Entry(f'{name}.{theirs}', (collection, *path, leaf), *change)


def _counter_after(entry):
  """Names the count of batches that follows an entry, None if none does."""
  prefix, _, name = entry.name.rpartition('.')
  return f'{prefix}.num_batches_tracked' if name == 'running_var' else None


def _find_module(where, state, num_factors) -> nn.Module:
  """Finds the module whose tensors these are, by their names and shapes."""
  if 'enc_layers.0.0.weight' in state:
    return _find_faces(where, state)
  if 'model.out.weight' in state:
    names = ('model.fc1', 'model.fc2', 'model.out')
    shape, (*widths, classes) = _list_sizes(where, state, names)
    return classifiers.MlpJudge(classes, tuple(widths), image_shape=shape)
  depth = 0
  while f'encoder.{2 * depth}.weight' in state:
    depth += 1
  if not depth:
    raise errors.InputError(
      f'{where} has {files.some([*state]) or "nothing"}; accepted: a state dict'
      ' of a released network, with encoder.0.weight (digits), model.out.weight'
      ' (a judge) or enc_layers.0.0.weight (faces).'
    )
  names = [f'encoder.{2 * i}' for i in range(depth)]
  shape, (*widths, size) = _list_sizes(where, state, names)
  is_teacher = f'encoder.{2 * depth - 1}.running_mean' in state
  factors = size if is_teacher else num_factors
  if not is_teacher and factors >= size:
    raise errors.InputError(
      f'{where} has a code of {size} units, with --num_factors={num_factors};'
      ' accepted: fewer factors than units.'
    )
  return autoencoders.MlpAutoencoder(
      factors, size - factors, normalize_code=is_teacher,
      image_shape=shape, widths=tuple(widths),
  )  # fmt: skip


def _list_sizes(where, state, names):
  """Finds the image shape of linear layers, and the size of each output."""
  shapes = [getattr(state.get(f'{name}.weight'), 'shape', ()) for name in names]
  side = math.isqrt(shapes[0][-1]) if shapes[0] else 0
  if (
    {*map(len, shapes)} != {2} or side**2 != shapes[0][1] or not min(shapes)[0]
  ):
    raise errors.InputError(
      f'{where} has layers {", ".join(names)} of shapes {shapes}; accepted:'
      ' a matrix each, for square images.'
    )
  return (side, side, 1), [shape[0] for shape in shapes]


def _find_faces(where, state):
  down, up = [], []
  for part, shapes in (('enc', down), ('dec', up)):
    while (name := f'{part}_layers.{len(shapes)}.0.weight') in state:
      shapes.append(state[name].shape)
  if min(len(down), len(up)) < 2 or {*map(len, down + up)} != {4}:
    raise errors.InputError(
      f'{where} has {down} and {up}; accepted: kernels of two or more layers.'
    )
  num_factors = max(1, up[1][0] - up[0][1])
  return autoencoders.FaceAutoencoder(
    num_factors,
    max(1, down[-1][0] - num_factors),
    image_size=2 ** (len(down) + 1),
    first_width=max(1, down[0][0]),
    last_width=max(1, *(shape[0] for shape in down[:-1])),
  )


def _list_shapes(where, module, entries) -> dict[str, tuple[int, ...]]:
  """Lists the shape of each tensor except counts, in PyTorch's order."""
  try:
    template = jax.eval_shape(lambda: autoencoders.init_variables(module, 0))
  except (ValueError, TypeError, ZeroDivisionError) as error:
    raise errors.InputError(f'{where} has no such model: {error}.') from error
  flat, shapes = traverse_util.flatten_dict(template), {}
  for entry in entries:
    view = np.broadcast_to(np.float32(0), flat[entry.path].shape)  # no memory
    shapes[entry.name] = entry.to_theirs(view).shape
  return shapes


def _to_float32(where, name, array) -> np.ndarray:
  with np.errstate(over='ignore'):  # from float64; refused below
    converted = array.astype(np.float32)
  lowest = 0 if name.endswith('running_var') else -np.inf
  is_good = np.isfinite(converted) & (converted >= lowest)
  if array.dtype.kind != 'f' or not is_good.all():
    raise errors.InputError(
      f'{where} has {name} of type {array.dtype} with numbers that no model'
      ' has; accepted: finite floats, of a variance at least 0.'
    )
  return converted
