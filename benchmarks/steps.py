"""Measures training steps, in turn with what they are compared with.

python -m benchmarks.steps --what=mnist_step --against=torch
python -m benchmarks.steps --what=celeba_step --step=student --against=torch
python -m benchmarks.steps --what=mnist_grid
python -m benchmarks.steps --what=jacobian
"""

from collections.abc import Callable
import functools
from typing import Any

from absl import flags
import jax.numpy as jnp
import numpy as np

from benchmarks import problems
from benchmarks import timing
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders
from jacsup_jax.training import devices
from jacsup_jax.training import discovery
from jacsup_jax.training import loop
from jacsup_jax.training import replicas
from jacsup_jax.training import steps

FLAGS = flags.FLAGS
Programs = dict[str, Callable[[], Any]]
SUPERVISIONS = {
  'secant': config.Supervision(),
  'tangent': config.Supervision('tangent'),
  'path, 3 nodes': config.Supervision('path'),
  'path, 8 nodes': config.Supervision('path', jacobian_nodes=8),
  'full': config.Supervision('full'),
}


def define_flags() -> None:
  """Defines the flags; not on import, as tests import this module."""
  flags.DEFINE_enum(
    'what',
    'mnist_step',
    ['mnist_step', 'celeba_step', 'mnist_grid', 'jacobian'],
    "What to measure: mnist_step, a student's step on digits; celeba_step,"
    ' a step on faces; mnist_grid, steps of several students on digits, at'
    " once and one by one; jacobian, a student's step on digits with each"
    ' kind of Jacobian supervision.',
  )
  flags.DEFINE_enum(
    'against',
    None,
    ['torch'],
    "Also measure PyTorch's eager step of the same model, batch and losses.",
  )
  flags.DEFINE_enum(
    'step',
    'phase_one',
    problems.FACE_STEPS,
    "Which step on faces: a teacher's without or with cycle losses, or a"
    " student's (d = 8192).",
  )
  whole = functools.partial(flags.DEFINE_integer, lower_bound=1)
  whole('batch_size', None, 'Examples per step; default: 128 digits, 8 faces.')
  whole('nuisance_dim', 10, 'd of a student on digits; one unit of it is new.')
  whole('image_size', 256, 'Pixels of a side of a face, a power of two.')
  whole('replicas', 14, 'Students of mnist_grid.')
  whole('repeats', 10, 'Measurements of each program.')


def main() -> str:
  """Returns the table of what the flags ask for."""
  what, dim = FLAGS.what, FLAGS.nuisance_dim
  if FLAGS.against and what not in ('mnist_step', 'celeba_step'):
    raise errors.InputError(
      f'--against=torch with --what={what}; accepted: mnist_step or'
      ' celeba_step.'
    )
  machine = timing.describe_machine()
  batch_size = FLAGS.batch_size or (8 if what == 'celeba_step' else 128)
  num_steps, num_images, sizes = 100, batch_size, f'd = {dim}'
  if what == 'celeba_step':
    num_steps, size = 10, FLAGS.image_size
    programs = list_faces(
      FLAGS.step, size, batch_size, num_steps, FLAGS.against
    )
    sizes = f'{FLAGS.step}, {size}x{size} pixels'
  elif what == 'mnist_step':
    programs = list_digits(batch_size, dim, num_steps, FLAGS.against)
  elif what == 'jacobian':
    programs = list_supervisions(batch_size, dim, num_steps)
  else:
    num_steps, num_images = 50, FLAGS.replicas * batch_size
    programs = list_grid(batch_size, dim, FLAGS.replicas, num_steps)
    sizes += f', a step of all {FLAGS.replicas} students'
  times = timing.measure(programs, FLAGS.repeats, num_steps)
  return (
    f'{what}: {sizes}, batch {batch_size}, float32, {machine}; medians of'
    f' {FLAGS.repeats}.\n{timing.format_table(times, num_images)}'
  )


def list_digits(
  batch_size: int,
  nuisance_dim: int,
  num_steps: int,
  against: str | None = None,
  **sizes: Any,
) -> Programs:
  """Lists programs of a student's step on digits, see `experiments.mnist`."""
  make = functools.partial(
    problems.make_digits, batch_size, nuisance_dim, num_steps, **sizes
  )
  problem = make()
  return {
    'teacher cached': problem.make_program(num_steps),
    'teacher in the step': make(is_cached=False).make_program(num_steps),
    **_list_theirs(problem, num_steps, against),
  }


def list_faces(
  name: str,
  image_size: int,
  batch_size: int,
  num_steps: int,
  against: str | None = None,
  **sizes: Any,
) -> Programs:
  """Lists programs of a step on faces, see `experiments.celeba`."""
  problem = problems.make_faces(name, image_size, batch_size, **sizes)
  return {
    'ours': problem.make_program(num_steps),
    **_list_theirs(problem, num_steps, against),
  }


def _list_theirs(problem, num_steps, against) -> Programs:
  """Lists PyTorch's program of the same steps, if it is asked for."""
  if not against:
    return {}
  torch_steps = timing.import_torch_steps()
  return {'PyTorch eager': torch_steps.make_program(problem, num_steps)}


def list_supervisions(
  batch_size: int, nuisance_dim: int, num_steps: int, **sizes: Any
) -> Programs:
  """Lists programs of a student's step on digits, by kind of supervision."""
  make = functools.partial(
    problems.make_digits, batch_size, nuisance_dim, num_steps, **sizes
  )
  return {
    name: make(config.LossWeights(supervision=each)).make_program(num_steps)
    for name, each in SUPERVISIONS.items()
  }


def list_grid(
  batch_size: int, nuisance_dim: int, count: int, num_steps: int, **sizes: Any
) -> Programs:
  """Lists programs of students with other weights, at once and one by one.

  At once is how `experiments.ablation --table=4` trains its models; one by one
  is what as many runs would do. A step is one of all students.
  """
  make_model = lambda num_factors, dim, is_first: autoencoders.MlpAutoencoder(
    num_factors, dim, normalize_code=is_first, **sizes
  )
  shape = (num_steps * batch_size, *make_model(1, 1, False).image_shape)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  recipe = replicas.Replicas(
    discovery.DiscoveryConfig(batch_size=batch_size),
    make_model,
    jnp.asarray(images),
  )
  weights = [
    config.LossWeights(lambda_diff=0.1 * (i + 1)) for i in range(count)
  ]
  make = functools.partial(_make_last_epoch, recipe, nuisance_dim)
  alone = [make(each) for each in weights]
  return {
    'at once': make(replicas.stack_weights(weights)),
    'one by one': lambda: [epoch() for epoch in alone],
  }


def _make_last_epoch(
  recipe: replicas.Replicas, nuisance_dim: int, weights: config.LossWeights
) -> Callable[[], Any]:
  """Makes the epoch of the last of a chain's students, none of them trained."""
  trained, parent = {}, None
  for dim in range(nuisance_dim + 1):
    # The first teacher is one model for all students.
    own = weights if dim else config.LossWeights()
    stage = config.Stage(f'd{dim}', 'student', parent, dim, 1, own)
    module, state = recipe.create(stage, trained)
    trained[stage.name] = steps.Trained(stage, module, state)
    parent = stage.name
  epoch = recipe.make_epoch(stage, module, trained)
  args = epoch.constants, next(epoch.chunks(0, 0)).rows, loop.make_bounds()
  return problems.repeat(epoch.run, devices.replicate(state), *args)


if __name__ == '__main__':
  timing.run(main, define_flags)
