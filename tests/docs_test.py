"""The documentation: examples run, the reference is whole, the site builds."""

import doctest
import importlib
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import jacsup_jax as js

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
# Modules whose public functions all have an example.
WITH_EXAMPLES = ('codes', 'growth', 'losses', 'regularizers')


@pytest.mark.parametrize('name', ['', '.core.jacobian'])
def test_examples_of_modules(name):
  _run_examples(importlib.import_module(f'jacsup_jax{name}'))


@pytest.mark.parametrize('name', WITH_EXAMPLES)
def test_examples_of_functions(name):
  module = importlib.import_module(f'jacsup_jax.core.{name}')
  _run_examples(module)
  for public in re.findall(r'^def ([a-z]\w*)', _read(module), re.MULTILINE):
    assert '>>>' in getattr(module, public).__doc__, public


def _run_examples(module):
  found = doctest.testmod(module)
  assert found.attempted and not found.failed


def _read(module):
  return pathlib.Path(module.__file__).read_text()


def test_the_reference_has_every_public_name():
  page = (DOCS / 'reference' / 'api.md').read_text()
  for name in js.__all__:
    value = getattr(js, name)
    own = value.__name__
    place = getattr(value, '__module__', None)
    full = f'{place}.{own}' if place else own
    assert f'jacsup_jax.{full.partition("jacsup_jax.")[2]}\n' in page, name


def test_versions_agree():
  citation = (ROOT / 'CITATION.cff').read_text()
  assert f'\nversion: {js.__version__}\n' in citation
  newest = re.search(r'^## (\S+)', (ROOT / 'CHANGELOG.md').read_text(), re.M)
  assert newest[1] == js.__version__


def test_the_site_builds_without_a_warning():
  pytest.importorskip('sphinx_book_theme', reason='docs/requirements.txt')
  if shutil.which('make') is None:
    pytest.skip('make is missing')
  done = subprocess.run(
    ['make', '-C', DOCS, 'html', f'PYTHON={sys.executable}'],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
