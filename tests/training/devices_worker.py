"""Compares steps on many devices with one, or saves those of some processes.

Run by devices_test.py, since XLA reads the number of devices at its start:

  XLA_FLAGS=--xla_force_host_platform_device_count=8 \
      python tests/training/devices_worker.py compare teacher face_cycle
  XLA_FLAGS=--xla_force_host_platform_device_count=2 \
      python tests/training/devices_worker.py save out.npz 127.0.0.1:1234 2 0
"""

from collections.abc import Callable
import dataclasses
import functools
import sys
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jacsup_jax.baselines import factor_vae
from jacsup_jax.baselines import fader
from jacsup_jax.baselines import fader_steps
from jacsup_jax.baselines import field
from jacsup_jax.baselines import field_recipe
from jacsup_jax.baselines import latent_steps
from jacsup_jax.baselines import rivals
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import devices
from jacsup_jax.training import discovery_steps
from jacsup_jax.training import loop
from jacsup_jax.training import replicas
from jacsup_jax.training import steps

BATCH_SIZE = 16
NUM_EXAMPLES = 38  # Two steps, and some left over.
# Rounding of sums in another order, relative to the largest of a leaf.
TOLERANCE = 1e-10
# Of terms that are of the size of 1, so that none hides another.
WEIGHTS = config.LossWeights(1.0, 1.0, 1.0)
PATH = config.LossWeights(
  1.0, 1.0, 1.0, supervision=config.Supervision('path', 2)
)
FACE_TEACHER = config.AttributeLossWeights(1.0, 1.0, 1.0)
FACE_CYCLE = config.AttributeLossWeights(1.0, 1.0, 1.0, 1.0, 0.1)
FACE_STUDENT = config.AttributeLossWeights(1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0)
FACE_EDITS = dataclasses.replace(
  FACE_STUDENT,
  lambda_edit_check=1.0,
  decode_labels=0.5,
  edits='flip',
  largest_flip=2.0,
)
FADER = fader.FaderLossWeights(0.5, adversarial_ramp_steps=0)
# Of leaves of digits' models, times their initialisation: in a trained model
# images matter more to codes than biases do. BatchNorm cancels what all codes
# have in common, and with it their first digits.
SCALES = {'kernel': 2.0, 'bias': 0.3, 'mean': 1.0, 'var': 1.0}
DIGITS = functools.partial(
  autoencoders.MlpAutoencoder,
  image_shape=(4, 4, 1),
  widths=(8,),
  dtype=jnp.float64,
)
SMALL = {'image_size': 8, 'first_width': 4, 'last_width': 4}
FACE = autoencoders.FaceAutoencoder(2, 2, **SMALL, dtype=jnp.float64)
GIVEN_LABELS = fader.FaderAutoencoder(
  2,
  2,
  discriminator_width=6,
  discriminator_hidden=5,
  **SMALL,
  dtype=jnp.float64,
)


class Case(NamedTuple):
  make_steps: Callable[[str | None], Any]  # Of the name of the mapped axis.
  state: steps.TrainState
  constants: Any
  make_rows: Callable[[int], Any]  # Of the epoch.
  fed: bool = False


def sgd_with_gradients(*unused_args) -> optax.GradientTransformation:
  """SGD whose state is the last raw gradient. Adam would hide its size."""
  return optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda grads, state, params: (
      jax.tree.map(lambda g: -0.5 * g, grads),
      grads,
    ),
  )


def _make_images(*shape):
  """Makes images of all brightnesses, so that their codes spread."""
  random = np.random.default_rng(0)
  brightness = random.uniform(0, 256, (NUM_EXAMPLES, 1, 1, 1))
  pixels = brightness * random.uniform(size=(NUM_EXAMPLES, *shape))
  return jnp.asarray(pixels.astype(np.uint8))


def _init(module, seed, scales=None):
  variables = autoencoders.init_variables(module, seed)

  def widen(path, x):
    if jnp.issubdtype(x.dtype, jnp.integer):  # The order of a rival's units.
      return x
    return np.float64(x * (scales or {}).get(path[-1].key, 1.0))

  return jax.tree_util.tree_map_with_path(widen, variables)


def _list_batches(epoch):
  return batches.epoch_indices(0, epoch, NUM_EXAMPLES, BATCH_SIZE)


def make_digits(module, teacher_module=None, weights=None, cached=False):
  """Makes a case of Section 3."""
  images, teacher = _make_images(4, 4, 1), None
  if teacher_module:
    teacher = _init(teacher_module, 1, SCALES)
  if cached:
    teacher = discovery_steps.compute_teacher_cache(
      teacher_module, teacher, images
    )
  make_steps = lambda axis: discovery_steps.DiscoverySteps(
    module.clone(axis_name=axis),
    teacher_module and teacher_module.clone(axis_name=axis),
    weights,
    config.Optimization(),
    BATCH_SIZE,
    teacher_statistics='batch',
  )
  state = steps.create_train_state(
    _init(module, 0, SCALES), sgd_with_gradients()
  )
  data = discovery_steps.TrainingData(images, jnp.asarray(0), teacher)
  return Case(make_steps, state, data, _list_batches)


