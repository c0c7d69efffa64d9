"""Tests of the server of the editor's page: all that it is asked, and more."""

import asyncio
import collections
import dataclasses
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
from typing import NamedTuple
import urllib.request

from aiohttp import test_utils
import numpy as np
from PIL import Image
import pytest
import tiny_editors

from experiments import edit_choices
from experiments import edit_inputs
from experiments import edit_server
from experiments import edit_service
from experiments import edited_runs
from experiments import kept_photos
from experiments import listening
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.runs import workdir as workdirs

ROOT = pathlib.Path(__file__).parents[1]


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
    service = edit_service.Service(choices, **options)
    app = edit_server.make_app(service, local_only=local_only)
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


def encode(image, **options):
  file = io.BytesIO()
  Image.fromarray(image).save(file, **({'format': 'PNG'} | options))
  return file.getvalue()


FACE = np.random.default_rng(1).integers(0, 256, (20, 16, 3), np.uint8)
EDIT = {'model': 'faces', 'photo': 'sample-0', 'strengths': {'Smiling': 2}}


# Value tests.


def test_models_and_units_are_told(choices):
  async def work(client):
    models = await (await client.get('/api/models')).json()
    digits = await (await client.get('/api/models/digits')).json()
    faces = await (await client.get('/api/models/faces')).json()
    return models, digits, faces

  models, digits, faces = ask(choices, work)
  assert [own['id'] for own in models['models']] == ['faces', 'digits']
  assert models['can_align'] is False
  assert [faces[name] for name in ('height', 'width', 'channels')] == [
      16, 16, 3
  ]  # pyformat: disable
  assert faces['samples'] == tiny_editors.NUM_SAMPLES
  units = {unit['name']: unit for unit in faces['units'] + digits['units']}
  # From 1 % to 99 % are four deviations.
  assert units['Smiling'] == {
      'name': 'Smiling', 'label': 'Smiling', 'kind': 'factor',
      'group': 'Nose and mouth', 'reach': 4.0,
  }  # pyformat: disable
  assert units['5_o_Clock_Shadow']['label'] == "5 o'clock shadow"
  assert units['5_o_Clock_Shadow']['group'] == 'Beard'
  assert units['y1']['group'] == 'Factors'
  assert units['z1']['group'] == 'Nuisance'
  assert units['z3']['reach'] == 0


def test_a_picture_is_that_of_the_editor(choices):
  own = choices[0].load()
  samples = choices[0].load_samples(own)
  encoded = own.encode(samples[:1])
  strengths = np.zeros(len(own.units))
  strengths[1] = -1.5

  async def work(client):
    place = '/api/models/faces/photos/sample-0'
    request = {
        **EDIT, 'strengths': {'Eyeglasses': -1.5}, 'keep_detail': 0.5
    }  # pyformat: disable
    return (
        await read_picture(await client.get(f'{place}/original')),
        await read_picture(await client.get(f'{place}/reconstruction')),
        await read_picture(await client.post('/api/edit', json=request)),
        await read_picture(await client.get('/api/models/faces/samples')),
    )

  original, reconstruction, edit, small = ask(choices, work)
  np.testing.assert_array_equal(original, samples[0])
  np.testing.assert_array_equal(reconstruction, own.reconstruct(encoded)[0])
  np.testing.assert_array_equal(edit, own.edit(encoded, strengths, 0.5)[0])
  # Small enough as they are.
  np.testing.assert_array_equal(small, np.concatenate(samples, axis=1))


def test_a_strip_is_edits_side_by_side(choices):
  async def work(client):
    strip = await client.post(
        '/api/strip',
        json={**EDIT, 'unit': 'Bald', 'low': -3, 'high': 3, 'count': 3},
    )
    edits = [
        await client.post(
            '/api/edit',
            json={**EDIT, 'strengths': {'Smiling': 2, 'Bald': strength}},
        )
        for strength in (-3, 0, 3)
    ]
    return (
        await read_picture(strip),
        [await read_picture(own) for own in edits],
    )

  strip, edits = ask(choices, work)
  np.testing.assert_array_equal(strip, np.concatenate(edits, axis=1))


