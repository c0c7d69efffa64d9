"""The server of the editor's page: its answers and its refusals."""

import asyncio
import collections
import io
import pathlib
import re
import socket

from aiohttp import test_utils
import numpy as np
from PIL import Image
import pytest
import tiny_editors

from jacsup_jax.core import errors
from jacsup_jax.editor import guards
from jacsup_jax.editor import photos
from jacsup_jax.editor import server
from jacsup_jax.editor import service as service_lib
from jacsup_jax.figures import pictures

FACE = np.random.default_rng(1).integers(0, 256, (20, 16, 3), np.uint8)
EDIT = {'model': 'faces', 'photo': 'sample-0', 'strengths': {'Smiling': 2}}
PHOTOS = '/api/models/faces/photos'
FOREIGN_HOSTS = ('example.org', 'localhost.a.org', '10.0.0.1', '[::1', '')
OWN_HOSTS = ('localhost', 'localhost:9', '127.0.0.1:80', '[::1]:80')


def ask(work, choices=tiny_editors.CHOICES, trusted_hosts=(), **options):
  """Runs `await work(client)` with a server of its own."""
  local_only = options.pop('local_only', True)

  async def run():
    service = service_lib.Service(choices, **options)
    app = server.make_app(
      service, local_only=local_only, trusted_hosts=trusted_hosts
    )
    async with test_utils.TestClient(test_utils.TestServer(app)) as client:
      return await work(client)

  return asyncio.run(run())


async def read_picture(response, kind='webp'):
  assert (response.status, response.content_type) == (200, f'image/{kind}')
  return np.asarray(Image.open(io.BytesIO(await response.read())))


async def read_error(response, status):
  assert response.status == status, await response.text()
  line = (await response.json())['error']
  assert line and '\n' not in line and 'Traceback' not in line
  return line


def test_models_and_units_are_described():
  async def work(client):
    paths = [f'/api/models{path}' for path in ('', '/digits', '/faces')]
    return [await (await client.get(path)).json() for path in paths]

  models, digits, faces = ask(work)
  assert [own['id'] for own in models['models']] == ['faces', 'digits']
  assert models['can_align'] is False and faces['samples'] == 5
  units = {unit['name']: unit for unit in faces['units'] + digits['units']}
  # From 1 % to 99 % are four deviations.
  found = units['5_o_Clock_Shadow']
  assert (found['label'], found['group']) == ("5 o'clock shadow", 'Beard')
  assert found['reach'] == 4 and found['flips'] is None
  assert (units['z3']['group'], units['z3']['reach']) == ('Nuisance', 0)


def test_pictures_are_those_of_the_editor():
  own, samples = tiny_editors.make_faces(), tiny_editors.SAMPLES['faces']
  encoded = own.encode(samples[:1])

  shown = {
    f'{PHOTOS}/sample-0/original': samples[0],
    f'{PHOTOS}/sample-0/reconstruction': own.reconstruct(encoded)[0],
    '/api/models/faces/samples': np.concatenate(samples, axis=1),
  }
  edit = own.edit(encoded, np.array([0, -1.5, 0, 0, 0]), 0.5)[0]

  async def work(client):
    for path, expected in shown.items():
      found = await read_picture(await client.get(path))
      np.testing.assert_array_equal(found, expected)
    request = EDIT | {'strengths': {'Eyeglasses': -1.5}, 'keep_detail': 0.5}
    found = await read_picture(await client.post('/api/edit', json=request))
    np.testing.assert_array_equal(found, edit)

  ask(work)


