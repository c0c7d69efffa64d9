"""The editor's page in a real browser, without a window."""

import asyncio
import io
import re
import shutil
import threading
from urllib import request

from aiohttp import test_utils
import numpy as np
from PIL import Image
import pytest
import tiny_editors

from jacsup_jax.core import errors
from jacsup_jax.editor import exports
from jacsup_jax.editor import server
from jacsup_jax.editor import service as service_lib
from jacsup_jax.figures import pictures

sync_api = pytest.importorskip(
  'playwright.sync_api', reason='playwright is not installed'
)
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='chromium is missing')
REFUSED = '400 (Bad Request)'
PROXY = 'hub.test'
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

  make = tiny_editors.make_choice
  choices = [
    *tiny_editors.CHOICES,
    make('damaged', fail),
    make('known_faces', tiny_editors.make_known_faces),
    make('with', tiny_editors.make_laid_out_digits, counterpart='without'),
    make('without', tiny_editors.make_digits, counterpart='with'),
  ]
  loop = asyncio.new_event_loop()
  thread = threading.Thread(target=loop.run_forever, daemon=True)
  thread.start()
  run = lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(120)
  service = service_lib.Service(choices, align=align)
  app = server.make_app(service, trusted_hosts=[PROXY])
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
  """Returns the pixels of the pictures by name."""
  found = {}
  for name in ('original', 'reconstruction', 'before', 'edit'):
    url = page.locator(f'#{name}').evaluate('canvas => canvas.toDataURL()')
    with request.urlopen(url) as file:
      found[name] = np.asarray(Image.open(file).convert('RGB'))
  return found


def test_a_slider_changes_the_edit_alone(open_page):
  page = open_page('#detail=0')
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
  np.testing.assert_array_equal(after['before'], after['reconstruction'])
  for name in ('original', 'reconstruction'):
    np.testing.assert_array_equal(before[name], after[name])
  wait_for_text(page, '#shown', 'Smiling +2.0 σ')
  page.click('#reset')
  wait_for_text(page, '#shown', 'nothing moved, detail 100 %')
  shown = read_all(page)
  for name in ('before', 'edit'):
    np.testing.assert_allclose(shown[name], shown['original'], atol=1)
  page.locator('#detail').fill('0')
  wait_for_text(page, '#shown', 'Sample 0: nothing moved')
  np.testing.assert_array_equal(read_all(page)['edit'], before['edit'])


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
  page.fill('#filter', '')
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
  image = Image.open(download.value.path())
  assert image.size == (512, 512)
  expected = exports.to_png(read_all(page)['edit'][..., :1])
  with Image.open(io.BytesIO(expected)) as picture:
    np.testing.assert_array_equal(image, picture)
  with page.expect_download() as download:
    page.click('#animate')
  assert Image.open(download.value.path()).n_frames > 20


def test_sliders_work_by_keyboard(open_page):
  page = open_page()
  press = page.keyboard.press
  page.focus('.skip')
  press('Enter')
  press('Tab')  # the first slider
  for _ in range(5):
    press('ArrowRight')
  wait_for_text(page, '#shown', 'Eyeglasses +0.5 σ')
  press('Tab')  # its reset
  press('Enter')
  wait_for_text(page, '#shown', 'nothing moved')
  press('End')  # The focus is on the slider again.
  wait_for_text(page, '#shown', 'Eyeglasses +4.0 σ')
  press('Delete')
  wait_for_text(page, '#shown', 'nothing moved')
  page.focus('#samples input:checked')
  press('ArrowRight')
  wait_for_text(page, '#shown', 'Sample 1: nothing moved')
  page.focus('#divider')
  press('Home')
  split = 'main => getComputedStyle(main).getPropertyValue("--split")'
  assert page.locator('#pictures').evaluate(split) == '0%'


def test_settings_are_taken_back(open_page):
  page = open_page('#detail=0')
  page.evaluate(_MOVE, ['Smiling', [1.0]])
  wait_for_text(page, '#shown', 'Smiling +1.0 σ')
  page.evaluate(_MOVE, ['Bald', [2.0]])
  wait_for_text(page, '#shown', 'Bald +2.0 σ')
  page.keyboard.press('Control+z')
  wait_for_text(page, '#shown', re.compile('Sample 0: Smiling .1.0 σ$'))
  page.click('#undo')
  wait_for_text(page, '#shown', 'nothing moved')
  assert page.is_disabled('#undo')
  page.keyboard.press('Control+Shift+z')
  page.click('#redo')
  wait_for_text(page, '#shown', 'Bald +2.0 σ')
  assert page.is_disabled('#redo')


def test_the_strip_shows_what_works_and_moves_its_slider(open_page):
  page = open_page('#model=known_faces&detail=0')
  tiles = page.locator('#strip button')
  assert page.inner_text('.strip_name') == 'Eyeglasses'
  assert tiles.count() == 7
  tiles.last.click()
  wait_for_text(page, '#shown', 'Sample 0: Eyeglasses +')
  assert tiles.last.get_attribute('aria-pressed') == 'true'
  # The last one that was moved is shown next.
  page.evaluate(_MOVE, ['Smiling', [1.0]])
  wait_for_text(page, '.strip_name', 'Smiling')
  marks = page.locator('.mark').all_inner_texts()
  assert [text for text in marks if text] == ['weak']
  page.evaluate(_MOVE, ['Eyeglasses', [2.5]])
  assert page.locator('.beyond').count() == 1
  page.click('#reset')
  page.get_by_role('button', name='Glasses', exact=True).click()
  wait_for_text(page, '#shown', 'Eyeglasses +')