def make_replicas():
  """Makes the case of a cached teacher for two replicas."""
  zero = jax.tree.map(lambda x: 0.0, WEIGHTS)
  one = make_digits(DIGITS(2, 1), DIGITS(2, 0, True), zero, cached=True)
  weights = jax.tree.map(lambda x: np.array([x, 0.5 * x]), WEIGHTS)
  stacked = jax.tree.map(lambda x: jnp.stack([x, 1.1 * x]), one.state)
  return one._replace(
    make_steps=lambda axis: replicas.ReplicaSteps(one.make_steps(axis), False),
    state=stacked._replace(step=one.state.step),
    constants=one.constants._replace(weights=weights),
  )


def make_faces(weights, fed=False, module=FACE, cls=attribute_steps.FaceSteps):
  """Makes a case of Section 4, or of a baseline."""
  labels = np.random.default_rng(1).choice([-1, 1], (NUM_EXAMPLES, 2))
  data = attribute_steps.FaceData(
    _make_images(8, 8, 3), jnp.asarray(labels.astype(np.int8))
  )
  # One step: BatchNorm leaves no gradient to biases before it but rounding.
  rows = lambda epoch: _list_batches(epoch)[:1]
  read = lambda epoch: jax.tree.map(
    lambda x: np.asarray(x)[np.asarray(rows(epoch))], data
  )
  make_steps = lambda axis: cls(
    module.clone(axis_name=axis),
    module.clone(axis_name=axis),
    weights,
    config.Optimization(),
    BATCH_SIZE,
    fed,
  )
  constants = attribute_steps.FaceConstants(
    jnp.asarray(0),
    _init(module, 1) if weights.needs_teacher else None,
    None if fed else data,
  )
  state = attribute_steps.create_train_state(
    _init(module, 0), sgd_with_gradients()
  )
  return Case(make_steps, state, constants, read if fed else rows, fed)


def make_rival(name):
  """Makes a case of a baseline of Section 4, with its own weights."""
  own = rivals.BASELINES[name]
  return make_faces(
    getattr(rivals.BaselineConfig(), f'{name}_weights'),
    module=own.network(2, 2, **SMALL, dtype=jnp.float64),
    cls=own,
  )


def make_codes(weights, **sizes):
  """Makes a case of a baseline of Section 3, in one step."""
  method = field_recipe.METHODS[type(weights)]
  module = method.network(
      2, 4, image_shape=(4, 4, 1), widths=(8,), dtype=jnp.float64, **sizes
  )  # fmt: skip
  make_steps = lambda axis: method(
    module.clone(axis_name=axis),
    weights,
    config.Optimization(),
    BATCH_SIZE,
    100,
    NUM_EXAMPLES,
  )
  labels = jnp.asarray(np.arange(NUM_EXAMPLES) % 2)
  data = latent_steps.LatentData(_make_images(4, 4, 1), labels, jnp.asarray(0))
  state = make_steps(None).create_train_state(_init(module, 0, SCALES))
  return Case(make_steps, state, data, lambda epoch: _list_batches(epoch)[:1])


class Checker(nn.Module):
  """A network that sees two factors, in float64."""

  @nn.compact
  def __call__(self, images):
    return nn.Dense(2)(images.reshape(images.shape[0], -1))


def make_edits():
  """Makes a student of flips that are checked, of labels and predictions."""
  case, checker = make_faces(FACE_EDITS), Checker()
  variables = checker.init(jax.random.key(2), jnp.zeros((1, 8, 8, 3)))
  return case._replace(
    make_steps=lambda axis: dataclasses.replace(
      case.make_steps(axis), checker_module=checker
    ),
    constants=case.constants._replace(
      conflicts=jnp.array([[False, True], [True, False]]),
      checker=jax.tree.map(np.float64, variables),
    ),
  )


def make_checked():
  """Makes a student whose swaps are checked by its teacher and a network."""
  weights = dataclasses.replace(
    WEIGHTS, lambda_check=1.0, lambda_background=1.0
  )
  case = make_digits(DIGITS(2, 1), DIGITS(2, 0, True), weights, cached=True)
  network = Checker()
  variables = network.init(jax.random.key(2), jnp.zeros((1, 4, 4, 1)))
  return case._replace(
    make_steps=lambda axis: dataclasses.replace(
      case.make_steps(axis), checker_modules=(network,)
    ),
    constants=case.constants._replace(
      checkers=(jax.tree.map(np.float64, variables),)
    ),
  )


