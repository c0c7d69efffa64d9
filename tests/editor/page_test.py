"""Tests of the editor's page in a real browser, without a window."""

import asyncio
import contextlib
import io
import os
import pathlib
import shutil
import statistics
import threading

from aiohttp import test_utils
import numpy as np
from PIL import Image
import pytest
import tiny_editors

from experiments import edit_server
from experiments import edit_service
from jacsup_jax.core import errors

sync_api = pytest.importorskip(
    'playwright.sync_api', reason='playwright is not installed'
)
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason='there is no chromium here'
)
ROOT = pathlib.Path(__file__).parents[1]
AXE = pathlib.Path(
    os.environ.get(
        'AXE_CORE', ROOT / 'node_modules' / 'axe-core' / 'axe.min.js'
    )
)
# Of one step in the browser; far more than any takes on a busy machine.
_MILLISECONDS = 60_000
_IDLE = 'main:not([aria-busy])'
# Of a copy: a browser complains about a canvas that is read again and again.
_PIXELS = """canvas => {
  const {width, height} = canvas;
  const copy = new OffscreenCanvas(width, height).getContext('2d');
  copy.drawImage(canvas, 0, 0);
  const {data} = copy.getImageData(0, 0, width, height);
  return [height, width, Array.from(data)];
}"""
# Moves a slider as a hand does, and waits until its picture is painted.
_MOVE = """async ([name, values]) => {
  const slider = [...document.querySelectorAll('#groups label')].find(
      (label) => label.textContent === name).control;
  const edit = document.getElementById('edit');
  const last = values.at(-1);
  const times = [];
  for (const value of values) {
    const start = performance.now();
    const painted = new Promise((resolve) => {
      edit.addEventListener('painted', function take({detail}) {
        if (!Object.values(detail.strengths).includes(value)) return;
        edit.removeEventListener('painted', take);
        // After the frame that shows it.
        requestAnimationFrame(() => {
          const {port1, port2} = new MessageChannel();
          port1.onmessage = resolve;
          port2.postMessage(null);
        });
      });
    });
    slider.value = value;
    slider.dispatchEvent(new Event('input', {bubbles: true}));
    await painted;
    times.push(performance.now() - start);
  }
  slider.dispatchEvent(new Event('change', {bubbles: true}));
  return times;
}"""


@contextlib.contextmanager
def serving(choices, align=None):
  """Serves a page from a thread of its own; yields its address."""
  loop = asyncio.new_event_loop()
  thread = threading.Thread(target=loop.run_forever, daemon=True)
  thread.start()

  async def start():
    app = edit_server.make_app(edit_service.Service(choices, align=align))
    server = test_utils.TestServer(app)
    await server.start_server()
    return server

  run = lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(120)
  server = run(start())
  try:
    yield f'http://127.0.0.1:{server.port}/'
  finally:
    run(server.close())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(name='address', scope='module')
def fixture_address():
  def fail():
    raise errors.InputError('the checkpoint is damaged.')

  damaged = tiny_editors.make_choice(tiny_editors.make_digits(), 'damaged')
  object.__setattr__(damaged, 'load', fail)
  choices = [
      tiny_editors.make_choice(tiny_editors.make_faces(), 'faces'),
      tiny_editors.make_choice(tiny_editors.make_digits(), 'digits'),
      damaged,
  ]
  with serving(choices) as address:
    yield address


@pytest.fixture(name='browser', scope='module')
def fixture_browser():
  with sync_api.sync_playwright() as driver:
    browser = driver.chromium.launch(
        executable_path=CHROMIUM, args=['--no-sandbox']
    )
    yield browser
    browser.close()


