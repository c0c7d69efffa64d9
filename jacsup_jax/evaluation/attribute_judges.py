"""Face judges: classifiers that say which attributes an image shows.

The paper's judge was never released. This one is trained on the same images as
the autoencoders, kept at its best epoch on other images, and stored with its
accuracy there, attribute by attribute: a flip says little where the judge errs.
"""

from collections.abc import Callable
import dataclasses
import functools
import os
from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.core import trees
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.evaluation import judge_files
from jacsup_jax.evaluation import judge_training
from jacsup_jax.evaluation import reconstruction
from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers

# `classify(images) -> [B, K]` in {-1, +1}, of images in [-1, 1].
ClassifyFn = Callable[[jax.Array], jax.Array]

BATCH_SIZE = 64
_CHUNK_IMAGES = 4096  # read at once of a data set that is not in memory


class SignCounts(NamedTuple):
  """Agreement with labels, by attribute and by the label's sign.

  Each is `[K]` int. Counts of parts of a data set add up.
  """

  present: jax.Array
  present_correct: jax.Array
  absent: jax.Array
  absent_correct: jax.Array

  @property
  def accuracy(self) -> np.ndarray:
    """`[K]`, share of the examples whose sign is right."""
    correct = np.asarray(self.present_correct) + np.asarray(self.absent_correct)
    return correct / (np.asarray(self.present) + np.asarray(self.absent))

  @property
  def balanced_accuracy(self) -> np.ndarray:
    """`[K]`, mean of sensitivity and specificity; 0.5 of labels of one sign."""
    present, absent = np.asarray(self.present), np.asarray(self.absent)
    sensitivity = np.asarray(self.present_correct) / np.maximum(present, 1)
    specificity = np.asarray(self.absent_correct) / np.maximum(absent, 1)
    both = (present > 0) & (absent > 0)
    return np.where(both, (sensitivity + specificity) / 2, 0.5)


@dataclasses.dataclass(frozen=True)
class AttributeJudge:
  """A trained judge: how it was trained, its accuracy and its variables.

  Attributes:
    attribute_names: of the K attributes that it recognises, in order.
    image_size: S, of its input: `[S, S, 3]` in [-1, 1].
    dataset: name of the one that it was trained on.
    fingerprint: of the images that it was trained on.
    seed: see `train`, as `epochs`, `batch_size` and the widths.
    best_epoch: whose weights these are, counted from 1.
    accuracy: of each attribute on the selection split.
    balanced_accuracy: mean of sensitivity and specificity of each, there.
    sha256: of the variables.
  """

  attribute_names: tuple[str, ...]
  image_size: int
  dataset: str
  fingerprint: str
  seed: int
  epochs: int
  best_epoch: int
  batch_size: int
  first_width: int
  last_width: int
  hidden: int
  accuracy: tuple[float, ...] = ()
  balanced_accuracy: tuple[float, ...] = ()
  sha256: str = ''
  variables: codes.Variables = dataclasses.field(default_factory=dict)

  @property
  def module(self) -> classifiers.AttributeJudge:
    """The network."""
    return classifiers.AttributeJudge(
      len(self.attribute_names),
      self.image_size,
      self.first_width,
      self.last_width,
      self.hidden,
    )

  def judge(self, images: jax.Array) -> jax.Array:
    """Returns the signs `[B, K]` of `[B, S, S, 3]` images in [-1, 1]."""
    return classify(self.module, self.variables, images)

  def describe(self) -> dict[str, Any]:
    """Returns what identifies the judge, for results.json."""
    names = (
        'dataset', 'fingerprint', 'attribute_names', 'image_size', 'seed',
        'epochs', 'best_epoch', 'accuracy', 'balanced_accuracy', 'sha256',
    )  # fmt: skip
    return {name: getattr(self, name) for name in names}


def classify(
  module: nn.Module, variables: codes.Variables, images: jax.Array
) -> jax.Array:
  """Returns the signs `[B, K]` that a judge sees in images in [-1, 1]."""
  return jnp.where(module.apply(variables, images) > 0, 1, -1)


