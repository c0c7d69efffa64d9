"""The package as it is shipped: requirements, and the wheel in use."""

import configparser
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.request
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PIP = (sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q')


def _lines(text):
  stripped = (line.strip() for line in text.splitlines())
  return [line for line in stripped if line and not line.startswith('#')]


def test_imports_are_small():
  names = sorted(path.stem for path in (ROOT / 'experiments').glob('*.py'))
  program = (
    'import importlib, sys, jacsup_jax as js\n'
    "assert 'jax' not in sys.modules\n"
    'for name in js.__all__: getattr(js, name)\n'
    "large = {'sklearn', 'torch', 'aiohttp', 'tensorflow'}\n"
    "own = large | {'experiments', 'matplotlib'}\n"
    'assert not own & sys.modules.keys(), own & sys.modules.keys()\n'
    f'for name in {names}:\n'
    "  importlib.import_module(f'experiments.{name}')\n"
    'assert not large & sys.modules.keys(), large & sys.modules.keys()'
  )
  subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True)


def test_continuous_integration_runs_the_command_of_the_readme():
  command = (ROOT / '.ci' / 'run').read_text().splitlines()[-1]
  assert command.removeprefix('.venv/bin/') == 'python -m pytest tests'
  readme = (ROOT / 'README.md').read_text().splitlines()
  assert 'python -m pytest tests' in readme


def test_no_path_of_a_machine_is_shipped():
  flagfiles = (ROOT / 'experiments').rglob('*.flags')
  for path in (ROOT / 'README.md', ROOT / 'setup.cfg', *flagfiles):
    for place in ('/home/', '/root/', '/tmp/'):
      assert place not in path.read_text(), path.name


def test_requirements_are_those_of_setup_cfg():
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  wanted = _lines(setup['options']['install_requires']) + _lines(
    setup['options.extras_require']['test']
  )
  assert _lines((ROOT / 'requirements.txt').read_text()) == wanted


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """Builds the wheel from a copy, which leaves no build folder in the clone."""
  source = tmp_path_factory.mktemp('source')
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source / name)
  no_caches = shutil.ignore_patterns('__pycache__')
  for name in ('jacsup_jax', 'experiments'):
    shutil.copytree(ROOT / name, source / name, ignore=no_caches)
  subprocess.run(
    [*PIP, 'wheel', '--no-deps', '--no-build-isolation', '-w', 'out', '.'],
    cwd=source,
    check=True,
  )
  [path] = (source / 'out').glob('*.whl')
  return path


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
  """Installs the wheel; returns how to run what is in it alone."""
  target = tmp_path_factory.mktemp('installed')
  subprocess.run([*PIP, 'install', '--no-deps', '--no-index', '--no-compile',
                  f'--target={target}', wheel], check=True)  # fmt: skip
  environment = os.environ | {
    'PYTHONPATH': str(target),
    'JAX_PLATFORMS': 'cpu',
    'TF_CPP_MIN_LOG_LEVEL': '3',
  }
  return {'cwd': target.parent, 'env': environment, 'text': True}


def test_the_wheel_holds_all_files_of_the_library_and_nothing_else(wheel):
  names = set(zipfile.ZipFile(wheel).namelist())
  tops = {name.partition('/')[0].partition('-')[0] for name in names}
  assert tops == {'jacsup_jax'}
  for path in (ROOT / 'jacsup_jax').rglob('*'):
    name = path.relative_to(ROOT).as_posix()
    if path.is_file() and '__pycache__' not in name and path.suffix != '.md':
      assert name in names, name


def test_the_api_works_from_another_folder(installed):
  program = (
    'import importlib.util, jacsup_jax as js\n'
    "assert importlib.util.find_spec('experiments') is None\n"
    'for name in js.__all__: getattr(js, name)\n'
    "print(len(js.load_data('mnist_embedded', 'test')) > 0, js.__file__)"
  )
  found = subprocess.check_output([sys.executable, '-c', program], **installed)
  assert found.startswith(f'True {installed["env"]["PYTHONPATH"]}')


def test_the_command_serves_its_page_with_the_demo_model(installed):
  script = pathlib.Path(installed['env']['PYTHONPATH'], 'bin', 'jacsup-edit')
  pipe = subprocess.PIPE
  process = subprocess.Popen(
    [script, '--port=0'], stdout=pipe, stderr=pipe, **installed
  )
  try:
    address = process.stdout.readline().split()[4]
    for part in ('', 'static/editor.js', 'api/models/faces'):
      with urllib.request.urlopen(f'{address}{part}', timeout=60) as answer:
        assert answer.status == 200, part
    process.terminate()
    out, err = process.communicate(timeout=20)
  finally:
    process.kill()
  assert (process.returncode, out, err) == (0, 'stopped.\n', '')
