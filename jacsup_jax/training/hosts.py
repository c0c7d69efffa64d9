"""The processes of a run: how they meet, agree, and end together.

Every process has a TCP connection to the first one, for small values and for
the news that one has ended: what JAX says of that comes minutes later, and ends
a process without a word of ours. Nothing here uses a device.
"""

from collections.abc import Mapping, Sequence
import json
import os
import queue
import socket
import sys
import threading
import time
from typing import Any, NoReturn

from jacsup_jax.core import errors
from jacsup_jax.runs import preemption

_GREETING = 'jacsup_jax'
_LONGEST_GREETING = 10_000
# Of a connection that is open but silent while greeting.
_GREETING_SECONDS = 10
_RETRY_SECONDS = 0.2
# For the others to hear why a run ends, before its first process is gone.
_GRACE_SECONDS = 5
# A host that is gone without a word is found out by these probes of the
# kernel, after 30 seconds; of a process that dies it tells at once.
_KEEPALIVE = {
    'SO_KEEPALIVE': (socket.SOL_SOCKET, 1),
    'TCP_NODELAY': (socket.IPPROTO_TCP, 1),
    'TCP_KEEPIDLE': (socket.IPPROTO_TCP, 10),
    'TCP_KEEPINTVL': (socket.IPPROTO_TCP, 5),
    'TCP_KEEPCNT': (socket.IPPROTO_TCP, 4),
    'TCP_USER_TIMEOUT': (socket.IPPROTO_TCP, 30_000),
}
RESUMES = (
    'the last checkpoint of the run stands, and the same command goes on from'
    ' it'
)


class Group:
  """The processes of a run, of which this is one.

  While it lasts, the end of one of them ends this one too.

  Attributes:
    index: of this process.
    count: of processes.
  """

  def __init__(self, index: int, count: int, links: Mapping[int, '_Link']):
    """Starts to listen to the others.

    Args:
      index: of this process.
      count: of processes.
      links: connections to all others by index, of the first process; to the
        first one, of the others.
    """
    self.index = index
    self.count = count
    self._links = links
    self._is_ending = threading.Lock()
    self._is_closed = False
    self._listeners = [
        threading.Thread(target=self._listen, args=item, daemon=True)
        for item in links.items()
    ]
    for listener in self._listeners:
      listener.start()

  @property
  def is_first(self) -> bool:
    return self.index == 0

  def share(self, value: Any) -> Any:
    """Returns the first process's value, JSON, on all of them.

    The others wait for it, for as long as it takes.

    Args:
      value: of the first process; those of others are not looked at.
    """
    if not self.is_first:
      return self._links[0].values.get()
    for link in self._links.values():
      link.send({'value': value})
    return value

  def check_same(self, terms: Mapping[str, Any]) -> None:
    """Checks that all processes have the same values.

    Args:
      terms: JSON values by what they are called.

    Raises:
      InputError: in the first process, if one has others; it ends all.
    """
    terms = json.loads(json.dumps(terms))
    if self.is_first:
      for index, link in self._links.items():
        theirs = link.values.get()
        differing = [
            f'{name}={terms.get(name)} at process 0, {theirs.get(name)} at'
            f' process {index}'
            for name in sorted({*terms, *theirs})
            if terms.get(name) != theirs.get(name)
        ]
        if differing:
          raise errors.InputError(
              f'the processes of the run differ: {"; ".join(differing)}.'
              ' Accepted: the same on all of them.'
          )
    else:
      self._links[0].send({'value': terms})
    self.share(None)

  def fail(self, line: str, status: int) -> NoReturn:
    """Ends all processes.

    Args:
      line: that says why.
      status: of their exit.
    """
    self._end(line, f'process {self.index}: {line}', status)

  def ask_to_stop(self, number: int) -> None:
    """Asks the first process to end the run, as a signal would there.

    Args:
      number: of the signal that this process was sent.
    """
    self._links[0].send({'stop': number})

  def close(self) -> None:
    """Waits until all have come here; from then on each ends by itself."""
    self.check_same({})
    self._is_closed = True

  def _listen(self, index, link):
    """Takes what comes from another process until it is gone."""
    for message in link.messages():
      if 'value' in message:
        link.values.put(message['value'])
      elif 'stop' in message:
        preemption.repeat(message['stop'])
      elif 'end' in message:
        line = message['end']
        self._end(line, line, message['status'])
    if not self._is_closed:
      line = (
          f'process {index} of {self.count} has ended (killed, or its host is'
          f' gone); {RESUMES}.'
      )
      self._end(line, line, 1)

  def _end(self, line, line_for_others, status):
    """Ends this process; the first one ends all others before itself."""
    # Held for ever: whoever comes second has nothing to say.
    self._is_ending.acquire()
    # A run that was told to end makes no error.
    say(line if status > 128 else f'error: {line}')
    for link in self._links.values():
      link.send({'end': line_for_others, 'status': status})
      link.finish()
    if self.is_first:
      # JAX aborts those who outlive the first process.
      deadline = time.monotonic() + _GRACE_SECONDS
      for listener in self._listeners:
        if listener is not threading.current_thread():
          listener.join(max(0.0, deadline - time.monotonic()))
    # Not sys.exit: JAX would wait for the others before its end.
    leave(status)


