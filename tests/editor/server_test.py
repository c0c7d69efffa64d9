"""The server of the editor's page: its answers and its refusals."""

import asyncio
import collections
import dataclasses
import io
import json
import pathlib
import socket

from aiohttp import test_utils
import numpy as np
from PIL import Image
import pytest
import tiny_editors

from jacsup_jax.core import errors
from jacsup_jax.editor import photos
from jacsup_jax.editor import server
from jacsup_jax.editor import service as service_lib

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(name='choices', scope='module')
def fixture_choices():
  return [
    tiny_editors.make_choice(tiny_editors.make_faces(), 'faces'),
    tiny_editors.make_choice(tiny_editors.make_digits(), 'digits'),
  ]


def ask(choices, work, **options):
  """Runs `await work(client)` with a server of its own."""
  local_only = options.pop('local_only', True)

  async def run():
    service = service_lib.Service(choices, **options)
    app = server.make_app(service, local_only=local_only)
    async with test_utils.TestClient(test_utils.TestServer(app)) as client:
      return await work(client)

  return asyncio.run(run())


async def read_picture(response):
  assert response.status == 200, await response.text()
  assert response.content_type == 'image/webp'
  return np.asarray(Image.open(io.BytesIO(await response.read())))


async def read_error(response, status):
  assert response.status == status, await response.text()
  line = (await response.json())['error']
  assert line and '\n' not in line and 'Traceback' not in line
  return line


def encode(image):
  file = io.BytesIO()
  Image.fromarray(image).save(file, format='PNG')
  return file.getvalue()


FACE = np.random.default_rng(1).integers(0, 256, (20, 16, 3), np.uint8)
EDIT = {'model': 'faces', 'photo': 'sample-0', 'strengths': {'Smiling': 2}}


def test_models_and_units_are_described(choices):
  async def work(client):
    return [
      await (await client.get(f'/api/models{path}')).json()
      for path in ('', '/digits', '/faces')
    ]

  models, digits, faces = ask(choices, work)
  assert [own['id'] for own in models['models']] == ['faces', 'digits']
  assert models['can_align'] is False
  assert faces['samples'] == tiny_editors.NUM_SAMPLES
  assert (faces['channels'], digits['channels']) == (3, 1)
  units = {unit['name']: unit for unit in faces['units'] + digits['units']}
  # From 1 % to 99 % are four deviations.
  assert units['5_o_Clock_Shadow'] == {
      'name': '5_o_Clock_Shadow', 'label': "5 o'clock shadow",
      'group': 'Beard', 'reach': 4.0,
  }  # fmt: skip
  assert units['y1']['group'] == 'Factors'
  assert units['z1']['group'] == 'Nuisance'
  assert units['z3']['reach'] == 0


def test_pictures_are_those_of_the_editor(choices):
  own = choices[0].load()
  samples = tiny_editors.read_samples(choices[0])
  encoded = own.encode(samples[:1])
  strengths = np.zeros(len(own.units))
  strengths[1] = -1.5

  async def work(client):
    place = '/api/models/faces/photos/sample-0'
    request = EDIT | {'strengths': {'Eyeglasses': -1.5}, 'keep_detail': 0.5}
    return [
      await read_picture(await asked)
      for asked in (
        client.get(f'{place}/original'),
        client.get(f'{place}/reconstruction'),
        client.get('/api/models/faces/samples'),
        client.post('/api/edit', json=request),
      )
    ]

  original, reconstruction, small, edit = ask(choices, work)
  np.testing.assert_array_equal(original, samples[0])
  np.testing.assert_array_equal(reconstruction, own.reconstruct(encoded)[0])
  np.testing.assert_array_equal(small, np.concatenate(samples, axis=1))
  np.testing.assert_array_equal(edit, own.edit(encoded, strengths, 0.5)[0])


def test_a_photo_is_prepared_and_edited_until_it_is_dropped(choices):
  async def work(client):
    added = await client.post('/api/models/faces/photos', data=encode(FACE))
    photo = (await added.json())['photo']
    place = f'/api/models/faces/photos/{photo}'
    original = await read_picture(await client.get(f'{place}/original'))
    edit = await client.post('/api/edit', json=EDIT | {'photo': photo})
    assert (await read_picture(edit)).shape == original.shape
    assert (await client.post('/api/edit', json=EDIT)).status == 200
    gone = await client.post('/api/edit', json=EDIT | {'photo': photo})
    assert 'add it again' in await read_error(gone, 404)
    # A sample comes again.
    assert (await client.post('/api/edit', json=EDIT)).status == 200
    return original

  original = ask(choices, work, store=service_lib.PhotoStore(most=1))
  np.testing.assert_array_equal(original, FACE[2:-2])


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
  assert not len(store)


def test_a_model_is_loaded_when_it_is_asked_for_and_once():
  loads = collections.Counter()
  own = tiny_editors.make_digits()

  def make(name):
    load = lambda: loads.update([name]) or own
    return dataclasses.replace(tiny_editors.make_choice(own, name), load=load)

  async def work(client):
    assert (await client.get('/api/models')).status == 200
    assert not loads
    await asyncio.gather(*(client.get('/api/models/a') for _ in range(5)))
    assert loads == {'a': 1}
    for name in 'bcdea':
      await client.get(f'/api/models/{name}')

  ask([make(name) for name in 'abcde'], work)
  assert loads['a'] == 2  # Four are kept.


