"""What the fuzz tests share: how cases are made, run, bounded and counted.

A surface is a kind of input. Its cases are the same in every run (nothing is
drawn from the clock), and each ends in a value or in an InputError of one line
that names the file, within a time and without much memory.
"""

import contextlib
import json
import resource
import signal
import sys

import hypothesis
from hypothesis import strategies as st

from jacsup_jax.core import errors

# Cases of each surface; each test asserts that it has had so many.
EXAMPLES = {
    '.npz: damaged': 200,
    '.npz: other arrays': 200,
    '.npz: headers': 150,
    '.npz: decoded splits': 60,
    'IDX': 120,
    'attribute files': 150,
    'partition files': 80,
    'zips of images': 200,
    'pictures': 300,
    'manifests': 250,
    'results': 300,
    'metrics': 100,
    'judge.json': 150,
    'checkpoints': 60,
    **{
        f'command lines: {name}': 200
        for name in (
            'mnist', 'svhn', 'celeba', 'judge', 'evaluate', 'convert',
            'ablation', 'ablation_5', 'reproduce', 'benchmark', 'edit',
        )
    },
    'flagfiles': 200,
    'runs that are measured': 250,
    'addresses': 200,
    'greetings': 100,
    'PyTorch files': 200,
    'editors': 150,
    'entries of editors': 150,
}  # pyformat: disable
# Of a case: some forty times what the slowest takes. A hang is longer.
_SECONDS = 30
# Of a surface, by which the memory of this process may grow.
_MEGABYTES = 1500


def run(surface, strategy, check):
  """Checks all cases of a surface.

  Args:
    surface: of `EXAMPLES`.
    strategy: draws a case.
    check: called with a case; raises if something is wrong.
  """
  count = 0

  @hypothesis.settings(
      max_examples=EXAMPLES[surface],
      derandomize=True,
      database=None,
      deadline=None,
      suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(strategy)
  def check_all(case):
    nonlocal count
    count += 1
    with limited():
      check(case)

  before = _megabytes()
  check_all()
  assert count >= EXAMPLES[surface]
  assert _megabytes() - before < _MEGABYTES


def read(function, path):
  """Calls a reader: what it returns, or None where it refuses the file.

  Args:
    function: raises InputError and nothing else.
    path: that its message is to name.
  """
  try:
    return function()
  except errors.InputError as error:
    check_message(str(error), path)
    return None


def check_message(message, *names):
  """Asserts that a message is one clear line."""
  assert message.strip() and message.isprintable(), message
  assert len(message) < 5000
  for name in names:
    assert str(name) in message, message


def bytes_of(content):
  """Draws a file that is like one, with some bytes changed or moved."""
  size = len(content)
  spot = st.integers(0, max(size - 1, 0))
  change = st.one_of(
      st.tuples(st.just('flip'), spot, st.integers(0, 7)),
      st.tuples(st.just('set'), spot, st.sampled_from([0, 1, 127, 128, 255])),
      st.tuples(st.just('cut'), spot, st.just(0)),
      st.tuples(st.just('delete'), spot, st.integers(1, 40)),
      st.tuples(st.just('double'), spot, st.integers(1, 40)),
      st.tuples(st.just('insert'), spot, st.binary(min_size=1, max_size=9)),
      st.tuples(st.just('ones'), spot, st.integers(1, 8)),
      # The end has the directory of a zip, and checksums.
      st.tuples(
          st.just('set'), st.integers(max(size - 80, 0), max(size - 1, 0)),
          st.integers(0, 255),
      ),
  )
  return st.lists(change, min_size=1, max_size=4).map(
      lambda changes: _change(content, changes)
  )


def _change(content, changes):
  content = bytearray(content)
  for kind, spot, value in changes:
    spot = min(spot, max(len(content) - 1, 0))
    if kind == 'cut':
      del content[spot:]
    elif kind == 'delete':
      del content[spot : spot + value]
    elif kind == 'double':
      content[spot:spot] = content[spot : spot + value]
    elif kind == 'insert':
      content[spot:spot] = value
    elif content and kind == 'flip':
      content[spot] ^= 1 << value
    elif content and kind == 'set':
      content[spot] = value
    elif kind == 'ones':
      content[spot : spot + value] = b'\xff' * value
  return bytes(content)


def json_of(document):
  """Draws the text of a JSON document that is like one.

  An entry has another value or is missing, or the text is damaged.
  """
  paths = list(_paths(document))
  replace = st.tuples(st.sampled_from(paths), _VALUES).map(
      lambda case: json.dumps(_replaced(document, *case)).encode()
  )
  remove = st.sampled_from(paths[1:]).map(
      lambda path: json.dumps(_removed(document, path)).encode()
  )
  # Twice as many of the first: they are what looks right.
  return st.one_of(
      replace, replace, remove, bytes_of(json.dumps(document).encode()), _TEXTS
  )


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([
        0, 1, -1, 2**31, 2**63, -(2**63), 10**400, 0.5, 1e308, float('inf'),
        float('nan'), '', 'x', 'nan', '../../x', '\0', 'a\nb', '\ud800',
        'x' * 5000, [], {}, [None], [[]], ['x', 'x'], {'x': []}, [0] * 300,
    ]),
    st.integers(),
    st.text(max_size=5),
    st.lists(st.integers(-2, 2) | st.text(max_size=2), max_size=3),
)  # pyformat: disable
_TEXTS = st.sampled_from([
    b'', b'null', b'[]', b'{}', b'"x"', b'{', b'\xff\xfe', b'\0' * 10,
    b'[' * 100_000, b'{"a":' * 50_000, b'1' * 10_000, b'{"flags": NaN}',
    b'\xef\xbb\xbf{}', b'{} {}', b'<html>',
])  # pyformat: disable


def _paths(document, path=()):
  yield path
  items = ()
  if isinstance(document, dict):
    items = document.items()
  elif isinstance(document, list):
    items = enumerate(document)
  for key, value in items:
    yield from _paths(value, (*path, key))


def _replaced(document, path, value):
  if not path:
    return value
  document = json.loads(json.dumps(document))
  _follow(document, path[:-1])[path[-1]] = value
  return document


def _removed(document, path):
  document = json.loads(json.dumps(document))
  del _follow(document, path[:-1])[path[-1]]
  return document


def _follow(document, path):
  for key in path:
    document = document[key]
  return document


@contextlib.contextmanager
def limited():
  """Ends what hangs, also where it waits for a pipe."""

  def end(*unused_args):
    raise AssertionError(f'a case took more than {_SECONDS} s')

  before = signal.signal(signal.SIGALRM, end)
  signal.setitimer(signal.ITIMER_REAL, _SECONDS)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _megabytes():
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / (2**20 if sys.platform == 'darwin' else 2**10)
