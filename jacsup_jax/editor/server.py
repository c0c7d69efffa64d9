"""The web page of experiments.edit --serve, on aiohttp.

Nothing is written to disk and nothing is fetched from elsewhere. By default
only this machine can connect.
"""

import asyncio
from collections.abc import Sequence
import contextlib
import logging
import pathlib
from urllib import parse

from aiohttp import web

from experiments import command_line
from experiments import edit_choices
from experiments import edit_service
from experiments import edit_wire
from experiments import listening
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.data import photos
from jacsup_jax.runs import preemption

DEFAULT_HOST = '127.0.0.1'
DEFAULT_PORT = 8000
LARGEST_PHOTO = photos.MOST_BYTES
_LARGEST_REQUEST = 64 * 2**10
_UPLOAD_SECONDS = 120
# Of uploads that are in memory at once.
_MOST_UPLOADS = 4
_PAGE = pathlib.Path(__file__).parent / 'editor_page'
_HEADERS = {
    'Content-Security-Policy': (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin',
    # Not aiohttp's, which names versions.
    'Server': 'jacsup_jax',
}
_service_key = web.AppKey('service', edit_service.Service)
_uploads_key = web.AppKey('uploads', asyncio.Semaphore)


def make_app(
    service: edit_service.Service, *, local_only: bool = True
) -> web.Application:
  """Returns the page and what it asks for.

    GET  /                                          the page
    GET  /static/NAME                               its parts
    GET  /api/models                                what can be chosen
    GET  /api/models/MODEL                          units of one, loads it
    GET  /api/models/MODEL/samples                  all of them, small
    POST /api/models/MODEL/photos[?align=1]         a file; `Service.add_photo`
    GET  /api/models/MODEL/photos/PHOTO/original    also .../reconstruction
    POST /api/edit                                  see `Service.edit`
    POST /api/strip                                 see `Service.draw_strip`

  Pictures are WebP without loss. What is refused is answered by {error}, one
  line.

  Args:
    service: closed with the app.
    local_only: answers only those who came by a name of this machine, so that
      no page from elsewhere can make a browser ask here under its own name.
  """
  app = web.Application(
      middlewares=[_answer_errors, _make_guard(local_only)],
      client_max_size=_LARGEST_REQUEST,
  )
  app[_service_key] = service
  app[_uploads_key] = asyncio.Semaphore(_MOST_UPLOADS)
  app.add_routes([
      web.get('/', _get_page),
      web.static('/static', _PAGE),
      web.get('/api/models', _list_models),
      web.get('/api/models/{model}', _describe_model),
      web.get('/api/models/{model}/samples', _draw_samples),
      web.post('/api/models/{model}/photos', _add_photo),
      web.get('/api/models/{model}/photos/{photo}/{which}', _draw_photo),
      web.post('/api/edit', _edit),
      web.post('/api/strip', _draw_strip),
  ])
  app.on_response_prepare.append(_add_headers)
  app.cleanup_ctx.append(_keep_house)
  return app


def serve(
    choices: Sequence[edit_choices.Choice],
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    **service_options,
) -> None:
  """Serves the page until SIGINT or SIGTERM.

  Args:
    choices: one or more; the first is loaded before the first page.
    host: to listen on.
    port: to listen on, or the next free one; 0 takes any.
    **service_options: of `edit_service.Service`.

  Raises:
    InputError: if there is no such host or no free port, or the one choice that
      there is cannot be loaded.
  """
  with contextlib.closing(listening.listen(host, port)) as own:
    # Of a signal `_until_told` takes note, where nothing is in the middle.
    with preemption.deferred(), contextlib.suppress(KeyboardInterrupt):
      asyncio.run(_serve(choices, host, own, service_options))
  print('stopped.')


async def _serve(choices, host, own, service_options):
  service = edit_service.Service(choices, **service_options)
  told = asyncio.create_task(_until_told())
  first = ' '.join(filter(None, (choices[0].group, choices[0].title)))
  print(f'loading {first} ...', flush=True)
  loading = asyncio.create_task(service.describe(choices[0].id))
  await asyncio.wait((loading, told), return_when=asyncio.FIRST_COMPLETED)
  if not loading.done():
    loading.cancel()
    service.close()
    return
  try:
    await loading
  except errors.InputError as error:
    if len(choices) == 1:
      service.close()
      raise
    command_line.note(f'{first} cannot be chosen: {error}')
  app = make_app(service, local_only=listening.is_local(host))
  # Cancelled: a strip that nobody waits for any more is not drawn on.
  runner = web.AppRunner(
      app, access_log=None, handler_cancellation=True, shutdown_timeout=2.0
  )
  await runner.setup()
  try:
    await web.SockSite(runner, own).start()
    name = f'[{host}]' if ':' in host else host
    port = own.getsockname()[1]
    address = f'http://{name}:{port}/'
    print(f'the editor is at {address} (Ctrl-C ends it)', flush=True)
    await told
  finally:
    await runner.cleanup()


async def _until_told():
  while preemption.requested() is None:
    await asyncio.sleep(0.2)


@web.middleware
async def _answer_errors(request, handler):
  """Turns what goes wrong into a status and one line of JSON."""
  try:
    return await handler(request)
  except errors.InputError as error:
    status, line = 400, str(error)
  except edit_service.NotFoundError as error:
    status, line = 404, errors.one_line(str(error))
  except web.HTTPException as error:
    if error.status < 400:
      raise
    status, line = error.status, error.reason
    if status == 413:
      line = (
          'the request is too large; accepted: photos of'
          f' {LARGEST_PHOTO:,} bytes at most, all else of'
          f' {_LARGEST_REQUEST:,}.'
      )
  except Exception as error:  # Ours; others go on to be served.
    logging.getLogger(__name__).exception('a request failed')
    status, line = 500, f'the server has failed: {type(error).__name__}.'
  return web.json_response({'error': line}, status=status)


def _make_guard(local_only):
  @web.middleware
  async def guard(request, handler):
    try:
      host = parse.urlsplit(f'//{request.headers.get("Host", "")}')
      is_refused = local_only and not listening.is_local(host.hostname or '')
      # A page from elsewhere may send, though it cannot read what it gets.
      origin = request.headers.get('Origin')
      if origin is not None and parse.urlsplit(origin).netloc != host.netloc:
        is_refused = True
    except ValueError:  # Of brackets that are no IPv6 address.
      is_refused = True
    if is_refused:
      raise web.HTTPForbidden(reason='Asked for by another name or page')
    return await handler(request)

  return guard


async def _add_headers(request, response):
  response.headers.update(_HEADERS)
  # Parts of the page are asked for anew, so that all are of one version.
  api = request.path.startswith('/api/')
  response.headers['Cache-Control'] = 'no-store' if api else 'no-cache'


async def _keep_house(app):
  """Drops photos in time, also when nobody asks for any."""

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
  return web.json_response({
      **request.app[_service_key].list_models(),
      'largest_photo': LARGEST_PHOTO,
      'most_tiles': edit_wire.MOST_TILES,
  })


async def _describe_model(request):
  service = request.app[_service_key]
  return web.json_response(await service.describe(request.match_info['model']))


async def _draw_samples(request):
  service = request.app[_service_key]
  return _picture(await service.draw_samples(request.match_info['model']))


async def _add_photo(request):
  service = request.app[_service_key]
  if (request.content_length or 0) > LARGEST_PHOTO:
    raise web.HTTPRequestEntityTooLarge(LARGEST_PHOTO, request.content_length)
  async with request.app[_uploads_key]:
    try:
      async with asyncio.timeout(_UPLOAD_SECONDS):
        content = await request.clone(client_max_size=LARGEST_PHOTO).read()
    except TimeoutError as error:
      raise web.HTTPRequestTimeout from error
    added = await service.add_photo(
        request.match_info['model'], content, request.query.get('align') == '1'
    )
  return web.json_response(added, status=201)


async def _draw_photo(request):
  found = request.match_info
  return _picture(
      await request.app[_service_key].draw_photo(
          found['model'], found['photo'], found['which']
      )
  )


async def _edit(request):
  content = await _read_json(request)
  return _picture(await request.app[_service_key].edit(content))


async def _draw_strip(request):
  content = await _read_json(request)
  return _picture(await request.app[_service_key].draw_strip(content))


async def _read_json(request):
  return untrusted.parse_json('the request', await request.read())


def _picture(content):
  return web.Response(body=content, content_type='image/webp')
