"""Import matplotlib, and draw in one style, whatever the user's settings say.

MPLBACKEND may name a backend that is not installed here, as in a notebook's
shell, and a matplotlibrc may hold anything. All of this package that draws
takes matplotlib from here.
"""

from collections.abc import Callable
import contextlib
import functools
import os
import pathlib
import sys
import tempfile
from typing import ParamSpec, TypeVar

try:
  import matplotlib
except ValueError:  # Of the backend's name, or of bytes that are no text.
  os.environ.pop('MPLBACKEND', None)
  for name in [*sys.modules]:  # Half of them are imported.
    if name.startswith('matplotlib.'):
      del sys.modules[name]
  with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    pathlib.Path('matplotlibrc').touch()  # The first that is looked for.
    import matplotlib

from matplotlib import axes
from matplotlib import figure
from matplotlib import ticker  # noqa: F401
from matplotlib import transforms  # noqa: F401

Axes, Figure = axes.Axes, figure.Figure
_P, _T = ParamSpec('_P'), TypeVar('_T')
# Without what has no effect on a figure that no window shows.
_DEFAULTS = {
  name: value
  for name, value in matplotlib.rcParamsDefault.items()
  if name not in ('backend', 'backend_fallback', 'interactive', 'toolbar')
}
# Publishers refuse the default's Type 3 fonts.
_OWN = {'pdf.fonttype': 42, 'svg.fonttype': 'none', 'svg.hashsalt': 'jacsup'}


def in_own_style(draw: Callable[_P, _T]) -> Callable[_P, _T]:
  """Makes a function draw with matplotlib's defaults and what differs here."""

  @functools.wraps(draw)
  def styled(*args: _P.args, **options: _P.kwargs) -> _T:
    with matplotlib.rc_context(_DEFAULTS | _OWN):
      return draw(*args, **options)

  return styled
