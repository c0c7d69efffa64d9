"""Starts runs, kills them, and tells what they left: for the slow tests."""

import json
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]

# What of a record is of the clock.
CLOCK = ('seconds', 'images_per_second', 'compile_seconds', 'input_bound')


def start(binary, *args, env=None):
  """Starts experiments.BINARY with flags, and does not wait for it."""
  return subprocess.Popen(
      [sys.executable, '-m', f'experiments.{binary}', *args],
      cwd=ROOT,
      env=env,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
  )


def finish(process):
  _, err = process.communicate()
  assert process.returncode == 0, err[-3000:]


def kill_when(process, reached, delay):
  """Sends SIGKILL so many seconds after something is reached."""
  while not reached():
    assert process.poll() is None, process.stderr.read()[-3000:]
    time.sleep(0.01)
  time.sleep(delay)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL, 'it ended before it was killed'


def signal_after(process, number, delay):
  """Sends a signal after some seconds; returns how long it takes to leave.

  Args:
    process: that runs.
    number: of the signal.
    delay: in seconds.

  Returns:
    Seconds from the signal to the end, None if it had ended before; stderr.
  """
  try:
    _, err = process.communicate(timeout=delay)
    return None, err
  except subprocess.TimeoutExpired:
    pass
  start = time.monotonic()
  process.send_signal(number)
  _, err = process.communicate()
  return time.monotonic() - start, err


def has_epoch(run, stage):
  """Tells whether a stage of a run has had an epoch."""
  path = run / 'metrics.jsonl'
  return path.exists() and f'"stage": "{stage}"' in path.read_text()


def has_finished(run, stage):
  """Tells whether a stage of a run is finished: the next one begins."""
  path = run / 'manifest.json'
  return path.exists() and stage in json.loads(path.read_text())['stages']


def outcome(run):
  """Reads all that a run left which does not depend on the clock."""
  manifest = json.loads((run / 'manifest.json').read_text())
  results = json.loads((run / 'results.json').read_text())
  records = [
      json.loads(line)
      for line in (run / 'metrics.jsonl').read_text().splitlines()
  ]
  for record in records:
    for name in CLOCK:
      del record[name]
  return manifest['stages'], results, records
