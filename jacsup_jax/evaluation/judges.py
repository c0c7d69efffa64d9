"""Judges: how they are trained and stored, and those of classes.

A class judge says which digit, or other class, an image is. They are an
ensemble over seeds, and every score is a mean over them.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import json
import os
import pathlib
from typing import Any, ClassVar, NamedTuple

import chex
from flax import linen as nn
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
from jacsup_jax.models import classifiers

# Called after every epoch with the epoch, from 1, the number of epochs, and the
# means of the epoch by name, such as 'loss'.
Report = Callable[[int, int, dict[str, float]], None]
# `classify(images, key) -> [B] int`: a key switches dropout on, None off.
ClassifyFn = Callable[[jax.Array, jax.Array | None], jax.Array]

SEEDS = (0, 1, 2)
BATCH_SIZE = 128
_EPOCHS = 10
_NAME = 'judge.safetensors'
_face_width = functools.partial(config.option, low=1, high=config.LARGEST_WIDTH)


@dataclasses.dataclass(frozen=True)
class JudgeConfig(config.Options):
  """How a missing judge is trained; the widths are those of face judges."""

  judge_epochs: int = config.option(
    _EPOCHS, 'Epochs of a judge that this run trains.', low=1
  )
  judge_first_width: int = _face_width(
    32, 'Channels of layer 1 of a face judge; each next has twice as many.'
  )
  judge_last_width: int = _face_width(512, 'Most channels of a layer of it.')
  judge_hidden: int = _face_width(
    512, 'Units of the dense layer of a strided face judge.'
  )


@dataclasses.dataclass(frozen=True)
class Judges:
  """An ensemble of N class judges, of (H, W, C) images in [0, 1].

  Leaves of `params` are stacked, `[N, ...]`; `accuracy` is that of each judge
  on the test split; `sha256` is that of `params`.
  """

  tree: ClassVar[str] = 'params'
  num_classes: int
  image_shape: tuple[int, int, int]
  dataset: str
  seeds: tuple[int, ...]
  epochs: int
  params: codes.Params
  accuracy: tuple[float, ...]
  sha256: str

  @property
  def module(self) -> classifiers.MlpJudge:
    """The network."""
    return classifiers.MlpJudge(self.num_classes, image_shape=self.image_shape)

  def describe(self) -> dict[str, Any]:
    """Returns what identifies the judges, for results.json."""
    names = ('dataset', 'seeds', 'epochs', 'accuracy', 'sha256')
    return {name: getattr(self, name) for name in names}


class TrainState(NamedTuple):
  """State of a judge's training; of an ensemble the arrays are stacked."""

  step: jax.Array  # [] int32
  params: codes.Params
  batch_stats: chex.ArrayTree
  opt_state: optax.OptState


def default_directory(
  dataset: str, data_dir: str | os.PathLike[str] | None
) -> str:
  """Returns the default directory of the judges of a data set.

  `arrays`, a name that any file has, gets a directory for each test split.
  """
  if dataset != registry.ARRAYS:
    return f'runs/judge_{dataset}'
  test = registry.load(dataset, 'test', data_dir=data_dir)
  return f'runs/judge_{dataset}_{test.fingerprint}'


def identify(dataset: str, test: registry.Dataset) -> str:
  """Returns the name under which judges store their data set."""
  if dataset != registry.ARRAYS:
    return dataset
  return f'{dataset} of fingerprint {test.fingerprint}'


def restore_or_train(
  directory: str | os.PathLike[str],
  dataset: str,
  data_dir: str | os.PathLike[str] | None,
  *,
  image_shape: tuple[int, int, int] | None = None,
  seeds: tuple[int, ...] | None = None,
  epochs: int | None = None,
  report: Report | None = None,
) -> Judges:
  """Restores the judges of a directory, or trains and saves them.

  They are trained without the validation split, so that it is new to them. None
  accepts any seeds, epochs and image shape, and trains three of 10 epochs.
  InputError if those that are there are for other data, seeds or epochs.
  """
  load = functools.partial(
    registry.load, dataset, data_dir=data_dir, image_shape=image_shape
  )
  test = load('test')
  wanted = {
    'dataset': identify(dataset, test),
    'num_classes': test.num_classes,
    'image_shape': tuple(test.images.shape[1:]),
  }
  wanted |= {} if seeds is None else {'seeds': seeds}
  wanted |= {} if epochs is None else {'epochs': epochs}

  def make():
    data = load('train_minus_validation')
    settings = {'seeds': seeds or SEEDS, 'epochs': epochs or _EPOCHS}
    return train(wanted['dataset'], data, test, report=report, **settings)

  return restore_or_make(directory, Judges, make, **wanted)


