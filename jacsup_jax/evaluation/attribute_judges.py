"""Face judges: classifiers that say which attributes an image shows.

There are two kinds, of different architectures, as a flip is worth what an
independent judge confirms. Each is kept at its best epoch on other images than
it is trained on, and stored with its accuracy there, attribute by attribute: a
flip says little where it errs.
"""

from collections.abc import Callable
import dataclasses
import functools
import os
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import augmentation
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.evaluation import judges
from jacsup_jax.evaluation import reconstruction
from jacsup_jax.evaluation import thresholds
from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers
from jacsup_jax.models import model as models

# `classify(images) -> [B, K]` in {-1, +1}, of images in [-1, 1].
ClassifyFn = Callable[[jax.Array], jax.Array]
Kind = Literal['strided', 'residual', 'robust']

KINDS: tuple[Kind, ...] = ('strided', 'residual')
# Not a judge: what the edit check of training goes by.
ROBUST: Kind = 'robust'
# Root of the mean square of the perturbations of images in [-1, 1].
_PERTURBATION = 0.027
# A label that is rarer than 1 in 10 has no more weight than one of 1 in 10.
_LARGEST_WEIGHT = 5.0
BATCH_SIZE = 64
_CHUNK_IMAGES = 4096  # read at once of a data set that is not in memory


class SignCounts(NamedTuple):
  """Agreement with labels by attribute, `[..., K]` int, and by label's sign."""

  present: jax.Array
  present_correct: jax.Array
  absent: jax.Array
  absent_correct: jax.Array

  @property
  def accuracy(self) -> np.ndarray:
    """`[K]`, share of the examples whose sign is right."""
    present, right, absent, right_absent = map(np.asarray, self)
    return (right + right_absent) / (present + absent)

  @property
  def balanced_accuracy(self) -> np.ndarray:
    """`[K]`, mean of sensitivity and specificity; 0.5 of labels of one sign."""
    present, right, absent, right_absent = map(np.asarray, self)
    sensitivity = right / np.maximum(present, 1)
    specificity = right_absent / np.maximum(absent, 1)
    both = (present > 0) & (absent > 0)
    return np.where(both, (sensitivity + specificity) / 2, 0.5)


@dataclasses.dataclass(frozen=True)
class AttributeJudge:
  """A trained judge of K attributes, in order, on `[S, S, 3]` in [-1, 1]."""

  tree: ClassVar[str] = 'variables'
  kind: Kind
  attribute_names: tuple[str, ...]
  image_size: int
  dataset: str
  fingerprint: str  # of the training images
  seed: int
  epochs: int
  best_epoch: int  # that of its weights, from 1
  batch_size: int
  first_width: int
  last_width: int
  hidden: int  # unused by a residual judge
  # By attribute, on the selection split.
  accuracy: tuple[float, ...] = ()
  balanced_accuracy: tuple[float, ...] = ()
  sha256: str = ''
  variables: codes.Variables = dataclasses.field(default_factory=dict)

  @property
  def module(self) -> nn.Module:
    """The network."""
    sizes = self.image_size, self.first_width, self.last_width
    sizes = len(self.attribute_names), *sizes
    if self.kind == 'residual':
      return classifiers.ResidualAttributeJudge(*sizes)
    return classifiers.AttributeJudge(*sizes, self.hidden)

  def describe(self) -> dict[str, Any]:
    """Returns what identifies the judge, for results.json."""
    names = (
        'kind', 'dataset', 'fingerprint', 'attribute_names', 'image_size',
        'seed', 'epochs', 'best_epoch', 'accuracy', 'balanced_accuracy',
        'sha256',
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
) -> SignCounts:
  """Counts how often a judge is right of `[M, S, S, 3]` uint8 images.

  `transform` makes (images in [-1, 1], `[M, K]` attributes) what is judged.
  """

  def count(batch_images, labels, counted):
    seen = classify_fn(transform(batches.to_signed_float(batch_images), labels))
    # Several judges see `[J, B, K]`.
    labels = jnp.broadcast_to(labels, seen.shape)
    counted = jnp.broadcast_to(counted[:, None], seen.shape)
    correct = seen == labels
    present, absent = counted & (labels > 0), counted & (labels < 0)
    masks = (present, present & correct, absent, absent & correct)
    return SignCounts(*(jnp.sum(mask, axis=-2) for mask in masks))

  return reconstruction.sum_batches(count, (images, attributes), BATCH_SIZE)


def compute_accuracy(
  judge: AttributeJudge, data: registry.Dataset
) -> SignCounts:
  """Counts how often a judge is right on a data set, by attribute."""
  return _count_signs(_compute_logits(judge, data) > 0, data.labels)


