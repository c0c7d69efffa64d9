"""Requests for edits in words, and those of the page."""

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.editor import requests
from jacsup_jax.evaluation import unit_scales

NAMES = ('Bald', 'Mouth_Slightly_Open', 'Smiling', 'Wearing_Hat', 'z3')
UNITS = tuple(
  unit_scales.Unit(name, unit_scales.FACTOR, 0.0, deviation, -2.0, 2.0)
  for name, deviation in zip(NAMES, (1.0, 1.0, 1.0, 1.0, 0.0))
)


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
  found = requests.parse_strengths(UNITS, text, '--set')
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_sweep_runs_to_the_right_and_a_second_one_upwards():
  tiles, lines = parse_tiles('Smiling:-1:1:3', 1)
  np.testing.assert_array_equal(tiles, [[[0, 0, x, 9, 0] for x in (-1, 0, 1)]])
  assert lines == ['Smiling -1, +0, +1 from left to right']
  tiles, lines = parse_tiles('bald:2:-2:2,Smiling:0:1:3', 2)
  assert tiles.dtype == np.float32
  np.testing.assert_array_equal(
    tiles, [[[x, 0, y, 9, 0] for x in (2, -2)] for y in (1, 0.5, 0)]
  )
  assert lines[1] == 'Smiling +0, +0.5, +1 upwards'


def test_requests_of_the_page():
  strengths, detail = requests.read_request({}, UNITS)
  assert not strengths.any() and detail == 0
  request = {'strengths': {'Smiling': 2, 'Bald': 9}, 'keep_detail': 0.5}
  strengths, detail = requests.read_request(request, UNITS)
  assert strengths.tolist() == [9, 0, 2, 0, 0] and detail == 0.5


@pytest.mark.parametrize(
  ('count', 'text', 'message'),
  [
    (0, 'Smilling:2', "'Smilling'; accepted: the nearest are Smiling"),
    (0, 'hat:2', 'the nearest are Wearing_Hat'),
    (0, 'Smiling', 'NAME:STRENGTH'),
    (0, 'Smiling:much', "strength 'much'"),
    (0, 'Smiling:nan', 'strength nan'),
    (0, 'Smiling:101', 'from -100 to 100'),
    (0, 'Smiling:1,smiling:2', 'twice'),
    (0, 'z3:1', 'is the same for all'),
    (1, 'Smiling:-3:3:1', "'1' values"),
    (1, 'Smiling:-3:3', 'NAME:LOW:HIGH:COUNT'),
    (2, 'Smiling:-3:3:5', 'accepted: 2 times'),
    (2, 'Smiling:-3:3:5,Smiling:-3:3:5', 'two settings'),
    (2, 'Smiling:-3:3:200,Bald:-3:3:200', '40,000 images'),
    (1, 'Wearing_Hat:-3:3:5', 'two settings'),
  ],
)
def test_bad_strengths_and_sweeps(count, text, message):
  with pytest.raises(errors.InputError, match='--s.*accepted') as caught:
    if count:
      parse_tiles(text, count)
    else:
      requests.parse_strengths(UNITS, text, '--set')
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
