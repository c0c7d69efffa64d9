"""Judges: classifiers that say which digit, or other class, an image shows.

A swap score means little without its judge, so they are trained as an ensemble
over seeds, stored with their accuracy, and every score is a mean over them.
"""

import dataclasses
import functools
import os

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import judge_files
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import checkpoints
from jacsup_jax.training import steps

_LEARNING_RATE = 1e-3
# They are trained as one program and kept as one tree; more say no more.
MOST_SEEDS = 1000


@dataclasses.dataclass(frozen=True)
class Judges:
  """An ensemble of judges.

  Attributes:
    num_classes: that they tell apart.
    image_shape: (H, W, C) of what they see, in [0, 1].
    dataset: that they were trained on.
    seeds: of the N judges.
    epochs: that they were trained for.
    params: stacked, leaves `[N, ...]`.
    accuracy: of each on the test split.
    sha256: of the stacked parameters.
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
  def model(self) -> autoencoders.MlpJudge:
    return autoencoders.MlpJudge(self.num_classes)

  def describe(self) -> dict[str, object]:
    """Returns what identifies the judges, for results.json."""
    names = ('dataset', 'seeds', 'epochs', 'accuracy', 'sha256')
    return {name: getattr(self, name) for name in names}


def classify(
    model: nn.Module,
    params: codes.Params,
    images: jax.Array,
    key: jax.Array | None = None,
) -> jax.Array:
  """Returns the classes that a judge sees.

  Args:
    model: of the judge.
    params: of one judge.
    images: `[B, H, W, C]` in [0, 1].
    key: switches dropout on.

  Returns:
    `[B]` int.
  """
  logits = model.apply(
      {'params': params},
      images,
      train=key is not None,
      rngs=None if key is None else {'dropout': key},
  )
  return jnp.argmax(logits, axis=-1)


def default_directory(
    dataset: str, data_dir: str | os.PathLike[str] | None
) -> str:
  """Returns where the judges of a data set are, unless a flag says else.

  Args:
    dataset: name of the data set.
    data_dir: see `registry.load`.

  Returns:
    A path; `arrays`, which is another set in every file, has one for each.

  Raises:
    InputError: if such a file is not usable.
  """
  if dataset != registry.ARRAYS:
    return f'runs/judge_{dataset}'
  test = registry.load(
      dataset, 'test', data_dir=data_dir, image_shape=None
  )
  return f'runs/judge_{dataset}_{test.fingerprint}'


def identify(dataset: str, test: registry.Dataset) -> str:
  """Returns what judges of a data set keep as its name.

  Args:
    dataset: name of the data set.
    test: its test split.
  """
  if dataset != registry.ARRAYS:
    return dataset
  # Any file has this name.
  return f'{dataset} of fingerprint {test.fingerprint}'


def restore_or_train(
    directory: str | os.PathLike[str],
    dataset: str,
    data_dir: str | os.PathLike[str] | None,
    *,
    image_shape: tuple[int, int, int] | None = registry.IMAGE_SHAPE,
    seeds: tuple[int, ...] | None = None,
    epochs: int | None = None,
) -> Judges:
  """Restores the judges of a directory, or trains and saves them.

  They are trained without the validation split, so that it is new to them.

  Args:
    directory: where they are or will be.
    dataset: name of the data set that they are for.
    data_dir: see `registry.load`.
    image_shape: (H, W, C) that the images must have, None for any.
    seeds: one judge each; None takes those that are there, or 0, 1, 2.
    epochs: passes over the data; None takes any, or 10.

  Returns:
    Judges.

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
  data = load('train_minus_validation')
  judges = train(
      dataset,
      data.num_classes,
      data.images,
      data.labels,
      test_images=test.images,
      test_labels=test.labels,
      seeds=seeds or (0, 1, 2),
      epochs=epochs or 10,
  )
  save(directory, judges)
  return judges