def default_directory(dataset: str, image_size: int, kind: Kind) -> str:
  """Returns the default directory of a judge of a data set."""
  return f'runs/attribute_judges_{dataset}_{image_size}/{kind}'


def restore_or_train(
  directory: str | os.PathLike[str],
  data: registry.Dataset,
  selection: registry.Dataset,
  *,
  kind: Kind,
  report: judges.Report | None = None,
  **settings: Any,
) -> AttributeJudge:
  """Restores the judge of a directory, or trains and saves one by `train`.

  InputError if an existing judge is for other data, of another kind, or of
  other settings.
  """
  return judges.restore_or_make(
    directory,
    AttributeJudge,
    lambda: train(data, selection, kind=kind, report=report, **settings),
    kind=kind,
    attribute_names=data.attribute_names,
    image_size=data.image_shape[0],
    dataset=data.name,
    fingerprint=data.fingerprint,
    **settings,
  )


def train(
  data: registry.Dataset,
  selection: registry.Dataset,
  *,
  kind: Kind,
  seed: int = 0,
  epochs: int = 10,
  batch_size: int = 128,
  first_width: int = 32,
  last_width: int = 512,
  hidden: int = 512,
  report: judges.Report | None = None,
) -> AttributeJudge:
  """Trains a judge and keeps its best epoch.

  Sigmoid cross-entropy, averaged over attributes; Adam with a learning rate
  that falls from 1e-3 to 0 by a cosine. Images are mirrored with chance 1/2,
  shifted by up to S / 16 pixels, and blurred with chance 1/2, so that a judge
  does not go by noise that autoencoders blur.

  Trained for likelihood, a judge would call rare attributes absent nearly
  always. So its last biases are moved to where the balanced accuracy on the
  selection is best, by attribute; the best epoch, the first of equals, has the
  highest then.

  A robust one, of the network of a strided judge, sees images that are changed
  to mislead it (Madry et al., 2018), so that its gradients change what people
  see (Santurkar et al., 2019); rare labels weigh more. InputError for an
  unknown kind, or if the two data sets differ in attributes.
  """
  if kind not in get_args(Kind):
    accepted = ', '.join(get_args(Kind))
    raise errors.InputError(f'{kind=}; accepted: {accepted}.')
  if data.attribute_names != selection.attribute_names:
    raise errors.InputError(
      f'{data.split} has the attributes {", ".join(data.attribute_names)},'
      f' {selection.split} has {", ".join(selection.attribute_names)};'
      ' accepted: the same.'
    )
  best = AttributeJudge(
      kind, data.attribute_names, data.image_shape[0], data.name,
      data.fingerprint, seed, epochs, 0, batch_size, first_width, last_width,
      hidden,
  )  # fmt: skip
  best_accuracy = -1.0
  for epoch, (variables, loss) in enumerate(_train_epochs(best, data), start=1):
    judge = dataclasses.replace(best, best_epoch=epoch, variables=variables)
    logits = _compute_logits(judge, selection)
    levels = thresholds.choose_thresholds(logits, selection.labels)
    counts = _count_signs(logits >= levels, selection.labels)
    accuracy = float(np.mean(counts.balanced_accuracy))
    if accuracy > best_accuracy:
      best_accuracy = accuracy
      # A copy: the next step takes over the buffers of this state.
      variables = jax.tree.map(np.array, variables)
      variables['params']['logits']['bias'] -= levels
      best = dataclasses.replace(judge, variables=variables)
    if report is not None:
      report(epoch, epochs, {'loss': loss, 'accuracy': accuracy})
  return _describe_accuracy(best, selection)


