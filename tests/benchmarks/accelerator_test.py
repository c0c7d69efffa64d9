"""The rehearsal runs every part; records, rates and the bundle are right."""

import io
import json
import os
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from benchmarks import accelerator_faces
from benchmarks import bundle
from benchmarks import counts
from benchmarks import problems
from benchmarks import records as records_lib

COMMAND = [sys.executable, '-m', 'benchmarks.accelerator']
PARTS = {'check', 'card', 'faces', 'curves'}


def _run(*flags):
  return subprocess.run(
    [*COMMAND, *flags],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def test_the_rehearsal_runs_every_part(tmp_path):
  done = _run('--rehearse', '--seconds=300', f'--output={tmp_path / "out"}')
  assert done.returncode == 0, done.stderr
  lines = (tmp_path / 'out' / 'accelerator.jsonl').read_text().splitlines()
  entries = {entry['key']: entry for entry in map(json.loads, lines)}
  assert {key.partition('/')[0] for key in entries} > PARTS
  for key, entry in entries.items():
    assert 'value' in entry, entry
  deterministic = entries['check/deterministic']['value']
  assert deterministic['same bits with --deterministic']
  value = entries['check/terms of cycle']['value']['float32']
  assert max(value['values'].values()) < 1e-5
  assert max(value['gradients'].values()) < 1e-5
  table = (tmp_path / 'out' / 'accelerator.md').read_text()
  assert '| student_d16 | mse ' in table
  assert (tmp_path / 'out' / 'roofline.png').exists()
  assert (tmp_path / 'out' / 'faces.safetensors').exists()


@pytest.mark.parametrize(
  ('flags', 'found'),
  [
    (['--part=check'], ' is on cpu; accepted: an NVIDIA GPU'),
    (['--part=check', '--seconds=0'], '--seconds'),
  ],
)
def test_mistakes_are_one_line(tmp_path, flags, found):
  done = _run(*flags, f'--output={tmp_path / "out"}')
  assert done.returncode != 0 and found in done.stderr
  assert 'Traceback' not in done.stderr and not (tmp_path / 'out').exists()


def test_records_resume_and_keep_what_failed(tmp_path):
  def fail():
    raise MemoryError('batch 512\nneeds more')

  make = lambda seconds: records_lib.Records(
    tmp_path, 'card', seconds, lambda line: None
  )
  records = make(100)
  assert records.measure('a/b', lambda: {'x': np.float32(2)}) == {'x': 2}
  assert records.measure('a/c', fail) is None
  assert records.measure('a/d', lambda: {'x': 1}, needs=200) is None
  with open(tmp_path / 'accelerator.jsonl', 'a') as file:
    file.write('{"key": "a/e", "ca')  # killed here
  again = make(300)
  assert again.measure('a/b', fail) == {'x': 2}
  assert again.measure('a/c', lambda: {'x': 3}) is None
  assert again.measure('a/d', lambda: {'x': 1}, needs=200) == {'x': 1}
  table = (tmp_path / 'accelerator.md').read_text()
  assert '| c | error: MemoryError: batch 512 needs more |' in table
  assert records_lib.Records(tmp_path, 'other', 1).found == {}


def test_counts_of_a_step():
  problem = problems.make_faces('phase_one', 8, 4, **problems.TINY_FACES)
  flops, moved = counts.count_faces(problem)
  # Maps of 4x4x4 and 2x2x5, then of 4x4x4 and 8x8x3; kernels of 4x4 at 4x4
  # and 2x2 positions each.
  products = 2 * 16 * 4 * (16 * 3 * 4 + 4 * 4 * 5 + 4 * 3 * 4 + 16 * 4 * 3)
  assert flops == 3 * products
  maps = 4 * (4 * 4 * 4 + 2 * 2 * 5 + 4 * 4 * 4 + 8 * 8 * 3)
  size = sum(x.size for x in problems.jax.tree.leaves(problem.state.params))
  assert moved == 5 * 4 * maps + 32 * size


def test_faces_of_a_bundle_are_read_back(tmp_path):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (5, 8, 8, 3), np.uint8)
  encoded = []
  for image in images:
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'WEBP', lossless=True)
    encoded.append(file.getvalue())
  signs = rng.choice(np.array([-1, 1], np.int8), (5, 2))
  is_validation = np.arange(5) > 3
  path = tmp_path / 'faces.npz'
  bundle.write(path, encoded, signs, is_validation, ('Smiling', 'Male'))
  faces = accelerator_faces.load_faces(path)
  for found, wanted in zip(faces[:3], (images, signs, is_validation)):
    np.testing.assert_array_equal(found, wanted)
  parts = accelerator_faces.split_faces(*faces, 1)
  assert [len(part) for part in parts] == [3, 1, 1]
  assert parts[0].attribute_names == ('Smiling', 'Male')
