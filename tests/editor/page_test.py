"""The editor's page in a real browser, without a window."""

import asyncio
import shutil
import threading
from urllib import request

from aiohttp import test_utils
import numpy as np
from PIL import Image
import pytest
import tiny_editors

from jacsup_jax.core import errors
from jacsup_jax.editor import server
from jacsup_jax.editor import service as service_lib
from jacsup_jax.figures import pictures

sync_api = pytest.importorskip(
  'playwright.sync_api', reason='playwright is not installed'
)
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='chromium is missing')
REFUSED = '400 (Bad Request)'
# Moves a slider as a hand does, and waits until its last picture is painted.
_MOVE = """async ([name, values]) => {
  const slider = [...document.querySelectorAll('#groups label')].find(
      (label) => label.textContent === name).control;
  const painted = new Promise((resolve) => {
    const edit = document.getElementById('edit');
    edit.addEventListener('painted', function take({detail}) {
      if (!Object.values(detail.strengths).includes(values.at(-1))) return;
      edit.removeEventListener('painted', take);
      resolve();
    });
  });
  for (const value of values) {
    slider.value = value;
    slider.dispatchEvent(new Event('input', {bubbles: true}));
  }
  await painted;
}"""


@pytest.fixture(scope='module')
def address():
  """Serves the page from a thread of its own; yields its address."""
  found = []

  def fail():
    raise errors.InputError('the checkpoint is damaged.')

  def align(image):  # a face in the first photo only
    found.append(image)
    return image[:16, 16:] if len(found) == 1 else None

  choices = [*tiny_editors.CHOICES, tiny_editors.make_choice('damaged', fail)]
  loop = asyncio.new_event_loop()
  thread = threading.Thread(target=loop.run_forever, daemon=True)
  thread.start()
  run = lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(120)
  app = server.make_app(service_lib.Service(choices, align=align))
  own = test_utils.TestServer(app)
  run(own.start_server())
  yield f'http://127.0.0.1:{own.port}/'
  run(own.close())
  loop.call_soon_threadsafe(loop.stop)
  thread.join()


@pytest.fixture(scope='module')
def browser():
  with sync_api.sync_playwright() as driver:
    options = {'executable_path': CHROMIUM, 'args': ['--no-sandbox']}
    yield driver.chromium.launch(**options)


@pytest.fixture
def open_page(browser, address):
  """Opens the page; at the end its console must hold refusals alone."""
  context = browser.new_context()
  said = []

  def open_page(fragment=''):
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on('console', lambda message: said.append(message.text))
    page.on('pageerror', lambda error: said.append(str(error)))
    page.goto(address + fragment)
    page.wait_for_selector('main:not([aria-busy])')
    return page

  yield open_page
  context.close()
  assert all(REFUSED in text for text in said)


def wait_for_text(page, place, text):
  page.locator(place).filter(has_text=text).wait_for()


def read_all(page):
  """Returns the pixels of the three pictures by name."""
  found = {}
  for name in ('original', 'reconstruction', 'edit'):
    url = page.locator(f'#{name}').evaluate('canvas => canvas.toDataURL()')
    with request.urlopen(url) as file:
      found[name] = np.asarray(Image.open(file).convert('RGB'))
  return found


def test_a_slider_changes_the_edit_alone(open_page):
  page = open_page()
  before = read_all(page)
  np.testing.assert_array_equal(
    before['original'], tiny_editors.SAMPLES['faces'][0]
  )
  np.testing.assert_array_equal(before['reconstruction'], before['edit'])
  wait_for_text(page, '#shown', 'Sample 0: nothing moved')
  asked = []
  page.on('request', lambda own: asked.append(own.url))
  page.evaluate(_MOVE, ['Smiling', [*(i / 20 for i in range(1, 41))]])
  # What is dragged quickly is not asked for step by step.
  assert 1 <= len(asked) <= 4
  after = read_all(page)
  assert (before['edit'] != after['edit']).any()
  for name in ('original', 'reconstruction'):
    np.testing.assert_array_equal(before[name], after[name])
  wait_for_text(page, '#shown', 'Smiling +2.0 σ')
  page.click('#reset')
  wait_for_text(page, '#shown', 'nothing moved')
  np.testing.assert_array_equal(read_all(page)['edit'], before['edit'])
  page.locator('#detail').fill('100')
  wait_for_text(page, '#shown', 'detail 100 %')
  shown = read_all(page)
  np.testing.assert_allclose(shown['edit'], shown['original'], atol=1)


