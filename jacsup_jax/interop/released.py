"""PyTorch state dicts of the released code -> variables of ours, and back.

Arrays in, arrays out, nothing is read or written. What corresponds to what is
one table per kind of model, which both directions follow:

  mnist_teacher, mnist_student: `encoder` and `decoder` are sequences of linear
    layers with an activation after each, so 0, 2, 4 and 6; the teacher's
    encoder ends in 7, a BatchNorm without scale and bias. A code is (nuisance,
    factors) there, the newest unit first; here (factors, nuisance), the newest
    last. Factors keep their order.
  mnist_judge: `model.fc1`, `model.fc2` and `model.out`.
  celeba: `enc_layers.N` and `dec_layers.N` are sequences of a convolution (0)
    and a BatchNorm (1), which the first and the last layer lack. Transposed
    convolutions have no bias, and the factors are their last input channels.

PyTorch counts the batches of a BatchNorm, and we do not: counts are kept apart.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import functools
import math
import statistics
from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.models import autoencoders

StateDict = Mapping[str, np.ndarray]
_Change = Callable[[np.ndarray], np.ndarray]

KINDS = ('mnist_teacher', 'mnist_student', 'mnist_judge', 'celeba')
_DIGITS = (28, 28, 1)
_COUNT = 'num_batches_tracked'


@dataclasses.dataclass(frozen=True)
class Layout:
  """What a state dict is of.

  Attributes:
    kind: one of `KINDS`.
    model: the module here.
    image_shape: (H, W, C) of its input.
  """

  kind: str
  model: nn.Module
  image_shape: tuple[int, int, int]


class Converted(NamedTuple):
  variables: codes.Variables  # numpy arrays
  counts: dict[str, int]  # of batches, by name; empty where there are none


class _Entry(NamedTuple):
  """A tensor of a state dict, and the leaf that it is here."""

  name: str
  path: tuple[str, ...]
  to_ours: _Change
  to_theirs: _Change


def infer_layout(
    where: str, state: StateDict, kind: str, num_factors: int = 2
) -> Layout:
  """Tells the sizes of a model from the shapes of its tensors.

  Where tensors are missing or have other ranks the paper's sizes stand, so that
  `from_state_dict` can name what differs.

  Args:
    where: the tensors are from, for errors.
    state: arrays `[...]` by name.
    kind: one of `KINDS`.
    num_factors: k of a student on digits, which its shapes do not tell.

  Returns:
    The layout.

  Raises:
    InputError: if a layer is larger than any here may be, or a student has no
      nuisance besides its factors.
  """
  if kind == 'celeba':
    return _infer_faces(where, state)
  if kind == 'mnist_judge':
    num_classes = _size(where, state, 'model.out.weight', 10)
    return Layout(kind, autoencoders.MlpJudge(num_classes), _DIGITS)
  is_teacher = kind == 'mnist_teacher'
  least = 1 if is_teacher else num_factors + 1
  size = _size(where, state, 'encoder.6.weight', least)
  if size < least and _find_kind(state) == kind:
    raise errors.InputError(
        f'{where} has a code of {size} units, with --num_factors={num_factors};'
        ' accepted: fewer factors than units.'
    )
  factors = size if is_teacher else min(num_factors, size)
  model = autoencoders.MlpAutoencoder(factors, size - factors, is_teacher)
  return Layout(kind, model, model.image_shape)


def from_state_dict(
    where: str, state: StateDict, layout: Layout
) -> Converted:
  """Converts a state dict to variables of the model of a layout.

  Args:
    where: the tensors are from, for errors.
    state: arrays `[...]` by name: floats of any size, counts of batches whole
      numbers, which may be missing all together.
    layout: that it is to have.

  Returns:
    float32 arrays in the shapes of the model, and the counts.

  Raises:
    InputError: if a tensor is missing, has another shape, or is there besides:
      the first is named; if it is not of numbers that a model may have.
  """
  entries, counters = _list_entries(layout), list_counters(layout)
  expected = _shapes(layout)
  difference = _find_difference(state, expected, counters)
  if difference is not None:
    fitting = _find_kind(state)
    hint = f'; it is one of --kind={fitting}' if fitting else ''
    raise errors.InputError(
        f'{where} {difference}, as --kind={layout.kind} has it{hint}.'
    )
  variables = {'params': {}, 'batch_stats': {}}
  for entry in entries:
    array = _to_float32(where, entry.name, state[entry.name])
    if entry.name.endswith('running_var') and (array < 0).any():
      raise errors.InputError(
          f'{where} has {entry.name} with {array.min()}; accepted: variances,'
          ' of 0 or larger.'
      )
    tree = variables
    for key in entry.path[:-1]:
      tree = tree.setdefault(key, {})
    tree[entry.path[-1]] = np.ascontiguousarray(entry.to_ours(array))
  counts = {
      name: _to_count(where, name, state[name])
      for name in counters
      if name in state
  }
  return Converted(variables, counts)


def to_state_dict(
    layout: Layout, variables: codes.Variables, counts: Mapping[str, int]
) -> dict[str, np.ndarray]:
  """Converts variables of a model to a state dict, in PyTorch's order.

  Args:
    layout: of the model.
    variables: in the shapes of the model.
    counts: of batches, by the names of `list_counters` or a part of them.

  Returns:
    float32 arrays `[...]` by name, counts as int64.
  """
  _check_variables(layout, variables)
  state = {}
  for entry in _list_entries(layout):
    leaf = functools.reduce(lambda tree, key: tree[key], entry.path, variables)
    array = np.asarray(leaf, np.float32)
    state[entry.name] = np.ascontiguousarray(entry.to_theirs(array))
    counter = _counter_after(entry)
    if counter in counts:
      state[counter] = np.asarray(counts[counter], np.int64)
  return state


def list_counters(layout: Layout) -> list[str]:
  """Lists the counts of batches that a state dict of this layout has."""
  counters = map(_counter_after, _list_entries(layout))
  return [name for name in counters if name is not None]


def _counter_after(entry):
  """Names the count that follows an entry, None where none does."""
  prefix, _, name = entry.name.rpartition('.')
  return f'{prefix}.{_COUNT}' if name == 'running_var' else None


# What is done to an array, from theirs to ours and from ours to theirs. All are
# exact: nothing is computed.
_SAME = (lambda x: x, lambda x: x)
_LINEAR = (np.transpose, np.transpose)  # [out, in] <-> [in, out]
# [out, in, 4, 4] <-> [4, 4, in, out].
_DOWN = (lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
# [in, out, 4, 4] <-> [4, 4, in, out]: ours is the convolution of the dilated
# map, theirs the adjoint of one, so it runs the other way.
_UP = (
    lambda x: x.transpose(2, 3, 0, 1)[::-1, ::-1],
    lambda x: x[::-1, ::-1].transpose(2, 3, 0, 1),
)


def _permuted(order, change, axis):
  """Makes a change of arrays whose `axis`, in theirs, is that of the code."""
  to_ours, to_theirs = change
  inverse = np.argsort(order)
  return (
      lambda x: to_ours(np.take(x, order, axis)),
      lambda x: np.take(to_theirs(x), inverse, axis),
  )


def _code_order(num_factors, nuisance_dim):
  """Returns where in their code each unit of ours is, `[K + D]`."""
  factors = nuisance_dim + np.arange(num_factors)
  # Theirs puts a new unit before all others, ours behind them.
  nuisance = np.arange(nuisance_dim)[::-1]
  return np.concatenate([factors, nuisance])


def _list_entries(layout) -> list[_Entry]:
  return list(_ENTRIES[layout.kind](layout.model))


def _list_mlp(model) -> Iterable[_Entry]:
  last = len(model.widths)
  order = _code_order(model.num_factors, model.nuisance_dim)
  of_vector = _permuted(order, _SAME, 0)
  for i in range(last):
    yield from _dense(f'encoder.{2 * i}', ('encoder', f'dense_{i}'))
  yield from _dense(
      f'encoder.{2 * last}',
      ('encoder', 'code'),
      _permuted(order, _LINEAR, 0),
      of_vector,
  )
  if model.normalize_code:
    path = ('batch_stats', 'encoder', 'code_norm')
    name = f'encoder.{2 * last + 1}'
    yield _Entry(f'{name}.running_mean', (*path, 'mean'), *of_vector)
    yield _Entry(f'{name}.running_var', (*path, 'var'), *of_vector)
  for i in range(last + 1):
    change = _LINEAR if i else _permuted(order, _LINEAR, 1)
    yield from _dense(f'decoder.{2 * i}', ('decoder', f'dense_{i}'), change)


def _list_judge(unused_model) -> Iterable[_Entry]:
  for theirs, ours in (
      ('fc1', 'dense_0'), ('fc2', 'dense_1'), ('out', 'logits')
  ):  # pyformat: disable
    yield from _dense(f'model.{theirs}', (ours,))


def _list_faces(model) -> Iterable[_Entry]:
  depth = model.image_size.bit_length() - 2
  for i in range(depth):
    name, path = f'enc_layers.{i}', ('encoder', f'down_{i}')
    kernel = ('params', *path, 'kernel')
    yield _Entry(f'{name}.0.weight', kernel, *_DOWN)
    yield _Entry(f'{name}.0.bias', ('params', *path, 'bias'), *_SAME)
    if i > 0:
      yield from _norm(f'{name}.1', (*path, 'norm'))
  for i in range(depth):
    name, path = f'dec_layers.{i}', ('decoder', f'up_{i}')
    yield _Entry(f'{name}.0.weight', ('params', *path, 'kernel'), *_UP)
    if i < depth - 1:
      yield from _norm(f'{name}.1', (*path, 'norm'))


_ENTRIES = {
    'mnist_teacher': _list_mlp,
    'mnist_student': _list_mlp,
    'mnist_judge': _list_judge,
    'celeba': _list_faces,
}


def _dense(name, path, kernel=_LINEAR, bias=_SAME):
  yield _Entry(f'{name}.weight', ('params', *path, 'kernel'), *kernel)
  yield _Entry(f'{name}.bias', ('params', *path, 'bias'), *bias)


def _norm(name, path):
  for theirs, collection, ours in (
      ('weight', 'params', 'scale'),
      ('bias', 'params', 'bias'),
      ('running_mean', 'batch_stats', 'mean'),
      ('running_var', 'batch_stats', 'var'),
  ):
    yield _Entry(f'{name}.{theirs}', (collection, *path, ours), *_SAME)


def _size(where, state, name, default):
  """Returns the first axis of a matrix, if there is one of that name."""
  array = state.get(name)
  if array is None or array.ndim != 2 or not array.shape[0]:
    return default
  return _check_size(where, name, array.shape[0])


def _check_size(where, name, size):
  # Before anything of that size is made.
  if size > config.LARGEST_WIDTH:
    raise errors.InputError(
        f'{where} has {name} of {size:,} units; accepted:'
        f' {config.LARGEST_WIDTH:,} at most.'
    )
  return size


def _infer_faces(where, state) -> Layout:
  encoder = list(_series(state, 'enc_layers'))
  decoder = list(_series(state, 'dec_layers'))
  if len(encoder) < 2 or len(decoder) < 2:
    model = autoencoders.FaceAutoencoder(40, 512)
    return Layout('celeba', model, model.image_shape)
  sizes = [_check_size(where, name, w.shape[0]) for name, w in encoder]
  # All layers but the first tell k; one of them may be of another model.
  num_factors = statistics.median_low(
      after.shape[0] - before.shape[1]
      for (_, before), (_, after) in zip(decoder, decoder[1:])
  )
  num_factors = min(max(1, num_factors), config.LARGEST_WIDTH)
  model = autoencoders.FaceAutoencoder(
      num_factors,
      max(1, sizes[-1] - num_factors),
      image_size=2 ** (len(encoder) + 1),
      first_width=max(1, sizes[0]),
      last_width=max(1, *sizes[:-1]),
  )
  return Layout('celeba', model, model.image_shape)


def _series(state, prefix):
  """Yields the kernels of a sequence's layers, up to the first that lacks."""
  for i in range(11):  # Of the largest images.
    name = f'{prefix}.{i}.0.weight'
    weight = state.get(name)
    if weight is None or weight.ndim != 4:
      return
    yield name, weight