def count_correct(
  classify_fn: ClassifyFn,
  images: jax.Array,
  attributes: jax.Array,
  transform: Callable[[jax.Array, jax.Array], Any] = lambda x, _: x,
  *,
  batch_size: int = BATCH_SIZE,
) -> SignCounts:
  """Counts how often a judge is right, also about reconstructions.

  Args:
    classify_fn: the judge, or another function to signs of attributes.
    images: `[M, S, S, 3]` uint8.
    attributes: `[M, K]` int in {-1, +1}.
    transform: (images in [-1, 1], labels) -> what is judged.
    batch_size: images that are judged at once.
  """
  chex.assert_rank(attributes, 2)
  chex.assert_equal_shape_prefix([images, attributes], 1)

  def count(batch_images, labels, counted):
    seen = classify_fn(transform(batches.to_signed_float(batch_images), labels))
    chex.assert_equal_shape([seen, labels])
    correct = seen == labels
    present = counted[:, None] & (labels > 0)
    absent = counted[:, None] & (labels < 0)
    masks = (present, present & correct, absent, absent & correct)
    return SignCounts(*(jnp.sum(mask, axis=0) for mask in masks))

  return reconstruction.sum_batches(count, (images, attributes), batch_size)


def compute_accuracy(
  judge: AttributeJudge, data: registry.Dataset
) -> SignCounts:
  """Counts how often a judge is right on a data set, by attribute."""
  return _count_over_parts(judge.module, judge.variables, data)


def default_directory(dataset: str, image_size: int) -> str:
  """Returns the default directory of the judge of a data set."""
  return f'runs/attribute_judge_{dataset}_{image_size}'


def restore_or_train(
  directory: str | os.PathLike[str],
  data: registry.Dataset,
  selection: registry.Dataset,
  *,
  report: judge_training.Report | None = None,
  **settings: Any,
) -> AttributeJudge:
  """Restores the judge of a directory, or trains and saves one.

  Args:
    directory: where it is or will be.
    data: to train on.
    selection: other images, on which the epoch is chosen.
    report: called after every epoch of training.
    **settings: arguments of `train`, which an existing judge must match.

  Raises:
    InputError: if an existing judge is for other data or was trained otherwise;
      if the directory holds something else.
  """
  if judge_files.exist(directory):
    judge = restore(
      directory,
      attribute_names=data.attribute_names,
      image_size=data.image_shape[0],
      dataset=data.name,
    )
    for name, wanted in {**settings, 'fingerprint': data.fingerprint}.items():
      found = getattr(judge, name)
      if wanted != found:
        raise errors.InputError(
          f'the judge in {directory} was trained with {name} {found}, asked'
          f' for is {wanted}; accepted: the same, or another directory.'
        )
    return judge
  judge_files.check_free(directory)
  judge = train(data, selection, report=report, **settings)
  save(directory, judge)
  return judge


def train(
  data: registry.Dataset,
  selection: registry.Dataset,
  *,
  seed: int = 0,
  epochs: int = 10,
  batch_size: int = 128,
  first_width: int = 32,
  last_width: int = 512,
  hidden: int = 512,
  report: judge_training.Report | None = None,
) -> AttributeJudge:
  """Trains a judge and keeps its best epoch.

  Sigmoid cross-entropy, averaged over attributes; Adam with a learning rate
  that falls from 1e-3 to 0 by a cosine; images mirrored with chance 1/2. The
  best epoch, the first of equals, has the highest accuracy on the selection.

  Args:
    data: to train on.
    selection: other images, with the same attributes.
    seed: of initialisation, data order and mirroring.
    epochs: of training.
    batch_size: of a step.
    first_width: see `classifiers.AttributeJudge`, as the next two.
    last_width: of the network.
    hidden: of the network.
    report: called after every epoch.

  Raises:
    InputError: if the two data sets differ in attributes.
  """
  if data.attribute_names != selection.attribute_names:
    raise errors.InputError(
      f'{data.split} has the attributes {", ".join(data.attribute_names)},'
      f' {selection.split} has {", ".join(selection.attribute_names)};'
      ' accepted: the same.'
    )
  best = AttributeJudge(
      data.attribute_names, data.image_shape[0], data.name, data.fingerprint,
      seed, epochs, 0, batch_size, first_width, last_width, hidden,
  )  # fmt: skip
  best_accuracy = -1.0
  for epoch, (variables, loss) in enumerate(_train_epochs(best, data), start=1):
    counts = _count_over_parts(best.module, variables, selection)
    accuracy = float(np.mean(counts.accuracy))
    if accuracy > best_accuracy:
      best_accuracy = accuracy
      best = dataclasses.replace(
        best,
        best_epoch=epoch,
        accuracy=tuple(counts.accuracy.tolist()),
        balanced_accuracy=tuple(counts.balanced_accuracy.tolist()),
        # Copies: the next step takes over the buffers of this state.
        variables=jax.tree.map(np.array, variables),
      )
    if report is not None:
      report(epoch, epochs, {'loss': loss, 'accuracy': accuracy})
  best_sha256 = trees.hash_tree(best.variables)
  return dataclasses.replace(best, sha256=best_sha256)


