"""Decide who may send requests to the editor, and what browsers may do with it.

Requests that a browser sends for a foreign page are refused.
"""

from collections.abc import Awaitable, Callable, Collection
import ipaddress
import re
from urllib import parse

from aiohttp import web

from jacsup_jax.core import errors
from jacsup_jax.data import files

_HEADERS = {
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  # Instead of aiohttp's, which names versions.
  'Server': 'jacsup_jax',
}
_POLICY = (
  "default-src 'self'; img-src 'self' blob: data:; object-src 'none';"
  " base-uri 'none'; form-action 'none'; frame-ancestors"
)


def is_local(host: str) -> bool:
  """Checks whether a host name stands for this machine alone."""
  if host.lower() == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


def parse_hosts(text: str | None) -> list[str]:
  """Parses `--trusted_host`: names, or addresses of pages, with commas between.

  Ports do not matter. InputError if a part is neither.
  """
  found = []
  for part in (text or '').split(','):
    if not part.strip():
      continue
    name = _read_host(part.strip().partition('://')[2] or part.strip())
    if not name or not re.fullmatch(r'[\w.-]+', name):
      raise errors.InputError(
        f'--trusted_host={files.describe(text)}; accepted: the name of the'
        " proxy's address, such as hub.example.org."
      )
    found.append(name)
  return found


def make_guard(local_only: bool, trusted_hosts: Collection[str]) -> Callable:
  """Makes the middleware that answers foreign requests by a status of 403.

  Foreign are requests under a name that is not of this machine, with
  `local_only`, and those of a page under another name; `trusted_hosts` are
  names that are not.
  """

  def find_foreign(headers):
    """Returns the name that makes a request a foreign one; None without."""
    host = headers.get('Host', '')
    name = _read_host(host) or ''
    if name not in trusted_hosts and local_only and not is_local(name):
      return name
    # A foreign page can send requests, though it cannot read the answers.
    origin = headers.get('Origin', f'http://{host}').partition('://')[2]
    if origin != host and _read_host(origin) not in trusted_hosts:
      return _read_host(origin) or ''
    return None

  @web.middleware
  async def guard(request, handler):
    name = find_foreign(request.headers)
    if name is None:
      return await handler(request)
    line = 'requested by a foreign name or page'
    if re.fullmatch(r'[\w.:-]{1,255}', name):
      line += f', {name}; accepted: with --trusted_host={name}, your proxy'
    return web.json_response({'error': f'{line}.'}, status=403)

  return guard


def _read_host(text):
  """Returns the name in `NAME:PORT/...`, in small letters; None without one."""
  try:
    return parse.urlsplit(f'//{text}').hostname
  except ValueError:  # Brackets that are not an IPv6 address.
    return None


def make_header_adder(
  trusted_hosts: Collection[str],
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
  """Makes the function that adds headers; trusted hosts may frame the page."""
  addresses = [f'https://{own} http://{own}' for own in trusted_hosts]
  framed_by = ' '.join(["'self'", *addresses]) if addresses else "'none'"
  own = _HEADERS | {'Content-Security-Policy': f'{_POLICY} {framed_by}'}

  async def add_headers(request, response):
    response.headers.update(own)
    # The page's files are revalidated, so that all are of one version.
    api = request.path.startswith('/api/')
    response.headers['Cache-Control'] = 'no-store' if api else 'no-cache'

  return add_headers
