"""Tests of experiments.compiled_programs, on texts of XLA's form."""

import pytest

from experiments import compiled_programs

# A map read from main memory to the chip and back, two all-reduces (of which
# one is asynchronous) and an all-gather; in a loop's body, a third.
_TEXT = """HloModule jit_fn

%body.1 (p: f32[4]) -> f32[4] {
  %p = f32[4]{0:T(128)} parameter(0)
  ROOT %all-reduce.9 = f32[4]{0:T(128)} all-reduce(%p), channel_id=9
}

%beside.1 (p: f32[4]) -> f32[4] {
  %p = f32[4]{0:T(128)} parameter(0)
  ROOT %all-reduce.10 = f32[4]{0:T(128)} all-reduce(%p), channel_id=9
}

ENTRY %main (a: bf16[3,10]) -> bf16[3,10] {
  %a = bf16[3,10]{1,0:T(8,128)(2,1)} parameter(0)
  %copy-start.1 = (bf16[3,10]{1,0:T(8,128)(2,1)S(1)}, bf16[3,10]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done.1 = bf16[3,10]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start.1)
  %fusion.1 = (f32[5]{0:T(128)}, bf16[3,10]{1,0:T(8,128)(2,1)}) fusion(%copy-done.1), kind=kLoop, calls=%f
  %get.1 = f32[5]{0:T(128)} get-tuple-element(%fusion.1), index=0
  %all-reduce.1 = (f32[5]{0:T(128)}, bf16[4,4,2,2]{3,2,1,0}) all-reduce(%get.1, %b), channel_id=1
  %all-gather-start.1 = (f32[5]{0:T(128)}, f32[20]{0:T(128)}) all-gather-start(%get.1), channel_id=2
  %all-gather-done.1 = f32[20]{0:T(128)} all-gather-done(%all-gather-start.1)
  ROOT %bitcast.1 = bf16[30]{0} bitcast(%fusion.1)
}
"""


# Values.


def test_instructions_of_the_entry():
  instructions = compiled_programs.parse_instructions(_TEXT)
  assert [x.opcode for x in instructions] == [
      'parameter', 'copy-start', 'copy-done', 'fusion', 'get-tuple-element',
      'all-reduce', 'all-gather-start', 'all-gather-done', 'bitcast',
  ]  # pyformat: disable
  fusion = instructions[3]
  assert fusion.operands == ('copy-done.1',)
  assert [(x.dtype, x.shape) for x in fusion.results] == [
      ('f32', (5,)),
      ('bf16', (3, 10)),
  ]


@pytest.mark.parametrize(
    'layout, expected',
    [
        # Rows of 10 are of 128 numbers, and 3 of them are 8.
        ('1,0:T(8,128)(2,1)', 8 * 128 * 2),
        # The other way round: 10 rows of 3.
        ('0,1:T(8,128)(2,1)', 16 * 128 * 2),
        ('1,0', 3 * 10 * 2),
        ('', 3 * 10 * 2),
    ],
)
def test_bytes_and_padding_of_an_array(layout, expected):
  array = compiled_programs.Array('bf16', (3, 10), layout)
  assert array.num_bytes == 60
  assert array.padded_bytes == expected
  assert not array.is_on_chip
  assert array._replace(layout=layout + 'S(1)').is_on_chip


def test_collectives_of_entry_and_loops():
  found = compiled_programs.list_collectives(_TEXT)
  assert [(x.opcode, x.num_bytes) for x in found] == [
      ('all-reduce', 16),
      # 5 floats, and 64 numbers of two bytes.
      ('all-reduce', 20 + 128),
      # What is gathered, not what a device gives.
      ('all-gather', 80),
  ]


def test_traffic_is_by_where_memory_is():
  instructions = compiled_programs.parse_instructions(_TEXT)[:4]
  traffic = compiled_programs.count_traffic(instructions)
  # The copy's 60 bytes; the fusion's results, 20 and 60.
  assert traffic == compiled_programs.Traffic(60 + 80, 60, 60)


def test_padding_is_a_share():
  # 5 floats in 128, and [3, 10] in [8, 128] of two bytes.
  fusion = compiled_programs.parse_instructions(_TEXT)[3:4]
  padding = compiled_programs.count_padding(fusion)
  assert padding == pytest.approx((4 * 128 + 2 * 8 * 128) / (20 + 60) - 1)
