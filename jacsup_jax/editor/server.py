"""Serve the editor's page, on aiohttp.

Nothing is written to disk and nothing is fetched from other servers. By default
only this machine can connect.
"""

import asyncio
from collections.abc import Callable
import contextlib
import errno
import ipaddress
import logging
import pathlib
import signal
import socket
from typing import Any
from urllib import parse

from aiohttp import web

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.editor import photos
from jacsup_jax.editor import wire

_log = logging.getLogger(__name__)
_LARGEST_PHOTO = photos.MOST_BYTES
_LARGEST_REQUEST = 64 * 2**10
_UPLOAD_SECONDS = 120
_MOST_UPLOADS = 4  # in memory at the same time
_OTHER_PORTS = 20
_PAGE = pathlib.Path(__file__).with_name('page')
_HEADERS = {
  'Content-Security-Policy': (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  ),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  # Instead of aiohttp's, which names versions.
  'Server': 'jacsup_jax',
}
_service_key = web.AppKey('service', object)  # service.Service
_uploads_key = web.AppKey('uploads', asyncio.Semaphore)


def make_app(service: Any, *, local_only: bool = True) -> web.Application:
  """Makes the web application.

    GET  /                                          the page
    GET  /static/NAME                               its files
    GET  /api/models                                the models
    GET  /api/models/MODEL                          loads and describes one
    GET  /api/models/MODEL/samples                  thumbnails
    POST /api/models/MODEL/photos[?align=1]         a file; `Service.add_photo`
    GET  /api/models/MODEL/photos/PHOTO/original    also .../reconstruction
    POST /api/edit                                  see `Service.edit`

  Pictures are lossless WebP. Refusals are answered by {error}, one line.

  Args:
    service: a `service.Service`, closed with the application.
    local_only: whether only requests under a name of this machine are answered,
      so that no foreign page can make a browser send requests here under its
      own name.

  Returns:
    The application.
  """
  app = web.Application(
    middlewares=[_answer_errors, _make_guard(local_only)],
    client_max_size=_LARGEST_REQUEST,
  )
  app[_service_key] = service
  app[_uploads_key] = asyncio.Semaphore(_MOST_UPLOADS)
  app.add_routes(
    [
      web.get('/', _get_page),
      web.static('/static', _PAGE),
      web.get('/api/models', _list_models),
      web.get('/api/models/{model}', _describe_model),
      web.get('/api/models/{model}/samples', _draw_samples),
      web.post('/api/models/{model}/photos', _add_photo),
      web.get('/api/models/{model}/photos/{photo}/{which}', _draw_photo),
      web.post('/api/edit', _edit),
    ]
  )
  app.on_response_prepare.append(_add_headers)
  app.cleanup_ctx.append(_run_service)
  return app


def serve(
  service: Any,
  *,
  host: str = '127.0.0.1',
  port: int = 8000,
  announce: Callable[[str], None] = _log.info,
) -> None:
  """Serves the page until SIGINT or SIGTERM.

  Args:
    service: a `service.Service`; its first model is loaded before the page is
      served.
    host: address to listen on.
    port: port to listen on, or the next free one; 0 takes any.
    announce: called with lines for the user, such as the address.

  Raises:
    InputError: if there is no such host or no free port, or the only model
      cannot be loaded.
  """
  with contextlib.closing(listen(host, port)) as listening:
    asyncio.run(_serve(service, host, listening, announce))
  announce('stopped.')