def train(
  dataset: str,
  data: registry.Dataset,
  test: registry.Dataset,
  *,
  seeds: tuple[int, ...],
  epochs: int,
  batch_size: int = BATCH_SIZE,
  report: Report | None = None,
) -> Judges:
  """Trains judges of several seeds in one program.

  Cross-entropy, Adam with a learning rate that falls from 1e-3 to 0 by a
  cosine. `dataset` is the name that they store, and `test` is for their
  accuracy alone. InputError if there are fewer images than a batch has.
  """
  if len(data) < batch_size:
    raise errors.InputError(
      f'--dataset={dataset} has {len(data)} training images, fewer than a'
      f' batch of the judges; accepted: {batch_size} or more.'
    )
  shape = tuple(data.images.shape[1:])
  module = classifiers.MlpJudge(data.num_classes, image_shape=shape)
  num_steps = epochs * batches.count_steps(len(data), batch_size)
  init, train_epoch = _make_programs(module, num_steps, batch_size)
  *arrays, own_seeds = map(jnp.asarray, (data.images, data.labels, seeds))
  state = init(own_seeds)
  for epoch in range(epochs):
    state, loss = train_epoch(state, own_seeds, epoch, *arrays)
    if report is not None:
      report(epoch + 1, epochs, {'loss': float(np.mean(loss))})
  params = jax.device_get(state.params)
  known = map(jnp.asarray, (test.images, test.labels))
  accuracy = _measure_accuracy(module, params, *known)
  return Judges(
      data.num_classes, shape, dataset, tuple(seeds), epochs, params,
      tuple(map(float, accuracy)), codes.hash_tree(params),
  )  # fmt: skip


def classify(
  module: nn.Module,
  params: codes.Params,
  images: jax.Array,
  key: jax.Array | None = None,
) -> jax.Array:
  """Returns the classes `[B]` that one judge sees in `[B, H, W, C]` images.

  Images are in [0, 1]; a key switches dropout on.
  """
  rngs = None if key is None else {'dropout': key}
  logits = module.apply(
    {'params': params}, images, train=key is not None, rngs=rngs
  )
  return jnp.argmax(logits, axis=-1)


def compute_accuracy(
  classify_fn: ClassifyFn,
  images: jax.Array,
  labels: jax.Array,
  transform: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> jax.Array:
  """Computes a judge's accuracy in [0, 1] on `[M, H, W, C]` uint8 images.

  `transform` is applied to the images in [0, 1] first, as a reconstruction.
  """

  def correct(example):
    image, label = example
    classes = classify_fn(transform(batches.to_float(image[None])), None)
    return jnp.mean(classes == label)

  at_once = batches.count_at_once(images.shape[1:])
  return jnp.mean(jax.lax.map(correct, (images, labels), batch_size=at_once))


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
  arrays = {name: np.ascontiguousarray(array) for name, array in flat.items()}
  path = pathlib.Path(directory) / _NAME
  with files.writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
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
  """Restores the judges of a class in a directory, or makes and saves them."""
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


def make_optimizer(num_steps: int) -> optax.GradientTransformation:
  """Makes the optimizer of a judge: Adam with a cosine schedule."""
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


def _make_programs(module, num_steps, batch_size):
  """Makes jitted functions that start judges and train them for an epoch."""
  optimizer = make_optimizer(num_steps)

  def init(seed):
    images = jnp.zeros((1, *module.image_shape))
    params = module.init(jax.random.key(seed), images)['params']
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, {}, optimizer.init(params))

  def train_epoch(state, seed, epoch, images, labels):
    objective = functools.partial(_compute_loss, module, seed)
    indices = batches.epoch_indices(seed, epoch, images.shape[0], batch_size)
    return take_steps(objective, optimizer, state, images, labels, indices)

  # Counters are shared by the judges: only arrays have an axis of seeds.
  axes = jax.tree.map(lambda x: 0 if x.shape else None, jax.eval_shape(init, 0))
  train_seeds = jax.vmap(
    train_epoch, in_axes=(axes, 0, None, None, None), out_axes=(axes, 0)
  )
  return (
    jax.jit(jax.vmap(init, out_axes=axes)),
    jax.jit(train_seeds, donate_argnums=0),
  )


def _compute_loss(module, seed, params, batch_stats, step, images, labels):
  # Independent of the keys of initialisation and data order.
  key = jax.random.fold_in(jax.random.key(~seed), step)
  inputs = {'params': params}, batches.to_float(images)
  logits = module.apply(*inputs, train=True, rngs={'dropout': key})
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return losses.mean(), batch_stats


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, None, None))
def _measure_accuracy(module, params, *examples):
  return compute_accuracy(
    functools.partial(classify, module, params), *examples
  )
