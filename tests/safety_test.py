"""Tests that nothing in the package runs what it reads."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ('jacsup_jax', 'experiments')
    for path in (ROOT / folder).rglob('*.py')
)
# Each would run what is in a file, or write where a file says.
REFUSED = {
    'eval', 'exec', 'np.load', 'numpy.load', 'pickle.load', 'pickle.loads',
    'pickle.Unpickler', 'joblib.load', 'yaml.load', 'os.system', 'os.popen',
    'marshal.loads', 'shelve.open',
}  # pyformat: disable
# Methods of archives, whatever these are called.
REFUSED_METHODS = {'extract', 'extractall'}


def _calls(path):
  """Yields the name of each call, and the values of its arguments."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Call):
      yield ast.unparse(node.func), {
          keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords
      }


@pytest.mark.parametrize(
    'path', SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES]
)
def test_nothing_runs_what_it_reads(path):
  for name, arguments in _calls(path):
    assert name not in REFUSED, name
    assert name.rpartition('.')[2] not in REFUSED_METHODS, name
    assert arguments.get('allow_pickle', 'False') == 'False', name
    assert arguments.get('shell', 'False') == 'False', name
    if name == 'torch.load':
      assert arguments['weights_only'] == 'True'


def test_mistakes_would_be_found(tmp_path):
  path = tmp_path / 'x.py'
  path.write_text('np.load(path, allow_pickle=True)\narchive.extractall()\n')
  assert [name for name, _ in _calls(path)] == ['np.load', 'archive.extractall']
  for line in path.read_text().splitlines():
    path.write_text(line)
    with pytest.raises(AssertionError):
      test_nothing_runs_what_it_reads(path)