def say(line: str) -> None:
  """Writes a line where this process writes its errors."""
  sys.stdout.flush()
  sys.stderr.flush()
  try:
    # Not sys.stderr, so that native_log sees it.
    os.write(2, f'{line}\n'.encode(errors='backslashreplace'))
  except OSError:
    print(line, file=sys.stderr, flush=True)


def leave(status: int) -> NoReturn:
  """Ends this process at once, with what it has written."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def parse_address(name: str, text: str) -> tuple[str, int]:
  """Splits HOST:PORT.

  Args:
    name: of the flag, for the error.
    text: its value; an IPv6 address has brackets.

  Raises:
    InputError: if it is not of that form.
  """
  host, colon, port = text.rpartition(':')
  bare = host.removeprefix('[').removesuffix(']')
  try:
    bare.encode('idna')
  except UnicodeError:
    bare = ''  # No name of a host, and Python's sockets would raise this.
  if (
      not (colon and bare and port.isascii() and port.isdigit())
      or not 0 < int(port) < 2**16
      or (':' in bare and bare == host)
      or not bare.isprintable()
  ):
    raise errors.InputError(
        f'--{name}={text}; accepted: HOST:PORT, as 10.0.0.2:1234.'
    )
  return bare, int(port)


def open_server(host: str | None, port: int) -> socket.socket:
  """Listens on the address that the others are told, and on no other.

  Args:
    host: name or address of this machine; 0.0.0.0 and :: are all that it has
      of their kind, None of both: where the environment joins the processes, it
      does not say which one they will take.
    port: to listen on; 0 takes a free one.

  Raises:
    OSError: if the machine has no such address, or the port is taken.
  """
  if host is None:
    if socket.has_dualstack_ipv6():
      return socket.create_server(
          ('', port), family=socket.AF_INET6, dualstack_ipv6=True
      )
    return socket.create_server(('', port))
  found = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
  )
  error = OSError(f'{host} has no address')
  for family, _, _, _, address in found:
    try:
      return socket.create_server(address[:2], family=family)
    except OSError as failed:
      error = failed
  raise error


def find_free_port(host: str | None = None) -> int:
  """Returns a port that nobody listens on.

  Args:
    host: see `open_server`.
  """
  with open_server(host, 0) as server:
    return server.getsockname()[1]


def join_address(host: str, port: int) -> str:
  """Returns HOST:PORT, an IPv6 address in brackets."""
  return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'


def find_own_addresses(port: int) -> list[tuple[str, int]]:
  """Lists under what addresses others might reach this host."""
  hosts = [socket.gethostname()]
  try:
    hosts += socket.gethostbyname_ex(hosts[0])[2]
  except OSError:
    pass  # It has no entry of its own.
  # Nothing is sent: the kernel only says from which address it would be.
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
      probe.connect(('192.0.2.1', 9))  # Of RFC 5737: nobody's.
      hosts.append(probe.getsockname()[0])
    except OSError:
      pass  # It has no way out.
  return [(host, port) for host in dict.fromkeys(hosts)]


def host(server: socket.socket, count: int, name: str, seconds: float) -> Group:
  """Waits for the others, as the first process.

  Args:
    server: that they connect to; it is open until the process ends, to turn
      away any more.
    count: of processes, this one among them.
    name: of the address, for errors.
    seconds: to wait at most.

  Returns:
    The group of all.

  Raises:
    InputError: if not all have come.
  """
  deadline = time.monotonic() + seconds
  links = {}
  while len(links) < count - 1:
    server.settimeout(max(0.001, deadline - time.monotonic()))
    try:
      connection, _ = server.accept()
    except TimeoutError:
      missing = [str(i) for i in range(1, count) if i not in links]
      _refuse(
          links.values(),
          f'of --process_count={count} {_enumerate(missing)} did not come to'
          f' {name} within {seconds:g} s.',
      )
    link = _Link(connection)
    index, theirs = link.receive_greeting()
    if index is None:
      link.close()
    elif not _turn_away(link, index, count, links):
      links[index] = link
      if theirs != count:
        _refuse(
            links.values(),
            f'--process_count={theirs} at process {index}, {count} at process'
            ' 0; accepted: the same on all of them.',
        )
  server.settimeout(None)
  threading.Thread(
      target=_turn_away_surplus, args=(server, count, links), daemon=True
  ).start()
  for link in links.values():
    link.send({'welcome': count})
  return Group(0, count, links)


def join(
    addresses: Sequence[tuple[str, int]],
    index: int,
    count: int,
    name: str,
    seconds: float,
) -> Group:
  """Connects to the first process, as one of the others.

  Args:
    addresses: that it may have.
    index: of this process, from 1.
    count: of processes, the first among them.
    name: of the address, for errors.
    seconds: to try, and then to wait for all, at most.

  Returns:
    The group of all.

  Raises:
    InputError: if it is not reached, or turns this process away.
  """
  deadline = time.monotonic() + seconds
  while True:
    for address in addresses:
      try:
        link = _Link(socket.create_connection(address, _GREETING_SECONDS))
        break
      except (OSError, ValueError) as error:  # The latter of odd names.
        reason = getattr(error, 'strerror', None) or str(error)
    else:
      if time.monotonic() > deadline:
        raise errors.InputError(
            f'process {index} did not reach {name} within {seconds:g} s'
            f' ({reason}); accepted: an address of process 0, which is to run'
            ' by then.'
        )
      time.sleep(_RETRY_SECONDS)
      continue
    break
  link.send({'greeting': _GREETING, 'index': index, 'count': count})
  # A first process that runs says how its own waiting ended.
  answer = link.receive(seconds + _GREETING_SECONDS)
  if answer is None:
    raise errors.InputError(
        f'{name} was reached and gave no welcome: process 0 has ended, or'
        ' another program listens there; accepted: an address of process 0,'
        ' and a port that is free on it.'
    )
  if 'refused' in answer:
    raise errors.InputError(str(answer['refused']))
  return Group(index, count, {0: link})


class _Link:
  """A connection to another process: JSON, an object a line."""

  def __init__(self, connection: socket.socket):
    for option, (level, value) in _KEEPALIVE.items():
      if hasattr(socket, option):  # Some are of Linux alone.
        connection.setsockopt(level, getattr(socket, option), value)
    self.values = queue.SimpleQueue()
    self._connection = connection
    self._reader = connection.makefile('rb')
    self._lock = threading.Lock()

  def send(self, message: Mapping[str, Any]) -> None:
    """Sends a message, if there is still somebody: its listener will know."""
    try:
      with self._lock:
        self._connection.sendall(json.dumps(message).encode() + b'\n')
    except OSError:
      pass

  def finish(self) -> None:
    """Says that nothing more will be sent."""
    try:
      self._connection.shutdown(socket.SHUT_WR)
    except OSError:
      pass

  def messages(self):
    """Yields messages until the other is gone."""
    self._connection.settimeout(None)
    try:
      for line in self._reader:
        yield json.loads(line)
    except (OSError, ValueError, RecursionError):
      pass

  def receive(self, seconds: float) -> dict[str, Any] | None:
    """Returns one message, None if none comes."""
    self._connection.settimeout(seconds)
    try:
      message = json.loads(self._reader.readline(_LONGEST_GREETING))
      return message if isinstance(message, dict) else None
    # The last of what is nested: anybody may connect.
    except (OSError, ValueError, RecursionError):
      return None

  def receive_greeting(self) -> tuple[int | None, int]:
    """Returns index and count of who connects; no index if it is no run's."""
    message = self.receive(_GREETING_SECONDS)
    numbers = [(message or {}).get(name) for name in ('index', 'count')]
    if (
        not all(type(number) is int and number > 0 for number in numbers)
        or message.get('greeting') != _GREETING
    ):
      return None, 0
    return tuple(numbers)

  def close(self) -> None:
    self._reader.close()
    self._connection.close()


def _refuse(links, line):
  for link in links:
    link.send({'refused': line})
    link.close()
  raise errors.InputError(line)


def _turn_away(link, index, count, links):
  """Turns a process away that the run has no place for; returns whether."""
  if index >= count:
    why = f'process 0 expects --process_count={count}'
  elif index in links:
    why = 'that process is there already'
  else:
    return False
  link.send({
      'refused': (
          f'--process_id={index} has no place in the run: {why}. Accepted: 0 to'
          f' {count - 1}, each once.'
      )
  })
  link.close()
  return True


def _turn_away_surplus(server, count, links):
  while True:
    try:
      link = _Link(server.accept()[0])
    except OSError:
      return
    index, _ = link.receive_greeting()
    if index is None or not _turn_away(link, index, count, links):
      link.close()


def _enumerate(indices):
  if len(indices) == 1:
    return f'process {indices[0]}'
  return f'processes {", ".join(indices[:-1])} and {indices[-1]}'
