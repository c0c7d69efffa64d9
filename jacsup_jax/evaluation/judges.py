"""Class judges: classifiers that say which digit, or other class, an image is.

They are an ensemble over seeds, stored with their accuracy; every score is a
mean over them.
"""

import dataclasses
import functools
import os
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import judge_files
from jacsup_jax.evaluation import judge_training
from jacsup_jax.models import classifiers

SEEDS = (0, 1, 2)
BATCH_SIZE = 128
_WIDTH = {'low': 1, 'high': config.LARGEST_WIDTH}

save = judge_files.save


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
  """How a missing judge is trained; the widths are those of face judges."""

  judge_epochs: int = config.option(
    10, 'Epochs of a judge that this run trains.', low=1
  )
  judge_first_width: int = config.option(
    32,
    'Channels of layer 1 of a face judge; each next layer has twice as many.',
    **_WIDTH,
  )
  judge_last_width: int = config.option(
    512, 'Most channels of a layer of a face judge.', **_WIDTH
  )
  judge_hidden: int = config.option(
    512, 'Units of the dense layer of a face judge.', **_WIDTH
  )

  def __post_init__(self):
    config.check(self)


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
  report: judge_training.Report | None = None,
) -> Judges:
  """Restores the judges of a directory, or trains and saves them.

  They are trained without the validation split, so that it is new to them. None
  accepts the seeds and epochs of those that are there, or trains three of 10
  epochs; `image_shape` is what the images must have, None for any.

  Raises:
    InputError: if those that are there are for other data, seeds or epochs.
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
  make = lambda: train(
    wanted['dataset'],
    load('train_minus_validation'),
    test,
    seeds=seeds or SEEDS,
    epochs=epochs or JudgeConfig().judge_epochs,
    report=report,
  )
  return judge_files.restore_or_train(directory, Judges, make, **wanted)


def train(
  dataset: str,
  data: registry.Dataset,
  test: registry.Dataset,
  *,
  seeds: tuple[int, ...],
  epochs: int,
  batch_size: int = BATCH_SIZE,
  report: judge_training.Report | None = None,
) -> Judges:
  """Trains judges of several seeds in one program.

  Cross-entropy, Adam with a learning rate that falls from 1e-3 to 0 by a
  cosine. `dataset` is the name that they store, and `test` is for their
  accuracy alone.

  Raises:
    InputError: if there are fewer images than a batch has.
  """
  if len(data) < batch_size:
    raise errors.InputError(
      f'--dataset={dataset} has {len(data)} training images, fewer than a'
      f' batch of the judges; accepted: {batch_size} or more.'
    )
  shape = tuple(data.images.shape[1:])
  judges = Judges(
    data.num_classes, shape, dataset, tuple(seeds), epochs, {}, (), ''
  )
  module = judges.module
  num_steps = epochs * batches.count_steps(len(data), batch_size)
  init, train_epoch = _make_programs(module, num_steps, batch_size)
  images, labels = jnp.asarray(data.images), jnp.asarray(data.labels)
  seeds = jnp.array(seeds)
  state = init(seeds)
  for epoch in range(epochs):
    state, loss = train_epoch(state, seeds, epoch, images, labels)
    if report is not None:
      report(epoch + 1, epochs, {'loss': float(np.mean(loss))})
  params = jax.device_get(state.params)
  accuracy = _measure_accuracy(
    module, params, jnp.asarray(test.images), jnp.asarray(test.labels)
  )
  return dataclasses.replace(
    judges,
    params=params,
    accuracy=tuple(float(a) for a in accuracy),
    sha256=codes.hash_tree(params),
  )


def _make_programs(module, num_steps, batch_size):
  """Makes jitted functions that start judges and train them for an epoch."""
  optimizer = judge_training.make_optimizer(num_steps)

  def init(seed):
    images = jnp.zeros((1, *module.image_shape))
    params = module.init(jax.random.key(seed), images)['params']
    step = jnp.zeros((), jnp.int32)
    return judge_training.TrainState(step, params, {}, optimizer.init(params))

  def train_epoch(state, seed, epoch, images, labels):
    return judge_training.take_steps(
      functools.partial(_compute_loss, module, seed),
      optimizer,
      state,
      images,
      labels,
      batches.epoch_indices(seed, epoch, images.shape[0], batch_size),
    )

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
  logits = module.apply(
    {'params': params},
    batches.to_float(images),
    train=True,
    rngs={'dropout': key},
  )
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return losses.mean(), batch_stats


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, None, None))
def _measure_accuracy(module, params, images, labels):
  return class_swaps.compute_accuracy(
    functools.partial(class_swaps.classify, module, params), images, labels
  )
