"""Test that nothing in the package runs what it reads."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Each would run what is in a file, or write where a file says.
REFUSED = {
  *('eval', 'exec', 'pickle.load', 'pickle.loads', 'pickle.Unpickler'),
  *('joblib.load', 'yaml.load', 'marshal.loads', 'shelve.open'),
  *('os.system', 'os.popen'),
}
# Methods of archives, whatever these are called.
REFUSED_METHODS = {'extract', 'extractall'}


def check(text):
  for node in ast.walk(ast.parse(text)):
    if not isinstance(node, ast.Call):
      continue
    name = ast.unparse(node.func)
    arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
    assert name not in REFUSED, name
    assert name.rpartition('.')[2] not in REFUSED_METHODS, name
    assert name != 'np.load' or arguments['allow_pickle'] == 'False'
    assert arguments.get('allow_pickle', 'False') == 'False', name
    assert arguments.get('shell', 'False') == 'False', name
    assert name != 'torch.load' or arguments['weights_only'] == 'True'


@pytest.mark.parametrize('folder', ['jacsup_jax', 'experiments'])
def test_nothing_runs_what_it_reads(folder):
  for path in (ROOT / folder).rglob('*.py'):
    check(path.read_text())
