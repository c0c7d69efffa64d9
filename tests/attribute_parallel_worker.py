"""Prints how far steps for faces on four devices are from one, as JSON.

Run by attribute_parallel_test.py, since XLA reads the number of devices at its
start:

  XLA_FLAGS=--xla_force_host_platform_device_count=4 \
      python tests/attribute_parallel_worker.py float64
"""

import functools
import itertools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import parallel_worker  # Beside this file, which is run as a script.

from jacsup_jax.baselines import fader as fader_networks
from jacsup_jax.baselines import fader_training
from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.data import faces
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import attributes as editing
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import steps as training

BATCH_SIZE = 16
NUM_EXAMPLES = 20  # One step, and some left over.
# Of terms that are of the size of 1, so that none hides another.
PHASE_1 = config.AttributeLossWeights(1.0, 1.0, 1.0)
CASES = {
    'teacher': PHASE_1,
    'cycle': config.AttributeLossWeights(1.0, 1.0, 1.0, 1.0, 0.1),
    'student': config.AttributeLossWeights(1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0),
}


def make_dataset() -> faces.FaceDataset:
  """Makes images of all brightnesses, so that their codes spread."""
  random = np.random.default_rng(0)
  brightness = random.uniform(0, 256, (NUM_EXAMPLES, 1, 1, 1))
  pixels = brightness * random.uniform(size=(NUM_EXAMPLES, 8, 8, 3))
  return faces.FaceDataset(
      name='small',
      split='train',
      attribute_names=('Bald', 'Smiling'),
      image_size=8,
      fingerprint='small',
      attributes=random.choice([-1, 1], (NUM_EXAMPLES, 2)).astype(np.int8),
      images=pixels.astype(np.uint8),
  )


def main(precision: str) -> None:
  jax.config.update('jax_enable_x64', precision == 'float64')
  dtype = jnp.dtype(precision)
  # Adam would hide the size of gradients.
  optimizer = parallel_worker.sgd_with_gradients()
  training.make_optimizer = lambda *unused_args, **unused_kwargs: optimizer
  make_model = lambda dim: networks.FaceAutoencoder(
      2, dim // 4, image_size=8, first_width=4, last_width=4, dtype=dtype
  )
  dataset = make_dataset()
  model = make_model(8)

  def init(seed):
    variables = networks.init_variables(model, seed, model.image_shape)
    return jax.tree.map(lambda x: x.astype(dtype), variables)

  def make_state(seed):
    return attribute_training.create_train_state(init(seed), optimizer)

  teacher_stage = config.Stage('teacher', 'teacher', None, 8, 1, PHASE_1)
  teacher = stages.Trained(teacher_stage, model, make_state(1), '')
  data = attribute_training.FaceData(
      jnp.asarray(dataset.images), jnp.asarray(dataset.attributes)
  )
  report = {'devices': jax.device_count()}
  for name, weights in CASES.items():
    stage = config.Stage(name, name, None, 8, 1, weights, teacher='teacher')
    reference = jax.jit(
        functools.partial(
            attribute_training.train_steps,
            read=lambda row: jax.tree.map(lambda x: jnp.take(x, row, 0), data),
            model=model,
            teacher_model=model,
            weights=weights,
            optimizer=optimizer,
            seed=0,
            batch_size=BATCH_SIZE,
        )
    )
    indices = batches.epoch_indices(0, 1, NUM_EXAMPLES, BATCH_SIZE)
    expected = jax.device_get(
        reference(make_state(0), teacher.variables, indices)
    )
    # How batches come to the devices is the same for all objectives.
    placements = (True, False) if name == 'teacher' else (True,)
    for mode, on_device in itertools.product(parallel.MODES, placements):
      recipe = editing.Editing(
          editing.Settings(
              batch_size=BATCH_SIZE, mode=mode, on_device=on_device
          ),
          make_model,
          dataset,
      )
      epoch_fn = recipe.make_epoch(stage, model, {'teacher': teacher})
      state, metrics = jax.device_get(epoch_fn(make_state(0), 1))
      old_state, of_steps = expected
      old_metrics = {k: v.mean(axis=0) for k, v in of_steps.items()}
      metrics.pop('input_bound', None)  # It is of the clock.
      difference = parallel_worker.difference
      report[f'{name}/{mode}/{"resident" if on_device else "fed"}'] = {
          'gradients': difference(state.opt_state, old_state.opt_state),
          'params': difference(
              state.params, old_state.params, old_state.opt_state
          ),
          'batch_stats': difference(state.batch_stats, old_state.batch_stats),
          'metrics': difference(metrics, old_metrics),
      }
  report |= compare_fader(dataset, data, optimizer, dtype)
  print(json.dumps(report))


def compare_fader(dataset, data, optimizer, dtype):
  """Compares a step of Fader Networks, whose dropout is that of the batch."""
  make_model = lambda dim: fader_networks.FaderAutoencoder(
      2, dim // 4, image_size=8, first_width=4, last_width=4,
      discriminator_width=6, discriminator_hidden=5, dtype=dtype,
  )  # pyformat: disable
  model = make_model(8)

  def make_state():
    variables = networks.init_variables(model, 0, model.image_shape)
    variables = jax.tree.map(lambda x: x.astype(dtype), variables)
    return attribute_training.create_train_state(variables, optimizer)

  # Terms of the size of 1.
  weights = config.FaderLossWeights(1.0, ramp_steps=0)
  reference = jax.jit(
      functools.partial(
          fader_training.train_steps,
          read=lambda row: jax.tree.map(lambda x: jnp.take(x, row, 0), data),
          model=model,
          weights=weights,
          optimizer=optimizer,
          seed=0,
          batch_size=BATCH_SIZE,
      )
  )
  indices = batches.epoch_indices(0, 1, NUM_EXAMPLES, BATCH_SIZE)
  old_state, of_steps = jax.device_get(reference(make_state(), None, indices))
  old_metrics = {k: v.mean(axis=0) for k, v in of_steps.items()}
  stage = config.Stage('fader', 'fader', None, 8, 1, weights)
  difference, report = parallel_worker.difference, {}
  for mode in parallel.MODES:
    recipe = fader_training.FaderEditing(
        editing.Settings(batch_size=BATCH_SIZE, mode=mode), make_model, dataset
    )
    epoch_fn = recipe.make_epoch(stage, model, {})
    state, metrics = jax.device_get(epoch_fn(make_state(), 1))
    report[f'fader/{mode}/resident'] = {
        'gradients': difference(state.opt_state, old_state.opt_state),
        'batch_stats': difference(state.batch_stats, old_state.batch_stats),
        'metrics': difference(metrics, old_metrics),
    }
  return report


if __name__ == '__main__':
  main(sys.argv[1])
