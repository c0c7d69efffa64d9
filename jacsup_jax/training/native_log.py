"""Makes one line of what JAX writes before it aborts a process.

JAX ends a process that has lost the others from native code, with a log of many
lines and no exception. `start` leads what native code writes through a process
of its own, which runs this file, passes all else on, and has the last word.
Python's own sys.stdout and sys.stderr stay what they are.
"""

import os
import re
import subprocess
import sys

_ENTRY = re.compile(rb'[IWEF]\d{4} [\d:.]+ +\d+ ([^:\s]+):\d+\] (.*)')
_SOURCES = (rb'coordination_service.cc', rb'coordination_service_agent.cc')
_ABORT = b'Terminating process because the JAX distributed service'
_STATUS = b'absl::Status: '
_LONGEST = 200
# In what follows the abort of a process that has not met the others.
_MEETING = b'CoordinationService/RegisterTask'


def start(line: str, line_before_meeting: str) -> None:
  """Leads file descriptor 2 through a filter, until this process ends.

  What native code writes to descriptor 1 is dropped: it is the chatter of the
  collectives on CPUs, of every connection.

  Args:
    line: to end with if JAX aborts, with `{}` for its reason.
    line_before_meeting: the same, where the others were never met.
  """
  python_stdout = os.fdopen(os.dup(1), 'w')
  python_stderr = os.fdopen(os.dup(2), 'w', buffering=1)
  filtering = subprocess.Popen(
      [sys.executable, '-I', '-S', __file__, line, line_before_meeting],
      stdin=subprocess.PIPE,
      stdout=subprocess.DEVNULL,
      # An interrupt is for this process; the filter ends with it.
      start_new_session=True,
  )
  sys.stdout.flush()
  sys.stderr.flush()
  sys.stdout, sys.stderr = python_stdout, python_stderr
  os.dup2(filtering.stdin.fileno(), 2)
  with open(os.devnull, 'wb') as nowhere:
    os.dup2(nowhere.fileno(), 1)
  filtering.stdin.close()


def main(line: str, line_before_meeting: str) -> None:
  """Copies stdin to stderr, but for JAX's reports of lost processes."""
  reason = None
  is_hidden = is_said = False
  for text in sys.stdin.buffer:
    entry = _ENTRY.match(text)
    if text.startswith(b'error: '):
      is_said = True
      os.write(2, text)
      continue
    if entry and _ABORT in entry[2]:
      is_hidden = True
      reason = entry[2].partition(_STATUS)[2].decode(errors='replace')
    elif entry:
      is_hidden = reason is not None or entry[1] in _SOURCES
    if reason is not None and _MEETING in text:
      line = line_before_meeting
    if not is_hidden:
      os.write(2, text)
  if reason is not None and not is_said:
    os.write(2, f'error: {line.format(reason[:_LONGEST])}\n'.encode())


if __name__ == '__main__':
  main(*sys.argv[1:])
