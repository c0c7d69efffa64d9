"""Tests of experiments.run_gallery: a page that has all, and runs nothing."""

import base64
import collections
from html import parser
import io
import json

from matplotlib import figure as mpl_figure
import numpy as np
from PIL import Image
import pytest

from experiments import drawings
from experiments import run_gallery
from jacsup_jax.core import errors
from jacsup_jax.figures import panels as figures
from jacsup_jax.runs import workdir as workdirs

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>$\\frac'
ROW = {
    'model': 'teacher', 'nuisance_dim': 0, 'seed': 0, 'mse': 0.03,
    'class_swaps': 0.9,
}  # pyformat: disable


class _Page(parser.HTMLParser):
  """Counts tags and collects attributes and text."""

  def __init__(self, html):
    super().__init__()
    self.tags = collections.Counter()
    self.attributes = collections.defaultdict(list)
    self.text = ''
    self.feed(html)

  def handle_starttag(self, tag, attrs):
    self.tags[tag] += 1
    for name, value in attrs:
      self.attributes[name].append(value)

  def handle_data(self, data):
    self.text += data


def _begin(path, *, evil='x'):
  path.mkdir()
  manifest = {
      'experiment': 'mnist',
      'flags': {'epochs': 3, 'seed': 0, evil: [evil]},
      'dataset': {'name': evil, 'fingerprint': evil},
      'versions': {'jax': evil},
      'machine': evil,
      'stages': {evil: {'sha256': evil, 'epochs': 3, 'nuisance_dim': [evil]}},
  }
  (path / 'manifest.json').write_text(json.dumps(manifest))


def _write_results(path, evil='x', row=None):
  results = {'protocol': evil, 'rows': [row or {**ROW, 'model': evil}]}
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps(results))


@pytest.fixture(autouse=True)
def defaults(monkeypatch):
  # The binary's own need a process.
  monkeypatch.setattr(
      run_gallery, '_find_defaults', lambda _: {'epochs': 100, 'seed': 0}
  )


def _write(path, *, pictures=2):
  gallery = run_gallery.Gallery()
  for i in range(pictures):
    images = np.full((2, 2, 4, 4, 1), 0.5)
    grid = figures.factor_grid(images, np.arange(2), np.arange(2))
    gallery.add(f'grid{i}', drawings.Drawing(None, f'Grid "{i}".'), grid)
    curve = mpl_figure.Figure()
    curve.add_subplot().plot([1, 2])
    drawing = drawings.Drawing(None, f'Curve "{i}".', is_curve=True)
    gallery.add(f'curve{i}', drawing, curve)
  gallery.write(workdirs.WorkDir(path), path / 'gallery.html')
  return (path / 'gallery.html').read_text()


def test_page_has_everything(tmp_path):
  _begin(tmp_path / 'run')
  _write_results(tmp_path / 'run' / 'results.json')
  _write_results(tmp_path / 'run' / 'evaluations' / 'x_test.json')
  html = _write(tmp_path / 'run')
  page = _Page(html)
  assert page.tags['img'] == 2 and page.tags['svg'] == 2
  assert page.tags['h1'] == 1
  for text in ('--epochs', '100', 'results.json', 'x_test.json', '90.0%'):
    assert text in page.text
  # What was chosen comes first, what was not after it.
  assert page.text.index('--epochs') < page.text.index('--seed')
  for source in page.attributes['src']:
    kind, content = source.split(',')
    assert kind == 'data:image/webp;base64'
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
      image.load()
  assert page.attributes['alt'] == ['Grid "0".', 'Grid "1".']
  assert 'Curve "1".' in page.attributes['aria-label']


def test_page_loads_nothing_and_ids_are_unique(tmp_path):
  _begin(tmp_path / 'run')
  page = _Page(_write(tmp_path / 'run'))
  links = page.attributes['href'] + page.attributes['xlink:href']
  assert links and all(link.startswith('#') for link in links)
  assert not page.tags['link'] and not page.tags['script']
  ids = page.attributes['id']
  assert len(ids) == len(set(ids)) > 10
  assert {link[1:] for link in links} <= set(ids)


def test_nothing_of_a_run_becomes_markup(tmp_path):
  plain, strange = tmp_path / 'plain', tmp_path / '<b>strange'
  pages = []
  for path, evil in ((plain, 'x'), (strange, EVIL)):
    _begin(path, evil=evil)
    _write_results(path / 'results.json', evil)
    _write_results(path / 'evaluations' / 'x_test.json', evil)
    pages.append(_Page(_write(path)))
  assert pages[0].tags == pages[1].tags
  assert not pages[1].attributes['onerror']
  assert EVIL in pages[1].text


def test_a_damaged_evaluation_is_said_and_left_out(tmp_path, capsys):
  _begin(tmp_path / 'run')
  _write_results(
      tmp_path / 'run' / 'evaluations' / 'x_test.json',
      row={**ROW, 'jacobian_cosine': 'large'},
  )
  page = _Page(_write(tmp_path / 'run', pictures=0))
  assert 'x_test' not in page.text
  assert 'jacobian_cosine' in capsys.readouterr().err


def test_damaged_results_are_refused_and_nothing_is_written(tmp_path):
  _begin(tmp_path / 'run')
  (tmp_path / 'run' / 'results.json').write_text('{"rows": 3')
  with pytest.raises(errors.InputError, match='results.json'):
    _write(tmp_path / 'run', pictures=0)
  assert not (tmp_path / 'run' / 'gallery.html').exists()
