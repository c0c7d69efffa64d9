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
import jax
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
  )  # pyformat: disable
  flags.DEFINE_enum(
    'against',
    None,
    ['torch'],
    "Also measure PyTorch's eager step of the same model, batch and losses.",
  )  # pyformat: disable
  flags.DEFINE_enum(
    'step',
    'phase_one',
    problems.FACE_STEPS,
    "Which step on faces: a teacher's without or with cycle losses, or a"
    " student's (d = 8192).",
  )  # pyformat: disable
  whole = functools.partial(flags.DEFINE_integer, lower_bound=1)
  whole('batch_size', None, 'Examples per step; default: 128 digits, 8 faces.')
  whole('nuisance_dim', 10, 'd of a student on digits; one unit of it is new.')
  whole('image_size', 256, 'Pixels of a side of a face, a power of two.')
  whole('replicas', 14, 'Students of mnist_grid.')
  whole('repeats', 10, 'Measurements of each program.')


def main() -> str:
  """Returns the table of what the flags ask for."""
  what, repeats, dim = FLAGS.what, FLAGS.repeats, FLAGS.nuisance_dim
  if FLAGS.against and what not in ('mnist_step', 'celeba_step'):
    raise errors.InputError(
      f'--against=torch with --what={what}; accepted: mnist_step or'
      ' celeba_step.'
    )
  machine = timing.describe_machine()
  batch_size = FLAGS.batch_size or (8 if what == 'celeba_step' else 128)
  if what == 'celeba_step':
    size = FLAGS.image_size
    table = measure_faces(FLAGS.step, size, batch_size, repeats, FLAGS.against)
    sizes = f'{FLAGS.step}, {size}x{size} pixels'
  elif what == 'mnist_step':
    table = measure_digits(batch_size, dim, repeats, FLAGS.against)
    sizes = f'd = {dim}'
  elif what == 'jacobian':
    table, sizes = measure_jacobian(batch_size, dim, repeats), f'd = {dim}'
  else:
    table = measure_grid(batch_size, dim, FLAGS.replicas, repeats)
    sizes = f'd = {dim}, a step of all {FLAGS.replicas} students'
  return (
    f'{what}: {sizes}, batch {batch_size}, float32, {machine}; medians of'
    f' {repeats}.\n{table}'
  )


def measure_digits(
  batch_size: int,
  nuisance_dim: int,
  repeats: int,
  against: str | None = None,
  num_steps: int = 100,
  **sizes: Any,
) -> str:  # pyformat: disable
  """Measures a student's step on digits, as `experiments.mnist` trains it."""
  make = functools.partial(
    problems.make_digits, batch_size, nuisance_dim, num_steps, **sizes
  )
  problem = make()
  programs = {
    'teacher cached': problem.make_program(num_steps),
    'teacher in the step': make(is_cached=False).make_program(num_steps),
  }
  if against:
    torch_steps = timing.import_torch_steps()
    programs['PyTorch eager'] = torch_steps.make_program(problem, num_steps)
  times = timing.measure(programs, repeats, num_steps)
  return timing.format_table(times, batch_size)


def measure_faces(
  name: str,
  image_size: int,
  batch_size: int,
  repeats: int,
  against: str | None = None,
  num_steps: int = 10,
  **sizes: Any,
) -> str:  # pyformat: disable
  """Measures a step on faces, as `experiments.celeba` trains it."""
  problem = problems.make_faces(name, image_size, batch_size, **sizes)
  programs = {'ours': problem.make_program(num_steps)}
  if against:
    torch_steps = timing.import_torch_steps()
    programs['PyTorch eager'] = torch_steps.make_program(problem, num_steps)
  times = timing.measure(programs, repeats, num_steps)
  return timing.format_table(times, batch_size)


def measure_jacobian(
  batch_size: int,
  nuisance_dim: int,
  repeats: int,
  num_steps: int = 100,
  **sizes: Any,
) -> str:  # pyformat: disable
  """Measures a student's step on digits with each kind of supervision."""
  make = functools.partial(
    problems.make_digits, batch_size, nuisance_dim, num_steps, **sizes
  )
  programs = {
    name: make(config.LossWeights(supervision=each)).make_program(num_steps)
    for name, each in SUPERVISIONS.items()
  }
  times = timing.measure(programs, repeats, num_steps)
  return timing.format_table(times, batch_size)


def measure_grid(
  batch_size: int,
  nuisance_dim: int,
  count: int,
  repeats: int,
  num_steps: int = 50,
  **sizes: Any,
) -> str:  # pyformat: disable
  """Measures steps of students with other weights, at once and one by one.

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
  programs = {
    'at once': make(replicas.stack_weights(weights)),
    'one by one': lambda: [epoch() for epoch in alone],
  }
  times = timing.measure(programs, repeats, num_steps)
  return timing.format_table(times, count * batch_size)


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
  chunk = next(recipe.make_epoch(stage, module, trained).chunks(0, 0))
  state = devices.replicate(jax.tree.map(jnp.copy, state))

  def program():
    nonlocal state
    state, metrics = chunk.run(state, loop.make_bounds())
    return metrics

  return program


if __name__ == '__main__':
  timing.run(main, define_flags)
