"""Compares steps on many devices with one, or saves those of some processes.

Run by devices_test.py, since XLA reads the number of devices at its start. The
first form prints JSON, the second writes a file per process:

  XLA_FLAGS=--xla_force_host_platform_device_count=8 \
      python tests/training/devices_worker.py compare mnist float64 teacher
  XLA_FLAGS=--xla_force_host_platform_device_count=2 \
      python tests/training/devices_worker.py save out.npz 127.0.0.1:1234 2 0
"""

from collections.abc import Callable
import functools
import json
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jacsup_jax.baselines import fader
from jacsup_jax.baselines import fader_steps
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

BATCH_SIZE = 32
NUM_EXAMPLES = 70  # Two steps, and some left over.
MODES = ('jit', 'pmap')
WEIGHTS = config.LossWeights(1.0, 1.0, 1.0)
# Of terms that are of the size of 1, so that none hides another.
FACE_WEIGHTS = {
  'teacher': config.AttributeLossWeights(1.0, 1.0, 1.0),
  'cycle': config.AttributeLossWeights(1.0, 1.0, 1.0, 1.0, 0.1),
  'student': config.AttributeLossWeights(1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0),
}
# Of leaves of digits' models, times their initialisation: in a trained model
# images matter more to codes than biases do. BatchNorm cancels what all codes
# have in common, and with it their first digits.
SCALES = {'kernel': 2.0, 'bias': 0.3, 'mean': 1.0, 'var': 1.0}


class Case(NamedTuple):
  make_steps: Callable[[str | None], Any]  # Of the name of the mapped axis.
  state: steps.TrainState
  constants: Any
  make_rows: Callable[[int], Any]  # Of the epoch.
  fed: bool = False


def sgd_with_gradients() -> optax.GradientTransformation:
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


def _init(module, seed, dtype, scales=None):
  variables = autoencoders.init_variables(module, seed)
  return jax.tree_util.tree_map_with_path(
    lambda path, x: (x * (scales or {}).get(path[-1].key, 1.0)).astype(dtype),
    variables,
  )


def make_digit_cases(architecture: str, dtype) -> dict[str, Case]:
  """Makes the cases of Section 3."""
  construct, is_normalized = {
    # The first teacher alone has BatchNorm; all models have it.
    'mnist': (
      functools.partial(
        autoencoders.MlpAutoencoder, image_shape=(6, 6, 1), widths=(16, 8)
      ),
      False,
    ),
    'svhn': (
      functools.partial(
        autoencoders.SvhnAutoencoder, image_shape=(8, 8, 3), widths=(4, 8)
      ),
      True,
    ),
  }[architecture]
  make = functools.partial(construct, dtype=dtype)
  optimizer = sgd_with_gradients()
  images = _make_images(*make(2, 0).image_shape)
  rows = lambda epoch: batches.epoch_indices(0, epoch, len(images), BATCH_SIZE)

  def make_case(module, teacher_module=None, teacher=None, weights=None):
    make_steps = lambda axis: discovery_steps.DiscoverySteps(
      module.clone(axis_name=axis),
      teacher_module and teacher_module.clone(axis_name=axis),
      weights,
      config.Optimization(),
      BATCH_SIZE,
      teacher_statistics='batch',
    )
    state = steps.create_train_state(_init(module, 0, dtype, SCALES), optimizer)
    data = discovery_steps.TrainingData(images, jnp.asarray(0), teacher)
    return Case(make_steps, state, data, rows)

  first, mixed = make(2, 0, True), make(1, 1, True)
  student, other = make(2, 1, is_normalized), make(1, 2, is_normalized)
  variables = _init(first, 1, dtype, SCALES)
  cache = discovery_steps.compute_teacher_cache(first, variables, images)
  path = config.LossWeights(
    1.0, 1.0, 1.0, supervision=config.Supervision('path', 2)
  )
  cached = make_case(student, first, cache, WEIGHTS)
  cases = {
    'teacher': make_case(first),
    'student_cached': cached,
    # The teacher in training mode: its BatchNorm and the swap of its codes.
    'student_computed': make_case(student, first, variables, WEIGHTS),
    'student_of_nuisance': make_case(other, mixed, variables, WEIGHTS),
    'student_by_path': make_case(other, mixed, variables, path),
  }
  zero = jax.tree.map(lambda x: 0.0, WEIGHTS)
  stack = lambda x: jnp.stack([x, 1.1 * x])
  cases['replicas'] = cached._replace(
    make_steps=lambda axis: replicas.ReplicaSteps(
      discovery_steps.DiscoverySteps(
        student.clone(axis_name=axis),
        first.clone(axis_name=axis),
        zero,
        config.Optimization(),
        BATCH_SIZE,
      ),
      own_batches=False,
      own_teacher=False,
    ),
    state=jax.tree.map(stack, cached.state)._replace(step=cached.state.step),
    constants=cached.constants._replace(
      weights=jax.tree.map(lambda x: np.array([x, 0.5 * x]), WEIGHTS)
    ),
  )  # pyformat: disable
  return cases