def test_a_photo_is_chosen_aligned_and_refused(open_page):
  page = open_page()
  photo = np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8)
  content = pictures.encode(photo, '.png')

  def upload(content):
    own = {'name': 'me.png', 'mimeType': 'image/png', 'buffer': content}
    page.set_input_files('#file', own)

  page.get_by_label('Rotate and centre the face').check()
  upload(content)
  wait_for_text(page, '#shown', 'Your photo')
  np.testing.assert_array_equal(read_all(page)['original'], photo[:16, 16:])
  assert page.is_hidden('#no_face')
  upload(content)
  wait_for_text(page, '#no_face', 'No face was found')
  upload(b'hello')
  wait_for_text(page, '#error', 'This file is not an image we can open')
  # The photo before it is still there to be edited.
  page.evaluate(_MOVE, ['Smiling', [1.0]])
  assert page.is_hidden('#error')
  # A photo comes along to another model.
  page.select_option('#model', 'digits')
  wait_for_text(page, '#shown', 'Your photo: nothing moved')


def test_the_address_restores_the_settings(open_page):
  page = open_page()
  page.get_by_role('radio', name='Sample 3').check(force=True)
  wait_for_text(page, '#shown', 'Sample 3')
  page.evaluate(_MOVE, ['Smiling', [1.5]])
  page.evaluate(_MOVE, ["5 o'clock shadow", [-2.0]])
  page.locator('#detail').fill('40')
  wait_for_text(page, '#shown', 'detail 40 %')
  other = open_page(page.evaluate('location.hash'))
  text = "Sample 3: Smiling +1.5 σ, 5 o'clock shadow −2.0 σ, detail 40 %"
  wait_for_text(other, '#shown', text)
  for name, expected in read_all(page).items():
    np.testing.assert_array_equal(read_all(other)[name], expected)
  assert other.get_by_label('Smiling', exact=True).input_value() == '1.5'
  nonsense = open_page(
    '#model=x&sample=99&set=Smiling:1e999,<b>:2,:,Bald:x,Nobody:1&detail=7'
  )
  wait_for_text(nonsense, '#shown', 'Sample 4: nothing moved')


def test_another_model_has_its_own_sliders(open_page):
  page = open_page()
  page.fill('#filter', 'MOUTH_s')
  names = page.locator('#groups label:visible').all_inner_texts()
  assert names == ['Mouth slightly open']
  page.evaluate(_MOVE, ['Smiling', [1.0]])
  page.select_option('#model', 'digits')
  wait_for_text(page, '#shown', 'Sample 0: nothing moved')
  assert page.locator('legend').all_inner_texts() == ['Factors', 'Nuisance']
  assert page.get_by_label('z3', exact=True).is_disabled()
  page.select_option('#model', 'damaged')
  wait_for_text(page, '#error', 'the checkpoint is damaged.')
  assert page.input_value('#model') == 'digits'
  page.evaluate(_MOVE, ['y1', [-1.0]])
  with page.expect_download() as download:
    page.click('#download')
  assert download.value.suggested_filename == 'Sample_0_y1_-1.0.png'
  image = np.asarray(Image.open(download.value.path()).convert('RGB'))
  np.testing.assert_array_equal(image, read_all(page)['edit'])


def test_sliders_work_by_keyboard(open_page):
  page = open_page()
  press = page.keyboard.press
  page.focus('.skip')
  press('Enter')
  for _ in range(3):  # the filter, the detail, the first slider
    press('Tab')
  for _ in range(5):
    press('ArrowRight')
  wait_for_text(page, '#shown', 'Bald +0.5 σ')
  press('Tab')  # its reset
  press('Enter')
  wait_for_text(page, '#shown', 'nothing moved')
  press('End')  # The focus is on the slider again.
  wait_for_text(page, '#shown', 'Bald +4.0 σ')
  press('Delete')
  wait_for_text(page, '#shown', 'nothing moved')
  page.focus('#samples input:checked')
  press('ArrowRight')
  wait_for_text(page, '#shown', 'Sample 1: nothing moved')
