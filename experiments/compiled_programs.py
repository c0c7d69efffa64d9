"""Reads what a compiled program moves: the text that XLA prints of it."""

from collections.abc import Iterator, Sequence
import math
import re
from typing import NamedTuple

_BITS = {'pred': 8, 's4': 4, 'u4': 4, 's8': 8, 'u8': 8, 'bf16': 16}
_ARRAY = re.compile(r'([a-z]+\d*)\[([\d,]*)\](?:\{([^}]*)\})?')
_INSTRUCTION = re.compile(
    r'\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$'
)
_COLLECTIVES = (
    'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all',
    'collective-permute', 'collective-broadcast',
)  # pyformat: disable
# They name memory that is there, or move what others compute from.
_FREE = frozenset({
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast',
    'partition-id', 'custom-call', 'after-all',
})  # pyformat: disable
_COPIES = ('slice', 'copy')


class Array(NamedTuple):
  """An operand or result of an instruction.

  Attributes:
    dtype: XLA's name, as bf16.
    shape: of a device's part.
    layout: as printed: order of the axes, tiles, and memory space.
  """

  dtype: str
  shape: tuple[int, ...]
  layout: str

  @property
  def num_bytes(self) -> int:
    """Without padding."""
    return math.prod(self.shape) * _item_bits(self.dtype) // 8

  @property
  def padded_bytes(self) -> int:
    """With what tiles add to the two minor axes."""
    order, _, tiles = self.layout.partition(':')
    tile = re.search(r'T\(([\d,]+)\)', tiles)
    if tile is None or not order:
      return self.num_bytes
    axes = [int(axis) for axis in order.split(',')]
    sizes = [self.shape[axis] for axis in axes]
    for i, size in enumerate(reversed(_parse_ints(tile[1]))):
      if i < len(sizes):
        sizes[i] += -sizes[i] % size
    return math.prod(sizes) * _item_bits(self.dtype) // 8

  @property
  def is_on_chip(self) -> bool:
    """Whether it is in a chip's own memory (a TPU's VMEM), not in HBM."""
    return 'S(1)' in self.layout


class Instruction(NamedTuple):
  name: str
  opcode: str
  results: tuple[Array, ...]
  operands: tuple[str, ...]  # names
  channel: int | None = None  # of a collective


class Collective(NamedTuple):
  opcode: str  # of `_COLLECTIVES`
  results: tuple[Array, ...]

  @property
  def num_bytes(self) -> int:
    return sum(array.num_bytes for array in self.results)


class Traffic(NamedTuple):
  """Bytes that a program moves on a device, by what its text says.

  Attributes:
    hbm: to and from a chip's main memory, by instructions and by copies.
    on_chip: that instructions read from and write to memory on the chip.
    copied: of `hbm`, by copies between the two that run beside instructions.
  """

  hbm: int
  on_chip: int
  copied: int


def parse_instructions(text: str) -> list[Instruction]:
  """Returns the instructions of a program's entry, without those it calls.

  Args:
    text: of `jax.stages.Compiled.as_text()`.
  """
  return list(_parse_computation(text[text.index('\nENTRY') :]))


def list_collectives(text: str) -> list[Collective]:
  """Returns all collectives of a program, those of its loops' bodies once."""
  found, seen = [], set()
  for instruction in _parse_computation(text):
    opcode = instruction.opcode.removesuffix('-start')
    if opcode in _COLLECTIVES:
      # One that runs beside others is written down for each of these.
      if instruction.channel is not None and instruction.channel in seen:
        continue
      seen.add(instruction.channel)
      results = instruction.results
      # An asynchronous one other than an all-reduce has its operands first.
      if instruction.opcode.endswith('-start') and opcode != 'all-reduce':
        results = results[len(results) // 2 :]
      found.append(Collective(opcode, results))
  return found


def count_traffic(instructions: Sequence[Instruction]) -> Traffic:
  """Counts the bytes that instructions move, each operand and result once."""
  results = {x.name: x.results for x in instructions}
  hbm = on_chip = copied = 0
  for instruction in instructions:
    stem, _, ending = instruction.opcode.rpartition('-')
    if stem in _COPIES and ending in ('start', 'done'):
      if ending == 'start':
        # Both ends are among the results; the smaller is what is copied.
        copied += min(x.num_bytes for x in instruction.results[:2])
      continue
    if instruction.opcode in _FREE:
      continue
    arrays = [
        *instruction.results,
        *(x for name in instruction.operands for x in results.get(name, ())),
    ]
    for array in arrays:
      if array.is_on_chip:
        on_chip += array.num_bytes
      else:
        hbm += array.num_bytes
  return Traffic(hbm + copied, on_chip, copied)


def count_padding(instructions: Sequence[Instruction]) -> float:
  """Returns how much tiles add to all results, as a share of their bytes."""
  arrays = [
      array
      for instruction in instructions
      if instruction.opcode not in _FREE
      for array in instruction.results
  ]
  total = sum(array.num_bytes for array in arrays)
  return sum(array.padded_bytes for array in arrays) / max(total, 1) - 1


def _parse_computation(text: str) -> Iterator[Instruction]:
  for line in text.splitlines():
    match = _INSTRUCTION.match(line)
    if match is None:
      continue
    name, results, opcode, rest = match.groups()
    arguments = rest.partition(')')[0]
    channel = re.search(r'channel_id=(\d+)', rest)
    yield Instruction(
        name,
        opcode,
        tuple(
            Array(dtype, tuple(_parse_ints(shape)), layout)
            for dtype, shape, layout in _ARRAY.findall(results)
        ),
        tuple(re.findall(r'%([\w.\-]+)', arguments)),
        int(channel[1]) if channel else None,
    )


def _parse_ints(text):
  return [int(number) for number in text.split(',') if number]


def _item_bits(dtype):
  if dtype in _BITS:
    return _BITS[dtype]
  digits = re.search(r'\d+', dtype)
  return int(digits[0]) if digits else 0
