"""Requests for edits in words, and those of the page."""

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.editor import requests
from jacsup_jax.evaluation import unit_scales


def make_units(*names, deviation=1.0):
  return tuple(
    unit_scales.Unit(name, unit_scales.FACTOR, 0.0, deviation, -2.0, 2.0)
    for name in names
  )


UNITS = make_units('Bald', 'Mouth_Slightly_Open', 'Smiling', 'Wearing_Hat')
STRIP = {'unit': 'Bald', 'low': -1, 'high': 1, 'count': 3}


def parse(text, units=UNITS):
  return requests.parse_strengths(units, text, '--set')


def parse_sweeps(text, count=1, held=(0, 0, 0, 0)):
  return requests.parse_sweeps(
    UNITS, text, '--sweep', count=count, held=np.array(held)
  )


# Value.


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', [0, 0, 0, 0]),
    ('Smiling:+2,Bald:-1', [-1, 0, 2, 0]),
    (' smiling : 2.5 , WEARING hat:-1e-1,', [0, 0, 2.5, -0.1]),
    ('mouth slightly_open:100', [0, 100, 0, 0]),
  ],
)
def test_strengths(text, expected):
  found = parse(text)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_sweeps():
  [sweep] = parse_sweeps('Smiling:-3:3:7')
  assert sweep.unit == 2 and sweep.values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
  first, second = parse_sweeps('bald:2:-2:2,Wearing Hat:0:1:3', 2)
  assert (first.unit, second.unit) == (0, 3)
  assert first.values.tolist() == [2, -2]
  assert second.values.tolist() == [0, 0.5, 1]


def test_sweep_runs_the_last_unit_fastest():
  base = np.array([9.0, 8.0, 7.0])
  one = requests.sweep(base, [(1, np.array([-1.0, 0.0, 1.0]))])
  np.testing.assert_array_equal(one, [[9, -1, 7], [9, 0, 7], [9, 1, 7]])
  two = requests.sweep(
    base, [(2, np.array([1.0, 2.0])), (0, np.array([3.0, 4.0, 5.0]))]
  )
  np.testing.assert_array_equal(
    two,
    [[3, 8, 1], [4, 8, 1], [5, 8, 1], [3, 8, 2], [4, 8, 2], [5, 8, 2]],
  )
  assert two.dtype == np.float32


def test_requests_of_the_page():
  strengths, detail = requests.read_request({}, UNITS)
  np.testing.assert_array_equal(strengths, [[0, 0, 0, 0]])
  assert detail == 0
  request = {'strengths': {'Smiling': 2, 'Bald': 9}, 'keep_detail': 0.5}
  strengths, detail = requests.read_request(request | {'strip': STRIP}, UNITS)
  np.testing.assert_array_equal(
    strengths, [[-1, 0, 2, 0], [0, 0, 2, 0], [1, 0, 2, 0]]
  )
  assert detail == 0.5


# Mistakes.


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('Smilling:2', "'Smilling'; accepted: the nearest are Smiling"),
    ('hat:2', 'the nearest are Wearing_Hat'),
    ('xyz:2', 'Bald, Mouth_Slightly_Open, Smiling, Wearing_Hat'),
    (':2', "called ''"),
    ('Smiling', 'NAME:STRENGTH'),
    ('Smiling=2', 'NAME:STRENGTH'),
    ('Smiling:', "strength ''"),
    ('Smiling:much', "strength 'much'; accepted: standard"),
    ('Smiling:nan', 'strength nan'),
    ('Smiling:inf', 'strength inf'),
    ('Smiling:-1e999', 'strength -inf'),
    ('Smiling:101', 'from -100 to 100'),
    ('Smiling:1,smiling:2', 'has Smiling twice'),
  ],
)
def test_bad_strengths(text, message):
  with pytest.raises(errors.InputError, match='--set.*accepted') as caught:
    parse(text)
  assert message in str(caught.value)


@pytest.mark.parametrize(
  ('text', 'count', 'message'),
  [
    ('Smiling:-3:3:0', 1, "'0' values; accepted: a whole number from 2"),
    ('Smiling:-3:3:1', 1, "'1' values"),
    ('Smiling:-3:3:-7', 1, "'-7' values"),
    ('Smiling:-3:3:100000', 1, "'100000' values"),
    ('Smiling:-3:3:2.5', 1, "'2.5' values"),
    ('Smiling:-3:3:' + '9' * 5000, 1, 'values'),
    ('Smiling:-3:3', 1, 'NAME:LOW:HIGH:COUNT'),
    ('Smiling:-3:nan:5', 1, 'strength nan'),
    ('Smiling:-3:x:5', 1, "strength 'x'"),
    ('Smling:-3:3:5', 1, 'the nearest are Smiling'),
    ('', 1, '0 units; accepted: 1'),
    ('Smiling:-3:3:5,Bald:-3:3:5', 1, '2 units; accepted: 1'),
    ('Smiling:-3:3:5', 2, '1 units; accepted: 2'),
    ('Smiling:-3:3:5,Smiling:-3:3:5', 2, 'Smiling has two settings'),
    ('Smiling:-3:3:200,Wearing_Hat:-3:3:200', 2, '40,000 images'),
    ('Bald:-3:3:5', 1, 'Bald has two settings'),
  ],
)
def test_bad_sweeps(text, count, message):
  with pytest.raises(errors.InputError, match='--sweep.*accepted') as caught:
    parse_sweeps(text, count, held=(1, 0, 0, 0))
  assert message in str(caught.value)


@pytest.mark.parametrize(
    'request_',
    [
        {'strengths': [1]},
        {'strengths': {'Smilling': 1}},
        *({'strengths': {'Bald': bad}} for bad in (
            '1', True, None, float('nan'), -float('inf'), 10**4000, 101, [1],
        )),
        *({'keep_detail': bad} for bad in (
            1.1, -0.1, float('nan'), None, True, '1',
        )),
        {'strip': [1]},
        *({'strip': STRIP | bad} for bad in (
            {'unit': None}, {'unit': ['Bald']}, {'unit': 'x'}, {'low': None},
            {'high': float('nan')}, {'count': 1}, {'count': 100_000},
            {'count': 2.5}, {'count': True},
        )),
    ],
    ids=str,
)  # fmt: skip
def test_bad_requests_of_the_page(request_):
  with pytest.raises(errors.InputError, match='accepted'):
    requests.read_request(request_, UNITS)


def test_a_constant_unit_cannot_be_moved():
  with pytest.raises(errors.InputError, match='z3 is the same for all'):
    parse('z3:1', make_units('z3', deviation=0.0))


def test_of_many_names_only_some_are_listed():
  units = make_units(*(f'unit{i}' for i in range(1000)))
  with pytest.raises(errors.InputError, match=r'unit0, .*, \.\.\., unit999\.'):
    parse('abc:1', units)
