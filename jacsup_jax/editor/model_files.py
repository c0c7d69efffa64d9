"""Store an editor in one safetensors file: model, weights, units, profile.

Tensors have names such as `params/encoder/conv_0/kernel`; the header describes
the rest as JSON, see `unit_scales.Unit` and `profiles.Profile`. The profile may
be missing. Nothing in such a file can be executed.
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
from jacsup_jax.editor import profiles
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models

_ENTRY = 'jacsup_jax_editor'
_ACCEPTED = 'accepted: a file written with --export'


def write(path: str | os.PathLike[str], own: editor.Editor) -> None:
  """Writes an editor, whole or not at all; an existing file is replaced."""
  entry = {
    'title': own.title,
    'model': models.describe_module(own.model.module),
    'units': list(map(dataclasses.asdict, own.units)),
    'profile': dataclasses.asdict(own.profile),
  }
  flat = traverse_util.flatten_dict(
    jax.device_get(own.model.variables), sep='/'
  )
  tensors = {
    name: np.ascontiguousarray(x, np.float32) for name, x in flat.items()
  }
  files.write_whole(
    path, safetensors_numpy.save(tensors, {_ENTRY: json.dumps(entry)})
  )


def read(path: str | os.PathLike[str]) -> editor.Editor:
  """Reads an editor that `write` wrote; InputError if it is damaged."""
  content = files.read_bytes(path)
  try:
    tensors = safetensors_numpy.load(content)
    # `load` has checked that the header has the size stated before it.
    size = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8 : 8 + size])
  except (safetensors.SafetensorError, KeyError, ValueError) as error:
    raise errors.InputError(
      f'{path} is not a whole safetensors file ({error!s:.200}); {_ACCEPTED}.'
    ) from error
  entry = header.get('__metadata__', {}).get(_ENTRY, '')
  entry = files.parse_json(f'{path} ({_ENTRY})', entry.encode())
  try:
    module = models.make_module(entry.get('model'))
  except errors.InputError as error:
    raise errors.InputError(f'{path} has {error}') from error
  # A classifier has no decoder; Fader Networks do not predict their factors.
  if getattr(module, 'factors_are_labels', True):
    raise errors.InputError(
      f'{path} has no autoencoder that predicts its factors; {_ACCEPTED}.'
    )
  units = unit_scales.from_json(path, entry.get('units'))
  is_flat = not isinstance(module, autoencoders.FaceAutoencoder)
  most = module.num_factors + is_flat * module.nuisance_dim
  if len(units) not in (module.num_factors, most):
    raise errors.InputError(
      f'{path} has {len(units)} units; accepted: {module.num_factors}, {most}.'
    )
  _check_tensors(path, module, tensors)
  filled = {name: jnp.asarray(x, jnp.float32) for name, x in tensors.items()}
  variables = traverse_util.unflatten_dict(filled, sep='/')
  model = models.Model(
    module, variables['params'], variables.get('batch_stats', {})
  )
  profile = profiles.from_json(path, entry.get('profile'))
  return editor.Editor(model, units, str(entry.get('title')), profile)


def _check_tensors(path, module, tensors):
  """Checks names, shapes and values of the tensors for a module."""
  try:
    shapes = jax.eval_shape(lambda: autoencoders.init_variables(module, 0))
  except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
    raise errors.InputError(f'{path} has no model ({error!r:.200}).') from error
  expected = traverse_util.flatten_dict(shapes, sep='/')
  for name in sorted({*expected, *tensors}):
    found, accepted = (
      list(own[name].shape) if name in own else 'missing'
      for own in (tensors, expected)
    )
    if found != accepted:
      raise errors.InputError(
        f'{path}: {name} is {found}; accepted: {accepted}.'
      )
    if not np.isfinite(tensors[name]).all():
      raise errors.InputError(f'{path}: {name} is not finite; {_ACCEPTED}.')
