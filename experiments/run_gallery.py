"""One page of a run: parameters, curves, tables and figures, in one file.

The page opens from the disk and loads nothing. What it shows of a manifest or
of results may be anything, and is escaped.
"""

import base64
from collections.abc import Sequence
import dataclasses
import io
import json
import pathlib
import re
import subprocess
import sys
from typing import Any

import jinja2
import markupsafe
from matplotlib import figure as mpl_figure
from PIL import Image

from experiments import command_line
from experiments import drawings
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.evaluation import tables
from jacsup_jax.figures import panels as figures
from jacsup_jax.runs import workdir as workdirs

_TEMPLATES = pathlib.Path(__file__).parent / 'templates'
# Twice that of a screen, which shows pictures at half their size.
_DPI = 192
# Of 100: letters have no shadows yet.
_QUALITY = 90
# Of values that are shown, and of files with rows.
_LONGEST_VALUE, _MOST_FILES = 600, 100


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of text.

  Attributes:
    title: what it has.
    heading: a cell per column.
    rows: of cells.
    note: below it.
    digests: its last column has such.
  """

  title: str
  heading: Sequence[str]
  rows: Sequence[Sequence[str]]
  note: str | None = None
  digests: bool = False


class Gallery:
  """Collects the figures of a run for its page."""

  def __init__(self):
    self._curves = []
    self._pictures = []

  def add(
      self, name: str, drawing: drawings.Drawing, figure: mpl_figure.Figure
  ) -> None:
    """Adds a figure.

    Args:
      name: of its file.
      drawing: that it is of.
      figure: to show; may change afterwards.
    """
    file = io.BytesIO()
    entry = {'name': name, 'caption': drawing.caption}
    if drawing.is_curve:
      figures.write(figure, file, 'svg')
      svg = _embed_svg(file.getvalue().decode(), name, drawing.caption)
      self._curves.append({**entry, 'svg': svg})
      return
    figures.write(figure, file, 'png', dpi=_DPI)
    # A tenth of the size as PNG, which is made for fewer colours.
    small = io.BytesIO()
    with Image.open(file) as image:
      width, height = image.size
      image.convert('RGB').save(small, 'WEBP', quality=_QUALITY)
    self._pictures.append({
        **entry,
        'base64': base64.b64encode(small.getvalue()).decode(),
        'width': width // 2,
        'height': height // 2,
    })

  def write(self, run: workdirs.WorkDir, path: pathlib.Path) -> None:
    """Writes the page, whole or not at all.

    Args:
      run: that it is about.
      path: of the file.

    Raises:
      InputError: if results.json is damaged.
      StorageError: if the page cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    changed, unchanged = _list_flags(run)
    page = {
        'title': f'{run.path.name}: experiments.{run.manifest["experiment"]}',
        'summary': _summarize(run),
        'changed': changed,
        'details': [*unchanged, *_list_circumstances(run)],
        'stages': _list_stages(run),
        'curves': self._curves,
        'tables': _list_tables(run),
        'figures': self._pictures,
    }
    html = environment.get_template('gallery.html').render(page=page)
    workdirs.write_whole(path, html)


def _embed_svg(svg, name, caption):
  """Makes a drawing part of a page: with an alt text, and ids of its own."""
  svg = svg[svg.index('<svg') :]
  svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
  svg = re.sub(r'(\bid="|url\(#|href="#)', rf'\g<1>{name}-', svg)
  alt = markupsafe.escape(caption)
  return markupsafe.Markup(
      svg.replace('<svg', f'<svg role="img" aria-label="{alt}"', 1)
  )


def _summarize(run):
  stages = run.manifest['stages']
  noun = 'stage' if len(stages) == 1 else 'stages'
  state = 'Complete' if run.is_complete else 'Not complete'
  data = run.manifest['dataset'].get('name', 'data that are not named')
  return (
      f'{state}; {len(stages)} finished {noun}; trained on {data}.'
  )


