"""Judges of classes: classifiers of three families, which say what an image is.

A swap is worth what judges of other kinds confirm: perceptrons as the released
code uses (`mlp`), convolutional networks trained with shifted and blurred
images (`cnn`), both an ensemble over seeds, and a support vector machine
(`svm`, see `svm_judge`). None takes part in training a model.

Judges see batches `[n, B, H, W, C]` of images in [0, 1], and say `[N, n, B]`
classes, N judges of a family.
"""

from collections.abc import Callable
import dataclasses
import functools
import os
import pathlib
from typing import Any, ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.evaluation import judges
from jacsup_jax.evaluation import svm_judge
from jacsup_jax.models import classifiers
from jacsup_jax.models import model as models

# `NetworkJudges`, or what has these attributes and methods.
ClassJudges = Any

NETWORKS = {'mlp': classifiers.MlpJudge, 'cnn': classifiers.CnnJudge}
FAMILIES = (*NETWORKS, 'svm')
SEEDS = (0, 1, 2)
_SMOOTHING = 0.1
_BATCH_SIZES = {'mlp': judges.BATCH_SIZE, 'cnn': 64}
# A judge that is right less often on real test images is refused. Of other
# data sets no value is known; results.json has the accuracy of their judges.
_OF_DIGITS = {'mlp': 0.975, 'cnn': 0.992, 'svm': 0.975}
LOWEST_ACCURACY = {'mnist_embedded': _OF_DIGITS, 'mnist': _OF_DIGITS}


@dataclasses.dataclass(frozen=True)
class NetworkJudges:
  """An ensemble of N networks of one family, of (H, W, C) images in [0, 1].

  Leaves of `variables` are stacked, `[N, ...]`; `accuracy` is that of each
  judge on the test split; `sha256` is that of the variables.
  """

  tree: ClassVar[str] = 'variables'
  family: str
  num_classes: int
  image_shape: tuple[int, int, int]
  dataset: str
  seeds: tuple[int, ...]
  epochs: int
  variables: codes.Variables
  accuracy: tuple[float, ...]
  sha256: str

  @property
  def module(self) -> nn.Module:
    """The network."""
    return make_network(self.family, self.num_classes, self.image_shape)

  def describe(self) -> dict[str, Any]:
    """Returns what identifies the judges, for results.json."""
    names = ('family', 'dataset', 'seeds', 'epochs', 'accuracy', 'sha256')
    return {name: getattr(self, name) for name in names}

  def classify(
    self, images: jax.Array, keys: jax.Array | None = None
  ) -> np.ndarray:
    """Returns the classes `[N, n, B]`; a key a batch switches dropout on."""
    return np.asarray(_classify(self.module, self.variables, images, keys))

  def features(self, images: jax.Array) -> np.ndarray:
    """Returns the inputs `[n, B, F]` of the last layer of the first judge."""
    first = jax.tree.map(lambda x: x[0], self.variables)
    return np.asarray(_extract(self.module, first, images))


def make_network(
  family: str, num_classes: int, image_shape: tuple[int, int, int]
) -> nn.Module:
  """Makes the network of a family."""
  return NETWORKS[family](num_classes, image_shape=image_shape)


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
  report: judges.Report | None = None,
  announce: Callable[[str], None] = lambda line: None,
) -> tuple[ClassJudges, ...]:
  """Restores the judges of all families, or trains and saves those missing.

  Each family has a folder of the directory. They are trained without the
  validation split, so that it is new to them. None accepts any seeds, epochs
  and image shape, and trains three networks a family, of 10 epochs;
  convolutional ones take half of the epochs. `announce` receives a line for
  each family.

  Raises:
    InputError: if those that are there are for other data, seeds or epochs, if
      the data have one class, or if judges are right less often on real images
      than is known to be possible (`LOWEST_ACCURACY`).
  """
  load = functools.cache(
    functools.partial(
      registry.load, dataset, data_dir=data_dir, image_shape=image_shape
    )
  )
  test = load('test')
  judges.check_labels(test)
  found = []
  for family in FAMILIES:
    own = pathlib.Path(directory) / family
    announce(f'{family} judges in {own}, trained if missing')
    make, wanted = _choose(family, seeds, epochs, report)
    wanted |= {
      'family': family,
      'dataset': identify(dataset, test),
      'num_classes': test.num_classes,
      'image_shape': tuple(test.images.shape[1:]),
    }

    def make_and_check(make=make, name=wanted['dataset']):
      made = make(name, load('train_minus_validation'), test)
      check_accuracy(made)
      return made

    cls = NetworkJudges if family in NETWORKS else svm_judge.SvmJudge
    one = judges.restore_or_make(own, cls, make_and_check, **wanted)
    check_accuracy(one)
    found.append(one)
  return tuple(found)