def listen(host: str, port: int) -> socket.socket:
  """Listens on a port, or on the next free one; 0 takes any.

  Raises:
    InputError: if the host is not of this machine, or no port is free.
  """
  if not is_local(host):
    _log.warning(
        '--host=%s: everybody who can reach this machine over the network can'
        ' use the editor; there is no password.', host,
    )  # fmt: skip
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  for own in range(port, port + _OTHER_PORTS):
    try:
      listening = socket.create_server((host, own), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
      if getattr(error, 'errno', None) == errno.EADDRINUSE:
        continue
      raise errors.InputError(
        f'--host={host} --port={own}: cannot listen there ({error});'
        ' accepted: an address of this machine, such as 127.0.0.1, and a port'
        ' from 1024 to 65535, or 0 for any.'
      ) from error
    if own != port:
      _log.warning('port %d is busy; using %d.', port, own)
    return listening
  raise errors.InputError(
    f'--port={port} and the next {_OTHER_PORTS - 1} are busy; accepted: a free'
    ' port, or 0 for any.'
  )


def is_local(host: str) -> bool:
  """Checks whether a host name stands for this machine alone."""
  if host.lower() == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


async def _serve(service, host, listening, announce):
  stopped = asyncio.Event()
  for number in (signal.SIGINT, signal.SIGTERM):
    asyncio.get_running_loop().add_signal_handler(number, stopped.set)
  stop = asyncio.create_task(stopped.wait())
  models = service.list_models()['models']
  first = ' '.join(filter(None, (models[0]['group'], models[0]['title'])))
  announce(f'loading {first} ...')
  loading = asyncio.create_task(service.describe(models[0]['id']))
  await asyncio.wait((loading, stop), return_when=asyncio.FIRST_COMPLETED)
  if not loading.done():
    loading.cancel()
    service.close()
    return
  try:
    await loading
  except errors.InputError as error:
    if len(models) == 1:
      service.close()
      raise
    _log.warning('%s cannot be chosen: %s', first, error)
  # Handlers are cancelled with their requests: nobody waits for the rest of a
  # strip then.
  runner = web.AppRunner(
    make_app(service, local_only=is_local(host)),
    access_log=None,
    handler_cancellation=True,
    shutdown_timeout=2.0,
  )
  await runner.setup()
  try:
    await web.SockSite(runner, listening).start()
    name = f'[{host}]' if ':' in host else host
    port = listening.getsockname()[1]
    announce(f'the editor is at http://{name}:{port}/ (Ctrl-C stops it)')
    await stop
  finally:
    await runner.cleanup()


@web.middleware
async def _answer_errors(request, handler):
  """Turns errors into a status and one line of JSON."""
  try:
    return await handler(request)
  except errors.InputError as error:
    status, line = 400, str(error)
  except wire.NotFoundError as error:
    status, line = 404, errors.one_line(str(error))
  except web.HTTPException as error:
    if error.status < 400:
      raise
    status, line = error.status, error.reason
    if status == 413:
      line = (
        'the request is too large; accepted: photos of at most'
        f' {_LARGEST_PHOTO:,} bytes, other requests of at most'
        f' {_LARGEST_REQUEST:,}.'
      )
  except Exception as error:  # Ours; the server continues.
    _log.exception('a request failed')
    status, line = 500, f'the server failed: {type(error).__name__}.'
  return web.json_response({'error': line}, status=status)


def _make_guard(local_only):
  @web.middleware
  async def guard(request, handler):
    try:
      host = parse.urlsplit(f'//{request.headers.get("Host", "")}')
      is_refused = local_only and not is_local(host.hostname or '')
      # A foreign page can send requests, though it cannot read the answers.
      origin = request.headers.get('Origin')
      if origin is not None and parse.urlsplit(origin).netloc != host.netloc:
        is_refused = True
    except ValueError:  # Brackets that are not an IPv6 address.
      is_refused = True
    if is_refused:
      raise web.HTTPForbidden(reason='Requested by a foreign name or page')
    return await handler(request)

  return guard


async def _add_headers(request, response):
  response.headers.update(_HEADERS)
  # The page's files are revalidated, so that all are of one version.
  api = request.path.startswith('/api/')
  response.headers['Cache-Control'] = 'no-store' if api else 'no-cache'


async def _run_service(app):
  """Drops expired photos even if there are no requests; closes the service."""

  async def drop():
    while True:
      await asyncio.sleep(60)
      app[_service_key].drop_expired()

  task = asyncio.create_task(drop())
  yield
  task.cancel()
  app[_service_key].close()


async def _get_page(unused_request):
  return web.FileResponse(_PAGE / 'index.html')


async def _list_models(request):
  return web.json_response(request.app[_service_key].list_models())


async def _describe_model(request):
  service = request.app[_service_key]
  return web.json_response(await service.describe(**request.match_info))


async def _draw_samples(request):
  service = request.app[_service_key]
  return _picture(await service.draw_samples(**request.match_info))


async def _draw_photo(request):
  service = request.app[_service_key]
  return _picture(await service.draw_photo(**request.match_info))


async def _edit(request):
  content = files.parse_json('the request', await request.read())
  return _picture(await request.app[_service_key].edit(content))


async def _add_photo(request):
  if (request.content_length or 0) > _LARGEST_PHOTO:
    raise web.HTTPRequestEntityTooLarge(_LARGEST_PHOTO, request.content_length)
  async with request.app[_uploads_key]:
    try:
      async with asyncio.timeout(_UPLOAD_SECONDS):
        content = await request.clone(client_max_size=_LARGEST_PHOTO).read()
    except TimeoutError as error:
      raise web.HTTPRequestTimeout from error
    added = await request.app[_service_key].add_photo(
      **request.match_info,
      content=content,
      align=request.query.get('align') == '1',
    )
  return web.json_response(added, status=201)


def _picture(content):
  return web.Response(body=content, content_type='image/webp')
