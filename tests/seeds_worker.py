"""Prints how far seeds of one program are from their solo runs, in float64.

Run by seeds_test.py, since JAX takes float64 for a whole process:

  python tests/seeds_worker.py digits|faces jit|pmap
"""

import dataclasses
import json
import sys
import tempfile

import jax

jax.config.update('jax_enable_x64', True)

import jax.numpy as jnp  # pylint: disable=g-import-not-at-top
import numpy as np

from jacsup_jax.core import config
from jacsup_jax.data import faces
from jacsup_jax.data import registry as datasets
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import attributes as editing
from jacsup_jax.training import discovery
from jacsup_jax.training import editing_grid
from jacsup_jax.training import replicas as grid

SEEDS = (3, 4)
# 25 steps each, which two stages make 50.
EPOCHS, STEPS = 5, 5


def make_digits(mode):
  """Returns a chain with a growth and without, and recipes of it."""
  supervised = config.LossWeights(0.25, 0.1, 1e-3)
  make = lambda name, parent, dim: config.Stage(
      name, name, parent, dim, EPOCHS, supervised,
      None if parent or name == 'teacher' else 'teacher',
  )  # pyformat: disable
  chain = [
      make('teacher', None, 0), make('student', 'teacher', 1),
      make('scratch', None, 1),
  ]  # pyformat: disable
  settings = discovery.Settings(batch_size=16, mode=mode)
  make_model = lambda num_factors, dim, is_first: networks.MlpAutoencoder(
      num_factors, dim, is_first, widths=(32, 16), dtype=jnp.float64
  )
  digits = datasets.load('mnist_embedded', 'test')
  data = make_model, 2, jnp.asarray(digits.images[: 16 * STEPS])
  return (
      chain,
      lambda seed: discovery.Discovery(
          dataclasses.replace(settings, seed=seed), *data
      ),
      lambda seeds: grid.GridDiscovery(
          settings, *data, [grid.Member(seed) for seed in seeds]
      ),
  )


def make_faces(mode):
  """Returns a chain with a growth, and recipes of it."""
  student = config.AttributeLossWeights(
      lambda_prediction=0.0, lambda_xcov=0.0, lambda_y=1.0, lambda_diff=50.0
  )
  chain = [
      config.Stage(
          'teacher', 'teacher', None, 4, EPOCHS, config.AttributeLossWeights()
      ),
      config.Stage('student', 'student', 'teacher', 8, EPOCHS, student),
  ]
  random = np.random.default_rng(0)
  dataset = faces.FaceDataset(
      name='small', split='train', attribute_names=('a', 'b'), image_size=8,
      fingerprint='small',
      attributes=random.choice([-1, 1], (4 * STEPS, 2)).astype(np.int8),
      images=random.integers(0, 256, (4 * STEPS, 8, 8, 3), np.uint8),
  )  # pyformat: disable
  settings = editing.Settings(batch_size=4, mode=mode, learning_rate=1e-3)
  make_model = lambda dim: networks.FaceAutoencoder(
      2, dim // 4, image_size=8, first_width=4, last_width=4,
      dtype=jnp.float64,
  )  # pyformat: disable
  return (
      chain,
      lambda seed: editing.Editing(
          dataclasses.replace(settings, seed=seed), make_model, dataset
      ),
      lambda seeds: editing_grid.EditingGrid(
          settings, make_model, dataset, seeds
      ),
  )


def run(path, chain, recipe):
  workdir = workdirs.WorkDir(path)
  workdir.begin('test', {}, {}, [])
  return stages.run(
      chain, recipe, workdir=workdir, evaluate=lambda model, variables: {}
  )


def measure(found, expected):
  """Returns the largest difference, relative to the largest of its leaf."""
  pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
  return float(
      max(
          np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30)
          for a, b in pairs
      )
  )


def main() -> None:
  init_variables = networks.init_variables
  networks.init_variables = lambda *args: jax.tree.map(
      lambda x: x.astype(jnp.float64), init_variables(*args)
  )
  make = {'digits': make_digits, 'faces': make_faces}[sys.argv[1]]
  chain, make_solo, make_stack = make(sys.argv[2])
  report = []
  with tempfile.TemporaryDirectory() as root:
    together = run(f'{root}/together', chain, make_stack(SEEDS))
    for i, seed in enumerate(SEEDS):
      solo = run(f'{root}/{seed}', chain, make_solo(seed))
      for stacked, own in zip(together, solo, strict=True):
        member = grid.take_member(stacked, i)
        assert int(member.state.step) == int(own.state.step)
        report.append({
            'seed': seed,
            'stage': own.stage.name,
            'difference': measure(member.variables, own.variables),
        })
    # Not one model twice.
    first, second = (grid.take_member(together[-1], i) for i in range(2))
    report.append({'apart': measure(first.variables, second.variables)})
  print(json.dumps(report))


if __name__ == '__main__':
  main()