def make_face_cases(dtype) -> dict[str, Case]:
  """Makes the cases of Section 4 and of the baseline."""
  optimizer, images = sgd_with_gradients(), _make_images(8, 8, 3)
  random = np.random.default_rng(1)
  labels = random.choice([-1, 1], (NUM_EXAMPLES, 2)).astype(np.int8)
  data = attribute_steps.FaceData(images, jnp.asarray(labels))
  # One step: BatchNorm leaves no gradient to biases before it but rounding.
  rows = lambda epoch: batches.epoch_indices(0, epoch, len(images), BATCH_SIZE)[
    :1
  ]
  small = {'image_size': 8, 'first_width': 4, 'last_width': 4, 'dtype': dtype}
  face = autoencoders.FaceAutoencoder(2, 2, **small)
  given_labels = fader.FaderAutoencoder(
    2, 2, discriminator_width=6, discriminator_hidden=5, **small
  )

  def make_case(weights, fed=False, module=face, cls=attribute_steps.FaceSteps):
    state = attribute_steps.create_train_state(
      _init(module, 0, dtype), optimizer
    )
    teacher = _init(module, 1, dtype) if weights.needs_teacher else None
    make_steps = lambda axis: cls(
      module.clone(axis_name=axis),
      module.clone(axis_name=axis),
      weights,
      config.Optimization(),
      BATCH_SIZE,
      fed,
    )  # pyformat: disable
    read = lambda epoch: jax.tree.map(
      lambda x: np.asarray(x)[np.asarray(rows(epoch))], data
    )
    constants = attribute_steps.FaceConstants(
      jnp.asarray(0), teacher, None if fed else data
    )
    return Case(make_steps, state, constants, read if fed else rows, fed)

  cases = {f'face_{name}': make_case(w) for name, w in FACE_WEIGHTS.items()}
  cases['face_fed'] = make_case(FACE_WEIGHTS['teacher'], True)
  weights = fader.FaderLossWeights(0.5, adversarial_ramp_steps=0)
  cases['fader'] = make_case(
    weights, module=given_labels, cls=fader_steps.FaderSteps
  )
  return cases


def difference(found, expected) -> float:
  """Returns the largest error of a leaf, in units of the leaf's largest.

  A leaf that is zero except for rounding is measured by the largest of all.
  """
  sizes = [float(np.max(np.abs(x))) for x in jax.tree.leaves(expected)]
  return max(
    float(np.max(np.abs(np.asarray(f) - np.asarray(e))))
    / (size if size > 1e-5 * max(sizes) else max(sizes))
    for f, e, size in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), sizes
    )
  )


def _run(case, mode, epoch=1):
  compiled = devices.compile_epoch(
    mode,
    BATCH_SIZE,
    case.make_steps(devices.axis_name(mode)),
    fed=case.fed,
  )
  rows = case.make_rows(epoch)
  if case.fed:  # The part of this process.
    index, count = devices.process()
    size = BATCH_SIZE // count
    part = slice(index * size, (index + 1) * size)
    rows = jax.tree.map(lambda x: x[:, part], rows)
  state = jax.tree.map(np.array, case.state)  # It may be donated.
  return jax.device_get(compiled(state, case.constants, rows))


def compare(architecture: str, precision: str, *names: str) -> None:
  """Prints how far cases on all devices are from one device."""
  dtype = jnp.dtype(precision)
  cases = make_digit_cases(architecture, dtype) | make_face_cases(dtype)
  report = {'devices': jax.device_count()}
  for name in names:
    case = cases[name]
    reference = jax.jit(case.make_steps(None))
    one = lambda epoch: jax.device_get(
      reference(
        case.state,
        case.constants,
        case.make_rows(epoch),
        loop.make_bounds(),
      )
    )  # pyformat: disable
    expected = one(1)
    runs = {mode: _run(case, mode) for mode in MODES}
    # Other batches: how large a difference is if it is one.
    runs['other_epoch'] = one(2)
    for mode, (state, metrics) in runs.items():
      report[f'{name}/{mode}'] = {
        'dtype': str(jax.tree.leaves(state.params)[0].dtype),
        'gradients': difference(state.opt_state, expected[0].opt_state),
        'params': difference(state.params, expected[0].params),
        'statistics': difference(
          {'one': np.ones(1), **state.batch_stats},
          {'one': np.ones(1), **expected[0].batch_stats},
        ),
        'metrics': difference(metrics, expected[1]),
      }
  try:
    devices.check_batch_size(12)
  except errors.InputError as error:
    report['error'] = str(error)
  print(json.dumps(report))


def save(path: str, coordinator: str, count: str, index: str) -> None:
  """Saves the results of some cases on the devices of all processes."""
  if int(count) > 1:
    devices.connect(coordinator, int(count), int(index), seconds=120)
  report = {'devices': jax.device_count(), 'processes': jax.process_count()}
  # The values of other processes count by their shapes alone.
  own = {'text': 'first' if devices.is_first() else 'other', 'list': [1, 2.5]}
  assert devices.share(own) == {'text': 'first', 'list': [1, 2.5]}
  shared = devices.share_tree(np.arange(3) + int(index))
  np.testing.assert_array_equal(shared, [0, 1, 2])
  assert devices.in_turn(lambda: int(index)) == int(index)
  devices.check_same({'flag': 1})
  try:
    devices.check_same({'flag': 1, 'seed': int(index)})
    report['error'] = ''
  except errors.InputError as error:
    report['error'] = str(error)
  cases = make_digit_cases('mnist', jnp.float64) | make_face_cases(jnp.float64)
  for name, mode in (
    ('student_computed', 'jit'),
    ('face_fed', 'jit'),
    ('face_fed', 'pmap'),
  ):  # pyformat: disable
    tree = _run(cases[name], mode)
    for leaf_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      report[f'{name}/{mode}{jax.tree_util.keystr(leaf_path)}'] = leaf
  np.savez(path, **report)
  devices.disconnect()


if __name__ == '__main__':
  steps.make_optimizer = lambda *unused_args: sgd_with_gradients()
  jax.config.update('jax_enable_x64', 'float32' not in sys.argv)
  {'compare': compare, 'save': save}[sys.argv[1]](*sys.argv[2:])
