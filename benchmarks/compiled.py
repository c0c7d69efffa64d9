"""Compiles steps on faces for chips that need not be here, and counts.

  python -m benchmarks.compiled --target=tpu:v5e:2x2
  XLA_FLAGS=--xla_force_host_platform_device_count=4 \
      python -m benchmarks.compiled --target=here --step=student --image_size=64

Counts are those of `cost_analysis()` and `memory_analysis()`, of one device.
XLA counts bytes that a TPU copies between its main memory and memory on the
chip at both ends, and again where they are used. TPUs need libtpu, best in an
environment of its own.
"""

import collections
import importlib.metadata
import importlib.util
import os
import re
from typing import Any

from absl import flags
import jax
from jax.experimental import topologies
import jax.numpy as jnp

from benchmarks import problems
from benchmarks import timing
from jacsup_jax.core import config
from jacsup_jax.core import errors

FLAGS = flags.FLAGS
_COLLECTIVES = re.compile(
  r' (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)'
  r'(?:-start)?\('
)
# Multiplications and additions a second in bfloat16, and bytes a second to main
# memory: cloud.google.com/tpu/docs/v4, v5e, v5p.
CHIPS = {
  'v4': (275e12, 1228e9),
  'v5e': (197e12, 819e9),
  'v5p': (459e12, 2765e9),
}


def define_flags() -> None:
  """Defines the flags; not on import, as tests import this module."""
  flags.DEFINE_string(
    'target',
    'tpu:v5e:2x2',
    'What to compile for: a slice of TPUs (tpu:v5e:2x2, tpu:v4:2x2x1,'
    ' tpu:v5p:2x2x1, ...), or here: the devices of this machine.',
  )
  flags.DEFINE_multi_enum(
    'step', problems.FACE_STEPS, problems.FACE_STEPS, 'Which steps.'
  )
  flags.DEFINE_integer('batch_size', 128, 'Examples of each device.', 1)
  flags.DEFINE_integer(
    'image_size', 256, 'Pixels of a side of a face, a power of two.'
  )
  flags.DEFINE_enum(
    'compute_dtype',
    'bfloat16',
    config.COMPUTE_DTYPES,
    'Type that convolutions are computed in.',
  )


def main() -> str:
  """Returns the reports of the steps that the flags ask for."""
  devices = get_devices(FLAGS.target)
  chip = CHIPS.get((FLAGS.target.split(':') + [''])[1])
  dtype = getattr(jnp, FLAGS.compute_dtype)
  reports = [
    compile_step(
      name, FLAGS.image_size, devices, FLAGS.batch_size, chip, dtype=dtype
    )
    for name in FLAGS.step
  ]
  heading = f'Compiled for {len(devices)} x {devices[0].device_kind}:'
  return '\n'.join([heading, *reports])


def get_devices(target: str) -> list[jax.Device]:
  """Returns the devices of a --target, which need not be here."""
  if target == 'here':
    return jax.devices()
  platform, chip, size = (target.split(':') + ['', ''])[:3]
  if platform != 'tpu' or chip not in CHIPS:
    raise errors.InputError(
      f'--target={target}; accepted: tpu:v5e:2x2, tpu:v4:2x2x1,'
      ' tpu:v5p:2x2x1 or another slice of these, or here.'
    )
  if importlib.util.find_spec('libtpu') is None:
    needed = [x for x in importlib.metadata.requires('jax') if 'libtpu' in x]
    raise errors.InputError(
      f'--target={target} needs libtpu, which is not installed; to install'
      f" it: pip install '{needed[0].partition(';')[0].strip()}'"
    )
  # libtpu would otherwise ask the host for its TPU.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-4')
  try:
    return topologies.get_topology_desc(f'{chip}:{size}', 'tpu').devices
  except (RuntimeError, ValueError) as error:
    raise errors.InputError(
      f'--target={target} is refused by libtpu ({error}); accepted: slices'
      ' such as tpu:v5e:2x2 and tpu:v4:2x2x1.'
    ) from error


def compile_step(
  name: str,
  image_size: int,
  devices: list[jax.Device],
  per_device: int,
  chip: tuple[float, float] | None = None,
  **sizes: Any,
) -> str:
  """Compiles a step; reports its counts, and the roofline of a chip if given.

  See `problems.compile_faces`.
  """
  compiled = problems.compile_faces(
    name, image_size, devices, per_device, **sizes
  )
  costs, memory = compiled.cost_analysis(), compiled.memory_analysis()
  flops, moved = costs['flops'], costs['bytes accessed']
  peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  found = collections.Counter(_COLLECTIVES.findall(compiled.as_text()))
  collectives = ', '.join(f'{count} {op}' for op, count in found.items())
  lines = [
    f'{name}, {image_size}x{image_size} pixels, batch {per_device} a device',
    f'  GFLOP an image                       {flops / per_device / 1e9:.3f}',
    f'  MB an image                          {moved / per_device / 1e6:.2f}',
    f'  GB of arguments and temporary memory {peak / 1e9:.3f}',
    f'  collectives: {collectives or "none"}',
  ]
  if chip is not None:
    arithmetic, traffic = flops / chip[0], moved / chip[1]
    rate = per_device / max(arithmetic, traffic)
    lines.append(
      f'  roofline: {1e3 * arithmetic:.2f} ms of arithmetic,'
      f' {1e3 * traffic:.2f} ms of memory: {rate:.0f} images/s a device'
    )
  return '\n'.join(lines)


if __name__ == '__main__':
  timing.run(main, define_flags)
