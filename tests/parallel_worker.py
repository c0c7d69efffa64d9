"""Prints how far epochs on eight devices are from one, as JSON.

Run by parallel_test.py, since XLA reads the number of devices at its start:

  XLA_FLAGS=--xla_force_host_platform_device_count=8 \
      python tests/parallel_worker.py svhn float64
"""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import steps as training

BATCH_SIZE = 32
NUM_EXAMPLES = 70  # Two steps, and some left over.
# Constructor of an autoencoder, and whether students too have the BatchNorm of
# the code.
ARCHITECTURES = {
    'mnist': (
        functools.partial(
            networks.MlpAutoencoder, image_shape=(6, 6, 1), widths=(16, 8)
        ),
        False,
    ),
    'svhn': (
        functools.partial(
            networks.SvhnAutoencoder, image_shape=(8, 8, 3), widths=(4, 8)
        ),
        True,
    ),
}
# Of leaves, times their initialisation.
SCALES = {'kernel': 2.0, 'bias': 0.3, 'mean': 1.0, 'var': 1.0}


def sgd_with_gradients() -> optax.GradientTransformation:
  """SGD whose state is the last raw gradient. Adam would hide its size."""
  return optax.GradientTransformation(
      lambda params: jax.tree.map(jnp.zeros_like, params),
      lambda grads, state, params: (
          jax.tree.map(lambda g: -0.5 * g, grads),
          grads,
      ),
  )


def difference(found, expected, gradients=None) -> float:
  """Returns the largest error of a leaf, in units of the leaf's largest.

  A leaf that is zero but for rounding, as the gradient of a bias before
  BatchNorm is, has no digits of its own: it is measured by the largest leaf of
  its tree. So is a parameter that such a gradient moved.

  Args:
    found: a tree.
    expected: a tree of the same structure.
    gradients: where these are parameters after one step, those of the step.
  """
  sizes = _leaf_sizes(expected)
  moves = sizes if gradients is None else _leaf_sizes(gradients)
  largest, largest_move = max(sizes), max(moves)
  errors = _leaf_sizes(
      jax.tree.map(
          lambda f, e: np.asarray(f, np.float64) - np.asarray(e, np.float64),
          found,
          expected,
      )
  )
  return max(
      float(error / (size if move > 1e-5 * largest_move else largest))
      for error, size, move in zip(errors, sizes, moves, strict=True)
  )


def _leaf_sizes(tree):
  """Lists the largest absolute value of each leaf."""
  leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
  return [np.max(np.abs(x)) for x in leaves]


def main(architecture: str, precision: str) -> None:
  jax.config.update('jax_enable_x64', precision == 'float64')
  dtype = jnp.dtype(precision)
  construct, normalize_students = ARCHITECTURES[architecture]
  make_model = functools.partial(construct, dtype=dtype)
  make_student = functools.partial(
      make_model, normalize_code=normalize_students
  )
  teacher_model = make_model(2, 0, True)
  shape = teacher_model.image_shape
  random = np.random.default_rng(0)
  # Of all brightnesses: codes that differ little would leave BatchNorm, which
  # divides by their spread, few digits of float32.
  brightness = random.uniform(0, 256, (NUM_EXAMPLES, 1, 1, 1))
  pixels = brightness * random.uniform(size=(NUM_EXAMPLES, *shape))
  images = jnp.asarray(pixels.astype(np.uint8))

  def init(model, seed):
    variables = networks.init_variables(model, seed, shape)
    # As in a trained model, images matter more to codes than biases do: what
    # all codes have in common, BatchNorm takes away with their first digits.
    return jax.tree_util.tree_map_with_path(
        lambda path, x: (x * SCALES[path[-1].key]).astype(dtype), variables
    )

  teacher = init(teacher_model, 1)
  cache = training.compute_teacher_cache(teacher_model, teacher, images)
  student = functools.partial(
      training.make_student_objective,
      weights=config.LossWeights(1.0, 1.0, 1.0),
  )
  path = config.Supervision('path', nodes=2)
  by_path = functools.partial(
      training.make_student_objective,
      weights=config.LossWeights(1.0, 1.0, 1.0, supervision=path),
  )
  # Name: model, objective, teacher's model and what the data has of it.
  cases = {
      'teacher': (
          teacher_model, training.make_teacher_objective, None, None
      ),
      'student_cached': (make_student(2, 1), student, teacher_model, cache),
      # The teacher in training mode: its BatchNorm and the swap of its codes.
      'student_computed': (make_student(2, 1), student, teacher_model, teacher),
      'student_of_nuisance': (
          make_student(1, 2), student, make_model(1, 1, True), teacher
      ),
      'student_by_path': (
          make_student(1, 2), by_path, make_model(1, 1, True), teacher
      ),
  }  # pyformat: disable
  report = {'devices': jax.device_count()}
  for name, case in cases.items():
    model, make_objective, teacher_model, data_teacher = case
    supervision = path if make_objective is by_path else config.Supervision()
    optimizer = sgd_with_gradients()
    data = training.TrainingData(images, data_teacher)
    variables = init(model, 0)

    def run(epoch_fn, epoch=1):
      state = training.create_train_state(variables, optimizer)
      state = jax.tree.map(jnp.array, state)  # It may be donated.
      return jax.device_get(epoch_fn(state, data, epoch))

    reference = jax.jit(
        functools.partial(
            training.train_epoch,
            objective=make_objective(model),
            optimizer=optimizer,
            teacher_model=teacher_model,
            teacher_train_mode=True,
            seed=0,
            batch_size=BATCH_SIZE,
            supervision=supervision,
        )
    )
    expected = run(reference)
    runs = {
        mode: run(
            parallel.make_epoch_fn(
                mode,
                BATCH_SIZE,
                make_objective,
                model,
                teacher_model,
                optimizer=optimizer,
                teacher_train_mode=True,
                seed=0,
                supervision=supervision,
            )
        )
        for mode in parallel.MODES
    }
    # Other batches: how large a difference is if it is one.
    runs['other_epoch'] = run(reference, epoch=2)
    for mode, (state, metrics) in runs.items():
      old_state, old_metrics = expected
      entry = {
          'gradients': difference(state.opt_state, old_state.opt_state),
          'params': difference(state.params, old_state.params),
          'metrics': difference(metrics, old_metrics),
          'dtype': str(jax.tree.leaves(state.params)[0].dtype),
      }
      if jax.tree.leaves(state.batch_stats):
        entry['batch_stats'] = difference(
            state.batch_stats, old_state.batch_stats
        )
      report[f'{name}/{mode}'] = entry
  try:
    parallel.check_batch_size(12)
  except errors.InputError as error:
    report['error'] = str(error)
  print(json.dumps(report))


if __name__ == '__main__':
  main(*sys.argv[1:])
