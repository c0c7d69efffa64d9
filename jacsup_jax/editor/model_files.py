"""An editor in one file: the model, its weights and its units.

A safetensors file: the weights by their places in the tree, as
`params/encoder/conv_0/kernel`, and what the model is as JSON in its header.
Nothing in such a file can be run.
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.editor import editor
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import workdir

_LARGEST = 4 * 2**30
_ENTRY = 'jacsup_jax_editor'
_KINDS = {'title': str, 'is_signed': bool, 'model': dict, 'units': list}
# Fields of a model that decide what it computes; the others are of training.
_OF_DIGITS = {
    'num_factors': int, 'nuisance_dim': int, 'normalize_code': bool,
    'image_shape': tuple[int, int, int], 'widths': list[int],
}  # pyformat: disable
_MODELS = {
    'MlpAutoencoder': _OF_DIGITS,
    'SvhnAutoencoder': _OF_DIGITS | {'linear_code': bool},
    'FaceAutoencoder': {
        'num_factors': int, 'nuisance_channels': int, 'image_size': int,
        'first_width': int, 'last_width': int, 'linear_factors': bool,
    },
}  # pyformat: disable


def write(
    path: str | os.PathLike[str], own: editor.Editor, *, half: bool = False
) -> None:
  """Writes an editor, whole or not at all.

  Args:
    path: of the file; one that is there is replaced.
    own: to write.
    half: weights as float16, of half the size; they are float32 again when they
      are read.

  Raises:
    StorageError: if it cannot be written.
  """
  name = type(own.model).__name__
  entry = {
      'title': own.title,
      'is_signed': own.is_signed,
      'model': {
          'name': name,
          **{field: getattr(own.model, field) for field in _MODELS[name]},
      },
      'units': [dataclasses.asdict(unit) for unit in own.units],
  }
  flat = traverse_util.flatten_dict(jax.device_get(own.variables), sep='/')
  tensors = {
      key: np.ascontiguousarray(
          x, dtype=np.float16 if half else np.float32
      )
      for key, x in flat.items()
  }
  content = safetensors_numpy.save(
      tensors, metadata={_ENTRY: json.dumps(entry)}
  )
  workdir.write_whole(pathlib.Path(path), content)


def read(path: str | os.PathLike[str]) -> editor.Editor:
  """Reads an editor.

  Args:
    path: of a file of `write`.

  Raises:
    InputError: if it is damaged, or no such file.
  """
  content = untrusted.read(path, _LARGEST)
  try:
    tensors = safetensors_numpy.load(content)
    # The header's size, then the header: `load` has checked both.
    size = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8 : 8 + size])
  # KeyError: a type that numpy lacks.
  except (safetensors.SafetensorError, KeyError, ValueError) as error:
    raise errors.InputError(
        f'{path} is no whole safetensors file'
        f' ({errors.one_line(str(error))[:200]}); accepted: one of'
        ' experiments.edit --export.'
    ) from error
  entry = header.get('__metadata__', {}).get(_ENTRY)
  if entry is None:
    raise errors.InputError(
        f'{path} has weights, and not what model they are of; accepted: a file'
        ' of experiments.edit --export.'
    )
  entry = untrusted.parse_json(f'{path} {_ENTRY}', entry.encode())
  untrusted.check_entries(path, entry, _KINDS)
  model = _make_model(path, entry['model'])
  units = unit_scales.read_units(path, entry['units'])
  variables = _fill(path, model, tensors)
  _check_units(path, model, units)
  return editor.Editor(
      model, variables, units, entry['is_signed'], entry['title']
  )


def _make_model(path, entry: Mapping[str, Any]):
  name = entry.get('name')
  if not isinstance(name, str) or name not in _MODELS:
    raise errors.InputError(
        f'{path} has a model {untrusted.describe(name)}; accepted:'
        f' {", ".join(_MODELS)}.'
    )
  kinds = _MODELS[name]
  untrusted.check_entries(path, entry, kinds)
  fields = {
      field: tuple(entry[field])
      if isinstance(entry[field], list)
      else entry[field]
      for field in kinds
  }
  for field, value in fields.items():
    for number in value if isinstance(value, tuple) else (value,):
      # Before arrays of any size are made of them; a nuisance may be empty.
      if not 0 <= number <= config.LARGEST_WIDTH:
        raise errors.InputError(
            f'{path} has {field} {number}; accepted: 0 to'
            f' {config.LARGEST_WIDTH}.'
        )
  try:
    return getattr(autoencoders, name)(**fields)
  except errors.InputError as error:  # Its own words name no file.
    raise errors.InputError(f'{path} has a model {name}: {error}') from error


def _fill(path, model, tensors):
  """Makes a model's variables of tensors, after a look at their shapes."""
  try:
    shapes = jax.eval_shape(
        lambda: autoencoders.init_variables(model, 0)
    )
  except (ValueError, TypeError, ZeroDivisionError) as error:
    raise errors.InputError(
        f'{path} has a model that cannot be made'
        f' ({errors.one_line(str(error))[:200]}); accepted: one that was'
        ' trained.'
    ) from error
  expected = traverse_util.flatten_dict(shapes, sep='/')
  for key in sorted({*expected, *tensors}):
    found = tensors[key].shape if key in tensors else None
    accepted = expected[key].shape if key in expected else None
    if found != accepted:
      raise errors.InputError(
          f'{path}: {key} is {_show(found)}; accepted: {_show(accepted)}.'
      )
  filled = {
      key: jnp.asarray(x, jnp.float32) for key, x in tensors.items()
  }
  if not all(np.isfinite(x).all() for x in tensors.values()):
    raise errors.InputError(
        f'{path} has weights that are not finite; accepted: finite ones.'
    )
  variables = traverse_util.unflatten_dict(filled, sep='/')
  return {'batch_stats': {}} | variables


def _show(shape):
  return 'missing' if shape is None else f'{list(shape)}'


def _check_units(path, model, units):
  most = model.num_factors
  if not isinstance(model, autoencoders.FaceAutoencoder):
    most += model.nuisance_dim
  if len(units) not in (model.num_factors, most):
    raise errors.InputError(
        f'{path} has {len(units)} units for a model of {model.num_factors}'
        f' factors; accepted: {model.num_factors} or {most}.'
    )
