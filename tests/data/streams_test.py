"""Tests of the standard streams in jacsup_jax.data.files."""

import io
import os
import subprocess
import sys

import pytest

from jacsup_jax.data import files


@pytest.fixture(autouse=True)
def lost():
  yield files.lost_streams
  files.lost_streams.clear()


def _open_left():
  """Opens a pipe whose reader has left."""
  reader, writer = os.pipe()
  os.close(reader)
  return os.fdopen(writer, 'w')


def _open_ended():
  stream = io.StringIO()
  stream.close()
  return stream


@pytest.mark.parametrize(
  ('make', 'reason'),
  [
    (lambda: open('/dev/full', 'w', encoding='utf-8'), 'No space left'),
    (_open_left, 'Broken pipe'),
    (_open_ended, 'closed file'),
  ],
)
def test_a_stream_that_fails_is_silent_from_then_on(
  monkeypatch, lost, make, reason
):
  for name in ('stdout', 'stderr'):
    stream = make()
    monkeypatch.setattr(sys, name, stream)
    files.say('one', name)
    assert reason in lost.pop(name)
    files.say('two', name)  # It goes nowhere, if the stream has a file.
    files.flush_streams()
    stream.close()
    monkeypatch.undo()


def test_what_a_stream_cannot_encode_is_escaped(monkeypatch, lost):
  raw = io.BytesIO()
  monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(raw, 'ascii'))
  files.say('50 ± 1, \udcff')
  assert raw.getvalue() == b'50 \\xb1 1, \\udcff\n' and not lost


def test_closed_streams_are_opened_before_another_file_takes_their_place(
  tmp_path,
):
  program = (
    'import os, sys\n'
    'from jacsup_jax.data import files\n'
    'files.open_missing_streams()\n'
    "file = open(sys.argv[1], 'w')\n"
    'assert file.fileno() > 2\n'
    "os.write(2, b'of a library')\n"
    "files.say('one'); files.say('two', 'stderr'); files.flush_streams()\n"
    "file.write('whole')"
  )
  root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
  for closed in ('>&-', '2>&-', '<&- >&- 2>&-'):
    command = f'"$0" -c "$1" "$2" {closed}'
    args = ('sh', '-c', command, sys.executable, program, tmp_path / 'file')
    subprocess.run(args, check=True, env={**os.environ, 'PYTHONPATH': root})
    assert (tmp_path / 'file').read_text() == 'whole'