def _template(layout) -> codes.Variables:
  return jax.eval_shape(
      lambda: autoencoders.init_variables(layout.model, 0, layout.image_shape)
  )


def _shapes(layout) -> dict[str, tuple[int, ...]]:
  """Returns the shape of each tensor, but counts, in PyTorch's order."""
  template, shapes = _template(layout), {}
  for entry in _list_entries(layout):
    leaf = functools.reduce(lambda tree, key: tree[key], entry.path, template)
    # A view of one number, which takes no memory.
    view = np.broadcast_to(np.float32(0), leaf.shape)
    shapes[entry.name] = entry.to_theirs(view).shape
  return shapes


def _find_difference(state, expected, counters) -> str | None:
  """Says what of a state dict first differs from a layout, None if nothing."""
  for name, shape in expected.items():
    if name not in state:
      return f'has no {name}; accepted: one of shape {shape}'
    if state[name].shape != shape:
      found = state[name].shape
      return f'has {name} of shape {found}; accepted: {shape}'
  for name, array in state.items():
    if name not in expected and name not in counters:
      return (
          f'has {untrusted.describe(name)} of shape {array.shape}; accepted:'
          ' none of that name'
      )
  missing = [name for name in counters if name not in state]
  # PyTorch before 0.4.1 had none.
  if missing and len(missing) < len(counters):
    return f'has no {missing[0]}; accepted: all such counts, or none'
  return None