def test_tiles_are_small_edits():
  own, samples = tiny_editors.make_faces(), tiny_editors.SAMPLES['faces']
  encoded = own.encode(samples[:1])
  # Bald stays at 1; Smiling runs to the right, Eyeglasses upwards.
  rows = [
    np.hstack(
      [own.edit(encoded, np.array([s, e, 0, 0, 1]), 0.5)[0] for s in (-1, 0, 1)]
    )
    for e in (2, 0)
  ]

  async def work(client):
    request = EDIT | {'strengths': {'Bald': 1}, 'keep_detail': 0.5}
    grid = 'Smiling:-1:1:3,Eyeglasses:0:2:2'
    response = await client.post('/api/tiles', json=request | {'grid': grid})
    found = await read_picture(response)
    np.testing.assert_array_equal(found, np.vstack(rows))
    sweep = request | {'grid': 'Smiling:-1:1:3'}
    found = await read_picture(await client.post('/api/tiles', json=sweep))
    assert found.shape == (16, 48, 3)
    for grid in (None, 'Smiling', 'Bald:0:1:3', 'Smiling:0:1:99,Bald:0:1:99'):
      own = sweep | {'grid': grid}
      await read_error(await client.post('/api/tiles', json=own), 400)

  ask(work)


def test_exports_are_large_and_move():
  async def work(client):
    png = EDIT | {'format': 'png'}
    found = await read_picture(
      await client.post('/api/export', json=png), 'png'
    )
    assert found.shape == (512, 512, 3)
    gif = EDIT | {'format': 'gif', 'start': {'Smiling': -2}}
    await read_picture(await client.post('/api/export', json=gif), 'gif')
    for own in (
      EDIT | {'format': 'exe'},
      EDIT | {'format': 'gif', 'strengths': {}},
      EDIT | {'format': 'gif', 'start': {'Nobody': 1}},
    ):
      await read_error(await client.post('/api/export', json=own), 400)

  ask(work)


def test_a_photo_is_described_and_compared_with_the_training_data():
  async def work(client):
    usual = await (await client.get(f'{PHOTOS}/sample-0')).json()
    known = PHOTOS.replace('faces', 'known_faces')
    unlike = await (await client.get(f'{known}/sample-0')).json()
    return usual, unlike

  choices = [
    *tiny_editors.CHOICES,
    tiny_editors.make_choice('known_faces', tiny_editors.make_known_faces),
  ]
  usual, unlike = ask(work, choices)
  assert usual['unlike'] is None and unlike['unlike'] > 10
  assert set(usual['positions']) == set(tiny_editors.ATTRIBUTES)


def test_a_photo_can_be_edited_by_the_model_that_is_compared():
  make = tiny_editors.make_digits
  choices = [
    tiny_editors.make_choice('a', make, counterpart='b'),
    tiny_editors.make_choice('b', make, counterpart='a'),
    tiny_editors.make_choice('c', make),
  ]
  drawing = np.zeros((50, 50, 1), np.uint8)
  drawing[10:40, 20:25] = 255

  async def work(client):
    models = (await (await client.get('/api/models')).json())['models']
    assert [own['counterpart'] for own in models] == ['b', 'a', '']
    content = pictures.encode(drawing, '.png')
    added = await client.post('/api/models/a/drawings', data=content)
    photo = (await added.json())['photo']
    edit = {'photo': photo, 'strengths': {'y1': 1}}
    for name, status in (('a', 200), ('b', 200), ('c', 404)):
      response = await client.post('/api/edit', json=edit | {'model': name})
      assert response.status == status
    content = pictures.encode(np.zeros((9, 9, 1), np.uint8), '.png')
    empty = await client.post('/api/models/a/drawings', data=content)
    assert 'nothing is drawn' in await read_error(empty, 400)

  ask(work, choices)


def test_many_clients_are_answered():
  async def work(client):
    async def edit(index):
      strengths = {'Smiling': index / 100}
      own = EDIT | {'strengths': strengths, 'photo': f'sample-{index % 5}'}
      return (await client.post('/api/edit', json=own)).status

    return await asyncio.gather(*map(edit, range(200)))

  assert set(ask(work)) == {200}


