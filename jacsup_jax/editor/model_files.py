"""Store an editor in one safetensors file: model, weights and units.

The tensors are named by their place in the variables, such as
`params/encoder/conv_0/kernel`; the header describes the module and the units as
JSON. Nothing in such a file can be executed.
"""

import dataclasses
import json
import os

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.editor import editor
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models

_ENTRY = 'jacsup_jax_editor'
_ACCEPTED = 'accepted: a file written with --export'


def write(
  path: str | os.PathLike[str], own: editor.Editor, *, half: bool = False
) -> None:
  """Writes an editor, whole or not at all.

  Args:
    path: the file; an existing one is replaced.
    own: the editor.
    half: whether weights are stored as float16, at half the size; they are
      read as float32 again.

  Raises:
    StorageError: if the file cannot be written.
  """
  entry = {
    'title': own.title,
    'model': models.describe_module(own.model.module),
    'units': [dataclasses.asdict(unit) for unit in own.units],
  }
  flat = traverse_util.flatten_dict(
    jax.device_get(own.model.variables), sep='/'
  )
  dtype = np.float16 if half else np.float32
  tensors = {
    name: np.ascontiguousarray(x, dtype=dtype) for name, x in flat.items()
  }
  files.write_whole(
    path, safetensors_numpy.save(tensors, {_ENTRY: json.dumps(entry)})
  )


def read(path: str | os.PathLike[str]) -> editor.Editor:
  """Reads an editor.

  Args:
    path: a file that `write` wrote.

  Returns:
    The editor, with float32 weights.

  Raises:
    InputError: if there is no such file, or it is damaged.
  """
  content = files.read_bytes(path)
  try:
    tensors = safetensors_numpy.load(content)
    # `load` has checked that the header has the size stated before it.
    size = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8 : 8 + size])
  except (safetensors.SafetensorError, KeyError, ValueError) as error:
    raise errors.InputError(
      f'{path} is not a whole safetensors file ({str(error)[:200]});'
      f' {_ACCEPTED}.'
    ) from error
  entry = header.get('__metadata__', {}).get(_ENTRY)
  if entry is None:
    raise errors.InputError(
      f'{path} has weights but does not say of which model; {_ACCEPTED}.'
    )
  entry = files.parse_json(f'{path} ({_ENTRY})', entry.encode())
  title, units = entry.get('title'), entry.get('units')
  if not isinstance(title, str) or not isinstance(units, list):
    raise errors.InputError(f'{path} has no title or no units; {_ACCEPTED}.')
  module = _make_module(path, entry.get('model'))
  units = unit_scales.from_json(path, units)
  most = module.num_factors + (
    0
    if isinstance(module, autoencoders.FaceAutoencoder)
    else module.nuisance_dim
  )
  if len(units) not in (module.num_factors, most):
    raise errors.InputError(
      f'{path} has {len(units)} units for a model of {module.num_factors}'
      f' factors; accepted: {module.num_factors} or {most}.'
    )
  return editor.Editor(_fill(path, module, tensors), units, title)


def _make_module(path, description):
  try:
    module = models.make_module(description)
  except errors.InputError as error:
    raise errors.InputError(f'{path} has {error}') from error
  # A classifier has no decoder; Fader Networks do not predict their factors.
  if getattr(module, 'factors_are_labels', True):
    raise errors.InputError(
      f'{path} has a model {type(module).__name__}; accepted: an autoencoder'
      ' that predicts its factors.'
    )
  return module


def _fill(path, module, tensors):
  """Makes a model from tensors after checking their names and shapes."""
  try:
    shapes = jax.eval_shape(lambda: autoencoders.init_variables(module, 0))
  except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
    raise errors.InputError(
      f'{path} has a model that cannot be built ({str(error)[:200]});'
      f' {_ACCEPTED}.'
    ) from error
  expected = traverse_util.flatten_dict(shapes, sep='/')
  for name in sorted({*expected, *tensors}):
    found = _shape(tensors.get(name))
    accepted = _shape(expected.get(name))
    if found != accepted:
      raise errors.InputError(
        f'{path}: {name} is {found}; accepted: {accepted}.'
      )
    if not np.isfinite(tensors[name]).all():
      raise errors.InputError(
        f'{path}: {name} has numbers that are not finite; {_ACCEPTED}.'
      )
  filled = {name: jnp.asarray(x, jnp.float32) for name, x in tensors.items()}
  variables = traverse_util.unflatten_dict(filled, sep='/')
  return models.Model(
    module, variables['params'], variables.get('batch_stats', {})
  )


def _shape(array):
  return 'missing' if array is None else f'{list(array.shape)}'
