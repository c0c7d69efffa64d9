"""Measures the speed of training, and how near its limit it is.

  python -m experiments.benchmark --what=mnist_step
  python -m experiments.benchmark --what=mnist_step --against=torch
  python -m experiments.benchmark --what=mnist_grid
  python -m experiments.benchmark --what=celeba_step --against=torch

A step on digits is measured beside its matrix products alone, see
`benchmark_digits`; PyTorch, where asked for, takes its turn with either step.

Measure on an idle machine, or the ratio means nothing, see `timing`.
"""

from absl import flags

from experiments import benchmark_digits
from experiments import benchmark_faces
from experiments import benchmark_grid
from experiments import command_line
from jacsup_jax import networks
from jacsup_jax import parallel
from jacsup_jax import types

FLAGS = flags.FLAGS
_BATCH_SIZES = {'mnist_step': 128, 'mnist_grid': 128, 'celeba_step': 8}


def define_flags() -> None:
  """Defines the flags; not on import, where other experiments have the same."""
  flags.DEFINE_enum(
      'what',
      'mnist_step',
      list(_BATCH_SIZES),
      'What to measure. mnist_step: a student\'s training step on digits.'
      ' mnist_grid: one of each of Table 4\'s models, at once and one by one.'
      ' celeba_step: a teacher\'s on faces, without cycle losses.',
  )
  flags.DEFINE_enum(
      'against',
      None,
      ['torch'],
      'Measure PyTorch\'s eager step of the same model, batch and losses too.',
  )
  flags.DEFINE_enum(
      'parallel',
      'jit',
      parallel.MODES,
      'How devices share a step on digits: jit over a mesh, or pmap. A step on'
      ' faces is measured on one device.',
  )
  flags.DEFINE_integer(
      'batch_size',
      None,
      'Examples per step, on all devices; by default 128 digits or 8 faces.',
  )
  flags.DEFINE_integer(
      'nuisance_dim',
      10,
      'd of a student on digits, whose teacher has k + d - 1 units; one unit is'
      ' new.',
  )
  flags.DEFINE_integer(
      'image_size', 256, 'Pixels of a side of a face, a power of two.'
  )
  flags.DEFINE_integer('repeats', 10, 'Measurements of each program, in turn.')


def main() -> None:
  command_line.check_at_least(1, 'nuisance_dim', 'repeats')
  if FLAGS.batch_size is None:
    batch_size = _BATCH_SIZES[FLAGS.what]
  else:
    command_line.check_at_least(1, 'batch_size')
    batch_size = FLAGS.batch_size
  if FLAGS.against and FLAGS.what == 'mnist_grid':
    raise types.InputError(
        '--against=torch with --what=mnist_grid; accepted: mnist_step or'
        ' celeba_step.'
    )
  if FLAGS.what == 'mnist_grid':
    table = benchmark_grid.measure_mnist_grid(
        FLAGS.parallel, batch_size, FLAGS.nuisance_dim, FLAGS.repeats
    )
  elif FLAGS.what == 'mnist_step':
    table = benchmark_digits.measure_mnist_step(
        FLAGS.parallel,
        batch_size,
        FLAGS.nuisance_dim,
        FLAGS.repeats,
        FLAGS.against,
    )
  else:
    model = networks.FaceAutoencoder(
        benchmark_faces.NUM_FACTORS,
        benchmark_faces.NUISANCE_CHANNELS,
        FLAGS.image_size,
    )
    table = benchmark_faces.measure_celeba_step(
        model, FLAGS.parallel, batch_size, FLAGS.repeats, FLAGS.against
    )
  print(table)


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