def train(
    dataset: str,
    num_classes: int,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    seeds: tuple[int, ...],
    epochs: int,
    batch_size: int = 128,
) -> Judges:
  """Trains judges of several seeds in one program.

  Cross-entropy, Adam with a learning rate that falls from 1e-3 to 0 by a
  cosine.

  Args:
    dataset: name of the data set, stored with them.
    num_classes: of the labels.
    images: `[M, H, W, C]` uint8.
    labels: `[M]` int.
    test_images: `[M', H, W, C]` uint8, for their accuracy alone.
    test_labels: `[M']` int.
    seeds: one judge each.
    epochs: passes over the data.
    batch_size: of a step.

  Returns:
    Judges.

  Raises:
    InputError: if there are fewer images than a batch has.
  """
  if len(images) < batch_size:
    raise errors.InputError(
        f'--dataset={dataset} has {len(images)} training images, fewer than a'
        f' batch of the judges; accepted: {batch_size} or more.'
    )
  train_all = jax.jit(
      jax.vmap(
          functools.partial(
              _train_one,
              model=autoencoders.MlpJudge(num_classes),
              epochs=epochs,
              batch_size=batch_size,
          ),
          in_axes=(0, None, None),
      )
  )
  params = jax.device_get(
      train_all(jnp.array(seeds), jnp.asarray(images), jnp.asarray(labels))
  )
  judges = Judges(
      num_classes=num_classes,
      image_shape=tuple(images.shape[1:]),
      dataset=dataset,
      seeds=tuple(seeds),
      epochs=epochs,
      params=params,
      accuracy=(),
      sha256=checkpoints.hash_tree(params),
  )
  accuracy = jax.jit(
      jax.vmap(
          lambda params, images, labels: class_swaps.compute_accuracy(
              functools.partial(classify, judges.model, params), images, labels
          ),
          in_axes=(0, None, None),
      )
  )(params, jnp.asarray(test_images), jnp.asarray(test_labels))
  return dataclasses.replace(
      judges, accuracy=tuple(float(a) for a in accuracy)
  )


def save(directory: str | os.PathLike[str], judges: Judges) -> None:
  """Saves judges to a directory, whole or not at all."""
  judge_files.save(directory, judges, 'params')


def restore(
    directory: str | os.PathLike[str],
    *,
    dataset: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
) -> Judges:
  """Restores judges and checks that they fit the data.

  Args:
    directory: that `save` wrote to.
    dataset: that the judges are to judge.
    num_classes: of the data set.
    image_shape: (H, W, C) of the data set.

  Returns:
    Judges.

  Raises:
    InputError: if they were trained for other data, or cannot be read.
  """
  judges = judge_files.read(directory, Judges, 'params')
  found = (judges.dataset, judges.num_classes, judges.image_shape)
  wanted = (dataset, num_classes, tuple(image_shape))
  if found != wanted:
    describe = '{} ({} classes, images {})'.format
    raise errors.InputError(
        f'the judge in {directory} was trained for {describe(*found)};'
        f' accepted: one for {describe(*wanted)}.'
    )
  if not (
      1 <= len(judges.seeds) <= MOST_SEEDS
      and 0 <= min(judges.seeds) <= max(judges.seeds) < 2**31
  ):
    raise errors.InputError(
        f'the judges in {directory} have {len(judges.seeds)} seeds; accepted: 1'
        f' to {MOST_SEEDS}, each from 0 to 2147483647.'
    )
  template = jax.eval_shape(
      jax.vmap(functools.partial(_init, judges.model, judges.image_shape)),
      jnp.array(judges.seeds),
  )
  params = judge_files.restore_tree(directory, template)
  return dataclasses.replace(judges, params=params)


def _init(model, image_shape, seed):
  images = jnp.zeros((1, *image_shape))
  return model.init(jax.random.key(seed), images)['params']


def _train_one(seed, images, labels, *, model, epochs, batch_size):
  """Trains the judge of one seed; returns its parameters."""
  num_steps = epochs * (images.shape[0] // batch_size)
  optimizer = optax.adam(
      optax.cosine_decay_schedule(_LEARNING_RATE, num_steps)
  )

  def step(state, indices):
    # Apart from the keys of initialisation and data order.
    dropout_key = jax.random.fold_in(jax.random.key(~seed), state.step)

    def objective(params, batch_stats, batch):
      logits = model.apply(
          {'params': params},
          batch.images,
          train=True,
          rngs={'dropout': dropout_key},
      )
      loss = optax.softmax_cross_entropy_with_integer_labels(
          logits, batch.labels
      ).mean()
      return loss, ({'loss': loss}, batch_stats)

    batch = codes.Batch(batches.to_float(images[indices]), labels[indices])
    return steps.train_step(
        state, batch, objective=objective, optimizer=optimizer
    )

  def train_epoch(state, epoch):
    indices = batches.epoch_indices(seed, epoch, images.shape[0], batch_size)
    return jax.lax.scan(step, state, indices)

  params = _init(model, images.shape[1:], seed)
  state = steps.create_train_state(
      {'params': params, 'batch_stats': {}}, optimizer
  )
  state, _ = jax.lax.scan(train_epoch, state, jnp.arange(epochs))
  return state.params
