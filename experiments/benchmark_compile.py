"""What training on faces asks of chips that are not here.

Steps are compiled for TPU or GPU without the device, and what the compiled
programs say is set beside what a chip's data sheet promises.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import importlib.metadata
import importlib.util
import os
import re

import jax
from jax.experimental import topologies
import jax.numpy as jnp

from experiments import compiled_programs
from experiments import face_steps
from jacsup_jax.core import errors
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import devices as parallel

_MB, _GB = 1e6, 1e9
# Of CelebA, and of the paper's schedule on it.
_TRAINING_IMAGES = 162_770
SCHEDULE = {'phase_one': 100, 'phase_two': 100, 'student': 400}
_CHIP_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclasses.dataclass(frozen=True)
class Chip:
  """Peaks of a chip, as its maker publishes them.

  Attributes:
    flops: multiplications and additions a second in bfloat16.
    hbm: bytes a second to its main memory.
    memory: bytes that it has.
    links: bytes a second to other chips, of all links, one way.
  """

  flops: float
  hbm: float
  memory: float
  links: float


# cloud.google.com/tpu/docs/v4, v5e, v5p; the H100 SXM5's data sheet.
CHIPS = {
    'v4': Chip(275e12, 1228e9, 32e9, 300e9),
    'v5e': Chip(197e12, 819e9, 16e9, 200e9),
    'v5p': Chip(459e12, 2765e9, 95e9, 600e9),
    'h100': Chip(989e12, 3352e9, 80e9, 450e9),
}
_ACCEPTED = (
    'accepted: tpu:v5e:2x2, tpu:v4:2x2x1, tpu:v5p:2x2x1 or another slice of'
    ' these, or gpu:h100:1 to gpu:h100:8.'
)
# What XLA asks of a GPU that is not here.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 3352320000000
  l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclasses.dataclass(frozen=True)
class Report:
  """What a compiled step moves, on one device.

  Attributes:
    name: of the step.
    per_chip: examples of a device.
    flops: of a step; 0 where the compiler does not say.
    bytes_accessed: as XLA counts them: copies between main memory and memory on
      the chip at both of their ends, and reads from the latter too.
    traffic: the same by the program's text; None for a GPU.
    padding: share that tiles add to what is computed.
    peak_memory: bytes.
    collectives: all of them.
  """

  name: str
  per_chip: int
  flops: float
  bytes_accessed: float
  traffic: compiled_programs.Traffic | None
  padding: float
  peak_memory: int
  collectives: Sequence[compiled_programs.Collective]

  @property
  def gradients(self) -> list[compiled_programs.Collective]:
    """The all-reduces that have gradients of kernels."""
    return [
        collective
        for collective in self.collectives
        if any(len(x.shape) == 4 for x in collective.results)
        and collective.opcode == 'all-reduce'
    ]

  def moves_images(self, image_size: int) -> bool:
    """Whether any collective has an array of the size of images."""
    return any(
        x.shape.count(image_size) >= 2
        for collective in self.collectives
        for x in collective.results
    )

  def time(self, chip: Chip) -> float:
    """Returns seconds a step by the roofline: arithmetic or memory."""
    moved = self.traffic.hbm if self.traffic else self.bytes_accessed
    return max(self.flops / chip.flops, moved / chip.hbm)


def parse_target(target: str) -> tuple[str, str, str]:
  """Splits `PLATFORM:CHIP:SIZE`, as tpu:v5e:2x2.

  Raises:
    InputError: if it is not a chip that is known.
  """
  match = re.fullmatch(
      r'(tpu):(v4|v5p):(\d+x\d+x\d+)|(tpu):(v5e):(\d+x\d+)'
      r'|(gpu):(h100):([1-8])',
      target,
  )
  if match is None:
    raise errors.InputError(f'--target={target}; {_ACCEPTED}')
  return tuple(group for group in match.groups() if group is not None)


def get_devices(target: str) -> list[jax.Device]:
  """Returns devices that programs can be compiled for, but not run on.

  Args:
    target: see `parse_target`.

  Raises:
    InputError: if there is no such slice, or the compiler is not installed.
  """
  platform, chip, size = parse_target(target)
  if platform == 'tpu':
    _check_installed('libtpu', 'tpu', target)
    # It looks for a TPU's host otherwise, for minutes.
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
    os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
    os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-4')
    # No TPU is used: several processes may compile.
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
    # The two cores of a v4 are one device, as they are on a TPU's host.
    options = {'chip_config_name': 'megacore'} if chip == 'v4' else {}
    get = functools.partial(
        topologies.get_topology_desc,
        f'{chip}:{size}',
        platform='tpu',
        **options,
    )
  else:
    _check_installed('jax_cuda12_plugin', 'cuda12-local', target)
    get = functools.partial(
        topologies.get_topology_desc,
        chip,
        'cuda',
        target_config=_H100,
        topology=f'1x1x{size}',
    )
  try:
    return list(get().devices)
  except (jax.errors.JaxRuntimeError, ValueError) as error:
    text = ' '.join(str(error).split())[:200]
    raise errors.InputError(f'--target={target}: {text}; {_ACCEPTED}') from error


def compile_step(
    step: face_steps.FaceStep, devices: Sequence[jax.Device], per_chip: int
) -> Report:
  """Compiles a step for devices and reads the program.

  Args:
    step: which.
    devices: that the batch is spread over.
    per_chip: examples of each.

  Returns:
    The report.
  """
  batch_size = per_chip * len(devices)
  variables, teacher = (
      jax.eval_shape(functools.partial(face_steps.init_variables, model, 0))
      for model in (step.model, step.teacher_model)
  )
  state = jax.eval_shape(
      lambda variables: attribute_training.create_train_state(
          variables, step.optimizer
      ),
      variables,
  )
  data = attribute_training.FaceData(
      jax.ShapeDtypeStruct((batch_size, *step.model.image_shape), jnp.uint8),
      jax.ShapeDtypeStruct((batch_size, step.model.num_factors), jnp.int8),
  )
  compiled = parallel.compile_for(
      devices,
      functools.partial(face_steps.take_steps, step, num_steps=1),
      state,
      teacher,
      data,
  )
  # A GPU's compiler does not count.
  costs = compiled.cost_analysis() or {}
  text = compiled.as_text()
  memory = compiled.memory_analysis()
  instructions = compiled_programs.parse_instructions(text)
  is_gpu = devices[0].platform == 'gpu'
  traffic = compiled_programs.count_traffic(instructions)
  products = face_steps.list_products(step, per_chip)
  return Report(
      name=step.describe(),
      per_chip=per_chip,
      flops=costs.get('flops', sum(p.flops for p in products)),
      bytes_accessed=costs.get('bytes accessed', traffic.hbm),
      traffic=None if is_gpu else traffic,
      padding=compiled_programs.count_padding(instructions),
      peak_memory=memory.peak_memory_in_bytes or (
          memory.argument_size_in_bytes + memory.temp_size_in_bytes
      ),
      collectives=compiled_programs.list_collectives(text),
  )


def format_report(report: Report, chip: Chip) -> str:
  """Formats a report, a line each.

  Args:
    report: of one step.
    chip: that it was compiled for.
  """
  n = report.per_chip
  # A GPU's compiler does not count: there it is by the program's text.
  counted = 'as XLA ' if report.traffic else 'by text'
  lines = [
      f'{report.name}, batch {n} a chip',
      f'  GFLOP an image        {report.flops / n / 1e9:10.3f}',
      f'  MB an image, {counted}  {report.bytes_accessed / n / _MB:10.2f}',
  ]
  if report.traffic:
    traffic = report.traffic
    lines += [
        f'  of HBM, MB an image   {traffic.hbm / n / _MB:10.2f}',
        f'    by prefetches       {traffic.copied / n / _MB:10.2f}',
        f'  on the chip           {traffic.on_chip / n / _MB:10.2f}',
        f'  padding               {report.padding:10.1%}',
    ]
  arithmetic = 1e3 * report.flops / chip.flops
  time = 1e3 * report.time(chip)
  lines += [
      f'  peak memory, GB       {report.peak_memory / _GB:10.2f} of'
      f' {chip.memory / _GB:.0f}',
      f'  roofline, ms a step   {time:10.2f} (arithmetic {arithmetic:.2f}):'
      f' {n / time * 1e3:.0f} images/s a chip',
      f'  collectives           {_summarize(report.collectives)}',
      f'    with gradients      {_summarize(report.gradients)}',
  ]
  return '\n'.join(lines)


def format_scaling(report: Report, chip: Chip) -> str:
  """Calculates how a step scales, from its collectives and the links' speed.

  A ring all-reduce of G bytes over n chips moves 2 G (n - 1) / n through the
  links of each. Nothing of it is counted as hidden behind arithmetic.

  Args:
    report: of one step.
    chip: that it was compiled for.

  Returns:
    Lines: one a number of chips.
  """
  total = sum(collective.num_bytes for collective in report.collectives)
  step = report.time(chip)
  lines = [
      f'{report.name}: {total / _MB:.1f} MB of collectives a step',
      f'  {"chips":>6} {"ms all-reduce":>13} {"images/s":>10}'
      f' {"efficiency":>10} {"bound below":>11}',
  ]
  for count in _CHIP_COUNTS:
    exchange = 2 * total * (count - 1) / count / chip.links
    rate = count * report.per_chip / (step + exchange)
    # Examples a chip whose arithmetic and memory take as long as the exchange.
    bound = exchange / step * report.per_chip
    lines.append(
        f'  {count:6} {1e3 * exchange:13.2f} {rate:10.0f}'
        f' {step / (step + exchange):10.1%} {bound:11.1f}'
    )
  return '\n'.join(lines)


def format_schedule(reports: Sequence[Report], chip: Chip) -> str:
  """Calculates the chip hours of the paper's schedule on CelebA.

  Args:
    reports: of the steps, in the order of `SCHEDULE`.
    chip: that they were compiled for.
  """
  hours = [
      epochs * _TRAINING_IMAGES * report.time(chip) / report.per_chip / 3600
      for epochs, report in zip(SCHEDULE.values(), reports, strict=True)
  ]
  parts = [
      f'{name} {count} epochs {time:.1f}'
      for (name, count), time in zip(SCHEDULE.items(), hours)
  ]
  return (
      f'The paper\'s schedule, chip hours by the roofline: {", ".join(parts)};'
      f' together {sum(hours):.1f}. (All of the student\'s at d = 8192.)'
  )


def report_compiled(
    target: str,
    names: Sequence[face_steps.Name],
    image_size: int,
    per_chip: int,
    dtype: jnp.dtype,
    progress: Callable[[str], None] = print,
) -> None:
  """Compiles steps for a target and prints what the programs move.

  Args:
    target: see `parse_target`.
    names: of the steps.
    image_size: pixels of a side.
    per_chip: examples of a device.
    dtype: that convolutions are computed in.
    progress: called with each part of the report.

  Raises:
    InputError: see `get_devices`.
  """
  chip = CHIPS[parse_target(target)[1]]
  devices = get_devices(target)
  progress(f'Compiled for {len(devices)} x {devices[0].device_kind}:')
  reports = []
  for name in names:
    step = face_steps.make_step(name, image_size, dtype)
    reports.append(compile_step(step, devices, per_chip))
    progress(format_report(reports[-1], chip))
  if len(devices) > 1:
    progress(format_scaling(reports[-1], chip))
  if tuple(names) == face_steps.STEPS:
    progress(format_schedule(reports, chip))


def report_weak_scaling(
    step: face_steps.FaceStep, counts: Sequence[int], per_chip: int
) -> str:
  """Compiles a step for 1, 2, ... of this machine's devices.

  Args:
    step: which.
    counts: of devices.
    per_chip: examples of each.

  Returns:
    A table of what a device computes, moves and exchanges.

  Raises:
    InputError: if there are not so many devices.
  """
  devices = jax.devices()
  if len(devices) < max(counts):
    raise errors.InputError(
        f'--what=scaling compiles for {max(counts)} devices, found'
        f' {len(devices)}; accepted: XLA_FLAGS='
        f'--xla_force_host_platform_device_count={max(counts)} in the'
        ' environment, for a simulation on the CPU.'
    )
  lines = [
      f'{step.describe()}, batch {per_chip} a device, on'
      f' {devices[0].device_kind}; of one device:',
      f'  {"devices":>7} {"GFLOP":>8} {"MB moved":>9} {"peak MB":>8}'
      ' collectives',
  ]
  for count in counts:
    report = compile_step(step, devices[:count], per_chip)
    lines.append(
        f'  {count:7} {report.flops / 1e9:8.3f}'
        f' {report.bytes_accessed / _MB:9.1f}'
        f' {report.peak_memory / _MB:8.1f} {_summarize(report.collectives)}'
    )
  return '\n'.join(lines)


def _check_installed(module, extra, target):
  if importlib.util.find_spec(module) is not None:
    return
  version = importlib.metadata.version('jax')
  requirement = f'jax[{extra}]=={version}'
  if extra == 'tpu':
    # The extra would add what only a TPU's host needs.
    requirement = next(
        text.partition(';')[0].strip()
        for text in importlib.metadata.requires('jax')
        if text.startswith('libtpu')
    )
  raise errors.InputError(
      f'--target={target} needs {module}, which is not installed; to install'
      f' it, best in an environment of its own: pip install \'{requirement}\''
  )


def _summarize(collectives):
  """Returns the number and bytes of each kind of collective."""
  if not collectives:
    return 'none'
  parts = []
  for opcode in sorted({collective.opcode for collective in collectives}):
    sizes = [c.num_bytes for c in collectives if c.opcode == opcode]
    parts.append(f'{len(sizes)} {opcode} of {sum(sizes) / _MB:.2f} MB')
  return ', '.join(parts)
