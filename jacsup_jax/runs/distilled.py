"""The networks of the swap check in a work directory.

Each is kept in `checkers/TEACHER/NAME.safetensors`, with what identifies it as
metadata, so that a resumed run goes by the same numbers.
"""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import safetensors
from safetensors import numpy as safetensors_numpy

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import files
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import devices
from jacsup_jax.training import distillation

_ENTRY = 'checker'  # of the metadata
_RESULTS = ('loss', 'sha256')  # entries that training adds
_ACCEPTED = (
  'accepted: the file as this run saved it, or none, and the network is trained'
  ' again.'
)


def restore_or_distill(
  workdir: workdirs.WorkDir | None,
  network: distillation.Distilled,
  images: jax.Array,
  factors: jax.Array,
  report: distillation.Report = lambda *_: None,
) -> distillation.Distilled:
  """Restores a network of a run, or trains and saves it.

  Args:
    workdir: of the run, begun; used by the first process alone.
    network: what identifies it.
    images: `[M, H, W, C]` uint8, to train it on.
    factors: `[M, K]`, its teacher's.
    report: called after every epoch of its training.

  Raises:
    InputError: if the file is damaged, or of another network.
    StorageError: if it cannot be written.
  """
  if not devices.is_first():
    init = network.module.init
    image = batches.to_float(images[:1])
    shapes = jax.eval_shape(init, jax.random.key(0), image)['params']
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return dataclasses.replace(network, params=devices.share_tree(zeros))
  path = workdir.checkers / network.teacher / f'{network.name}.safetensors'
  if files.exists(path):
    found = _restore(path, network)
  else:
    found = network.distill(images, factors, report)
    _save(path, found)
  return dataclasses.replace(found, params=devices.share_tree(found.params))


def describe(workdir: workdirs.WorkDir) -> list[dict[str, Any]]:
  """Returns what identifies the networks of a run, for results.json."""
  paths = sorted(workdir.checkers.glob('*/*.safetensors'))
  return [_read(path)[0] for path in paths]


def _save(path, network):
  flat = traverse_util.flatten_dict(network.params, sep='/')
  entry = json.dumps(network.describe())
  files.write_whole(path, safetensors_numpy.save(flat, {_ENTRY: entry}))


def _restore(path, wanted):
  """Restores a network that must be the one that is wanted."""
  described, params = _read(path)
  if codes.hash_tree(params) != described.get('sha256'):
    raise errors.InputError(
      f'{path} holds other numbers than those saved; {_ACCEPTED}'
    )
  results = {name: described.get(name) for name in _RESULTS}
  asked = wanted.describe()
  differing = [
    f'{name} {described.get(name)} there, {value} here'
    for name, value in asked.items()
    if name not in _RESULTS and described.get(name) != value
  ]
  if differing:
    raise errors.InputError(
      f'{path} is of another network: {"; ".join(differing)}; {_ACCEPTED}'
    )
  return dataclasses.replace(wanted, params=params, **results)


def _read(path: pathlib.Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
  """Reads what identifies a network, and its parameters."""
  content = files.read_bytes(path)
  try:
    flat = safetensors_numpy.load(content)
    with safetensors.safe_open(path, 'numpy') as file:
      described = json.loads((file.metadata() or {})[_ENTRY])
  except (safetensors.SafetensorError, KeyError, ValueError) as error:
    raise errors.InputError(
      f'{path} is damaged ({error!s:.200}); {_ACCEPTED}'
    ) from error
  return described, traverse_util.unflatten_dict(flat, sep='/')