def _find_kind(state) -> str | None:
  """Finds the kind whose layout a state dict has, if it has any."""
  for kind in KINDS:
    try:
      # A student of any code: its shapes do not depend on the split.
      layout = infer_layout('', state, kind, num_factors=1)
    except errors.InputError:
      continue
    found = _find_difference(state, _shapes(layout), list_counters(layout))
    if found is None:
      return kind
  return None


def _to_float32(where, name, array) -> np.ndarray:
  if array.dtype.kind != 'f':
    raise errors.InputError(
        f'{where} has {name} of type {array.dtype}; accepted: floats.'
    )
  with np.errstate(over='ignore'):  # Of float64; it is seen below.
    converted = array.astype(np.float32)
  bad = int(np.size(converted) - np.isfinite(converted).sum())
  if bad:
    raise errors.InputError(
        f'{where} has {name} with {bad:,} of {converted.size:,} numbers that'
        ' are not finite in float32; accepted: finite ones.'
    )
  return converted


def _to_count(where, name, array) -> int:
  if array.dtype.kind not in 'iu' or math.prod(array.shape) != 1 or array < 0:
    raise errors.InputError(
        f'{where} has {name} of type {array.dtype} and shape {array.shape};'
        ' accepted: one whole number, of 0 or larger.'
    )
  return int(array.item())


def _check_variables(layout: Layout, variables: Any) -> None:
  template = _template(layout)
  chex.assert_trees_all_equal_shapes(dict(variables), dict(template))