def test_a_photo_is_prepared_and_edited(choices):
  async def work(client):
    added = await client.post('/api/models/faces/photos', data=encode(FACE))
    assert added.status == 201
    photo = (await added.json())['photo']
    place = f'/api/models/faces/photos/{photo}'
    original = await read_picture(await client.get(f'{place}/original'))
    edit = await client.post('/api/edit', json={**EDIT, 'photo': photo})
    return original, await read_picture(edit)

  original, edit = ask(choices, work)
  np.testing.assert_array_equal(original, FACE[2:-2])
  assert edit.shape == original.shape


def test_digits_are_grey(choices):
  async def work(client):
    place = '/api/models/digits/photos/sample-1/original'
    strengths = {'y1': 1, 'z1': -1}
    edit = await client.post(
        '/api/edit',
        json={'model': 'digits', 'photo': 'sample-1', 'strengths': strengths},
    )
    return (
        await read_picture(await client.get(place)),
        await read_picture(edit),
    )

  original, edit = ask(choices, work)
  sample = choices[1].load_samples(None)[1]
  np.testing.assert_array_equal(original, np.repeat(sample, 3, axis=-1))
  assert edit.shape == (28, 28, 3)
  assert (edit == edit[..., :1]).all()


# Invariants: what is kept, and for how long.


def _photo(value):
  image = np.full((1, 1, 1), value, np.uint8)
  return kept_photos.Photo(image, image, None)


def test_so_many_photos_are_kept_and_the_longest_unused_is_dropped():
  kept = kept_photos.KeptPhotos(2, 60.0, clock=lambda: 0.0)
  kept.put('m', 'a', _photo(1))
  kept.put('m', 'b', _photo(2))
  assert kept.get('m', 'a').image == 1
  kept.put('m', 'c', _photo(3))
  assert kept.get('m', 'b') is None
  assert kept.get('m', 'a').image == 1
  assert kept.get('n', 'a') is None
  assert len(kept) == 2


def test_a_photo_expires_after_its_last_use():
  now = [0.0]
  kept = kept_photos.KeptPhotos(9, 60.0, clock=lambda: now[0])
  kept.put('m', 'a', _photo(1))
  kept.put('m', 'b', _photo(2))
  now[0] = 50.0
  assert kept.get('m', 'a')
  now[0] = 70.0
  assert kept.get('m', 'b') is None
  assert kept.get('m', 'a')
  now[0] = 200.0
  kept.drop_expired()
  assert not len(kept)


def test_a_dropped_photo_is_404_and_a_sample_comes_again(choices):
  photos = kept_photos.KeptPhotos(1, 60.0)

  async def work(client):
    added = await client.post('/api/models/faces/photos', data=encode(FACE))
    photo = (await added.json())['photo']
    assert (await client.post('/api/edit', json=EDIT)).status == 200
    gone = await client.post('/api/edit', json={**EDIT, 'photo': photo})
    line = await read_error(gone, 404)
    assert (await client.post('/api/edit', json=EDIT)).status == 200
    return line

  assert 'add it again' in ask(choices, work, kept=photos)


def test_a_model_is_loaded_when_it_is_asked_for_and_once():
  loads = collections.Counter()
  own = tiny_editors.make_digits()

  def make(name):
    def load():
      loads[name] += 1
      return own

    choice = tiny_editors.make_choice(own, name)
    return dataclasses.replace(choice, load=load)

  async def work(client):
    assert (await client.get('/api/models')).status == 200
    assert not loads
    await asyncio.gather(*(client.get('/api/models/a') for _ in range(5)))

  ask([make('a'), make('b')], work)
  assert loads == {'a': 1}


def test_who_asks_while_a_model_has_just_been_loaded_does_not_load_it():
  loads = []
  own = tiny_editors.make_digits()
  choice = dataclasses.replace(
      tiny_editors.make_choice(own, 'a'), load=lambda: loads.append(0) or own
  )

  async def work():
    service = edit_service.Service([choice])
    asking = [asyncio.create_task(service.describe('a'))]
    # One more at every turn of the loop, until all are answered.
    while not asking[0].done():
      asking.append(asyncio.create_task(service.describe('a')))
      await asyncio.sleep(0)
    await asyncio.gather(*asking)
    service.close()

  asyncio.run(work())
  assert len(loads) == 1


