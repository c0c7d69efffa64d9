"""Tests of jacsup_jax.schedules."""

import numpy as np
import pytest

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.training import schedules


def _make(shape, start=0.2, epochs=None):
  return schedules.make_schedule(
      config.Ramp(shape, start, epochs),
      first_step=100,
      steps_per_epoch=5,
      epochs=4,
  )


# Values.


def test_constant_has_no_schedule():
  assert _make('constant') is None


@pytest.mark.parametrize(
    ('shape', 'quarter'),
    # A quarter of the way: 0.2 + 0.8 / 4, and 0.2 + 0.8 (1 - cos(pi / 4)) / 2.
    [('linear', 0.4), ('cosine', 0.2 + 0.8 * (1 - np.sqrt(0.5)) / 2)],
)
def test_weights_rise_from_their_start_to_one(shape, quarter):
  schedule = _make(shape)
  steps = (100, 105, 110, 120, 1000)
  expected = (0.2, quarter, 0.6, 1.0, 1.0)
  np.testing.assert_allclose(
      [float(schedule(step)) for step in steps], expected, rtol=1e-5
  )


def test_epochs_of_the_ramp_come_before_those_of_the_stage():
  schedule = _make('linear', start=0.0, epochs=2)
  np.testing.assert_allclose(float(schedule(105)), 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('step',), '--ramp=step'),
        (('linear', 1.5), '--ramp_start=1.5'),
        (('linear', float('nan')), '--ramp_start=nan'),
        (('linear', 0.0, 0), '--ramp_epochs=0'),
    ],
)
def test_bad_ramps_are_refused(args, message):
  with pytest.raises(errors.InputError, match=f'{message}; accepted'):
    config.Ramp(*args)