@pytest.fixture(name='open_page')
def fixture_open_page(browser, address):
  """Opens the page; at the end of the test nothing may be on its console."""
  contexts, said = [], []

  def open_page(fragment='', *, address=address, expected=(), **options):
    context = browser.new_context(**options)
    contexts.append(context)
    page = context.new_page()
    page.set_default_timeout(_MILLISECONDS)

    def note(text):
      if not any(word in text for word in expected):
        said.append(text)

    page.on('console', lambda message: note(message.text))
    page.on('pageerror', lambda error: note(str(error)))
    page.goto(address + fragment)
    page.wait_for_selector(_IDLE)
    wait_for_strip(page)
    return page

  yield open_page
  for context in contexts:
    context.close()
  assert not said


def wait_for_strip(page):
  page.wait_for_selector('#strip:not([hidden]):not(.old)')


def wait_for_text(page, place, text):
  page.locator(place).filter(has_text=text).wait_for()


def pixels(page, name):
  return read_canvas(page.locator(f'#{name}'))


def read_canvas(canvas):
  height, width, values = canvas.evaluate(_PIXELS)
  return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def all_pixels(page):
  return {n: pixels(page, n) for n in ('original', 'reconstruction', 'edit')}


def move(page, name, *values):
  return page.evaluate(_MOVE, [name, list(values)])


def slider(page, name):
  return page.get_by_role('slider', name=name, exact=True)


def upload(page, content):
  page.set_input_files(
      '#file',
      {'name': 'me.png', 'mimeType': 'image/png', 'buffer': content},
  )


def make_photo(size=16):
  noise = np.random.default_rng(3).integers(0, 256, (size, size, 3), np.uint8)
  file = io.BytesIO()
  Image.fromarray(noise).save(file, format='PNG')
  return noise, file.getvalue()


def test_it_loads_and_shows_the_first_sample(open_page):
  page = open_page()
  sample = tiny_editors.make_choice(
      tiny_editors.make_faces(), ''
  ).load_samples(None)[0]
  shown = all_pixels(page)
  np.testing.assert_array_equal(shown['original'], sample)
  # Nothing is moved.
  np.testing.assert_array_equal(shown['reconstruction'], shown['edit'])
  wait_for_text(page, '#shown', 'Sample 0: nothing moved')
  assert page.locator('legend').all_inner_texts() == [
      'Hair', 'Nose and mouth', 'Beard', 'Accessories and make-up'
  ]  # pyformat: disable
  assert 'no detector' in page.inner_text('#no_align')


def test_a_slider_changes_the_edit_alone_and_undo_takes_it_back(open_page):
  page = open_page()
  before = all_pixels(page)
  move(page, 'Smiling', 1.0, 2.0)
  after = all_pixels(page)
  assert (before['edit'] != after['edit']).any()
  for name in ('original', 'reconstruction'):
    np.testing.assert_array_equal(before[name], after[name])
  wait_for_text(page, '#shown', 'Smiling +2.0 σ')

  page.click('#undo')
  wait_for_text(page, '#shown', 'nothing moved')
  np.testing.assert_array_equal(pixels(page, 'edit'), before['edit'])
  page.keyboard.press('Control+y')
  wait_for_text(page, '#shown', 'Smiling +2.0 σ')
  page.keyboard.press('Control+z')
  wait_for_text(page, '#shown', 'nothing moved')
  assert page.is_disabled('#undo') and page.is_enabled('#redo')

  move(page, 'Bald', -1.5)
  slider(page, 'Bald').dblclick()
  wait_for_text(page, '#shown', 'nothing moved')
  page.click('#surprise')
  wait_for_text(page, '#shown', 'σ')
  page.click('#reset')
  wait_for_text(page, '#shown', 'nothing moved')
  np.testing.assert_array_equal(pixels(page, 'edit'), before['edit'])


def test_all_detail_without_a_move_is_the_original(open_page):
  page = open_page()
  page.locator('#detail').fill('100')
  wait_for_text(page, '#shown', 'detail 100 %')
  shown = all_pixels(page)
  difference = shown['edit'].astype(int) - shown['original']
  assert abs(difference).max() <= 1  # Of rounding.