def test_without_samples_there_are_photos_and_a_reason(choices):
  def fail(unused_editor):
    raise errors.InputError('the data are missing.')

  bare = dataclasses.replace(choices[0], load_samples=fail)

  async def work(client):
    found = await (await client.get('/api/models/faces')).json()
    assert found['samples'] == 0
    assert found['without_samples'] == 'the data are missing.'
    await read_error(await client.get('/api/models/faces/samples'), 404)
    await read_error(await client.post('/api/edit', json=EDIT), 404)
    added = await client.post('/api/models/faces/photos', data=encode(FACE))
    assert added.status == 201

  ask([bare], work)


# What is refused.


BAD_REQUESTS = {
    'not JSON': (b'{', 400),
    'empty': (b'', 400),
    'no object': (b'[1]', 400),
    'no UTF-8': (b'\xff{}', 400),
    'nested': (b'[' * 60_000, 400),
    'too large': (b' ' * 70_000, 413),
    'no model': ({'photo': 'sample-0'}, 400),
    'a list as model': ({'model': [], 'photo': 'sample-0'}, 400),
    'unknown model': ({**EDIT, 'model': '../faces'}, 404),
    'no photo': ({'model': 'faces'}, 400),
    'unknown photo': ({**EDIT, 'photo': 'x'}, 404),
    'sample beyond the last': ({**EDIT, 'photo': 'sample-5'}, 404),
    'sample below the first': ({**EDIT, 'photo': 'sample--1'}, 404),
    'sample as no number is written': ({**EDIT, 'photo': 'sample-00'}, 404),
    'unknown unit': ({**EDIT, 'strengths': {'Smilling': 1}}, 400),
    'strengths in a list': ({**EDIT, 'strengths': [1]}, 400),
    'text': ({**EDIT, 'strengths': {'Smiling': '1'}}, 400),
    'true': ({**EDIT, 'strengths': {'Smiling': True}}, 400),
    'null': ({**EDIT, 'strengths': {'Smiling': None}}, 400),
    'NaN': ({**EDIT, 'strengths': {'Smiling': float('nan')}}, 400),
    'infinity': ({**EDIT, 'strengths': {'Smiling': -float('inf')}}, 400),
    'beyond float64': (json.dumps(EDIT).replace('2}', '1e999}').encode(), 400),
    'of 4000 digits': ({**EDIT, 'strengths': {'Smiling': 10**4000}}, 400),
    'far out': ({**EDIT, 'strengths': {'Smiling': 101}}, 400),
    'detail above 1': ({**EDIT, 'keep_detail': 1.1}, 400),
    'detail NaN': ({**EDIT, 'keep_detail': float('nan')}, 400),
}
STRIP_ALONE = {'unit': 'Bald', 'low': -1, 'high': 1, 'count': 3}
STRIP = EDIT | STRIP_ALONE
BAD_STRIPS = {
    'no unit': {**STRIP, 'unit': None},
    'unit in a list': {**STRIP, 'unit': ['Bald']},
    'no low': {**STRIP, 'low': None},
    'high NaN': {**STRIP, 'high': float('nan')},
    'one tile': {**STRIP, 'count': 1},
    'many tiles': {**STRIP, 'count': 100_000},
    'half a tile': {**STRIP, 'count': 2.5},
}


def _as_bytes(content):
  if isinstance(content, bytes):
    return content
  return json.dumps(content).encode()


def test_bad_requests_are_refused_by_a_line(choices):
  async def work(client):
    for name, (content, status) in BAD_REQUESTS.items():
      for path in ('/api/edit', '/api/strip'):
        if isinstance(content, dict):
          content = STRIP_ALONE | content
        response = await client.post(path, data=_as_bytes(content))
        assert response.status == status, (name, await response.text())
        await read_error(response, status)
    for name, content in BAD_STRIPS.items():
      response = await client.post('/api/strip', data=_as_bytes(content))
      assert response.status == 400, (name, await response.text())
      await read_error(response, 400)

  ask(choices, work)


