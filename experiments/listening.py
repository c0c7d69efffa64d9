"""Where a server of this machine listens."""

import errno
import ipaddress
import socket

from experiments import command_line
from jacsup_jax.core import errors

_OTHER_PORTS = 20


def listen(host: str, port: int) -> socket.socket:
  """Returns a socket that listens on a port, or on the next free one.

  Args:
    host: name or address of this machine; another than its own is warned of.
    port: 0 takes any.

  Raises:
    InputError: if it is none of this machine, or no port is free.
  """
  if not is_local(host):
    command_line.note(
        f'--host={host}: whoever reaches this machine over the network can use'
        ' the editor; there is no password.'
    )
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  last = port if port == 0 else max(port, min(port + _OTHER_PORTS, 65535))
  for own in range(port, last + 1):
    try:
      listening = socket.create_server((host, own), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
      if getattr(error, 'errno', None) == errno.EADDRINUSE:
        continue
      raise errors.InputError(
          f'--host={host} --port={own} cannot be listened on ({error});'
          ' accepted: a host of this machine, as 127.0.0.1, and a port'
          ' from 1024 to 65535, or 0 for any.'
      ) from error
    if own != port:
      command_line.note(f'port {port} is in use; taking {own}.')
    return listening
  raise errors.InputError(
      f'--port={port} is in use, and those up to {last} are too; accepted: a'
      ' free one, or 0 for any.'
  )


def is_local(host: str) -> bool:
  """Says whether a name is one that only this machine has for itself."""
  if host.lower() == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False
