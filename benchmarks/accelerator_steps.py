"""Measures training steps on an accelerator; see `accelerator`.

Ours in turn with PyTorch's, on digits and on faces, with what the compiler says
of memory and operations, and with the card's own rates of copies and products.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import itertools
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import accelerator_programs as programs
from benchmarks import counts
from benchmarks import input as reading
from benchmarks import problems
from benchmarks import records as records_lib
from jacsup_jax.data import registry
from jacsup_jax.training import chains
from jacsup_jax.training import devices
from jacsup_jax.training import loop


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is measured, the most important first."""

  batch_size: int = 128
  num_batches: int = 468
  seeds: tuple[int, ...] = (1, 16, 4, 64)
  image_sizes: tuple[int, ...] = (256, 64)
  batch_sizes: tuple[int, ...] = (128, 32, 512)
  precisions: tuple[str, ...] = ('bfloat16', 'TF32', 'float32')
  face_steps: tuple[str, ...] = ('student', 'phase_one', 'phase_two')
  num_steps: int = 8  # of a program on faces
  fed_images: int = 4096
  windows: int = 7
  window_seconds: float = 0.3
  matrix_side: int = 8192
  copied_floats: int = 2**28
  faces: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  digits: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Seconds that are left before a program is compiled.
  needs: float = 20.0


REHEARSAL = Sizes(
  batch_size=8,
  num_batches=2,
  seeds=(2,),
  image_sizes=(8,),
  batch_sizes=(8,),
  precisions=('bfloat16',),
  face_steps=('student',),
  num_steps=2,
  fed_images=16,
  windows=2,
  window_seconds=0.0,
  matrix_side=16,
  copied_floats=16,
  faces=problems.TINY_FACES,
  digits=problems.TINY_DIGITS,
  needs=0.5,
)


def run(
  records: records_lib.Records, sizes: Sizes, bundle: pathlib.Path | None
) -> None:
  """Measures all that the time allows."""
  del bundle  # Images are noise.
  measure_card(records, sizes)
  first, *others = list_faces(sizes)
  # Conditioning, and what feeds the step, for the first faces alone.
  measure_first = functools.partial(measure_faces, is_first=True)
  for measure, config in (
    (measure_first, first),
    (measure_digits, ()),
    (_measure_feeding, first),
    *((measure_faces, other) for other in others),
  ):
    try:
      measure(records, sizes, *config)
    except Exception as error:
      records.fail(f'steps ended/{config}', error)
    programs.free_memory()
  counts.draw_roofline(records)


def list_faces(sizes: Sizes) -> list[tuple[str, int, int, str]]:
  """Lists step, image size, batch size and precision, in order.

  The fewer of them differ from the first choice, the earlier; among equals,
  other steps come before other sizes, and other precisions last.
  """
  choices = (
    sizes.face_steps,
    sizes.image_sizes,
    sizes.batch_sizes,
    sizes.precisions,
  )

  def rank(own):
    same = [x == choice[0] for x, choice in zip(own, choices)]
    return -sum(same), same

  return sorted(itertools.product(*choices), key=rank)


def measure_card(records: records_lib.Records, sizes: Sizes) -> None:
  """Measures the rates that shares refer to."""

  def copy():
    x = jnp.zeros(sizes.copied_floats, jnp.float32)
    seconds = _time_best(jax.jit(lambda x: x + 1), x)
    return {'bytes a second': 2 * x.nbytes / seconds}

  records.measure('card/copy', copy)
  side = sizes.matrix_side
  for name in sizes.precisions:

    def multiply(name=name):
      dtype, precision = problems.PRECISIONS[name]
      x = jnp.ones((side, side), dtype)
      with jax.default_matmul_precision(precision):
        seconds = _time_best(jax.jit(lambda x: x @ x), x)
      return {'FLOP a second': 2 * side**3 / seconds}

    records.measure(f'card/products in {name}', multiply)


def measure_digits(records: records_lib.Records, sizes: Sizes) -> None:
  """Measures a student's step on digits, an epoch as one program."""
  problem = problems.make_digits(
    sizes.batch_size, 10, sizes.num_batches, **sizes.digits
  )
  group, num_steps = f'digits, batch {sizes.batch_size}', sizes.num_batches
  make = functools.partial(programs.make_ours, problem, num_steps)
  makers = {'ours': make, **programs.list_rungs(problem, num_steps)}
  take_turns(records, sizes, group, makers, num_steps, problem)
  for count in sizes.seeds:
    make = functools.partial(programs.make_seeds, problem, num_steps, count)
    makers = {f'{count} seeds at once': make}
    take_turns(records, sizes, group, makers, count * num_steps, problem)