def test_the_map_moves_two_factors(open_page):
  page = open_page('#model=with&detail=0')
  page.get_by_role('button', name='1', exact=True).click()
  wait_for_text(page, '#shown', re.compile('y1 .*y2 '))
  box = page.locator('#pad').bounding_box()
  page.mouse.move(box['x'] + 5, box['y'] + 5)
  page.mouse.down()
  page.mouse.move(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
  page.mouse.up()
  name = 'y1 ([^ ]+), y2 (.+)'
  before = page.locator('#pad_marker').get_attribute('aria-valuetext')
  assert re.fullmatch(name, before)
  page.keyboard.press('ArrowLeft')  # The marker has the focus.
  after = page.locator('#pad_marker').get_attribute('aria-valuetext')
  assert re.fullmatch(name, after)[1] != re.fullmatch(name, before)[1]
  assert re.fullmatch(name, after)[2] == re.fullmatch(name, before)[2]
  # A place that it can reach is the one that is shown.
  centre = page.locator('#pad_marker').evaluate('own => own.style.top')
  assert abs(float(centre.removesuffix('%')) - 50) < 3


def test_models_are_compared(open_page):
  page = open_page('#model=with&set=y1:1&compare=1&detail=0')
  other = page.locator('#other_edit')
  assert other.is_visible()
  assert page.inner_text('#other_caption') == 'without'
  # Both have the same weights here, so that the pictures are equal.
  page.wait_for_timeout(300)
  same = '([a, b]) => a.toDataURL() === b.toDataURL()'
  edits = [page.query_selector(name) for name in ('#edit', '#other_edit')]
  assert page.evaluate(same, edits)
  page.uncheck('#compare')
  other.wait_for(state='hidden')
  assert open_page('#model=digits').is_hidden('#can_compare')


def test_a_drawing_is_edited_and_compared_with_the_training_data(open_page):
  page = open_page('#model=with')
  box = page.locator('#sketch').bounding_box()
  page.mouse.move(box['x'] + 40, box['y'] + 40)
  page.mouse.down()
  page.mouse.move(box['x'] + 120, box['y'] + 150, steps=5)
  page.mouse.up()
  wait_for_text(page, '#shown', 'Your drawing: nothing moved')
  assert read_all(page)['original'].max() > 200
  assert page.is_hidden('#unlike')
  page.select_option('#model', 'digits')
  wait_for_text(page, '#shown', 'Your drawing: nothing moved')
  assert open_page().is_hidden('#can_draw')


def test_a_photo_that_comes_before_the_model_is_kept(open_page):
  page = open_page()
  held = []
  page.route('**/api/models/*', lambda route: held.append(route))
  page.reload(wait_until='commit')
  wait_for_text(page, '#shown', 'Loading the model')
  photo = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
  content = pictures.encode(photo, '.png')
  file = {'name': 'me.png', 'mimeType': 'image/png', 'buffer': content}
  page.set_input_files('#file', file)
  for _ in range(400):
    if not held:
      page.wait_for_timeout(50)
  held[0].continue_()
  wait_for_text(page, '#shown', 'Your photo')
  np.testing.assert_array_equal(read_all(page)['original'], photo)


def test_an_unusual_photo_is_warned_of_and_can_be_edited(open_page):
  page = open_page('#model=known_faces&detail=0')
  assert page.is_hidden('#unlike')
  photo = np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8)
  content = pictures.encode(photo, '.png')
  file = {'name': 'me.png', 'mimeType': 'image/png', 'buffer': content}
  page.set_input_files('#file', file)
  wait_for_text(page, '#unlike', 'unlike those that the model was trained on')
  page.click('#use_detail')
  wait_for_text(page, '#shown', 'detail 100 %')
  before = read_all(page)
  page.evaluate(_MOVE, ['Eyeglasses', [1.5]])
  after = read_all(page)
  np.testing.assert_allclose(before['edit'], before['original'], atol=1)
  assert (after['edit'] != before['edit']).any()


@pytest.mark.parametrize('size', [(1280, 800), (1920, 1080), (390, 844)])
def test_the_picture_is_large_and_stays_in_sight(open_page, size):
  page = open_page('#model=known_faces')
  page.set_viewport_size(dict(zip(('width', 'height'), size)))
  frame = page.locator('.frame').first
  assert frame.bounding_box()['width'] >= (480 if size[0] > 1000 else 320)
  page.locator('#groups input').last.scroll_into_view_if_needed()
  box = frame.bounding_box()
  assert box['y'] >= -1 and box['y'] + box['height'] <= size[1]
  wide = 'document.documentElement.scrollWidth'
  assert page.evaluate(wide) <= size[0]


def test_the_page_works_below_a_path_of_a_proxy(browser, address):
  context = browser.new_context()
  page = context.new_page()
  prefix = f'http://{PROXY}/user/me/proxy/8000/'

  def forward(route):
    url = route.request.url.replace(prefix, address)
    route.fulfill(response=route.fetch(url=url))

  page.route(f'{prefix}**', forward)
  page.goto(prefix)
  page.wait_for_selector('main:not([aria-busy])')
  wait_for_text(page, '#shown', 'Sample 0: nothing moved')
  assert page.locator('#groups input').count() == 5
  context.close()