def test_bad_requests_are_refused_in_a_line(choices):
  cases = (
      (b'{', 400), (b'[1]', 400), (b'[' * 60_000, 400), (b' ' * 70_000, 413),
      ({'photo': 'sample-0'}, 400), (EDIT | {'model': []}, 400),
      (EDIT | {'model': '../faces'}, 404), (EDIT | {'photo': 'x'}, 404),
      (EDIT | {'photo': 'sample-5'}, 404),
      (EDIT | {'strengths': {'Smilling': 1}}, 400),
  )  # fmt: skip

  async def work(client):
    for content, status in cases:
      if not isinstance(content, bytes):
        content = json.dumps(content).encode()
      await read_error(await client.post('/api/edit', data=content), status)

  ask(choices, work)


def test_bad_paths_are_refused(choices):
  async def work(client):
    for path in (
        '/x', '/api/models/x', '/static/x.js', '/static/..%2fserver.py',
        '/static/%2e%2e/server.py', '/api/models/faces/photos/sample-0/x',
    ):  # fmt: skip
      assert (await client.get(path)).status in (403, 404), path

  ask(choices, work)


def test_bad_photos_are_refused_in_a_line(choices, monkeypatch):
  monkeypatch.setattr(server, '_LARGEST_PHOTO', 5000)
  png, place = encode(FACE), '/api/models/faces/photos'

  async def work(client):
    line = await read_error(await client.post(place, data=b'hello'), 400)
    assert 'This file is not an image we can open (JPEG, PNG' in line
    await read_error(await client.post(place, data=bytes(6000)), 413)
    assert (await client.post(place, data=png)).status == 200

  ask(choices, work)


def test_a_failure_is_a_line_and_the_server_continues(choices, monkeypatch):
  def fail(*unused_args, **unused_options):
    raise RuntimeError('secret')

  monkeypatch.setattr(photos, 'read', fail)

  async def work(client):
    response = await client.post('/api/models/faces/photos', data=b'x')
    assert 'secret' not in await read_error(response, 500)
    assert (await client.post('/api/edit', json=EDIT)).status == 200

  ask(choices, work)


def test_other_names_and_pages_are_refused(choices):
  async def work(client):
    for host in ('example.org', 'localhost.a.org', '10.0.0.1', '[::1', ''):
      response = await client.get('/api/models', headers={'Host': host})
      assert response.status in (400, 403), host
    for host in ('localhost', 'localhost:9', '127.0.0.1:80', '[::1]:80'):
      response = await client.get('/api/models', headers={'Host': host})
      assert response.status == 200, host
    for origin, status in (
        ('http://example.org', 403), ('null', 403), ('http://localhost', 200)
    ):  # fmt: skip
      headers = {'Host': 'localhost', 'Origin': origin}
      response = await client.get('/api/models', headers=headers)
      assert response.status == status, origin

  ask(choices, work)


def test_on_a_network_any_name_will_do_but_no_other_page(choices):
  async def work(client):
    for origin, status in (({}, 200), ({'Origin': 'http://a.org'}, 403)):
      headers = {'Host': 'my.machine:8000', **origin}
      response = await client.get('/api/models', headers=headers)
      assert response.status == status

  ask(choices, work, local_only=False)


def test_all_answers_have_the_headers(choices):
  async def work(client):
    for path in ('/', '/static/editor.js', '/api/models', '/x'):
      response = await client.get(path)
      policy = response.headers['Content-Security-Policy']
      assert policy.startswith("default-src 'self'; img-src 'self' blob: data:")
      assert 'unsafe' not in policy
      assert response.headers['X-Content-Type-Options'] == 'nosniff'
      assert 'Access-Control-Allow-Origin' not in response.headers
      assert 'Python' not in response.headers['Server']
    assert (await client.get('/api/models')).headers['Cache-Control'] == (
      'no-store'
    )

  ask(choices, work)


def test_the_page_loads_nothing_from_elsewhere():
  page = ROOT / 'jacsup_jax' / 'editor' / 'page'
  for path in page.iterdir():
    text = path.read_text().replace('http://www.w3.org/2000/svg', '')
    assert 'http:' not in text and 'https:' not in text, path.name
    for word in ('innerHTML', 'insertAdjacent', 'eval(', 'document.write'):
      assert word not in text, path.name


def test_a_busy_port_gives_way_to_the_next(caplog):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    with server.listen('127.0.0.1', port) as own:
      assert port < own.getsockname()[1] <= port + 20
  assert f'port {port} is busy' in caplog.text


def test_where_nothing_can_listen_is_one_line_and_others_are_a_note(caplog):
  for host, port in (('no.such.host.invalid', 0), ('127.0.0.1', 70_000)):
    with pytest.raises(errors.InputError, match='accepted'):
      server.listen(host, port)
  caplog.clear()
  server.listen('localhost', 0).close()
  assert not caplog.text
  server.listen('0.0.0.0', 0).close()
  assert 'no password' in caplog.text
