"""Judges of faces: classifiers that say which attributes an image shows.

The paper's judge was never released. This one is trained on the same images as
the autoencoders, kept at its best epoch on other images, and stored with its
accuracy there, attribute by attribute: a flip says little where the judge errs.
"""

from collections.abc import Callable
import dataclasses
import functools
import os

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.evaluation import attribute_flips
from jacsup_jax.evaluation import judge_files
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import checkpoints
from jacsup_jax.training import steps

# Called with the epoch, the mean loss and the mean accuracy of the selection.
Report = Callable[[int, float, float], None]

_LEARNING_RATE = 1e-3
_WIDTHS = ('first_width', 'last_width', 'hidden')
# What is read at once of a data set that is not in memory.
_CHUNK_IMAGES = 4096


@dataclasses.dataclass(frozen=True)
class AttributeJudge:
  """A trained judge.

  Attributes:
    attribute_names: of the K attributes that it tells, in order.
    image_size: S, of what it sees: `[S, S, 3]` in [-1, 1].
    dataset: name of the one that it was trained on.
    fingerprint: of the images that it was trained on.
    seed: of initialisation, data order and mirroring.
    epochs: that it was trained for.
    best_epoch: whose weights these are, counted from 1.
    batch_size: of its training.
    first_width: see `autoencoders.AttributeJudge`, as the next two.
    last_width: of the network.
    hidden: of the network.
    accuracy: of each attribute on the selection split.
    balanced_accuracy: mean of sensitivity and specificity of each, there.
    sha256: of the variables.
    variables: of the network.
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
  accuracy: tuple[float, ...]
  balanced_accuracy: tuple[float, ...]
  sha256: str
  variables: codes.Variables

  @property
  def model(self) -> autoencoders.AttributeJudge:
    return autoencoders.AttributeJudge(
        num_attributes=len(self.attribute_names),
        image_size=self.image_size,
        **{name: getattr(self, name) for name in _WIDTHS},
    )

  def judge(self, images: jax.Array) -> jax.Array:
    """Returns `[B, K]` in {-1, +1} for `[B, S, S, 3]` images in [-1, 1]."""
    return classify(self.model, self.variables, images)

  def describe(self) -> dict[str, object]:
    """Returns what identifies the judge, for results.json."""
    names = (
        'dataset', 'fingerprint', 'attribute_names', 'image_size', 'seed',
        'epochs', 'best_epoch', 'accuracy', 'balanced_accuracy', 'sha256',
    )  # pyformat: disable
    return {name: getattr(self, name) for name in names}


def classify(
    model: nn.Module, variables: codes.Variables, images: jax.Array
) -> jax.Array:
  """Returns the attributes that a judge sees.

  Args:
    model: of the judge.
    variables: of the judge.
    images: `[B, S, S, 3]` in [-1, 1].

  Returns:
    `[B, K]` int in {-1, +1}.
  """
  logits = model.apply(variables, images)
  return jnp.where(logits > 0, 1, -1)


def compute_accuracy(
    judge: AttributeJudge,
    data: registry.FaceDataset,
    transform: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> attribute_flips.SignCounts:
  """Counts how often a judge is right on a data set, by attribute.

  Args:
    judge: of the data set's attributes.
    data: read in parts where it is not in memory.
    transform: `[B, S, S, 3] -> [B, S, S, 3]`, images in [-1, 1], applied first.

  Returns:
    SignCounts, which have `accuracy` and `balanced_accuracy`.
  """

  def count(variables, images, attributes):
    return attribute_flips.count_correct(
        functools.partial(classify, judge.model, variables),
        images,
        attributes,
        lambda x, _: transform(x),
    )

  return _count_over_parts(jax.jit(count), judge.variables, data)


def default_directory(dataset: str, image_size: int) -> str:
  """Returns where the judge of a data set is, unless a flag says else."""
  return f'runs/attribute_judge_{dataset}_{image_size}'


def restore_or_train(
    directory: str | os.PathLike[str],
    data: registry.FaceDataset,
    selection: registry.FaceDataset,
    *,
    seed: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    first_width: int | None = None,
    last_width: int | None = None,
    hidden: int | None = None,
    report: Report | None = None,
) -> AttributeJudge:
  """Restores the judge of a directory, or trains and saves one.

  Args:
    directory: where it is or will be.
    data: to train on.
    selection: other images, on which the epoch is chosen.
    seed: None takes the one that is there, or 0; as for all that follow.
    epochs: passes over the data; 10.
    batch_size: of a step; 128.
    first_width: see `autoencoders.AttributeJudge`; 32.
    last_width: 512.
    hidden: 512.
    report: called after every epoch of training.

  Returns:
    AttributeJudge.

  Raises:
    InputError: if one that is there is for other data, or was trained
      otherwise than asked for; if the directory holds something else.
  """
  settings = {
      'seed': seed, 'epochs': epochs, 'batch_size': batch_size,
      'first_width': first_width, 'last_width': last_width, 'hidden': hidden,
  }  # pyformat: disable
  settings = {name: v for name, v in settings.items() if v is not None}
  if judge_files.exist(directory):
    judge = restore(
        directory,
        attribute_names=data.attribute_names,
        image_size=data.image_size,
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
    data: registry.FaceDataset,
    selection: registry.FaceDataset,
    *,
    seed: int = 0,
    epochs: int = 10,
    batch_size: int = 128,
    first_width: int = 32,
    last_width: int = 512,
    hidden: int = 512,
    report: Report | None = None,
) -> AttributeJudge:
  """Trains a judge and keeps its best epoch.

  Sigmoid cross-entropy, averaged over attributes; Adam with a learning rate
  that falls from 1e-3 to 0 by a cosine; every image is mirrored with chance
  1/2. The best epoch has the highest accuracy, averaged over attributes, on the
  selection; the first of equals.

  Args:
    data: to train on.
    selection: other images, with the same attributes.
    seed: of initialisation, data order and mirroring.
    epochs: passes over the data.
    batch_size: of a step.
    first_width: see `autoencoders.AttributeJudge`, as the next two.
    last_width: of the network.
    hidden: of the network.
    report: called after every epoch.

  Returns:
    AttributeJudge.

  Raises:
    InputError: if the two data sets differ in attributes or size.
  """
  if data.attribute_names != selection.attribute_names:
    raise errors.InputError(
        f'{data.split} has the attributes {", ".join(data.attribute_names)},'
        f' {selection.split} has {", ".join(selection.attribute_names)};'
        ' accepted: the same.'
    )
  judge = AttributeJudge(
      attribute_names=tuple(data.attribute_names),
      image_size=data.image_size,
      dataset=data.name,
      fingerprint=data.fingerprint,
      seed=seed,
      epochs=epochs,
      best_epoch=0,
      batch_size=batch_size,
      first_width=first_width,
      last_width=last_width,
      hidden=hidden,
      accuracy=(),
      balanced_accuracy=(),
      sha256='',
      variables={},
  )
  num_steps = epochs * batches.count_steps(len(data), batch_size)
  optimizer = optax.adam(
      optax.cosine_decay_schedule(_LEARNING_RATE, num_steps)
  )
  state = steps.create_train_state(
      autoencoders.init_variables(judge.model, seed, judge.model.image_shape),
      optimizer,
  )
  train_steps = jax.jit(
      functools.partial(
          _train_steps, model=judge.model, optimizer=optimizer, seed=seed
      ),
      donate_argnums=0,
  )
  count = jax.jit(
      lambda variables, images, attributes: attribute_flips.count_correct(
          functools.partial(classify, judge.model, variables),
          images,
          attributes,
      )
  )
  resident = None
  if data.images is not None:
    resident = jax.device_put((data.images, data.attributes))
  best, best_accuracy = judge, -1.0
  for epoch in range(epochs):
    indices = np.asarray(
        batches.epoch_indices(seed, epoch, len(data), batch_size)
    )
    losses = []
    for images, attributes, part in _read_parts(data, resident, indices):
      state, loss = train_steps(state, images, attributes, part)
      losses.append(np.asarray(loss))
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    counts = _count_over_parts(count, variables, selection)
    accuracy = float(np.mean(counts.accuracy))
    if accuracy > best_accuracy:
      best_accuracy = accuracy
      best = dataclasses.replace(
          judge,
          best_epoch=epoch + 1,
          accuracy=tuple(counts.accuracy.tolist()),
          balanced_accuracy=tuple(counts.balanced_accuracy.tolist()),
          # Copies: the next step takes over the buffers of this state.
          variables=jax.tree.map(np.array, variables),
      )
    if report is not None:
      report(epoch + 1, float(np.mean(np.concatenate(losses))), accuracy)
  return dataclasses.replace(
      best, sha256=checkpoints.hash_tree(best.variables)
  )


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
  """Restores a judge and checks that it fits the data.

  Args:
    directory: that `save` wrote to.
    attribute_names: that it is to tell, in this order.
    image_size: S, of what it is to judge.
    dataset: name of the one that it is to judge.

  Returns:
    AttributeJudge.

  Raises:
    InputError: if it was trained for other data, or cannot be read.
  """
  judge = judge_files.read(directory, AttributeJudge, 'variables')
  _check_attributes(directory, judge.attribute_names, tuple(attribute_names))
  for name, wanted in (('image_size', image_size), ('dataset', dataset)):
    found = getattr(judge, name)
    if found != wanted:
      raise errors.InputError(
          f'the judge in {directory} was trained for --{name}={found};'
          f' accepted: one for --{name}={wanted}.'
      )
  for name in _WIDTHS:
    found = getattr(judge, name)
    if not 1 <= found <= config.LARGEST_WIDTH:
      raise errors.InputError(
          f'the judge in {directory} has {name} {found}; accepted: 1 to'
          f' {config.LARGEST_WIDTH}.'
      )
  config.check_image_size(judge.image_size)
  template = jax.eval_shape(
      lambda: autoencoders.init_variables(
          judge.model, 0, judge.model.image_shape
      )
  )
  variables = judge_files.restore_tree(directory, template)
  return dataclasses.replace(judge, variables=variables)


def _check_attributes(directory, found, wanted):
  """Raises InputError that names the attributes in which they differ."""
  if found == wanted:
    return
  extra = [name for name in found if name not in wanted]
  missing = [name for name in wanted if name not in found]
  differing = []
  if missing:
    differing.append(f'does not tell {", ".join(missing)}')
  if extra:
    differing.append(f'tells {", ".join(extra)} besides')
  if not differing:
    differing.append(f'has another order: {", ".join(found)}')
  raise errors.InputError(
      f'the judge in {directory} {" and ".join(differing)}; accepted: one for'
      f' {", ".join(wanted)}.'
  )


def _train_steps(state, images, attributes, indices, *, model, optimizer, seed):
  """Takes a step per row of `[steps, B]` indices into `[M, ...]` arrays."""

  def objective(params, batch_stats, batch):
    logits, updated = model.apply(
        {'params': params, 'batch_stats': batch_stats},
        batch.images,
        train=True,
        mutable=['batch_stats'],
    )
    present = (batch.labels > 0).astype(logits.dtype)
    loss = optax.sigmoid_binary_cross_entropy(logits, present).mean()
    return loss, ({'loss': loss}, updated['batch_stats'])

  def step(state, batch_indices):
    mirrored = batches.mirror(
        jnp.take(images, batch_indices, axis=0),
        batches.step_mirror(seed, state.step, batch_indices.size),
    )
    batch = codes.Batch(
        batches.to_signed_float(mirrored),
        jnp.take(attributes, batch_indices, axis=0),
    )
    state, metrics = steps.train_step(
        state, batch, objective=objective, optimizer=optimizer
    )
    return state, metrics['loss']

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


def _count_over_parts(count, variables, data):
  """Sums the counts of the parts of a data set."""
  if data.images is not None:
    parts = [count(variables, data.images, data.attributes)]
  else:
    # One part after the other, as all at once do not fit.
    parts = [
        jax.device_get(count(variables, *data.read(indices)))
        for indices in np.split(
            np.arange(len(data)), range(_CHUNK_IMAGES, len(data), _CHUNK_IMAGES)
        )
    ]
  return jax.tree.map(lambda *x: sum(np.asarray(n) for n in x), *parts)