def test_bad_paths_and_methods_are_refused(choices):
  async def work(client):
    for path in (
        '/x', '/api', '/api/models/x', '/api/models/x/samples',
        '/api/models/faces/photos/x/original', '/static/x.js', '/static/',
        '/static/..%2fedit_server.py', '/static/%2e%2e/edit_server.py',
        '/api/models/faces/photos/sample-0/x', '/api/models/%00',
    ):  # pyformat: disable
      response = await client.get(path)
      assert response.status in (403, 404), path
      # aiohttp answers by itself where a file is missing.
      if not path.startswith('/static/'):
        await read_error(response, response.status)
    await read_error(await client.get('/api/edit'), 405)
    await read_error(await client.delete('/api/models'), 405)
    await read_error(
        await client.post('/api/models/x/photos', data=encode(FACE)), 404
    )

  ask(choices, work)


def test_bad_photos_are_refused_by_a_line(choices, monkeypatch):
  monkeypatch.setattr(edit_server, 'LARGEST_PHOTO', 5000)
  png = encode(FACE)

  async def work(client):
    place = '/api/models/faces/photos'
    for content in (b'', b'hello', png[:200], encode(FACE[:1, :1])):
      await read_error(await client.post(place, data=content), 400)
    await read_error(await client.post(f'{place}?align=1', data=png), 400)
    await read_error(await client.post(place, data=bytes(6000)), 413)

    async def pour():
      for _ in range(10):
        yield bytes(1000)

    # Whose length is not told in advance.
    await read_error(await client.post(place, data=pour()), 413)
    assert (await client.post(place, data=png)).status == 201

  ask(choices, work)


def test_what_the_server_breaks_on_is_a_line_and_it_goes_on(choices):
  def fail(*unused_args, **unused_options):
    raise RuntimeError('secret')

  async def work(client):
    response = await client.post('/api/models/faces/photos', data=b'x')
    assert 'secret' not in await read_error(response, 500)
    assert (await client.post('/api/edit', json=EDIT)).status == 200

  ask(choices, work, read_photo=fail)


# Security.


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
    ):  # pyformat: disable
      response = await client.post(
          '/api/edit',
          json=EDIT,
          headers={'Host': 'localhost', 'Origin': origin},
      )
      assert response.status == status, origin

  ask(choices, work)


def test_on_a_network_any_name_will_do_but_no_other_page(choices):
  async def work(client):
    for origin, status in ((None, 200), ('http://example.org', 403)):
      headers = {'Host': 'my.machine:8000'}
      if origin:
        headers['Origin'] = origin
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


def test_the_page_asks_nobody_else():
  for path in (ROOT / 'experiments' / 'editor_page').iterdir():
    text = path.read_text().replace('http://www.w3.org/2000/svg', '')
    assert 'http:' not in text and 'https:' not in text, path.name
    for word in ('innerHTML', 'insertAdjacent', 'eval(', 'document.write'):
      assert word not in text, path.name


# Many at once.


def _memory():
  pages = pathlib.Path('/proc/self/statm').read_text().split()[1]
  return int(pages) * os.sysconf('SC_PAGE_SIZE')


@pytest.mark.skipif(
    not os.path.exists('/proc/self/statm'), reason='needs /proc'
)
def test_two_hundred_requests_of_twenty_clients_are_all_answered(choices):
  own = choices[0].load()
  samples = choices[0].load_samples(own)
  encoded = [own.encode(sample[None]) for sample in samples]
  strengths = {i: {'Smiling': i / 10 - 1} for i in range(20)}

  async def work(client):
    async def ask_for(number):
      found = []
      for sample in range(10):
        request = {
            'model': 'faces', 'photo': f'sample-{sample % 5}',
            'strengths': strengths[number],
        }  # pyformat: disable
        found.append(
            await read_picture(await client.post('/api/edit', json=request))
        )
      return found

    first = await asyncio.gather(*map(ask_for, range(20)))
    before = _memory()
    for _ in range(3):
      again = await asyncio.gather(*map(ask_for, range(20)))
    return first, again, _memory() - before

  first, again, growth = ask(choices, work)
  assert sum(map(len, first)) == 200
  for number in range(20):
    values = np.zeros(len(own.units))
    values[0] = strengths[number]['Smiling']
    expected = [own.edit(sample, values)[0] for sample in encoded]
    for sample in range(10):
      for found in (first, again):
        np.testing.assert_array_equal(
            found[number][sample], expected[sample % 5]
        )
  assert growth < 32 * 2**20, f'{growth / 2**20:.1f} MB'


