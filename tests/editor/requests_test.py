"""Requests for edits in words, and those of the page."""

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.editor import requests
from jacsup_jax.evaluation import unit_scales

UNITS = tuple(
  unit_scales.Unit(name, unit_scales.FACTOR, 0.0, deviation, -2.0, 2.0)
  for name, deviation in {
    'Bald': 1.0,
    'Mouth_Slightly_Open': 1.0,
    'Smiling': 1.0,
    'Wearing_Hat': 1.0,
    'z3': 0.0,
  }.items()
)


def parse(text):
  return requests.parse_strengths(UNITS, text, '--set')


def parse_tiles(text, count, base=(0, 0, 0, 9, 0)):
  base = np.array(base, np.float32)
  return requests.parse_tiles(UNITS, base, text, '--sweep', count)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', [0, 0, 0, 0, 0]),
    ('Smiling:+2,Bald:-1', [-1, 0, 2, 0, 0]),
    (' smiling : 2.5 , WEARING hat:-1e-1,', [0, 0, 2.5, -0.1, 0]),
    ('mouth slightly_open:100', [0, 100, 0, 0, 0]),
  ],
)
def test_strengths(text, expected):
  found = parse(text)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_sweep_runs_to_the_right_and_a_second_one_upwards():
  tiles, lines = parse_tiles('Smiling:-1:1:3', 1)
  np.testing.assert_array_equal(
    tiles, [[[0, 0, -1, 9, 0], [0, 0, 0, 9, 0], [0, 0, 1, 9, 0]]]
  )
  assert lines == ['Smiling -1, +0, +1 from left to right']
  tiles, lines = parse_tiles('bald:2:-2:2,Smiling:0:1:3', 2)
  assert tiles.shape == (3, 2, 5) and tiles.dtype == np.float32
  np.testing.assert_array_equal(
    tiles[..., :4],
    [
      [[2, 0, 1, 9], [-2, 0, 1, 9]],
      [[2, 0, 0.5, 9], [-2, 0, 0.5, 9]],
      [[2, 0, 0, 9], [-2, 0, 0, 9]],
    ],
  )
  assert lines[1] == 'Smiling +0, +0.5, +1 upwards'


def test_requests_of_the_page():
  strengths, detail = requests.read_request({}, UNITS)
  assert not strengths.any() and detail == 0
  request = {'strengths': {'Smiling': 2, 'Bald': 9}, 'keep_detail': 0.5}
  strengths, detail = requests.read_request(request, UNITS)
  assert strengths.tolist() == [9, 0, 2, 0, 0] and detail == 0.5


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('Smilling:2', "'Smilling'; accepted: the nearest are Smiling"),
    ('hat:2', 'the nearest are Wearing_Hat'),
    ('xyz:2', 'Bald, Mouth_Slightly_Open, Smiling, Wearing_Hat'),
    ('Smiling', 'NAME:STRENGTH'),
    ('Smiling:much', "strength 'much'"),
    ('Smiling:nan', 'strength nan'),
    ('Smiling:101', 'from -100 to 100'),
    ('Smiling:1,smiling:2', 'twice'),
    ('z3:1', 'is the same for all'),
  ],
)
def test_bad_strengths(text, message):
  with pytest.raises(errors.InputError, match='--set.*accepted') as caught:
    parse(text)
  assert message in str(caught.value)


@pytest.mark.parametrize(
  ('text', 'count', 'message'),
  [
    ('Smiling:-3:3:1', 1, "'1' values"),
    ('Smiling:-3:3:2.5', 1, "'2.5' values"),
    ('Smiling:-3:3', 1, 'NAME:LOW:HIGH:COUNT'),
    ('Smiling:-3:nan:5', 1, 'strength nan'),
    ('Smiling:-3:3:5', 2, 'accepted: 2 times'),
    ('Smiling:-3:3:5,Smiling:-3:3:5', 2, 'two settings'),
    ('Smiling:-3:3:200,Bald:-3:3:200', 2, '40,000 images'),
    ('Wearing_Hat:-3:3:5', 1, 'two settings'),
  ],
)
def test_bad_sweeps(text, count, message):
  with pytest.raises(errors.InputError, match='--sweep.*accepted') as caught:
    parse_tiles(text, count)
  assert message in str(caught.value)


@pytest.mark.parametrize(
    'request_',
    [
        {'strengths': [1]},
        {'strengths': {'Smilling': 1}},
        *({'strengths': {'Bald': bad}} for bad in ('1', True, None, 10**4000)),
        *({'keep_detail': bad} for bad in (1.1, float('nan'), None)),
    ],
    ids=range(9),
)  # fmt: skip
def test_bad_requests_of_the_page(request_):
  with pytest.raises(errors.InputError, match='accepted'):
    requests.read_request(request_, UNITS)