def save(directory: str | os.PathLike[str], judge: AttributeJudge) -> None:
  """Saves a judge to a directory, whole or not at all."""
  judge_files.save(directory, judge, 'variables')


def restore(
  directory: str | os.PathLike[str],
  *,
  attribute_names: tuple[str, ...],
  image_size: int,
  dataset: str,
) -> AttributeJudge:
  """Restores a judge; InputError if it is damaged or for other data.

  Args:
    directory: that `save` wrote to.
    attribute_names: that it must recognise, in this order.
    image_size: S, of the images to judge.
    dataset: name of the one to judge.
  """
  judge = judge_files.read(directory, AttributeJudge, 'variables')
  for name, found, wanted in (
    ('attributes', judge.attribute_names, tuple(attribute_names)),
    ('image_size', judge.image_size, image_size),
    ('dataset', judge.dataset, dataset),
  ):
    if found != wanted:
      show = lambda x: ','.join(x) if isinstance(x, tuple) else x
      raise errors.InputError(
        f'the judge in {directory} was trained for --{name}={show(found)};'
        f' accepted: one for --{name}={show(wanted)}.'
      )
  return judge


def _train_epochs(judge, data):
  """Yields the variables after each epoch, and its mean loss."""
  module, seed, batch_size = judge.module, judge.seed, judge.batch_size
  num_steps = judge.epochs * batches.count_steps(len(data), batch_size)
  optimizer = judge_training.make_optimizer(num_steps)
  variables = autoencoders.init_variables(module, seed)
  state = judge_training.TrainState(
    jnp.zeros((), jnp.int32),
    **variables,
    opt_state=optimizer.init(variables['params']),
  )
  train_steps = jax.jit(
    functools.partial(
      _train_steps, module=module, optimizer=optimizer, seed=seed
    ),
    donate_argnums=0,
  )
  resident = None
  if data.images is not None:
    resident = jax.device_put((data.images, data.labels))
  for epoch in range(judge.epochs):
    indices = batches.epoch_indices(seed, epoch, len(data), batch_size)
    losses = []
    parts = _read_parts(data, resident, np.asarray(indices))
    for images, attributes, part in parts:
      state, loss = train_steps(state, images, attributes, part)
      losses.append(np.asarray(loss))
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    yield variables, float(np.mean(np.concatenate(losses)))


def _train_steps(
  state, images, attributes, indices, *, module, optimizer, seed
):
  """Takes a step per row of `[steps, B]` indices into `[M, ...]` arrays."""

  def step(state, batch_indices):
    mirrored = batches.mirror(
      jnp.take(images, batch_indices, axis=0),
      batches.step_mirror(seed, state.step, batch_indices.size),
    )
    batch_images = batches.to_signed_float(mirrored)
    labels = jnp.take(attributes, batch_indices, axis=0)

    def objective(params, batch_stats):
      logits, updated = module.apply(
        {'params': params, 'batch_stats': batch_stats},
        batch_images,
        train=True,
        mutable=['batch_stats'],
      )
      present = (labels > 0).astype(logits.dtype)
      loss = optax.sigmoid_binary_cross_entropy(logits, present).mean()
      return loss, updated['batch_stats']

    return judge_training.take_step(state, objective, optimizer)

  return jax.lax.scan(step, state, indices)


def _read_parts(data, resident, indices):
  """Yields images, attributes and `[steps, B]` indices into them."""
  if resident is not None:
    yield *resident, indices
    return
  steps = max(1, _CHUNK_IMAGES // indices.shape[1])
  for start in range(0, indices.shape[0], steps):
    part = indices[start : start + steps]
    images, attributes = data.read(part.ravel())
    yield images, attributes, np.arange(part.size).reshape(part.shape)


def _count_over_parts(module, variables, data):
  """Sums the counts of the parts of a data set; one part fits in memory."""
  parts = [(data.images, data.labels)]
  if data.images is None:
    starts = range(_CHUNK_IMAGES, len(data), _CHUNK_IMAGES)
    parts = map(data.read, np.split(np.arange(len(data)), starts))
  parts = [jax.device_get(_count(module, variables, *part)) for part in parts]
  return jax.tree.map(lambda *x: sum(np.asarray(n) for n in x), *parts)


@functools.partial(jax.jit, static_argnums=0)
def _count(module, variables, images, attributes):
  return count_correct(
    functools.partial(classify, module, variables), images, attributes
  )