def test_a_photo_is_prepared_and_edited_until_it_is_dropped():
  async def work(client):
    added = await client.post(PHOTOS, data=pictures.encode(FACE, '.png'))
    photo = (await added.json())['photo']
    original = await client.get(f'{PHOTOS}/{photo}/original')
    np.testing.assert_array_equal(await read_picture(original), FACE[2:-2])
    own = EDIT | {'photo': photo}
    await read_picture(await client.post('/api/edit', json=own))
    await read_picture(await client.post('/api/edit', json=EDIT))
    gone = await client.post('/api/edit', json=own)
    assert 'add it again' in await read_error(gone, 404)

  ask(work, store=service_lib.PhotoStore(most=1))


def test_the_least_recently_used_photo_is_dropped_and_all_expire():
  now = [0.0]
  store = service_lib.PhotoStore(2, 60.0, clock=lambda: now[0])
  for name in 'ab':
    store.put('m', name, name)
  assert store.get('m', 'a') == 'a'
  store.put('m', 'c', 'c')
  assert store.get('m', 'b') is None and store.get('n', 'a') is None
  now[0] = 50.0
  assert store.get('m', 'a')
  now[0] = 70.0
  assert store.get('m', 'c') is None and store.get('m', 'a')
  now[0] = 200.0
  store.drop_expired()
  assert not store._photos


def test_a_model_is_loaded_when_it_is_asked_for_and_once():
  loads = collections.Counter()

  def make(name):
    load = lambda: loads.update([name]) or tiny_editors.make_digits()
    return tiny_editors.make_choice(name, load)

  async def work(client):
    await client.get('/api/models')
    assert not loads
    await asyncio.gather(*(client.get('/api/models/a') for _ in range(5)))
    assert loads == {'a': 1}
    for name in 'bcdea':
      await client.get(f'/api/models/{name}')

  ask(work, [make(name) for name in 'abcde'])
  assert loads['a'] == 2  # Four are kept.


def test_bad_requests_and_failures_are_a_line(monkeypatch):
  monkeypatch.setattr(photos, 'MOST_BYTES', 5000)
  cases = (
      (b'{', 400), (b'[1]', 400), (b'[' * 60_000, 400), (b' ' * 70_000, 413),
      ({'photo': 'sample-0'}, 400), (EDIT | {'model': []}, 400),
      (EDIT | {'model': '../faces'}, 404), (EDIT | {'photo': 'sample-5'}, 404),
  )  # fmt: skip
  paths = (
      '/x', '/api/models/x', '/static/x.js', '/static/..%2fserver.py',
      '/static/%2e%2e/server.py', f'{PHOTOS}/sample-0/x',
  )  # fmt: skip

  def fail(*unused_args):
    raise RuntimeError('secret')

  async def work(client):
    for content, status in cases:
      key = 'data' if isinstance(content, bytes) else 'json'
      response = await client.post('/api/edit', **{key: content})
      await read_error(response, status)
    for path in paths:
      assert (await client.get(path)).status in (403, 404), path
    line = await read_error(await client.post(PHOTOS, data=b'hello'), 400)
    assert 'This file is not an image we can open (JPEG, PNG' in line
    await read_error(await client.post(PHOTOS, data=bytes(6000)), 413)
    assert (
      await client.post(PHOTOS, data=pictures.encode(FACE, '.png'))
    ).status == 200
    # A failure does not end the server, and tells no secret.
    monkeypatch.setattr(photos, 'read', fail)
    line = await read_error(await client.post(PHOTOS, data=b'x'), 500)
    assert 'secret' not in line
    assert (await client.post('/api/edit', json=EDIT)).status == 200

  ask(work)


@pytest.mark.parametrize(
  ('host', 'origin', 'local_only', 'is_accepted'),
  [
    *((host, None, True, False) for host in FOREIGN_HOSTS),
    *((host, None, True, True) for host in OWN_HOSTS),
    ('localhost', 'http://example.org', True, False),
    ('localhost', 'null', True, False),
    ('localhost', 'http://localhost', True, True),
    ('my.machine:8000', None, False, True),
    ('my.machine:8000', 'http://a.org', False, False),
  ],
)
def test_other_pages_are_refused(host, origin, local_only, is_accepted):
  headers = {'Host': host} | ({'Origin': origin} if origin else {})

  async def work(client):
    return (await client.get('/api/models', headers=headers)).status

  accepted = (200,) if is_accepted else (400, 403)
  assert ask(work, local_only=local_only) in accepted