# The teacher of nuisance, in training mode: its BatchNorm and its swaps.
OF_NUISANCE = (DIGITS(1, 2, True), DIGITS(1, 1, True))
CASES = {
  'teacher': lambda: make_digits(DIGITS(2, 0, True)),
  'student_cached': lambda: make_digits(
    DIGITS(2, 1), DIGITS(2, 0, True), WEIGHTS, cached=True
  ),
  'student_computed': lambda: make_digits(
    DIGITS(2, 1), DIGITS(2, 0, True), WEIGHTS
  ),
  'student_of_nuisance': lambda: make_digits(*OF_NUISANCE, WEIGHTS),
  'student_by_path': lambda: make_digits(*OF_NUISANCE, PATH),
  'student_checked': make_checked,
  'replicas': make_replicas,
  'face_teacher': lambda: make_faces(FACE_TEACHER),
  'face_cycle': lambda: make_faces(FACE_CYCLE),
  'face_student': lambda: make_faces(FACE_STUDENT),
  'face_edits': make_edits,
  'face_fed': lambda: make_faces(FACE_TEACHER, fed=True),
  'fader': lambda: make_faces(
    FADER, module=GIVEN_LABELS, cls=fader_steps.FaderSteps
  ),
  **{
    name: functools.partial(make_rival, name)
    for name in ('cvae', 'icgan', 'attgan', 'stargan')
  },
  'annealed_vae': lambda: make_codes(field.AnnealedVaeWeights()),
  'tcvae': lambda: make_codes(field.TcVaeWeights()),
  'factor_vae': lambda: make_codes(
    field.FactorVaeWeights(), discriminator_width=6
  ),
  'xcov': lambda: make_codes(field.ClassXcovWeights()),
  'mixing': lambda: make_codes(field.MixingWeights(1.0)),
}


def difference(found, expected) -> float:
  """Returns the largest error of a leaf, in units of the leaf's largest.

  A leaf that is zero except for rounding is measured by the largest of all.
  """
  found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
  sizes = [np.max(np.abs(x)) for x in expected]
  largest = max(sizes, default=0.0)
  return max(
    (
      np.max(np.abs(f - e)) / (size if size > 1e-5 * largest else largest)
      for f, e, size in zip(found, expected, sizes)
    ),
    default=0.0,
  )


def _run(case, mode):
  make_steps = case.make_steps(devices.axis_name(mode))
  compiled = devices.compile_epoch(mode, BATCH_SIZE, make_steps, fed=case.fed)
  rows = case.make_rows(1)
  if case.fed:  # The part of this process.
    size = BATCH_SIZE // jax.process_count()
    first = jax.process_index() * size
    rows = jax.tree.map(lambda x: x[:, first : first + size], rows)
  state = jax.tree.map(np.array, case.state)  # It may be donated.
  return jax.device_get(compiled(state, case.constants, rows))


def compare(*names: str) -> None:
  """Checks that cases on eight devices are those on one."""
  assert jax.device_count() == 8
  for name in names:
    case = CASES[name]()
    reference = jax.jit(case.make_steps(None))
    one = lambda epoch: jax.device_get(
      reference(
        case.state, case.constants, case.make_rows(epoch), loop.make_bounds()
      )
    )
    expected = one(1)
    assert jax.tree.leaves(expected[0].params)[0].dtype == np.float64
    for mode in config.MODES:
      found = _run(case, mode)
      for part in ('params', 'batch_stats', 'opt_state'):
        error = difference(*(getattr(x[0], part) for x in (found, expected)))
        assert error <= TOLERANCE, (name, mode, part, error)
      assert difference(found[1], expected[1]) <= TOLERANCE, (name, mode)
    # A difference would be seen: that of other batches is.
    assert difference(one(2)[0].opt_state, expected[0].opt_state) > 1e-2
  message = '--batch_size=12 .* 8 devices.*accepted: multiples of 8'
  with pytest.raises(errors.InputError, match=message):
    devices.check_batch_size(12)


def save(path: str, coordinator: str, count: str, index: str) -> None:
  """Saves the results of some cases on the devices of all processes."""
  if int(count) > 1:
    devices.connect(coordinator, int(count), int(index), seconds=120)
  assert jax.device_count() == 4 and jax.process_count() == int(count)
  # The values of other processes count by their shapes alone.
  own = {'text': 'first' if devices.is_first() else 'other', 'list': [1, 2.5]}
  assert devices.share(own) == {'text': 'first', 'list': [1, 2.5]}
  shared = devices.share_tree(np.arange(3) + int(index))
  np.testing.assert_array_equal(shared, [0, 1, 2])
  assert devices.in_turn(lambda: int(index)) == int(index)
  assert devices.is_any(index == '1') == (count == '2')
  report = {}
  for name, mode in (('student_computed', 'jit'), ('face_fed', 'pmap')):
    tree = _run(CASES[name](), mode)
    for leaf_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      report[f'{name}/{mode}{jax.tree_util.keystr(leaf_path)}'] = leaf
  np.savez(path, **report)
  devices.disconnect()


if __name__ == '__main__':
  steps.make_optimizer = sgd_with_gradients
  factor_vae.FactorVaeSteps.make_optimizer = sgd_with_gradients
  jax.config.update('jax_enable_x64', True)
  {'compare': compare, 'save': save}[sys.argv[1]](*sys.argv[2:])
