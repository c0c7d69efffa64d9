"""The package as it is shipped: requirements, data files, flagfiles."""

import configparser
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def _lines(text):
  stripped = (line.strip() for line in text.splitlines())
  return [line for line in stripped if line and not line.startswith('#')]


def _setup():
  config = configparser.ConfigParser()
  config.read(ROOT / 'setup.cfg')
  return config


def test_requirements_are_those_of_setup_cfg():
  setup = _setup()
  wanted = _lines(setup['options']['install_requires']) + _lines(
      setup['options.extras_require']['test']
  )
  assert _lines((ROOT / 'requirements.txt').read_text()) == wanted


def test_ci_runs_the_readme_test_command():
  command = 'python -m pytest tests'
  assert command in _lines((ROOT / 'README.md').read_text())
  assert f'.venv/bin/{command}' in _lines((ROOT / '.ci' / 'run').read_text())


def test_pyproject_has_two_lines():
  assert len((ROOT / 'pyproject.toml').read_text().splitlines()) == 2


@pytest.mark.parametrize(
    'pattern', ['/home/', '/root/', '/tmp/', 'http://localhost']
)
def test_no_machine_paths_in_text(pattern):
  paths = [ROOT / 'README.md', ROOT / 'setup.cfg', ROOT / 'requirements.txt']
  paths += sorted((ROOT / 'experiments').rglob('*.flags'))
  found = [path.name for path in paths if pattern in path.read_text()]
  assert not found


def test_idx_files_are_tracked():
  """What package_data names is in a clone as well."""
  if not (ROOT / '.git').exists():
    pytest.skip('not a git checkout')
  tracked = subprocess.run(
      ['git', 'ls-files', 'jacsup_jax/data/mnist_embedded'],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=True,
  ).stdout.split()
  assert sum(name.endswith('.gz') for name in tracked) == 4


def test_commands_start_without_what_few_of_them_need():
  """scikit-learn and scipy.stats alone took two fifths of a start."""
  commands = (
      'ablation', 'benchmark', 'celeba', 'convert', 'edit', 'evaluate',
      'figures', 'judge', 'mnist', 'reproduce', 'svhn',
  )  # pyformat: disable
  program = [
      'import sys',
      *(f'import experiments.{name}' for name in commands),
      "print({'aiohttp', 'dlib', 'scipy.stats', 'sklearn', 'tensorflow',"
      " 'torch'}.intersection(sys.modules))",
  ]
  done = subprocess.run(
      [sys.executable, '-c', '\n'.join(program)],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=True,
  )
  assert done.stdout == 'set()\n'
