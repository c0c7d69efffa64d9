"""One tiny run of each experiment, which the tests of this folder share."""

import contextlib
import io
import pathlib
import sys

import numpy as np
from PIL import Image
import pytest

from experiments import celeba
from experiments import cli
from experiments import drawing
from experiments import mnist

ATTRIBUTES = ('Bald', 'Male', 'Smiling')


@pytest.fixture(scope='session')
def invoke():
  """Runs `cli.run` in this process; returns status, stdout and stderr."""

  def run(main, default, *args):
    out, err = io.StringIO(), io.StringIO()
    with (
      pytest.MonkeyPatch.context() as patch,
      contextlib.redirect_stdout(out),
      contextlib.redirect_stderr(err),
    ):
      patch.setattr(sys, 'argv', ['experiments', *map(str, args)])
      try:
        cli.run(main, default)
      except SystemExit as error:
        return error.code or 0, out.getvalue(), err.getvalue()
    raise AssertionError('cli.run returned')

  return run


@pytest.fixture(scope='session')
def root(tmp_path_factory):
  """A folder for data and runs; TFDS keeps its sets there too."""
  path = tmp_path_factory.mktemp('runs')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('TFDS_DATA_DIR', str(path / 'tfds'))
    yield path


# Splits are of one size, so that what is compiled for one serves the others.


def _write_patterns(path, side, channels, count=512):
  """Writes ten smooth patterns with noise as --dataset=arrays."""
  generator = np.random.default_rng(0)
  labels = generator.integers(0, 10, count)
  shape = (10, side // 4, side // 4, channels)
  patterns = generator.integers(0, 200, shape)[labels]
  images = np.kron(patterns, np.ones((1, 4, 4, 1), int))
  images += generator.integers(0, 55, images.shape)
  split = np.repeat(['train', 'test'], count // 2)
  np.savez(path, images=images.astype(np.uint8), labels=labels, split=split)
  return path


@pytest.fixture
def colours(tmp_path):
  return _write_patterns(tmp_path / 'colours.npz', 32, 3, 320)


@pytest.fixture(scope='session')
def digits(root):
  return _write_patterns(root / 'digits.npz', 28, 1)


@pytest.fixture(scope='session')
def faces(root):
  """A folder of 24 faces as Kaggle has CelebA."""
  generator = np.random.default_rng(0)
  folder = root / 'faces'
  images = folder / 'img_align_celeba' / 'img_align_celeba'
  images.mkdir(parents=True)
  names = [f'{i:06}.jpg' for i in range(1, 25)]
  for name in names:
    pixels = generator.integers(0, 256, (20, 16, 3), np.uint8)
    Image.fromarray(pixels).save(images / name)
  lines = [','.join(('image_id', *ATTRIBUTES))]
  for name in names:
    values = generator.choice(['-1', '1'], len(ATTRIBUTES))
    lines.append(f'{name},{",".join(values)}')
  (folder / 'list_attr_celeba.csv').write_text('\r\n'.join(lines) + '\r\n')
  partitions = [0] * 8 + [1] * 8 + [2] * 8
  lines = [f'{name},{part}' for name, part in zip(names, partitions)]
  (folder / 'list_eval_partition.csv').write_text(
    '\r\n'.join(['image_id,partition', *lines, ''])
  )
  return folder


@pytest.fixture(scope='session')
def digit_flags(root, digits):
  """Flags of any run on the digits, except its work directory."""
  return (
      '--dataset=arrays', f'--data_dir={digits}', '--batch_size=64',
      '--epochs=1', '--nuisance_dim=1', f'--judge_workdir={root / "judges"}',
  )  # fmt: skip


@pytest.fixture(scope='session')
def face_flags(root, faces):
  """Flags of any run on the faces, except its work directory."""
  return (
      '--dataset=celeba_folder', f'--data_dir={faces}', '--image_size=8',
      '--batch_size=4', '--first_width=4', '--last_width=8',
      '--nuisance_dims=4,8', '--epochs=1', '--student_epochs=1',
      '--cycle_epochs=0', '--edits=flip', '--decode_labels=0.5',
      '--lambda_edit_check=0.1', '--learning_rate_schedule=cosine',
      '--strengths=1,4', '--judge_epochs=1', '--judge_first_width=4',
      '--judge_last_width=8', '--judge_hidden=8',
      f'--judge_workdir={root / "face_judge"}',
  )  # fmt: skip


@pytest.fixture
def undrawn(monkeypatch):
  """Runs of a test draw no figures."""
  monkeypatch.setattr(drawing, 'save', lambda *unused_args: [])


@pytest.fixture(scope='session')
def mnist_run(root, digit_flags, invoke) -> pathlib.Path:
  """A run of a teacher and both chains, with event files."""
  status, _, err = invoke(
      mnist.main, mnist.Config(), *digit_flags,
      f'--workdir={root / "mnist"}', '--tensorboard',
      '--students=student,student_no_jacobian',
  )  # fmt: skip
  assert status == 0, err
  return root / 'mnist'


@pytest.fixture(scope='session')
def celeba_run(root, face_flags, invoke) -> pathlib.Path:
  """A run of a teacher, a student and Fader Networks."""
  status, _, err = invoke(
      celeba.main, celeba.Config(), *face_flags,
      f'--workdir={root / "celeba"}', '--baselines=fader',
      '--baseline_epochs=1',
  )  # fmt: skip
  assert status == 0, err
  return root / 'celeba'