def _choose(family, seeds, epochs, report):
  """Returns what trains judges of a family, and what others must have."""
  if family not in NETWORKS:
    return svm_judge.train, {}
  asked = {'seeds': seeds, 'epochs': epochs and _halve(family, epochs)}
  usual = {'seeds': SEEDS, 'epochs': _halve(family, judges.EPOCHS)}
  asked = {name: value for name, value in asked.items() if value is not None}
  make = functools.partial(train, family, report=report, **usual | asked)
  return make, asked


def check_accuracy(found: ClassJudges) -> None:
  """Raises InputError if judges are below what is known of their data."""
  lowest = LOWEST_ACCURACY.get(found.dataset, {}).get(found.family, 0.0)
  accuracy = min(found.accuracy)
  if accuracy < lowest:
    raise errors.InputError(
      f'a judge of the family {found.family} is right on {accuracy:.2%} of the'
      f' real test images of {found.dataset}; accepted: {lowest:.2%} or more.'
    )


def train(
  family: str,
  dataset: str,
  data: registry.Dataset,
  test: registry.Dataset,
  *,
  seeds: tuple[int, ...],
  epochs: int,
  batch_size: int | None = None,
  report: judges.Report | None = None,
) -> NetworkJudges:
  """Trains networks of several seeds.

  By cross-entropy and Adam, with a learning rate that falls to 0 by a cosine.
  Perceptrons have dropout, a rate from 1e-3 and batches of 128; convolutional
  networks batches of 64, smoothed labels, a rate that first rises to 3e-3, and
  images that are shifted by up to a 28th of their side and, each with chance
  1/2, blurred: autoencoders blur, and a judge should not go by noise. `dataset`
  is the name that they store, and `test` is for their accuracy alone.
  InputError if there are fewer images than a batch has, or labels of one class.
  """
  batch_size = batch_size or _BATCH_SIZES[family]
  if len(data) < batch_size:
    raise errors.InputError(
      f'--dataset={dataset} has {len(data)} training images, fewer than a'
      f' batch of the judges; accepted: {batch_size} or more.'
    )
  judges.check_labels(data)
  shape = tuple(data.images.shape[1:])
  module = make_network(family, data.num_classes, shape)
  num_steps = epochs * batches.count_steps(len(data), batch_size)
  # Perceptrons are trained at once; vmapped convolutions are slow on CPUs.
  at_once = family == 'mlp'
  groups = [jnp.asarray(seeds)] if at_once else list(seeds)
  init, train_epoch = _make_programs(module, num_steps, batch_size, at_once)
  arrays = [jnp.asarray(x) for x in (data.images, data.labels)]
  parts = []
  for i, group in enumerate(groups):
    state = init(group)
    for epoch in range(epochs):
      state, loss = train_epoch(state, group, epoch, *arrays)
      if report is not None:
        done, total = i * epochs + epoch + 1, len(groups) * epochs
        report(done, total, {'loss': float(np.mean(loss))})
    own = {'params': state.params, 'batch_stats': state.batch_stats}
    parts.append(jax.device_get(own))
  join = lambda *own: np.concatenate(own) if at_once else np.stack(own)
  variables = jax.tree.map(join, *parts)
  # The hash of perceptrons is that of their parameters: they have no more.
  hashed = variables if variables['batch_stats'] else variables['params']
  made = NetworkJudges(
      family, data.num_classes, shape, dataset, tuple(seeds), epochs, variables,
      (), codes.hash_tree(hashed),
  )  # fmt: skip
  accuracy = tuple(
    judges.compute_accuracy(made, test.images, test.labels).tolist()
  )
  return dataclasses.replace(made, accuracy=accuracy)


