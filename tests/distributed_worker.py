"""Saves what epochs make of small models on four devices of some processes.

Run by distributed_test.py, since XLA reads the number of devices at its start;
each process has its share of the four:

  XLA_FLAGS=--xla_force_host_platform_device_count=2 python \
      tests/distributed_worker.py out.npz float32 127.0.0.1:1234 2 0
"""

import functools
import sys

import attribute_parallel_worker  # Beside this file, which is run as a script.
import jax
import jax.numpy as jnp
import numpy as np
import parallel_worker

from jacsup_jax.core import config
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import attributes as editing
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import discovery
from jacsup_jax.training import steps as training

DIGIT_BATCH_SIZE = 32
DIGIT_EXAMPLES = 70  # Two steps, and some left over.


def main(path, precision, coordinator, count, index) -> None:
  parallel.connect(
      coordinator, int(count), int(index), terms={}, seconds=60
  )
  jax.config.update('jax_enable_x64', precision == 'float64')
  optimizer = parallel_worker.sgd_with_gradients()
  training.make_optimizer = lambda *unused_args, **unused_kwargs: optimizer
  found = {}
  for mode in parallel.MODES:
    found |= run_digits(mode, jnp.dtype(precision))
  # Indices of resident data are taken apart by pmap for digits already.
  for mode, on_device in (('jit', True), ('jit', False), ('pmap', False)):
    found |= run_faces(mode, on_device, jnp.dtype(precision))
  report = {
      f'{case}{jax.tree_util.keystr(leaf_path)}': np.asarray(leaf)
      for case, tree in found.items()
      for leaf_path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }
  report['devices'] = jax.device_count()
  report['processes'] = jax.process_count()
  np.savez(path, **report)
  parallel.disconnect()


def run_digits(mode, dtype):
  """Trains a student whose teacher has batch statistics; measures it."""
  make_model = lambda num_factors, nuisance_dim, is_first: (
      networks.MlpAutoencoder(
          num_factors, nuisance_dim, is_first,
          image_shape=(6, 6, 1), widths=(16, 8), dtype=dtype,
      )
  )  # pyformat: disable
  random = np.random.default_rng(0)
  # Of all brightnesses, see parallel_worker.
  brightness = random.uniform(0, 256, (DIGIT_EXAMPLES, 1, 1, 1))
  pixels = brightness * random.uniform(size=(DIGIT_EXAMPLES, 6, 6, 1))
  images = pixels.astype(np.uint8)

  def make_state(model, seed):
    scales = parallel_worker.SCALES
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: (x * scales[path[-1].key]).astype(dtype),
        networks.init_variables(model, seed, model.image_shape),
    )
    return training.create_train_state(
        variables, parallel_worker.sgd_with_gradients()
    )

  recipe = discovery.Discovery(
      discovery.Settings(
          batch_size=DIGIT_BATCH_SIZE, mode=mode, teacher_train_mode=True
      ),
      make_model,
      2,
      jnp.asarray(images),
  )
  weights = config.LossWeights(1.0, 1.0, 1.0)
  stage = config.Stage('student', 'student', 'teacher', 1, 1, weights)
  teacher_model, model = make_model(2, 0, True), make_model(2, 1, True)
  teacher = stages.Trained(
      stage, teacher_model, make_state(teacher_model, 1), ''
  )
  epoch_fn = recipe.make_epoch(stage, model, {'teacher': teacher})
  # The state of other processes is not looked at.
  own_seed = 0 if parallel.is_first() else 7
  state, metrics = epoch_fn(parallel.share_tree(make_state(model, own_seed)), 1)
  return _describe(f'digits/{mode}', state, metrics, model, images)


def run_faces(mode, on_device, dtype):
  """Trains a student of resident data, or a teacher that is fed; measures."""
  dataset = attribute_parallel_worker.make_dataset()
  make_model = lambda dim: networks.FaceAutoencoder(
      2, dim // 4, image_size=8, first_width=4, last_width=4, dtype=dtype
  )
  model = make_model(8)

  def make_state(seed):
    variables = networks.init_variables(model, seed, model.image_shape)
    return attribute_training.create_train_state(
        jax.tree.map(lambda x: x.astype(dtype), variables),
        parallel_worker.sgd_with_gradients(),
    )

  objective = 'student' if on_device else 'teacher'
  weights = attribute_parallel_worker.CASES[objective]
  stage = config.Stage('s', 's', None, 8, 1, weights, teacher='teacher')
  teacher = stages.Trained(stage, model, make_state(1), '')
  recipe = editing.Editing(
      editing.Settings(
          batch_size=attribute_parallel_worker.BATCH_SIZE,
          mode=mode,
          on_device=on_device,
      ),
      make_model,
      dataset,
  )
  epoch_fn = recipe.make_epoch(stage, model, {'teacher': teacher})
  state, metrics = epoch_fn(make_state(0), 1)
  case = f'faces/{mode}/{"resident" if on_device else "fed"}'
  return _describe(case, state, metrics, model, dataset.images)


def _describe(case, state, metrics, model, images):
  """Returns what is compared; a process measures by itself."""
  variables = parallel.to_host(
      {'params': state.params, 'batch_stats': state.batch_stats}
  )
  found = {
      f'{case}/params': state.params,
      f'{case}/gradients': state.opt_state,
      f'{case}/batch_stats': state.batch_stats,
      # But what is of the clock.
      f'{case}/metrics': {
          k: v for k, v in metrics.items() if k != 'input_bound'
      },
  }
  if parallel.is_first():
    reconstruct = jax.jit(functools.partial(_reconstruct, model))
    # Images in [0, 1]; the faces' model does not mind here.
    difference = reconstruct(variables, images / 255) - images / 255
    found[f'{case}/mse'] = np.mean(np.square(difference))
  return found


def _reconstruct(model, variables, images):
  encode = networks.make_encode(model, variables['batch_stats'])
  decode = networks.make_decode(model, variables['batch_stats'])
  code = encode(variables['params'], images)
  return decode(variables['params'], code)


if __name__ == '__main__':
  main(*sys.argv[1:])
