"""Pages that are made from the code and from stored results.

The directive `binaries` shows the flags of each experiment, from its `--help`;
`stored-runs` what results/ has of each run. For each room of the library,
reference/api/ROOM.rst is written, with all of its modules.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import runpy
import sys
from unittest import mock

from sphinx.util.docutils import SphinxDirective

from jacsup_jax.evaluation import tables

ROOT = pathlib.Path(__file__).parents[2]
RESULTS, FLAGFILES = ROOT / 'results', ROOT / 'experiments' / 'flagfiles'


def list_binaries() -> list[str]:
  """Lists the experiments that can be run, by name."""
  paths = sorted((ROOT / 'experiments').glob('*.py'))
  return [path.stem for path in paths if "'__main__'" in path.read_text()]


def read_help(name: str) -> str:
  """Returns what an experiment prints with --help."""
  shown = io.StringIO()
  with (
    mock.patch.object(sys, 'argv', [name, '--help']),
    mock.patch.dict(os.environ, {'COLUMNS': '80'}),
    contextlib.redirect_stdout(shown),
    contextlib.suppress(SystemExit),
  ):
    runpy.run_module(f'experiments.{name}', None, '__main__', alter_sys=True)
  return shown.getvalue()


def format_binary(name: str) -> str:
  """Formats the help of an experiment: its groups, and a term per flag."""
  lines = [f'## {name}', '']
  for paragraph in re.split(r'\n\s*\n', read_help(name).strip()):
    first, *rest = paragraph.split('\n')
    is_group = re.fullmatch(r'[a-z ]+:', first)
    if is_group and rest and rest[0].startswith('  -'):
      lines += [f'**{first[:-1].capitalize()}**', '', *_format_flags(rest), '']
    elif all(line.startswith('  ') for line in (first, *rest)) or is_group:
      code = rest if is_group else [first, *rest]
      lines += ['```bash', *(line.strip() for line in code), '```', '']
    elif not first.startswith('usage:'):
      lines += [_escape(paragraph), '']
  return '\n'.join(lines)


def _format_flags(lines):
  """Formats lines of flags and of their indented help as definitions."""
  for entry in re.split(r'\n(?=  -)', '\n'.join(lines)):
    flag, text = re.split(r'\n|  ', entry.strip(), maxsplit=1)
    yield from (f'`{flag}`', f': {_escape(" ".join(text.split()))}', '')


def _escape(text):
  return re.sub(r'([\\`*_<>\[\]|$#~])', r'\\\1', text)


def format_run(path: pathlib.Path) -> str:
  """Formats the results of a run: its command, protocol, tables, pictures."""
  results = json.loads(path.read_text())
  folder = path.parent.name
  name = folder if path.stem == 'results' else f'{folder}, {path.stem}'
  lines = [f'## {name}', '']
  flagfile = FLAGFILES / f'{folder}.flags'
  # Files of other names are evaluations, whose commands the results page gives.
  if path.stem == 'results' and flagfile.exists():
    head = [x for x in flagfile.read_text().split('\n') if x.startswith('#')]
    binary = results['experiment'].partition('_')[0]  # Of ablation_table4.
    lines += [
      *(f'- {_escape(line[1:].strip())}' for line in head),
      '',
      '```bash',
      f'python -m experiments.{binary} --flagfile={folder}',
      '```',
      '',
    ]
  rows = results['rows']
  for entry, title in (('seed', 'Seeds'), ('epochs', 'Epochs a stage')):
    values = sorted({row[entry] for row in rows if row.get(entry) is not None})
    lines += [f'{title}: {", ".join(map(str, values))}.'] if values else []
  lines += ['', f'Protocol: {_escape(results["protocol"])}.', '']
  lines += [tables.format_markdown(rows), '']
  if path.stem == 'results':
    for picture in sorted(path.parent.glob('*.png')):
      shown = os.path.relpath(picture, ROOT / 'docs')
      lines += [f'```{{figure}} {shown}', ':width: 100%', '']
      lines += [picture.stem.replace('_', ' '), '```', '']
  return '\n'.join(lines)


class Binaries(SphinxDirective):
  """A section for each experiment."""

  def run(self):
    """Parses the help of all experiments."""
    text = '\n'.join(map(format_binary, list_binaries()))
    return self.parse_text_to_nodes(text, allow_section_headings=True)


class StoredRuns(SphinxDirective):
  """A section for each run of results/."""

  def run(self):
    """Parses the results of all runs."""
    paths = [
      path
      for path in sorted(RESULTS.glob('*/*.json'))
      if 'rows' in json.loads(path.read_text())
    ]
    text = '\n'.join(map(format_run, paths))
    return self.parse_text_to_nodes(text, allow_section_headings=True)


def list_rooms() -> dict[str, list[str]]:
  """Lists the modules of each room, by name."""
  rooms = {}
  for path in sorted((ROOT / 'jacsup_jax').glob('*/*.py')):
    if path.stem != '__init__':
      rooms.setdefault(path.parent.name, []).append(path.stem)
  return rooms


def write_rooms(app):
  """Writes the page of each room."""
  folder = pathlib.Path(app.srcdir, 'reference', 'api')
  folder.mkdir(exist_ok=True)
  for room, modules in list_rooms().items():
    name = f'jacsup_jax.{room}'
    lines = [name, '=' * len(name), '', f'.. automodule:: {name}', '']
    for module in modules:
      lines += [module, '-' * len(module), '']
      lines += [f'.. automodule:: {name}.{module}', '   :members:', '']
    folder.joinpath(f'{room}.rst').write_text('\n'.join(lines))


def prepare_docstring(app, what, name, obj, options, lines):
  """Escapes what reStructuredText would read; adds the help of flags."""
  escape = lambda found: found[1] or f'\\{found[2]}'
  lines[:] = [re.sub(r'(`[^`]*`)|([|*])', escape, line) for line in lines]
  lines[:] = [re.sub(r'^Attributes \(.*', 'Attributes:', x) for x in lines]
  if what == 'class' and dataclasses.is_dataclass(obj):
    flags = [x for x in dataclasses.fields(obj) if 'help' in x.metadata]
    lines += ['', 'Attributes:'] if flags else []
    for field in flags:
      text = f'{field.metadata["help"]} Default: {field.default}.'
      lines.append(f'  {field.name}: {text}')


def prepare_signature(app, what, name, obj, options, signature, annotation):
  """Leaves out what a configuration or a linen module does not need."""
  if what == 'class' and dataclasses.is_dataclass(obj):
    if any('help' in field.metadata for field in dataclasses.fields(obj)):
      return '', None
    return re.sub(r', parent=.*', ')', signature or ''), None
  return None


def skip_member(app, what, name, obj, skip, options):
  """Skips fields of named tuples, which are in the signature."""
  return True if 'Alias for field' in (obj.__doc__ or '') else None


def setup(app):
  """Adds directives, and what prepares the reference."""
  app.add_directive('binaries', Binaries)
  app.add_directive('stored-runs', StoredRuns)
  app.connect('builder-inited', write_rooms)
  # Before napoleon's.
  app.connect('autodoc-process-docstring', prepare_docstring, priority=400)
  app.connect('autodoc-process-signature', prepare_signature)
  app.connect('autodoc-skip-member', skip_member)
  return {'parallel_read_safe': True, 'version': '1'}