def _list_flags(run):
  """Returns tables of the flags that are not their defaults, and of others."""
  flags = run.manifest['flags']
  defaults = _find_defaults(run.manifest['experiment'])
  if defaults is None:
    rows = [(f'--{name}', _show(value)) for name, value in flags.items()]
    return Table('Flags', ('flag', 'value'), rows), []
  changed, others = [], []
  for name, value in flags.items():
    if name in defaults and defaults[name] == value:
      others.append((f'--{name}', _show(value)))
    else:
      default = _show(defaults[name]) if name in defaults else 'no such flag'
      changed.append((f'--{name}', _show(value), default))
  return (
      Table(
          'Flags that differ from their defaults',
          ('flag', 'value', 'default'),
          changed,
      ),
      [Table('All other flags, at their defaults', ('flag', 'value'), others)],
  )


def _find_defaults(experiment) -> dict[str, Any] | None:
  """Asks a binary for the values of its flags where none is given."""
  # In a process of its own: two binaries have flags of the same names.
  done = subprocess.run(
      [sys.executable, '-m', f'experiments.{experiment}', '--describe'],
      capture_output=True,
      text=True,
      check=False,
  )
  try:
    return json.loads(done.stdout.splitlines()[-1])['flags']
  except (ValueError, IndexError, KeyError):
    command_line.note(
        f'experiments.{experiment} --describe did not say the defaults of its'
        ' flags: the gallery has all flags in one table'
    )
    return None


def _list_circumstances(run):
  """Returns tables of what a manifest has besides flags and stages."""
  found = []
  for entry, title in (
      ('dataset', 'Data'),
      ('versions', 'Versions'),
      ('machine', 'Machine'),
      ('environment', 'Environment'),
  ):
    values = run.manifest.get(entry)
    if isinstance(values, dict):
      rows = [(str(name), _show(value)) for name, value in values.items()]
      found.append(Table(title, ('', 'value'), rows))
  rows = [
      (name, _show(run.manifest[name]))
      for name in ('code', 'devices', 'processes')
      if name in run.manifest
  ]
  return [*found, Table('Code and devices', ('', 'value'), rows)]


def _list_stages(run):
  names = ('parent', 'supervisor', 'nuisance_dim', 'epochs', 'sha256')
  rows = [
      (name, *(_show(stage.get(key)) for key in names))
      for name, stage in run.manifest['stages'].items()
  ]
  heading = ('stage', 'grown from', 'supervised by', 'd', 'epochs', 'sha256')
  return Table('Finished stages', heading, rows, digests=True)


def _list_tables(run):
  """Returns tables of results.json and of what experiments.evaluate wrote."""
  found = []
  if run.is_complete:
    found.append(_make_table('results.json', run.read_results()))
  paths = sorted((run.path / 'evaluations').glob('*.json'))
  # Their details have no rows.
  paths = [
      path
      for path in paths
      if not path.stem.endswith(('_diagnostics', '_metrics'))
  ]
  for path in paths[:_MOST_FILES]:
    try:
      found.append(
          _make_table(f'evaluations/{path.name}', workdirs.read_rows(path))
      )
    except errors.InputError as error:
      command_line.note(f'not in the gallery: {errors.one_line(str(error))}')
  return [table for table in found if table is not None]


def _make_table(title, results):
  rows = results['rows']
  if not rows:
    return None
  heading, cells, deviations = tables.make_cells(rows)
  lines = [results['protocol'], deviations, tables.format_effect(rows)]
  # The deviations end in a full stop, the protocol in none.
  note = ' '.join(
      line if line.endswith('.') else f'{line}.' for line in lines if line
  )
  return Table(title, heading, cells, note)


def _show(value: Any) -> str:
  """Shows a JSON value in few characters; nothing as a dash."""
  if value is None or value == []:
    return '-'
  if isinstance(value, list) and all(isinstance(x, str) for x in value):
    value = ', '.join(value)
  try:
    text = value if isinstance(value, str) else json.dumps(value)
  except RecursionError:  # Nested as deep as could just be read.
    text = untrusted.describe(value)
  if len(text) > _LONGEST_VALUE:
    text = f'{text[:_LONGEST_VALUE]}...'
  return text