def test_a_tile_of_the_strip_is_taken(open_page):
  page = open_page()
  slider(page, 'Eyeglasses').focus()
  wait_for_text(page, '#strip_title', 'Strip of Eyeglasses')
  wait_for_strip(page)
  page.get_by_role('button', name='Eyeglasses −2.0 σ').click()
  wait_for_text(page, '#shown', 'Eyeglasses −2.0 σ')
  tile = page.locator('#strip button[aria-pressed=true]')
  assert tile.inner_text() == '−2.0'
  # What was promised is what one gets.
  drawn = read_canvas(tile.locator('canvas'))
  np.testing.assert_array_equal(drawn, pixels(page, 'edit'))


def test_a_photo_is_chosen_dropped_and_refused(open_page):
  page = open_page(expected=['400 (Bad Request)'])
  photo, content = make_photo()
  upload(page, content)
  wait_for_text(page, '#shown', 'Your photo')
  np.testing.assert_array_equal(pixels(page, 'original'), photo)
  upload(page, b'hello')
  wait_for_text(page, '#error', 'the photo')
  np.testing.assert_array_equal(pixels(page, 'original'), photo)
  # And goes on with the photo that it has.
  move(page, 'Smiling', 1.0)
  assert page.is_hidden('#error')
  page.get_by_role('radio', name='Sample 2').check(force=True)
  wait_for_text(page, '#shown', 'Sample 2: Smiling +1.0 σ')

  page.evaluate(
      """async content => {
        const dropped = new DataTransfer();
        dropped.items.add(new File([new Uint8Array(content)], 'x.png'));
        document.body.dispatchEvent(new DragEvent(
            'drop', {dataTransfer: dropped, bubbles: true, cancelable: true}));
      }""",
      list(content),
  )
  wait_for_text(page, '#shown', 'Your photo: Smiling +1.0 σ')
  page.click('#link')
  wait_for_text(page, '#linked', 'Your photo is not in the link')
  assert 'sample' not in page.evaluate('location.hash')


def test_faces_are_aligned_where_a_detector_is_installed(open_page):
  choices = [tiny_editors.make_choice(tiny_editors.make_faces(), 'faces')]
  photo, content = make_photo(32)
  found = []

  def align(image):
    found.append(image)
    return image[:16, 16:] if len(found) == 1 else None

  with serving(choices, align) as address:
    page = open_page(address=address)
    assert page.is_hidden('#no_align')
    page.get_by_label('Turn and centre the face').check()
    upload(page, content)
    wait_for_text(page, '#shown', 'Your photo')
    np.testing.assert_array_equal(found[0], photo)
    np.testing.assert_array_equal(pixels(page, 'original'), photo[:16, 16:])
    assert page.is_hidden('#no_face')
    # Without a face, the centre square, and the page says so.
    upload(page, content)
    wait_for_text(page, '#no_face', 'No face was found')
    # Before the server: the page may still be asking for its strip.
    page.context.close()


def test_a_link_restores_the_settings(open_page, browser):
  page = open_page(permissions=['clipboard-read', 'clipboard-write'])
  page.get_by_role('radio', name='Sample 3').check(force=True)
  wait_for_text(page, '#shown', 'Sample 3')
  move(page, 'Smiling', 1.5)
  move(page, "5 o'clock shadow", -2.0)
  page.locator('#detail').fill('40')
  wait_for_text(page, '#shown', 'detail 40 %')
  page.click('#link')
  wait_for_text(page, '#linked', 'The link is copied')
  link = page.evaluate('navigator.clipboard.readText()')
  other = open_page(link[link.index('#') :])
  wait_for_text(
      other,
      '#shown',
      "Sample 3: Smiling +1.5 σ, 5 o'clock shadow −2.0 σ, detail 40 %",
  )
  for name, expected in all_pixels(page).items():
    np.testing.assert_array_equal(pixels(other, name), expected)
  assert slider(other, 'Smiling').input_value() == '1.5'