def augment(
  images: jax.Array, seed: batches.Int, step: batches.Int
) -> jax.Array:
  """Mirrors, shifts and blurs `[B, S, S, 3]` uint8 images as `train` does.

  Returns float32 in [-1, 1], a function of (images, seed, step).
  """
  count, size = images.shape[:2]
  images = augmentation.mirror(images, batches.step_mirror(seed, step, count))
  shifts = batches.step_shifts(seed, step, count, size // 16)
  images = batches.to_signed_float(augmentation.shift(images, shifts))
  return augmentation.blur(images, batches.step_blur(seed, step, count))


def _train_epochs(judge, data):
  """Yields the variables after each epoch, and its mean loss."""
  seed, batch_size = judge.seed, judge.batch_size
  num_steps = judge.epochs * batches.count_steps(len(data), batch_size)
  optimizer = judges.make_optimizer(num_steps)
  start = autoencoders.init_variables(judge.module, seed)
  opt_state = jax.jit(optimizer.init)(start['params'])
  state = judges.TrainState(jnp.int32(0), **start, opt_state=opt_state)
  compute_loss, module = _compute_loss, judge.module
  if judge.kind == ROBUST:
    weights = _weigh_labels(data.labels)
    compute_loss = functools.partial(_compute_robust_loss, weights)
  objective = functools.partial(compute_loss, module, seed)
  take_steps = jax.jit(
    functools.partial(judges.take_steps, objective, optimizer),
    donate_argnums=0,
  )
  resident = data.images is not None and jax.device_put(
    (data.images, data.labels)
  )
  for epoch in range(judge.epochs):
    indices = batches.epoch_indices(seed, epoch, len(data), batch_size)
    losses = []
    for part in _read_parts(data, resident, np.asarray(indices)):
      state, loss = take_steps(state, *part)
      losses.append(np.asarray(loss))
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    yield variables, float(np.mean(np.concatenate(losses)))


def _compute_loss(module, seed, params, batch_stats, step, images, labels):
  logits, batch_stats = models.apply_train(
    module, params, batch_stats, '__call__', augment(images, seed, step)
  )
  present = (labels > 0).astype(logits.dtype)
  loss = optax.sigmoid_binary_cross_entropy(logits, present).mean()
  return loss, batch_stats


def _compute_robust_loss(
  weights, module, seed, params, batch_stats, step, images, labels
):
  """Computes the weighted loss of images changed to make it large.

  Changes are one step along its gradient from a random start, in a ball of
  `_PERTURBATION`.
  """
  present = (labels > 0).astype(jnp.float32)
  balance = jnp.where(labels > 0, weights[1], weights[0])
  images = augment(images, seed, step)

  def compute(params, images):
    logits, stats = models.apply_train(
      module, params, batch_stats, '__call__', images
    )
    loss = optax.sigmoid_binary_cross_entropy(logits, present)
    return jnp.mean(balance * loss), stats

  start = batches.step_noise(seed, step, images.shape)
  change = _PERTURBATION / 2 * _normalize(start)
  slope = jax.grad(compute, argnums=1, has_aux=True)(params, images + change)[0]
  change += _PERTURBATION * _normalize(slope)
  length = jnp.maximum(_measure_size(change), _PERTURBATION)
  change *= _PERTURBATION / length
  return compute(params, jax.lax.stop_gradient(images + change))


def _measure_size(images):
  """Returns roots of mean squares, `[B, 1, 1, 1]`."""
  return jnp.sqrt(jnp.mean(jnp.square(images), axis=(1, 2, 3), keepdims=True))


def _normalize(images):
  return images / jnp.maximum(_measure_size(images), 1e-12)


def _weigh_labels(labels):
  """Returns weights `[2, K]` of absent and present that balance the two."""
  present = np.mean(labels > 0, axis=0)
  shares = np.maximum(np.stack([1 - present, present]), 1e-12)
  return np.minimum(0.5 / shares, _LARGEST_WEIGHT).astype(np.float32)


def _read_parts(data, resident, indices):
  """Yields images, attributes and `[steps, B]` indices into them."""
  if resident:
    yield *resident, indices
    return
  steps = max(1, _CHUNK_IMAGES // indices.shape[1])
  for start in range(0, indices.shape[0], steps):
    part = indices[start : start + steps]
    images, attributes = data.read(part.ravel())
    yield images, attributes, np.arange(part.size).reshape(part.shape)


def _describe_accuracy(judge, selection):
  """Returns a trained judge with what it states of itself."""
  counts = compute_accuracy(judge, selection)
  return dataclasses.replace(
    judge,
    accuracy=tuple(counts.accuracy.tolist()),
    balanced_accuracy=tuple(counts.balanced_accuracy.tolist()),
    sha256=codes.hash_tree(judge.variables),
  )


def _compute_logits(judge, data):
  """Returns the logits `[M, K]` of a data set."""
  parts = [(data.images, data.labels)]
  if data.images is None:
    starts = range(_CHUNK_IMAGES, len(data), _CHUNK_IMAGES)
    parts = map(data.read, np.split(np.arange(len(data)), starts))
  found = [_apply_all(judge.module, judge.variables, own) for own, _ in parts]
  return np.concatenate(jax.device_get(found))


@functools.partial(jax.jit, static_argnums=0)
def _apply_all(module, variables, images):
  apply = lambda own, _: module.apply(variables, batches.to_signed_float(own))
  logits = reconstruction.map_batches(apply, (images,), BATCH_SIZE)
  return logits.reshape(-1, logits.shape[-1])[: images.shape[0]]


def _count_signs(seen, labels):
  """Counts agreement with labels `[M, K]` of what is seen, bool."""
  present = np.asarray(labels) > 0
  masks = present, present & seen, ~present, ~present & ~seen
  return SignCounts(*(np.sum(mask, axis=0) for mask in masks))
