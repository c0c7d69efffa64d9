"""The house keeps its shape: rooms, arrows, floors, sizes (docs/design.md)."""

import ast
import functools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Which rooms a room may import from, besides itself.
MAY_IMPORT = {
  'core': '',
  'data': 'core',
  'models': 'core',
  'figures': 'core',
  'training': 'core models data',
  'evaluation': 'core models data',
  'baselines': 'core models data training',
  'runs': 'core models data training evaluation baselines figures',
  'interop': 'core models data training evaluation runs',
  'editor': 'core models data evaluation figures training runs interop',
}
MOST_FLOORS = 8
MOST_LINES = 400
MOST_FUNCTION_LINES = 60
EXPERIMENTS = {'mnist', 'svhn', 'celeba'}
MODULES = sorted(
  path.relative_to(ROOT)
  for folder in ('jacsup_jax', 'experiments')
  for path in (ROOT / folder).rglob('*.py')
)
LIBRARY = [path for path in MODULES if path.parts[0] == 'jacsup_jax']


def _name(path):
  parts = path.with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


NAMES = {_name(path): path for path in MODULES}


@functools.cache
def _tree(path):
  return ast.parse((ROOT / path).read_text())


def _imports(path):
  """Yields the modules of this project that a module imports."""
  for node in ast.walk(_tree(path)):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    else:
      continue
    for name in names:
      if name.split('.')[0] not in ('jacsup_jax', 'experiments'):
        continue
      # `from package.module import name` or `from package import module`.
      while name not in NAMES and '.' in name:
        name = name.rpartition('.')[0]
      yield name


def _room(name):
  parts = name.split('.')
  return parts[1] if len(parts) > 1 else None


@pytest.mark.parametrize('path', LIBRARY, ids=str)
def test_arrows_between_rooms_are_allowed(path):
  own = _room(_name(path))
  if own is None:
    return
  for name in _imports(path):
    assert name.startswith('jacsup_jax'), f'{path} imports {name}'
    room = _room(name)
    assert room == own or room in MAY_IMPORT[own].split(), (
      f'{path} imports {name}'
    )


def test_no_module_stands_outside_a_room():
  outside = [p for p in LIBRARY if len(p.parts) == 2 and p.stem != '__init__']
  assert not outside
  assert {p.parts[1] for p in LIBRARY if len(p.parts) > 2} == set(MAY_IMPORT)


def test_imports_have_no_cycle_and_few_floors():
  graph = {name: set(_imports(NAMES[name])) - {name} for name in NAMES}

  @functools.cache
  def floor(name, above=()):
    assert name not in above, f'cycle: {" -> ".join((*above, name))}'
    below = graph[name] - {'jacsup_jax'}
    return 1 + max((floor(n, (*above, name)) for n in below), default=0)

  floors = {n: floor(n) for n in graph if n.startswith('jacsup_jax.')}
  assert max(floors.values()) <= MOST_FLOORS, sorted(
    (f, n) for n, f in floors.items() if f > MOST_FLOORS
  )


@pytest.mark.parametrize('path', LIBRARY, ids=str)
def test_no_module_branches_on_the_name_of_an_experiment(path):
  if path.parts[1] == 'data':
    return  # Names of data sets.
  for node in ast.walk(_tree(path)):
    if isinstance(node, (ast.Compare, ast.MatchValue)):
      names = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
      assert not names & EXPERIMENTS, f'{path}:{node.lineno}'


@pytest.mark.parametrize('path', MODULES, ids=str)
def test_modules_and_functions_fit_on_a_page(path):
  lines = (ROOT / path).read_text().count('\n')
  assert lines <= MOST_LINES
  for node in ast.walk(_tree(path)):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      length = node.end_lineno - node.lineno + 1
      assert length <= MOST_FUNCTION_LINES, f'{path}:{node.lineno} {node.name}'


@pytest.mark.parametrize('path', LIBRARY, ids=str)
def test_library_code_neither_prints_nor_asserts(path):
  for node in ast.walk(_tree(path)):
    where = f'{path}:{getattr(node, "lineno", 0)}'
    assert not isinstance(node, ast.Assert), f'{where}: bare assert'
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
      assert node.func.id != 'print', f'{where}: print'