def augment(
  images: jax.Array, seed: batches.Int, step: batches.Int
) -> jax.Array:
  """Shifts and blurs `[B, H, W, C]` uint8 images as `train` does.

  Returns float32 in [0, 1], a function of (images, seed, step).
  """
  # Imported here: judges are trained once.
  from jacsup_jax.data import augmentation

  count, height, width, _ = images.shape
  limit = -(-min(height, width) // 28)
  images = augmentation.shift(
    images, batches.step_shifts(seed, step, count, limit)
  )
  images = batches.to_float(images)
  return augmentation.blur(images, batches.step_blur(seed, step, count))


def _halve(family, epochs):
  """Returns the epochs of a family: convolutional judges take half as many."""
  return -(-epochs // 2) if family == 'cnn' else epochs


@functools.partial(jax.jit, static_argnums=0)
def _classify(module, variables, images, keys):
  def by_one(own):
    def see(args):
      batch, key = args
      is_noisy = key is not None
      rngs = {'dropout': key} if is_noisy else None
      logits = module.apply(own, batch, train=is_noisy, rngs=rngs)
      return jnp.argmax(logits, axis=-1)

    return jax.lax.map(see, (images, keys))

  if isinstance(module, classifiers.MlpJudge):
    return jax.vmap(by_one)(variables)  # They share what dropout draws.
  return jax.lax.map(by_one, variables)


@functools.partial(jax.jit, static_argnums=0)
def _extract(module, variables, images):
  look = functools.partial(module.apply, variables, method='features')
  return jax.lax.map(look, images)


def _make_programs(module, num_steps, batch_size, at_once):
  """Makes jitted functions that start judges and train them for an epoch.

  They take a seed, or if judges are trained at once an array of seeds.
  """
  optimizer, compute_loss = judges.make_optimizer(num_steps), _compute_loss
  if isinstance(module, classifiers.CnnJudge):
    schedule = optax.warmup_cosine_decay_schedule(
      3e-4, 3e-3, num_steps // 10, num_steps
    )
    optimizer, compute_loss = optax.adam(schedule), _compute_augmented_loss

  def init(seed):
    images = jnp.zeros((1, *module.image_shape))
    variables = module.init(jax.random.key(seed), images)
    params, stats = variables['params'], variables.get('batch_stats', {})
    step = jnp.zeros((), jnp.int32)
    return judges.TrainState(step, params, stats, optimizer.init(params))

  def train_epoch(state, seed, epoch, images, labels):
    objective = functools.partial(compute_loss, module, seed)
    indices = batches.epoch_indices(seed, epoch, images.shape[0], batch_size)
    return judges.take_steps(
      objective, optimizer, state, images, labels, indices
    )

  if at_once:
    # Counters are shared by the judges: only arrays have an axis of seeds.
    state = jax.eval_shape(init, 0)
    axes = jax.tree.map(lambda x: 0 if x.shape else None, state)
    init = jax.vmap(init, out_axes=axes)
    own = axes, 0, None, None, None
    train_epoch = jax.vmap(train_epoch, in_axes=own, out_axes=(axes, 0))
  return jax.jit(init), jax.jit(train_epoch, donate_argnums=0)


def _compute_loss(module, seed, params, batch_stats, step, images, labels):
  # Independent of the keys of initialisation and data order.
  key = jax.random.fold_in(jax.random.key(~seed), step)
  inputs = {'params': params}, batches.to_float(images)
  logits = module.apply(*inputs, train=True, rngs={'dropout': key})
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return losses.mean(), batch_stats


def _compute_augmented_loss(
  module, seed, params, batch_stats, step, images, labels
):
  logits, batch_stats = models.apply_train(
    module, params, batch_stats, '__call__', augment(images, seed, step)
  )
  likely = jax.nn.one_hot(labels, logits.shape[-1])
  losses = optax.softmax_cross_entropy(
    logits, optax.smooth_labels(likely, _SMOOTHING)
  )
  return losses.mean(), batch_stats
