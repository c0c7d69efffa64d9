"""Judges: how they are trained, stored and found again.

They are classifiers that take no part in training: those of classes are in
`class_judges`, those of facial attributes in `attribute_judges`.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import json
import os
import pathlib
from typing import Any, NamedTuple

import chex
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import files
from jacsup_jax.data import registry

# Called after every epoch with the epoch, from 1, the number of epochs, and the
# means of the epoch by name, such as 'loss'.
Report = Callable[[int, int, dict[str, float]], None]

# Also of the pairs that judges of classes see, as in the released code.
BATCH_SIZE = 128
EPOCHS = 10
_CHUNK = 8  # batches that are judged at once
_NAME = 'judge.safetensors'
_face_width = functools.partial(config.option, low=1, high=config.LARGEST_WIDTH)


@dataclasses.dataclass(frozen=True)
class JudgeConfig(config.Options):
  """How a missing judge is trained; the widths are those of face judges."""

  judge_epochs: int = config.option(
    EPOCHS,
    'Epochs of a judge that this run trains; convolutional judges of classes'
    ' take half as many.',
    low=1,
  )
  judge_first_width: int = _face_width(
    32,
    'Channels of layer 1 of a face judge; each next layer has twice as many.',
  )
  judge_last_width: int = _face_width(
    512, 'Largest number of channels of a layer of a face judge.'
  )
  judge_hidden: int = _face_width(
    512, 'Units of the dense layer of a strided face judge.'
  )


class TrainState(NamedTuple):
  """State of a judge's training; of an ensemble the arrays are stacked."""

  step: jax.Array  # [] int32
  params: codes.Params
  batch_stats: chex.ArrayTree
  opt_state: optax.OptState


def exist(directory: str | os.PathLike[str]) -> bool:
  """Returns whether a directory holds judges."""
  return files.exists(pathlib.Path(directory) / _NAME)


def save(directory: str | os.PathLike[str], judges: Any) -> None:
  """Saves judges, whole or not at all; StorageError where that fails.

  Judges are a frozen dataclass; the field that its `tree` names is a tree of
  arrays, and the others, which are JSON values, go into the file's metadata.
  """
  from safetensors import numpy as safetensors

  described = {
    field.name: getattr(judges, field.name)
    for field in dataclasses.fields(judges)
    if field.name != judges.tree
  }
  flat = traverse_util.flatten_dict(getattr(judges, judges.tree), sep='/')
  # Not `ascontiguousarray`, which gives a number an axis.
  arrays = {name: np.asarray(array, order='C') for name, array in flat.items()}
  path = pathlib.Path(directory) / _NAME
  files.write_whole(
    path, safetensors.save(arrays, {'judges': json.dumps(described)})
  )


def restore(directory: str | os.PathLike[str], cls: type, **wanted: Any) -> Any:
  """Restores judges of a class; `wanted` is what their fields must be.

  InputError if the file is missing, damaged, or has judges of another class
  or with other fields.
  """
  import safetensors

  path = pathlib.Path(directory) / _NAME
  names = {field.name for field in dataclasses.fields(cls)} - {cls.tree}
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      described = json.loads((file.metadata() or {}).get('judges', '{}'))
      arrays = {name: file.get_tensor(name) for name in file.keys()}
  except (OSError, ValueError, safetensors.SafetensorError) as error:
    raise errors.InputError(
      f'{path} cannot be read ({error}); accepted: judges that this package'
      ' saved.'
    ) from error
  if set(described) != names:
    raise errors.InputError(
      f'{path} describes {", ".join(sorted(described)) or "nothing"}, which'
      f' is not {cls.__name__}; accepted: {", ".join(sorted(names))}.'
    )
  for name, value in described.items():
    if isinstance(value, list):
      described[name] = tuple(value)
  for name, value in wanted.items():
    if described[name] != value:
      raise errors.InputError(
        f'the judge in {directory} was trained for {name} {described[name]};'
        f' accepted: one for {value}, or another directory.'
      )
  tree = traverse_util.unflatten_dict(arrays, sep='/')
  return cls(**described, **{cls.tree: tree})


def restore_or_make(
  directory: str | os.PathLike[str],
  cls: type,
  make: Callable[[], Any],
  **wanted: Any,
) -> Any:
  """Restores the judges of a class in a directory, or makes and saves them.

  Raises:
    InputError: if the directory holds other files, or as `restore`.
    StorageError: if judges cannot be saved.
  """
  if exist(directory):
    return restore(directory, cls, **wanted)
  directory = pathlib.Path(directory)
  files.check_writable(str(directory), directory)
  if directory.is_dir() and any(directory.iterdir()):
    raise errors.InputError(
      f'{directory} is not a directory of judges; accepted: one that has a'
      f' {_NAME}, or a new or empty one.'
    )
  judges = make()
  save(directory, judges)
  return judges


def list_hashes(results: Mapping[str, Any]) -> list[str]:
  """Lists the hashes of the judges that results.json describes."""
  described = results.get('judges', [])
  if isinstance(described, Mapping):  # an ensemble of class judges
    described = [described]
  return [judge['sha256'] for judge in described]


def check_labels(data: registry.Dataset) -> None:
  """Raises InputError if all labels of a data set are the same."""
  found = np.unique(data.labels)
  if len(found) < 2:
    raise errors.InputError(
      f'all {len(data)} labels of the {data.split} split of'
      f' --dataset={data.name} are {", ".join(map(str, found))}; accepted: two'
      ' classes or more.'
    )


def list_rows(num_images: int) -> np.ndarray:
  """Lists the positions of images `[chunks, n, B]`, in batches and in order.

  B is `BATCH_SIZE`. The end is filled up with the first images again.
  """
  count = -(-num_images // BATCH_SIZE)
  n = min(_CHUNK, count)
  rows = np.arange(-(-count // n) * n * BATCH_SIZE) % num_images
  return rows.reshape(-1, n, BATCH_SIZE)


def compute_accuracy(
  judges: Any, images: np.ndarray, labels: np.ndarray
) -> np.ndarray:
  """Computes the accuracy `[N]` of N judges of classes.

  Images are `[M, H, W, C]` uint8, labels `[M]` int.
  """
  seen = [
    judges.classify(batches.to_float(jnp.asarray(images[rows])))
    for rows in list_rows(len(images))
  ]
  flat = np.concatenate([part.reshape(len(part), -1) for part in seen], axis=1)
  return np.mean(flat[:, : len(images)] == np.asarray(labels), axis=1)


def make_optimizer(num_steps: int) -> optax.GradientTransformation:
  """Makes the usual optimizer of a judge: Adam with a cosine schedule."""
  return optax.adam(optax.cosine_decay_schedule(1e-3, num_steps))


def take_steps(
  objective: Callable[..., Any],
  optimizer: optax.GradientTransformation,
  state: TrainState,
  images: jax.Array,
  labels: jax.Array,
  indices: jax.Array,
) -> tuple[TrainState, jax.Array]:
  """Takes a step per row of `[steps, B]` indices into `[M, ...]` arrays.

  `objective` is `(params, batch_stats, step, images, labels) -> (loss,
  batch_stats)` on a batch. Returns the state, and the losses `[steps]`.
  """

  def step(state, rows):
    batch = [jnp.take(x, rows, axis=0) for x in (images, labels)]
    (loss, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(
      state.params, state.batch_stats, state.step, *batch
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), loss

  return jax.lax.scan(step, state, indices)
