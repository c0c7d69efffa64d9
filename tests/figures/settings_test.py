"""Tests of jacsup_jax.figures.panels: the user's settings change nothing."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from jacsup_jax.figures import curves
from jacsup_jax.figures import grids
from jacsup_jax.figures import panels

SETTINGS = (
  {'text.usetex': True, 'savefig.facecolor': 'black'},
  {'font.size': 40, 'font.family': 'monospace', 'axes.facecolor': 'red'},
  {'image.interpolation': 'bilinear', 'svg.fonttype': 'path'},
)


def _draw(file_format):
  rows = [{'model': 'student', 'nuisance_dim': 2, 'class_swaps': 0.5, 'mse': 1}]
  images = np.linspace(0, 1, 16).reshape(1, 2, 2, 4, 1)
  figures = (
    curves.tradeoff(rows, 'class_swaps'),
    grids.factor_grid(images, np.arange(2), np.arange(1), 'title'),
    panels.new_figure(2, 1, 'title'),
  )
  return [panels.encode(figure, file_format) for figure in figures]


def test_figures_do_not_depend_on_settings(monkeypatch):
  monkeypatch.setattr(panels, 'DPI', 30)
  expected = _draw('svg'), _draw('png')
  for settings in SETTINGS:
    with matplotlib.rc_context(settings):
      assert (_draw('svg'), _draw('png')) == expected, settings
      # What the user has set is left as it is.
      assert matplotlib.rcParams['font.size'] == settings.get('font.size', 10)


@pytest.mark.parametrize(
  ('backend', 'content'),
  [
    ('module://no_such_module.backend', b''),
    ('TkAgg', b'text.usetex: True\nbackend: nonsense\n'),
    ('nonsense', b'no colon\n\xff'),
  ],
)
def test_matplotlib_is_imported_whatever_the_settings(
  tmp_path, backend, content
):
  (tmp_path / 'matplotlibrc').write_bytes(content)
  program = (
    'from jacsup_jax.figures import panels\n'
    "assert panels.encode(panels.new_figure(2, 2, 'title'))[1:4] == b'PNG'"
  )
  root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
  env = {**os.environ, 'PYTHONPATH': root}
  if backend:
    env['MPLBACKEND'] = backend
  done = subprocess.run(
      [sys.executable, '-c', program], cwd=tmp_path, env=env, text=True,
      capture_output=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
