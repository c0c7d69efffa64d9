"""Steps of several models of digits at once, against the same one by one.

At once is what `experiments.ablation --table=4` does with the 14 models of that
table, or `experiments.mnist --seeds=N` with N of one; one by one what as many
runs of `experiments.mnist` would do.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import paper_numbers
from experiments import timing
from jacsup_jax.core import config
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import discovery
from jacsup_jax.training import replicas as grid

NUM_FACTORS = 2
# Of one measurement, and batches of the data that it goes through.
NUM_STEPS = 50


def measure_mnist_grid(
    mode: parallel.Mode,
    batch_size: int,
    nuisance_dim: int,
    repeats: int,
    num_seeds: int | None = None,
) -> str:
  """Measures a step of a stage of Table 4, of all its models, or of seeds.

  Args:
    mode: how devices are used, see `parallel`.
    batch_size: of all devices together.
    nuisance_dim: d of the stage, 1 or more.
    repeats: measurements of each program.
    num_seeds: of models that differ in their seeds alone; None takes those of
      Table 4.

  Returns:
    The table, with a heading.
  """
  machine = timing.describe_machine()
  parallel.check_batch_size(batch_size)
  if num_seeds is None:
    members = [
        grid.Member(0, config.LossWeights(**row.weights))
        for row in paper_numbers.TABLES[4].rows
    ]
  else:
    weights = config.LossWeights()
    members = [grid.Member(seed, weights) for seed in range(num_seeds)]
  images = jnp.asarray(
      np.random.default_rng(0).integers(
          0, 256, (NUM_STEPS * batch_size, 28, 28, 1), np.uint8
      )
  )
  settings = discovery.Settings(batch_size=batch_size, mode=mode)
  programs = {
      'at once': _make_grid(settings, images, members, nuisance_dim),
      'one by one': _make_solos(settings, images, members, nuisance_dim),
  }
  times = timing.measure(programs, repeats, NUM_STEPS)
  rows = [timing.Row(name, values) for name, values in times.items()]
  ratio = timing.compare(times['one by one'], times['at once'])
  return '\n'.join([
      f'Student steps of {len(members)} models: k = {NUM_FACTORS}, d ='
      f' {nuisance_dim}, batch {batch_size}, float32, {mode}, {machine};'
      f' medians of {repeats} x {NUM_STEPS} steps of all models.',
      timing.format_table(rows, len(members) * batch_size),
      f'One by one / at once: {ratio:.2f}.',
  ])


def _make_model(num_factors, nuisance_dim, is_first):
  return networks.MlpAutoencoder(
      num_factors, nuisance_dim, normalize_code=is_first
  )


def _make_grid(settings, images, members, nuisance_dim):
  """Makes an epoch of all members, grown but not trained before."""
  recipe = grid.GridDiscovery(
      settings, _make_model, NUM_FACTORS, images, members
  )
  chain = grid.make_stages(members, range(1, nuisance_dim + 1), 1)
  return _make_last_epoch(recipe, chain)


def _make_solos(settings, images, members, nuisance_dim):
  """Makes the same epochs of members that know nothing of each other."""
  epochs = []
  for member in members:
    recipe = discovery.Discovery(
        dataclasses.replace(settings, seed=member.seed),
        _make_model,
        NUM_FACTORS,
        images,
    )
    chain = [
        dataclasses.replace(stage, weights=member.weights)
        for stage in grid.make_stages([member], range(1, nuisance_dim + 1), 1)
    ]
    epochs.append(_make_last_epoch(recipe, chain))
  return lambda: [epoch() for epoch in epochs]


def _make_last_epoch(recipe, chain):
  trained = {}
  for stage in chain:
    model, state = recipe.create(stage, trained)
    trained[stage.name] = stages.Trained(stage, model, state, '')
  epoch_fn = recipe.make_epoch(chain[-1], model, trained)
  state = jax.tree.map(jnp.copy, state)

  def epoch():
    nonlocal state
    state, metrics = epoch_fn(state, 0)
    return metrics

  return epoch