def test_a_link_of_nonsense_is_the_first_sample(open_page):
  page = open_page(
      '#model=x&sample=99&set=Smiling:1e999,<b>:2,:,Bald:x,Nobody:1&detail=7'
  )
  wait_for_text(page, '#shown', 'Sample 4: nothing moved')


def test_the_picture_is_downloaded(open_page):
  page = open_page()
  move(page, 'Smiling', -1.0)
  with page.expect_download() as download:
    page.click('#download')
  assert download.value.suggested_filename == 'sample-0_Smiling-1.png'
  image = np.asarray(Image.open(download.value.path()).convert('RGB'))
  np.testing.assert_array_equal(image, pixels(page, 'edit'))


def test_another_model_has_its_own_sliders(open_page):
  page = open_page(expected=['400 (Bad Request)'])
  move(page, 'Smiling', 1.0)
  page.select_option('#model', 'digits')
  wait_for_text(page, '#shown', 'Sample 0: nothing moved')
  assert page.locator('legend').all_inner_texts() == ['Factors', 'Nuisance']
  assert slider(page, 'z3').is_disabled()
  move(page, 'y1', 2.0)
  page.select_option('#model', 'damaged')
  wait_for_text(page, '#error', 'the checkpoint is damaged.')
  assert page.input_value('#model') == 'digits'
  move(page, 'z1', 1.0)
  # A photo of one's own comes along.
  upload(page, make_photo(32)[1])
  wait_for_text(page, '#shown', 'Your photo')
  page.select_option('#model', 'faces')
  wait_for_text(page, '#shown', 'Your photo: nothing moved')
  assert pixels(page, 'original').shape == (16, 16, 3)


def test_sliders_are_found_by_name(open_page):
  page = open_page()
  page.fill('#filter', 'MOUTH_s')
  names = page.locator('#groups label:visible').all_inner_texts()
  assert names == ['Mouth slightly open']
  assert page.locator('legend:visible').count() == 1
  page.fill('#filter', '<i>')
  wait_for_text(page, '#none_found', 'No slider is called “<i>”.')
  page.fill('#filter', '')
  assert page.locator('#groups label:visible').count() == 5


def test_many_moves_are_few_requests_and_the_last_is_shown(open_page):
  page = open_page()
  asked = []
  page.on(
      'request', lambda own: asked.append(own) if 'edit' in own.url else None
  )
  page.evaluate("""() => {
    const slider = document.querySelector('#groups input');
    for (let i = 1; i <= 40; i += 1) {
      slider.value = i / 20;
      slider.dispatchEvent(new Event('input', {bubbles: true}));
    }
    slider.dispatchEvent(new Event('change', {bubbles: true}));
  }""")
  wait_for_text(page, '#shown', 'Bald +2.0 σ')
  assert 1 <= len(asked) <= 3
  dragged = pixels(page, 'edit')
  move(page, 'Bald', 1.0)
  move(page, 'Bald', 2.0)
  np.testing.assert_array_equal(pixels(page, 'edit'), dragged)


def test_a_server_that_is_gone_is_told_and_asked_again(open_page):
  page = open_page(expected=['ERR_FAILED'])
  page.route('**/api/*', lambda route: route.abort())
  slider(page, 'Smiling').press('ArrowRight')
  wait_for_text(page, '#error', 'The server does not answer')
  page.unroute('**/api/*')
  page.wait_for_selector('#error', state='hidden')
  wait_for_text(page, '#shown', 'Smiling +0.1 σ')


