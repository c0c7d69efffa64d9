"""Runs of experiments.mnist within seconds: ten patterns for digits."""

import contextlib
import io
import sys

from absl.testing import flagsaver
import numpy as np
import pytest

from experiments import command_line
from experiments import discovery_runs
from experiments import mnist
from experiments import mnist_figures
from jacsup_jax.data import registry as datasets

SIZES = {
    'train': 640, 'train_minus_validation': 512, 'validation': 128, 'test': 128
}  # pyformat: disable
FLAGS = (
    '--dataset=small', '--epochs=1', '--nuisance_dim=1', '--batch_size=64',
)  # pyformat: disable


def load(name, split, *, data_dir=None, image_shape=None):
  """Ten smooth patterns with noise, in the place of digits."""
  del data_dir, image_shape
  patterns = np.random.default_rng(0).integers(0, 200, (10, 7, 7))
  # Of every split the first images are the same, as of digits.
  generator = np.random.default_rng(split == 'test')
  labels = generator.integers(0, 10, SIZES[split]).astype(np.int32)
  images = np.kron(patterns, np.ones((4, 4), int))[labels]
  noise = np.random.default_rng(7).integers(0, 55, images.shape)
  images = (images + noise).astype(np.uint8)[..., None]
  return datasets.Dataset(name, split, images, labels, 10, f'small {split}')


def invoke(*args):
  """Runs the binary in this process; returns status, stdout and stderr."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.ExitStack() as stack:
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(sys, 'argv', ['experiments/mnist.py', *FLAGS, *args])
    patch.setattr(datasets, 'load', load)
    # Of what is measured and drawn there are other tests.
    patch.setattr(discovery_runs, 'make_evaluate', lambda *args: _measure)
    patch.setattr(mnist_figures, 'list_drawings', lambda *args: {})
    stack.enter_context(flagsaver.flagsaver())
    stack.enter_context(contextlib.redirect_stdout(out))
    stack.enter_context(contextlib.redirect_stderr(err))
    exit_info = stack.enter_context(pytest.raises(SystemExit))
    command_line.run(mnist.main)
  return exit_info.value.code or 0, out.getvalue(), err.getvalue()


def _measure(model, variables):
  del model, variables
  return {'mse': 0.5, 'psnr': 3.0, 'class_swaps': None, 'judge_accuracy': 1.0}
