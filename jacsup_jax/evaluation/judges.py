"""Class judges: classifiers that say which digit, or other class, an image is.

A swap score means little without its judge, so judges are trained as an
ensemble over seeds and stored with their accuracy; every score is a mean over
them. `attribute_judges` has the judges of facial attributes.
"""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import trees
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import judge_files
from jacsup_jax.evaluation import judge_training
from jacsup_jax.models import classifiers

SEEDS = (0, 1, 2)
BATCH_SIZE = 128


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
  """How a missing judge is trained; the widths are those of face judges."""

  judge_epochs: int = config.option(
    10, 'Epochs of a judge that this run trains.', low=1
  )
  judge_first_width: int = config.option(
      32, 'Channels of layer 1 of a face judge; each next layer has twice as'
      ' many.', low=1, high=config.LARGEST_WIDTH,
  )  # fmt: skip
  judge_last_width: int = config.option(
      512, 'Most channels of a layer of a face judge.',
      low=1, high=config.LARGEST_WIDTH,
  )  # fmt: skip
  judge_hidden: int = config.option(
      512, 'Units of the dense layer of a face judge.',
      low=1, high=config.LARGEST_WIDTH,
  )  # fmt: skip

  def __post_init__(self):
    config.check_options(self)


@dataclasses.dataclass(frozen=True)
class Judges:
  """An ensemble of N class judges.

  Attributes:
    num_classes: that they tell apart.
    image_shape: (H, W, C) of their input, in [0, 1].
    dataset: that they were trained on.
    seeds: N of them.
    epochs: that they were trained for.
    params: stacked, leaves `[N, ...]`.
    accuracy: of each on the test split.
    sha256: of `params`.
  """

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
    return classifiers.MlpJudge(
      self.num_classes, image_shape=tuple(self.image_shape)
    )

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

  They are trained without the validation split, so that it is new to them.

  Args:
    directory: where they are or will be.
    dataset: name of the data set that they are for.
    data_dir: see `registry.load`.
    image_shape: (H, W, C) that the images must have; None accepts any.
    seeds: one judge each; None accepts those that are there, or trains three.
    epochs: passes over the data; None accepts any, or trains 10.
    report: called after every epoch of training.

  Raises:
    InputError: if those that are there are for other data, or were trained
      with other seeds or epochs than asked for.
  """
  load = functools.partial(
    registry.load, dataset, data_dir=data_dir, image_shape=image_shape
  )
  test = load('test')
  dataset = identify(dataset, test)
  if judge_files.exist(directory):
    judges = restore(
      directory,
      dataset=dataset,
      num_classes=test.num_classes,
      image_shape=test.images.shape[1:],
    )
    for name, wanted in (('seeds', seeds), ('epochs', epochs)):
      found = getattr(judges, name)
      if wanted is not None and wanted != found:
        raise errors.InputError(
          f'the judges in {directory} have {name} {found}, asked for are'
          f' {wanted}; accepted: the same, or another directory.'
        )
    return judges
  judge_files.check_free(directory)
  judges = train(
    dataset,
    load('train_minus_validation'),
    test,
    seeds=seeds or SEEDS,
    epochs=epochs or JudgeConfig().judge_epochs,
    report=report,
  )
  save(directory, judges)
  return judges


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
  judges = Judges(
    num_classes=data.num_classes,
    image_shape=tuple(data.images.shape[1:]),
    dataset=dataset,
    seeds=tuple(seeds),
    epochs=epochs,
    params={},
    accuracy=(),
    sha256='',
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
    sha256=trees.hash_tree(params),
  )


def save(directory: str | os.PathLike[str], judges: Judges) -> None:
  """Saves judges to a directory, whole or not at all."""
  judge_files.save(directory, judges, 'params')


def read(directory: str | os.PathLike[str]) -> Judges:
  """Reads judges for any data; InputError if there are none or damaged."""
  return judge_files.read(directory, Judges, 'params')


def restore(
  directory: str | os.PathLike[str],
  *,
  dataset: str,
  num_classes: int,
  image_shape: tuple[int, int, int],
) -> Judges:
  """Restores judges; InputError if they are damaged or for other data.

  Args:
    directory: that `save` wrote to.
    dataset: that the judges are to judge.
    num_classes: of the data set.
    image_shape: (H, W, C) of the data set.
  """
  judges = read(directory)
  found = (judges.dataset, judges.num_classes, judges.image_shape)
  wanted = (dataset, num_classes, tuple(image_shape))
  if found != wanted:
    describe = '{} ({} classes, images {})'.format
    raise errors.InputError(
      f'the judge in {directory} was trained for {describe(*found)};'
      f' accepted: one for {describe(*wanted)}.'
    )
  return judges


def _init_params(module, seed):
  images = jnp.zeros((1, *module.image_shape))
  return module.init(jax.random.key(seed), images)['params']


def _make_programs(module, num_steps, batch_size):
  """Makes jitted functions that start judges and train them for an epoch."""
  optimizer = judge_training.make_optimizer(num_steps)

  def init(seed):
    params = _init_params(module, seed)
    step = jnp.zeros((), jnp.int32)
    return judge_training.TrainState(step, params, {}, optimizer.init(params))

  def train_epoch(state, seed, epoch, images, labels):
    step = functools.partial(
      _train_step, module, optimizer, seed, images, labels
    )
    return jax.lax.scan(
      step,
      state,
      batches.epoch_indices(seed, epoch, images.shape[0], batch_size),
    )

  # Counters are shared by the judges: only arrays have an axis of seeds.
  axes = jax.tree.map(lambda x: 0 if x.shape else None, jax.eval_shape(init, 0))
  return jax.jit(jax.vmap(init, out_axes=axes)), jax.jit(
    jax.vmap(
      train_epoch, in_axes=(axes, 0, None, None, None), out_axes=(axes, 0)
    ),
    donate_argnums=0,
  )


def _train_step(module, optimizer, seed, images, labels, state, indices):
  # Independent of the keys of initialisation and data order.
  dropout_key = jax.random.fold_in(jax.random.key(~seed), state.step)
  batch_images = batches.to_float(images[indices])

  def objective(params, batch_stats):
    logits = module.apply(
      {'params': params},
      batch_images,
      train=True,
      rngs={'dropout': dropout_key},
    )
    loss = optax.softmax_cross_entropy_with_integer_labels(
      logits, labels[indices]
    ).mean()
    return loss, batch_stats

  return judge_training.take_step(state, objective, optimizer)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, None, None))
def _measure_accuracy(module, params, images, labels):
  return class_swaps.compute_accuracy(
    functools.partial(class_swaps.classify, module, params), images, labels
  )