def measure_faces(
  records: records_lib.Records,
  sizes: Sizes,
  name: str,
  image_size: int,
  batch_size: int,
  precision: str,
  is_first: bool = False,
) -> None:
  """Measures a step on faces, in turn with PyTorch's."""
  dtype, jax_precision = problems.PRECISIONS[precision]
  group = f'{name} {image_size}x{image_size}, batch {batch_size}, {precision}'
  if records.left < sizes.needs:
    records.skip(f'{group}/ours', f'{max(records.left, 0):.0f} s are left')
    return
  problem = problems.make_faces(
    name, image_size, batch_size, dtype=dtype, **sizes.faces
  )
  make = functools.partial(
    programs.make_ours, problem, sizes.num_steps, jax_precision
  )
  makers = {'ours': make}
  makers |= programs.list_rungs(problem, sizes.num_steps, precision, is_first)
  if is_first:
    makers['ours, factors as channels'] = functools.partial(
      programs.make_as_channels, make
    )
  take_turns(records, sizes, group, makers, sizes.num_steps, problem, precision)


def take_turns(
  records: records_lib.Records,
  sizes: Sizes,
  group: str,
  makers: Mapping[str, programs.Maker],
  num_steps: int,
  problem: problems.Problem,
  precision: str | None = None,
) -> None:
  """Measures programs in turn, so that a slow second is slow for all.

  Each is a result; one that cannot be made does not stop the others.
  """
  keys = {name: f'{group}/{name}' for name in makers}
  makers = {
    name: make for name, make in makers.items() if not records.has(keys[name])
  }
  details, made, windows = {}, {}, {}
  ended = None
  try:
    for name, make in makers.items():
      if records.left < sizes.needs:
        records.skip(keys[name], f'{max(records.left, 0):.0f} s are left')
        continue
      try:
        details[name], made[name] = _prepare(make)
      except Exception as error:
        records.fail(keys[name], error)
  except records_lib.Ended as error:  # Those that are made are measured.
    ended = error
  calls = {name: _count_calls(each, sizes) for name, each in made.items()}
  for _ in range(sizes.windows):
    for name, program in made.items():
      start = time.perf_counter()
      for _ in range(calls[name]):
        jax.block_until_ready(program())
      seconds = time.perf_counter() - start
      windows.setdefault(name, []).append(seconds / calls[name] / num_steps)
  for name, seconds in windows.items():
    own = _summarize(seconds, problem.step.batch_size) | details[name]
    if precision and name == 'ours':
      own |= counts.compute_shares(records, problem, precision, own)
    records.measure(keys[name], lambda own=own: own)
  if ended is not None:
    raise ended


def _prepare(make):
  """Makes a program, and calls it once, as PyTorch compiles only then."""
  described, program = make()
  start = time.perf_counter()
  jax.block_until_ready(program())
  described.setdefault('compile seconds', time.perf_counter() - start)
  return described, program


def _summarize(seconds, batch_size):
  """Returns median and spread of the seconds a step of each window."""
  median = statistics.median(seconds)
  return {
    'ms a step': 1e3 * median,
    'fastest': 1e3 * min(seconds),
    'slowest': 1e3 * max(seconds),
    'windows': len(seconds),
    'steps a second': 1 / median,
    'images a second': batch_size / median,
  }


def _count_calls(program, sizes):
  """Counts the calls of a window."""
  start = time.perf_counter()
  jax.block_until_ready(program())
  return max(1, round(sizes.window_seconds / (time.perf_counter() - start)))


def _measure_feeding(
  records, sizes, name, image_size, batch_size, precision
) -> None:
  """Measures epochs whose images are fed from the host, as bytes or JPEG."""
  dtype, jax_precision = problems.PRECISIONS[precision]
  problem = problems.make_faces(
    name, image_size, batch_size, dtype=dtype, **sizes.faces
  )
  step = dataclasses.replace(problem.step, is_fed=True)
  compiled = devices.compile_epoch('jit', batch_size, step, fed=True)

  def measure(dataset):
    labels = np.ones((len(dataset), step.module.num_factors), np.int8)
    dataset = dataclasses.replace(dataset, labels=labels)
    shape = batch_size, *step.module.image_shape
    constants = devices.replicate(problem.constants._replace(data=None))
    epoch_fn = chains.make_epoch(
      compiled, constants, 0, len(dataset), shape, dataset
    )
    state = devices.replicate(jax.tree.map(jnp.copy, problem.state))
    with jax.default_matmul_precision(jax_precision):
      for epoch in range(2):  # The first one compiles.
        taken = loop.Taken()
        state = loop.run(epoch_fn, state, epoch, taken)
    return {
      'images a second': taken.count * batch_size / taken.seconds,
      'input-bound share': taken.input_bound,
    }

  group = f'{name} {image_size}x{image_size}, batch {batch_size}, {precision}'
  for what, dataset in _make_sets(image_size, sizes.fed_images):
    records.measure(
      f'{group}/fed, {what}', lambda own=dataset: measure(own), sizes.needs
    )


def _make_sets(image_size, count) -> Iterator[tuple[str, registry.Dataset]]:
  encoded = reading.make_encoded_set(image_size, count)
  images = encoded.read_images(range(count))
  yield 'bytes in memory', dataclasses.replace(encoded, images=images)
  yield 'JPEG decoded by the host', encoded


def _time_best(function, x, repeats=10):
  """Returns the seconds of the fastest of some calls."""
  jax.block_until_ready(function(x))
  found = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(function(x))
    found.append(time.perf_counter() - start)
  return min(found)