HUB = 'hub.example.org'


@pytest.mark.parametrize(
  ('host', 'origin', 'is_accepted'),
  [
    (HUB, None, True),  # a proxy that passes its name on
    (HUB, f'https://{HUB}', True),
    (f'{HUB}:8443', f'https://{HUB}:8443', True),
    ('localhost:80', f'https://{HUB}', True),  # a proxy that does not
    ('a.org', f'https://{HUB}', False),
    (HUB, 'https://a.org', False),
    (f'a.{HUB}', None, False),
    (f'{HUB}.a.org', None, False),
    ('localhost', 'null', False),
  ],
)
def test_a_trusted_proxy_is_accepted(host, origin, is_accepted):
  headers = {'Host': host} | ({'Origin': origin} if origin else {})

  async def work(client):
    response = await client.get('/api/models', headers=headers)
    if is_accepted:
      policy = response.headers['Content-Security-Policy']
      assert f"frame-ancestors 'self' https://{HUB}" in policy
      return response.status == 200
    return not await read_error(response, 403)

  assert ask(work, trusted_hosts=[HUB]) == is_accepted


def test_a_foreign_name_is_told_the_flag():
  async def work(client):
    for headers in ({'Host': HUB}, {'Origin': f'https://{HUB}/'}):
      response = await client.get('/', headers=headers)
      line = await read_error(response, 403)
      assert f'--trusted_host={HUB}' in line
    odd = await client.get('/', headers={'Host': '<b>'})
    assert '<b>' not in await odd.text()

  ask(work)


def test_trusted_hosts_are_names_or_addresses():
  assert guards.parse_hosts(None) == []
  text = f' {HUB},https://Other.example:8443/user/x/proxy/8000/, '
  assert guards.parse_hosts(text) == [HUB, 'other.example']
  for text in ('a b', 'x;y', '*', "x'", '[::1'):
    with pytest.raises(errors.InputError, match='--trusted_host.*accepted'):
      guards.parse_hosts(text)


def test_all_answers_have_the_headers_and_the_page_is_on_its_own():
  async def work(client):
    for path in ('/', '/static/editor.js', '/api/models', '/x'):
      headers = (await client.get(path)).headers
      policy = headers['Content-Security-Policy']
      assert policy.startswith("default-src 'self'; img-src 'self' blob: data:")
      assert 'unsafe' not in policy
      assert headers['X-Content-Type-Options'] == 'nosniff'
      assert 'Access-Control-Allow-Origin' not in headers
      assert 'Python' not in headers['Server']
      is_api = path.startswith('/api')
      assert headers['Cache-Control'] == ('no-store' if is_api else 'no-cache')

  ask(work)
  for path in pathlib.Path(server.__file__).with_name('page').iterdir():
    text = path.read_text().replace('http://www.w3.org/2000/svg', '')
    assert 'http:' not in text and 'https:' not in text, path.name
    # A proxy may have the page below any path.
    assert not re.search(r"""["'`(]/[a-z]""", text), path.name
    for word in ('innerHTML', 'insertAdjacent', 'eval(', 'document.write'):
      assert word not in text, path.name


def test_listening(caplog):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    with server.listen('127.0.0.1', port) as own:
      assert port < own.getsockname()[1] <= port + 20
  assert f'port {port} is busy' in caplog.text
  assert 'no password' not in caplog.text
  server.listen('0.0.0.0', 0).close()
  assert 'no password' in caplog.text
  for host, port in (('no.such.host.invalid', 0), ('127.0.0.1', 70_000)):
    with pytest.raises(errors.InputError, match='accepted'):
      server.listen(host, port)
