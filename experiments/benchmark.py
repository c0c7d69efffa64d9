"""Measures the speed of training, and how near its limit it is.

  python -m experiments.benchmark --what=mnist_step
  python -m experiments.benchmark --what=mnist_step --against=torch
  python -m experiments.benchmark --what=mnist_grid
  python -m experiments.benchmark --what=jacobian
  python -m experiments.benchmark --what=mnist_seeds --seeds=3
  python -m experiments.benchmark --what=celeba_step --step=student \
      --against=torch
  python -m experiments.benchmark --what=compile --target=tpu:v5e:2x2
  XLA_FLAGS=--xla_force_host_platform_device_count=8 \
      python -m experiments.benchmark --what=scaling --image_size=64

A step is measured beside its matrix products alone, see `timing`; PyTorch,
where asked for, takes its turn with them. Compiled is for devices that are not
here, see `benchmark_compile`; input, flips and start are in `benchmark_whole`.

Measure on an idle machine, or the ratio means nothing, see `timing`.
"""

from absl import flags
import jax.numpy as jnp

from experiments import benchmark_compile
from experiments import benchmark_digits
from experiments import benchmark_faces
from experiments import benchmark_grid
from experiments import benchmark_jacobian
from experiments import benchmark_whole
from experiments import command_line
from experiments import face_steps
from experiments import seed_runs
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.training import devices as parallel

FLAGS = flags.FLAGS
_BATCH_SIZES = {
    'mnist_step': 128,
    'mnist_grid': 128,
    'jacobian': 128,
    'mnist_seeds': 128,
    'celeba_step': 8,
    'compile': 128,
    'scaling': 8,
}
# Of devices.
_COUNTS = (1, 2, 4, 8)
_WITH_TORCH = ('mnist_step', 'celeba_step')

_WHOLE = {
    'input': lambda: benchmark_whole.measure_input(
        FLAGS.image_size, FLAGS.repeats
    ),
    'flips': lambda: benchmark_whole.measure_flips(
        FLAGS.image_size, FLAGS.repeats
    ),
    'start': lambda: benchmark_whole.measure_start(FLAGS.image_size),
}


def define_flags() -> None:
  """Defines the flags; not on import, where other experiments have the same."""
  flags.DEFINE_enum(
      'what',
      'mnist_step',
      [*_BATCH_SIZES, *_WHOLE],
      'What to measure. mnist_step: a student\'s training step on digits.'
      ' mnist_grid: one of each of Table 4\'s models, at once and one by one.'
      ' jacobian: the student\'s step with each --jacobian, on one device.'
      ' mnist_seeds: the same of --seeds models.'
      ' celeba_step: one on faces. compile: steps on faces compiled for'
      ' --target, which need not be here. scaling: a step on faces compiled for'
      ' 1, 2, 4 and 8 devices of this machine. input: reading and decoding'
      ' faces. flips: decoding and judging them. start: from nothing to the'
      ' first step.',
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
      'Examples per step, on all devices; by default 128 digits or 8 faces. Of'
      ' each device for compile (128) and scaling (8).',
  )
  flags.DEFINE_enum(
      'step',
      None,
      face_steps.STEPS,
      'Which step on faces: a teacher\'s without or with cycle losses, or a'
      ' student\'s (d = 8192); by default phase_one, student for scaling, all'
      ' three for compile.',
  )
  flags.DEFINE_string(
      'target',
      'tpu:v5e:2x2',
      'What to compile for: a slice of TPUs (tpu:v5e:2x2, tpu:v4:2x2x1,'
      ' tpu:v5p:2x2x1, ...) or GPUs (gpu:h100:8).',
  )
  flags.DEFINE_enum(
      'compute_dtype',
      'bfloat16',
      config.COMPUTE_DTYPES,
      'What convolutions are computed in, for compile and scaling.',
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
  flags.DEFINE_integer('seeds', 3, 'How many models mnist_seeds has.')
  flags.DEFINE_integer('repeats', 10, 'Measurements of each program, in turn.')


def main() -> None:
  command_line.check_at_least(1, 'nuisance_dim', 'repeats', 'seeds')
  command_line.check_at_most(seed_runs.MOST_SEEDS, 'seeds')
  command_line.check_at_most(config.LARGEST_WIDTH, 'nuisance_dim')
  config.check_image_size(FLAGS.image_size)
  if FLAGS.batch_size is None:
    batch_size = _BATCH_SIZES.get(FLAGS.what)
  elif FLAGS.what in _WHOLE:
    raise errors.InputError(
        f'--batch_size={FLAGS.batch_size} with --what={FLAGS.what}, which has'
        ' its own; accepted: none.'
    )
  else:
    command_line.check_at_least(1, 'batch_size')
    command_line.check_at_most(config.LARGEST_WIDTH, 'batch_size')
    batch_size = FLAGS.batch_size
  if FLAGS.against and FLAGS.what not in _WITH_TORCH:
    raise errors.InputError(
        f'--against=torch with --what={FLAGS.what}; accepted:'
        f' {" or ".join(_WITH_TORCH)}.'
    )
  dtype = jnp.dtype(FLAGS.compute_dtype)
  if FLAGS.what == 'compile':
    benchmark_compile.report_compiled(
        FLAGS.target,
        [FLAGS.step] if FLAGS.step else face_steps.STEPS,
        FLAGS.image_size,
        batch_size,
        dtype,
    )
    return
  if FLAGS.what in _WHOLE:
    print(_WHOLE[FLAGS.what]())
    return
  if FLAGS.what in ('mnist_grid', 'mnist_seeds'):
    table = benchmark_grid.measure_mnist_grid(
        FLAGS.parallel,
        batch_size,
        FLAGS.nuisance_dim,
        FLAGS.repeats,
        FLAGS.seeds if FLAGS.what == 'mnist_seeds' else None,
    )
  elif FLAGS.what == 'jacobian':
    table = benchmark_jacobian.measure_jacobian(
        batch_size, FLAGS.nuisance_dim, FLAGS.repeats
    )
  elif FLAGS.what == 'mnist_step':
    table = benchmark_digits.measure_mnist_step(
        FLAGS.parallel,
        batch_size,
        FLAGS.nuisance_dim,
        FLAGS.repeats,
        FLAGS.against,
    )
  elif FLAGS.what == 'scaling':
    step = face_steps.make_step(
        FLAGS.step or 'student', FLAGS.image_size, dtype
    )
    table = benchmark_compile.report_weak_scaling(step, _COUNTS, batch_size)
  else:
    table = benchmark_faces.measure_celeba_step(
        face_steps.make_step(FLAGS.step or 'phase_one', FLAGS.image_size),
        FLAGS.parallel,
        batch_size,
        FLAGS.repeats,
        FLAGS.against,
    )
  print(table)


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