def test_a_photo_that_was_dropped_there_is_sent_again(open_page):
  page = open_page(expected=['404 (Not Found)'])
  photo, content = make_photo()
  upload(page, content)
  wait_for_text(page, '#shown', 'Your photo')
  page.route(
      '**/api/edit',
      lambda route: route.fulfill(status=404, json={'error': 'gone'}),
      times=1,
  )
  slider(page, 'Smiling').press('ArrowRight')
  wait_for_text(page, '#shown', 'Your photo: Smiling +0.1 σ')
  page.wait_for_selector(_IDLE)
  assert page.is_hidden('#error')
  np.testing.assert_array_equal(pixels(page, 'original'), photo)


def _focused(page):
  """Returns the id of what has the focus, or of its group; and its outline."""
  return page.evaluate("""() => {
    const own = document.activeElement;
    const shown = own.classList.contains('hidden_input')
        ? own.nextElementSibling : own;
    const group = own.closest('#strip, #samples, #groups');
    return [group?.id ?? own.id, getComputedStyle(shown).outlineStyle];
  }""")


def test_all_of_it_is_done_by_keyboard(open_page):
  page = open_page()
  # From now on: the browser is told to pass these on, which takes a while.
  page.on('filechooser', lambda unused_chooser: None)
  press = page.keyboard.press
  slider(page, 'Smiling').press('ArrowRight')
  press('ArrowLeft')
  wait_for_strip(page)
  page.evaluate('document.activeElement.blur()')
  press('Control+Home')
  reached = []
  for _ in range(60):
    press('Tab')
    name, outline = _focused(page)
    if name:
      assert outline == 'solid', name
      reached.append(name)
  for name in (
      'model', 'theme', 'surprise', 'download', 'link', 'strip', 'samples',
      'file', 'filter', 'detail', 'groups',
  ):  # pyformat: disable
    assert name in reached, name

  page.focus('.skip')
  press('Enter')
  for _ in range(3):  # Find, keep detail, the first slider.
    press('Tab')
  assert _focused(page)[0] == 'groups'
  for _ in range(5):
    press('ArrowRight')
  wait_for_text(page, '#shown', 'Bald +0.5 σ')
  press('Delete')
  wait_for_text(page, '#shown', 'nothing moved')
  press('Control+z')
  wait_for_text(page, '#shown', 'Bald +0.5 σ')
  press('Tab')  # Its reset.
  press('Enter')
  wait_for_text(page, '#shown', 'nothing moved')
  press('End')  # The focus is on the slider again.
  wait_for_text(page, '#shown', 'Bald +4.0 σ')
  page.focus('#reset')
  press('Enter')
  wait_for_text(page, '#shown', 'nothing moved')
  page.focus('#strip button')
  press('Space')
  wait_for_text(page, '#shown', 'Bald −3.0 σ')
  page.focus('#samples input:checked')
  press('ArrowRight')
  wait_for_text(page, '#shown', 'Sample 1: Bald −3.0 σ')
  page.focus('#file')
  with page.expect_file_chooser():
    press('Enter')
  page.focus('#model')
  press('ArrowDown')
  wait_for_text(page, '#shown', 'Sample 1: nothing moved')
  assert page.input_value('#model') == 'digits'


@pytest.mark.parametrize('width', [320, 390, 768, 1001])
def test_a_narrow_page_is_not_scrolled_sideways(open_page, width):
  page = open_page(
      '#set=Smiling:2,Mouth_Slightly_Open:-1.5,Bald:1&detail=0.5',
      viewport={'width': width, 'height': 640},
      has_touch=True,
  )
  page.evaluate("document.getElementById('error').hidden = false")
  page.evaluate(
      "document.getElementById('error').textContent = 'x'.repeat(300)"
  )
  widths = page.evaluate(
      '[document.documentElement.scrollWidth, document.body.scrollWidth]'
  )
  assert max(widths) <= width
  outside = page.evaluate("""() => [...document.querySelectorAll(
      'main *, header *')].filter((own) => !own.closest('#samples') &&
      own.getBoundingClientRect().right > innerWidth + 1).map((x) => x.id)""")
  assert not outside
  if width > 1000:
    return  # There the sliders are scrolled in a box of their own.
  # The pictures stay in sight.
  slider(page, 'Eyeglasses').scroll_into_view_if_needed()
  page.evaluate('scrollTo(0, document.documentElement.scrollHeight)')
  top = page.evaluate(
      "document.getElementById('edit').getBoundingClientRect().top"
  )
  assert 0 <= top < 100