def test_uploads_leave_no_more_than_is_kept(choices):
  photos = kept_photos.KeptPhotos(8, 60.0)

  async def work(client):
    responses = await asyncio.gather(*(
        client.post('/api/models/faces/photos', data=encode(FACE))
        for _ in range(60)
    ))
    return {(await response.json())['photo'] for response in responses}

  assert len(ask(choices, work, kept=photos)) == 60
  assert len(photos) == 8


def test_a_hundred_malformed_requests_are_refused_and_the_server_lives(choices):
  random = np.random.default_rng(0)
  whole = json.dumps(STRIP).encode()
  lines = [
      b'GET / HTTP/9.9\r\n\r\n', b'\x00\x01\x02\r\n\r\n', b'GET\r\n\r\n',
      b'POST /api/edit HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n',
      b'POST /api/edit HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n',
      b'GET /' + b'x' * 20_000 + b' HTTP/1.1\r\n\r\n',
      b'GET / HTTP/1.1\r\nHost: localhost\r\n' + b'A: b\r\n' * 20_000 + b'\r\n',
      b'POST /api/edit HTTP/1.1\r\nHost: localhost\r\n'
      b'Transfer-Encoding: chunked\r\n\r\nzz\r\n',
  ]  # pyformat: disable

  async def send(client, content):
    reader, writer = await asyncio.open_connection(
        client.server.host, client.server.port
    )
    try:
      writer.write(content)
      answer = await asyncio.wait_for(reader.readline(), 10)
    # Closed while it was still being told.
    except (ConnectionError, BrokenPipeError):
      answer = b''
    writer.close()
    return answer

  async def work(client):
    refused = 0
    for _ in range(92):
      damaged = bytearray(whole)
      for _ in range(random.integers(1, 4)):
        damaged[random.integers(len(damaged))] = random.integers(256)
      damaged = damaged[: random.integers(1, len(whole))]
      response = await client.post('/api/strip', data=bytes(damaged))
      assert response.status in (400, 404)
      await read_error(response, response.status)
      refused += 1
    for line in lines:
      answer = await send(client, line)
      assert not answer or answer.split()[1].startswith(b'4'), (line, answer)
      refused += 1
    await read_picture(await client.post('/api/edit', json=EDIT))
    return refused

  assert ask(choices, work) == 100


# What can be chosen.


def test_ids_are_safe_in_addresses_and_differ(tmp_path, monkeypatch):
  assert edit_choices.of_file('my file (1).safetensors').id == 'my.file.1'
  assert edit_choices.of_file('ü.safetensors').id == 'model'
  path = tmp_path / 'a b.safetensors'
  path.write_bytes(b'')
  monkeypatch.setattr(edit_inputs, 'find_demo', lambda: path)
  [own] = edit_choices.find(str(path))
  [demo] = edit_choices.find()
  assert own.id == demo.id == 'a.b'
  assert [own.title, demo.title] == ['a b', 'Drawn faces']
  alike = edit_choices._make_unique([own, demo, own])
  assert [own.id for own in alike] == ['a.b', 'a.b-2', 'a.b-3']
  with pytest.raises(errors.InputError, match='no whole safetensors file'):
    own.load()
  with pytest.raises(errors.InputError, match='--stage=x without a run'):
    edit_choices.find(str(path), stage='x')


def test_a_run_that_is_none_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match='no manifest.json'):
    edit_choices.find(str(tmp_path))


