"""Prints how far members of a grid are from their solo runs, in float64.

Run by grid_test.py, since JAX takes float64 for a whole process:

  python tests/grid_worker.py
"""

import json
import tempfile

import jax

jax.config.update('jax_enable_x64', True)

import jax.numpy as jnp  # pylint: disable=g-import-not-at-top

import grid_test  # Beside this file, which is run as a script.
from jacsup_jax.data import registry as datasets
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import replicas as grid


def main() -> None:
  init_variables = networks.init_variables
  networks.init_variables = lambda *args: jax.tree.map(
      lambda x: x.astype(jnp.float64), init_variables(*args)
  )
  # Model of the test, computing in float64.
  make_model = grid_test._make_model
  grid_test._make_model = lambda *sizes: make_model(*sizes).clone(
      dtype=jnp.float64
  )
  digits = datasets.load('mnist_embedded', 'test')
  images = jnp.asarray(digits.images[: grid_test.NUM_IMAGES])
  members = grid_test.TWO_SEEDS
  with tempfile.TemporaryDirectory() as root:
    teacher, student = grid_test._run_grid(f'{root}/grid', images, members)
    seeds = list(dict.fromkeys(member.seed for member in members))
    teacher_stage, student_stage = grid.make_stages(
        members, (1,), grid_test.EPOCHS
    )
    report = []
    for i, member in enumerate(members):
      own = grid.take_member(teacher, seeds.index(member.seed))
      solo = grid_test._run_solo(f'{root}/t{i}', images, teacher_stage, member)
      differences = {
          'teacher': grid_test._difference_of_teachers(
              own.variables, solo.variables
          )
      }
      solo = grid_test._run_solo(
          f'{root}/s{i}', images, student_stage, member, [own]
      )
      own = grid.take_member(student, i)
      differences['student'] = grid_test._difference(
          own.variables, solo.variables
      )
      report.append({name: float(x) for name, x in differences.items()})
  print(json.dumps(report))


if __name__ == '__main__':
  main()