def test_light_and_dark(open_page):
  brightness = """() => {
    const pixel = document.createElement('canvas').getContext('2d');
    pixel.fillStyle = getComputedStyle(document.body).backgroundColor;
    pixel.fillRect(0, 0, 1, 1);
    return pixel.getImageData(0, 0, 1, 1).data[0];
  }"""
  light = open_page(color_scheme='light')
  dark = open_page(color_scheme='dark')
  assert light.evaluate(brightness) > 200
  assert dark.evaluate(brightness) < 60
  light.click('#theme')  # Light, whatever the system has.
  light.click('#theme')
  assert light.evaluate(brightness) < 60
  light.reload()
  assert light.evaluate(brightness) < 60


@pytest.mark.skipif(
    not AXE.exists(), reason='axe-core is not there: npm install axe-core'
)
@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [390, 1280])
def test_nothing_stands_in_the_way_of_anybody(open_page, scheme, width):
  page = open_page(
      '#set=Smiling:2&detail=0.5',
      color_scheme=scheme,
      viewport={'width': width, 'height': 800},
      reduced_motion='reduce',
  )
  page.evaluate(AXE.read_text())
  for prepare in (
      '0',
      "document.getElementById('error').hidden = false,"
      " document.getElementById('error').textContent = 'It failed.',"
      " document.getElementById('address').hidden = false",
  ):
    page.evaluate(prepare)
    found = page.evaluate('axe.run(document)')
    bad = [
        (own['id'], own['impact'], own['help'], own['nodes'][0]['html'])
        for own in found['violations']
        if own['impact'] in ('serious', 'critical')
    ]
    assert not bad
    assert len(found['passes']) > 20


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_buttons_can_be_read_under_the_pointer(open_page, scheme):
  page = open_page(
      '#set=Smiling:2', color_scheme=scheme, reduced_motion='reduce'
  )
  for name in ('undo', 'reset', 'surprise', 'download', 'link'):
    button = page.locator(f'#{name}')
    button.hover()
    colours = button.evaluate("""element => {
      const {color, backgroundColor} = getComputedStyle(element);
      return [color, backgroundColor].map(
          text => text.match(/[0-9.]+/g).slice(0, 3).map(Number));
    }""")
    # WCAG's contrast of text, by its relative luminance.
    values = np.array(colours) / 255
    linear = np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    assert (light + 0.05) / (dark + 0.05) >= 4.5, name


@pytest.mark.slow
@pytest.mark.parametrize(('size', 'most'), [(64, 40), (256, 150)])
def test_the_new_picture_comes_soon(browser, size, most):
  own = tiny_editors.make_faces(
      size, first_width=16, last_width=512, channels=2048 if size == 256 else 64
  )
  with serving([tiny_editors.make_choice(own, 'faces')]) as address:
    page = browser.new_page()
    page.set_default_timeout(10 * _MILLISECONDS)
    page.goto(address)
    page.wait_for_selector(_IDLE)
    wait_for_strip(page)
    random = np.random.default_rng(0)
    values = (random.permutation(np.arange(1, 31)) / 10).tolist()
    move(page, 'Smiling', *values[:5])
    times = move(page, 'Bald', *values[5:30], *(-own for own in values[5:30]))
    page.close()
  median = statistics.median(times)
  print(
      f'{size}x{size}: median of {len(times)} {median:.1f} ms, from'
      f' {min(times):.1f} to {max(times):.1f} ms'
  )
  assert len(times) == 50
  assert median <= most