def test_faces_are_drawn_and_digits_are_in_the_package():
  for own in (tiny_editors.make_faces(), tiny_editors.make_digits()):
    samples = edit_choices.of_file('x').load_samples(own)
    assert samples.shape == (edit_choices.NUM_SAMPLES, *own.image_shape)


def test_runs_are_found_and_the_best_stage_of_each_comes_first(
    tmp_path, monkeypatch
):
  for place in ('b/run', 'a', 'broken', 'b/run/checkpoints/x'):
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / 'manifest.json').write_text('{}')

  def list_stages(run):
    if run.path.name == 'broken':
      raise errors.InputError('it is broken.')
    names = ('teacher', 'student_d1', 'student_d2')
    return [config.Stage(name, '', None, 0, 1, None) for name in names]

  def choose_stage(run, stage):
    list_stages(run)
    return stage or 'student_d2'

  # As a run is that has nothing but a manifest.
  monkeypatch.setattr(workdirs, 'WorkDir', lambda path: Run(pathlib.Path(path)))
  monkeypatch.setattr(edited_runs, 'list_stages', list_stages)
  monkeypatch.setattr(edited_runs, 'choose_stage', choose_stage)
  found = edit_choices.find(str(tmp_path / 'a'), tmp_path, stage='teacher')
  assert [(own.id, own.group, own.title) for own in found] == [
      ('a.teacher', 'a', 'teacher'),
      ('a.student_d1', 'a', 'student_d1'),
      ('a.student_d2', 'a', 'student_d2'),
      ('a.student_d2-2', 'a', 'student_d2'),
      ('a.teacher-2', 'a', 'teacher'),
      ('a.student_d1-2', 'a', 'student_d1'),
      ('b.run.student_d2', 'b/run', 'student_d2'),
      ('b.run.teacher', 'b/run', 'teacher'),
      ('b.run.student_d1', 'b/run', 'student_d1'),
  ]


class Run(NamedTuple):
  path: pathlib.Path


def test_a_directory_without_runs_is_refused(tmp_path):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'manifest.json').write_text('{')
  for path in (tmp_path, tmp_path / 'x', tmp_path / 'run' / 'manifest.json'):
    with pytest.raises(errors.InputError, match='runs_dir'):
      edit_choices.of_runs(path)


# Listening, and the end.


def test_a_port_in_use_gives_way_to_the_next(capsys):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    with listening.listen('127.0.0.1', port) as own:
      assert port < own.getsockname()[1] <= port + 20
  assert f'port {port} is in use' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('host', 'port'),
    [('no.such.host.invalid', 0), ('127.0.0.1', 70_000), ('8.8.8.8', 0)],
)
def test_where_nothing_can_listen_is_told_in_a_line(host, port):
  with pytest.raises(errors.InputError, match='accepted'):
    listening.listen(host, port).close()


def test_another_host_is_warned_of(capsys):
  listening.listen('0.0.0.0', 0).close()
  assert 'no password' in capsys.readouterr().err
  listening.listen('localhost', 0).close()
  assert not capsys.readouterr().err


_SERVE = """
    import sys
    sys.path.insert(0, {tests!r})
    import tiny_editors
    from experiments import command_line
    from experiments import edit_server
    choice = tiny_editors.make_choice(tiny_editors.make_digits(), 'digits')
    command_line.run(lambda: edit_server.serve([choice], port=0))
"""


@pytest.mark.parametrize(
    'number',
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_a_signal_ends_it_cleanly(number):
  script = textwrap.dedent(_SERVE).format(tests=str(ROOT / 'tests'))
  process = subprocess.Popen(
      [sys.executable, '-c', script],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
  )
  try:
    assert process.stdout.readline().startswith('loading')
    address = process.stdout.readline().split()[4]
    with urllib.request.urlopen(f'{address}api/models', timeout=20) as answer:
      assert json.load(answer)['models'][0]['id'] == 'digits'
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
  finally:
    process.kill()
  assert out.strip() == 'stopped.'
  assert process.returncode == 0, err
  assert 'Traceback' not in err
