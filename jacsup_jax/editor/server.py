"""Serve the editor's page, on aiohttp.

Nothing is written to disk and nothing is fetched from other servers. By default
only this machine can connect.
"""

import asyncio
from collections.abc import Callable, Collection
import errno
import logging
import pathlib
import socket

from aiohttp import web

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.editor import guards
from jacsup_jax.editor import photos
from jacsup_jax.editor import service as service_lib

_log = logging.getLogger(__name__)
_LARGEST_REQUEST = 64 * 2**10
_OTHER_PORTS = 20
_PAGE = pathlib.Path(__file__).with_name('page')
# The first bytes of a file -> its type.
_TYPES = {b'RIFF': 'image/webp', b'\x89PNG': 'image/png', b'GIF8': 'image/gif'}


def make_app(
  service: service_lib.Service,
  *,
  local_only: bool = True,
  trusted_hosts: Collection[str] = (),
) -> web.Application:
  """Makes the web application.

    GET  /                                          the page
    GET  /static/NAME                               its files
    GET  /api/models                                the models
    GET  /api/models/MODEL                          loads and describes one
    GET  /api/models/MODEL/samples                  thumbnails
    POST /api/models/MODEL/photos[?align=1]         a file; `Service.add_photo`
    POST /api/models/MODEL/drawings                 see `Service.add_drawing`
    GET  /api/models/MODEL/photos/PHOTO             see `Service.describe_photo`
    GET  /api/models/MODEL/photos/PHOTO/original    also .../reconstruction
    POST /api/edit                                  see `Service.edit`
    POST /api/tiles                                 see `Service.draw_tiles`
    POST /api/export                                see `Service.export`

  Pictures are lossless WebP, but for exports. Refusals are answered by {error},
  one line. With `local_only`, requests are answered only under a name of this
  machine, so that no foreign page can make a browser send them under its own
  name; `trusted_hosts` are names of proxies, of which pages may also send
  requests and frame the page. The service is closed with the application.
  """
  app = web.Application(
    middlewares=[_answer_errors, guards.make_guard(local_only, trusted_hosts)],
    client_max_size=_LARGEST_REQUEST,
  )

  _add_routes(app.router, service)
  app.on_response_prepare.append(guards.make_header_adder(trusted_hosts))
  app.cleanup_ctx.append(lambda unused_app: _run_service(service))
  return app


def _add_routes(router, service):
  async def read_photo(request):
    return await request.clone(client_max_size=photos.MOST_BYTES).read()

  async def add_photo(request):
    content = await read_photo(request)
    align = request.query.get('align') == '1'
    return await service.add_photo(
      **request.match_info, content=content, align=align
    )

  async def add_drawing(request):
    content = await read_photo(request)
    return await service.add_drawing(**request.match_info, content=content)

  async def get_page(unused_request):
    return web.FileResponse(_PAGE / 'index.html')

  with_names = lambda function: _answer(lambda own: function(**own.match_info))
  model = '/api/models/{model}'
  photo = f'{model}/photos/{{photo}}'
  add_get, add_post = router.add_get, router.add_post
  add_get('/', get_page)
  router.add_static('/static', _PAGE)
  add_get('/api/models', with_names(service.list_models))
  add_get(model, with_names(service.describe))
  add_get(f'{model}/samples', with_names(service.draw_samples))
  add_get(photo, with_names(service.describe_photo))
  add_get(f'{photo}/{{which}}', with_names(service.draw_photo))
  add_post(f'{model}/photos', _answer(add_photo))
  add_post(f'{model}/drawings', _answer(add_drawing))
  for name, function in (
    ('edit', service.edit),
    ('tiles', service.draw_tiles),
    ('export', service.export),
  ):
    add_post(f'/api/{name}', _answer(_with_json(function)))


async def _run_service(service):
  # Photos expire even if there are no requests.
  task = asyncio.create_task(service.drop_expired())
  yield
  task.cancel()
  service.close()


def serve(
  service: service_lib.Service,
  host: str,
  port: int,
  announce: Callable[[str], None],
  trusted_hosts: Collection[str] = (),
) -> None:
  """Serves the page until SIGINT or SIGTERM, and announces lines to the user.

  `trusted_hosts` are those of `make_app`. Raises InputError as `listen` does.
  """
  with listen(host, port) as listening:
    name = f'[{host}]' if ':' in host else host
    own = listening.getsockname()[1]
    announce(f'the editor is at http://{name}:{own}/ (Ctrl-C stops it)')
    web.run_app(
      make_app(
        service, local_only=guards.is_local(host), trusted_hosts=trusted_hosts
      ),
      sock=listening,
      shutdown_timeout=2.0,
      access_log=None,
      print=None,
    )
  announce('stopped.')


def listen(host: str, port: int) -> socket.socket:
  """Listens on a port, or on the next free one; 0 takes any.

  Raises InputError if the host is not of this machine, or no port is free.
  """
  if not guards.is_local(host):
    _log.warning(
      '--host=%s: anybody on the network can edit; no password.', host
    )
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  for own in range(port, port + _OTHER_PORTS):
    try:
      listening = socket.create_server((host, own), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
      cause = error
      if getattr(error, 'errno', None) == errno.EADDRINUSE:
        continue
      break
    if own != port:
      _log.warning('port %d is busy; using %d.', port, own)
    return listening
  raise errors.InputError(
    f'--host={host} --port={port}: cannot listen there ({cause}); accepted: an'
    ' address of this machine, such as 127.0.0.1, and a free port, or 0.'
  ) from cause


@web.middleware
async def _answer_errors(request, handler):
  """Turns errors into a status and one line of JSON."""
  try:
    return await handler(request)
  except errors.InputError as error:
    status, line = 400, str(error)
  except service_lib.NotFoundError as error:
    status, line = 404, errors.one_line(str(error))
  except web.HTTPException as error:
    if error.status < 400:
      raise
    status, line = error.status, error.reason
  except Exception as error:  # Ours; the server continues.
    _log.exception('a request failed')
    status, line = 500, f'the server failed: {type(error).__name__}.'
  return web.json_response({'error': line}, status=status)


def _with_json(function):
  async def handle(request):
    content = await request.read()
    return await function(files.parse_json('the request', content))

  return handle


def _answer(function):
  """Makes a handler that answers with a picture, or with JSON."""

  async def handle(request):
    found = await function(request)
    if isinstance(found, bytes):
      kind = next(_TYPES[own] for own in _TYPES if found.startswith(own))
      return web.Response(body=found, content_type=kind)
    return web.json_response(found)

  return handle
