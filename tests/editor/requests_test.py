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


def parse(text, units=UNITS):
  return requests.parse_strengths(units, text, '--set')


def parse_sweeps(text, count=1, held=(0, 0, 0, 0)):
  return requests.parse_sweeps(
    UNITS, text, '--sweep', count=count, held=np.array(held)
  )


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
  np.testing.assert_array_equal(strengths, [0, 0, 0, 0])
  assert detail == 0
  request = {'strengths': {'Smiling': 2, 'Bald': 9}, 'keep_detail': 0.5}
  strengths, detail = requests.read_request(request, UNITS)
  np.testing.assert_array_equal(strengths, [9, 0, 2, 0])
  assert detail == 0.5


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('Smilling:2', "'Smilling'; accepted: the nearest are Smiling"),
    ('hat:2', 'the nearest are Wearing_Hat'),
    ('xyz:2', 'Bald, Mouth_Slightly_Open, Smiling, Wearing_Hat'),
    (':2', "called ''"),
    ('Smiling', 'NAME:STRENGTH'),
    ('Smiling:much', "strength 'much'; accepted: standard"),
    ('Smiling:nan', 'strength nan'),
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
    ('Smiling:-3:3:1', 1, "'1' values; accepted: a whole number from 2"),
    ('Smiling:-3:3:100000', 1, "'100000' values"),
    ('Smiling:-3:3:2.5', 1, "'2.5' values"),
    ('Smiling:-3:3', 1, 'NAME:LOW:HIGH:COUNT'),
    ('Smiling:-3:nan:5', 1, 'strength nan'),
    ('Smling:-3:3:5', 1, 'the nearest are Smiling'),
    ('', 1, 'accepted: 1 times'),
    ('Smiling:-3:3:5', 2, 'accepted: 2 times'),
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
            '1', True, None, float('nan'), 10**4000, 101,
        )),
        *({'keep_detail': bad} for bad in (1.1, float('nan'), None, True)),
    ],
    ids=range(12),
)  # fmt: skip
def test_bad_requests_of_the_page(request_):
  with pytest.raises(errors.InputError, match='accepted'):
    requests.read_request(request_, UNITS)


def test_a_constant_unit_cannot_be_moved():
  with pytest.raises(errors.InputError, match='z3 is the same for all'):
    parse('z3:1', make_units('z3', deviation=0.0))
