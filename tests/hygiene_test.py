"""Tests of what a long run takes: memory, open files, its log."""

import json
import os
import pathlib
import time

import killing
import numpy as np
import pytest

EPOCHS = 1000


def _write_data(path):
  """Ten blurred patterns of 28x28, 256 for training."""
  random = np.random.default_rng(0)
  labels = random.integers(0, 10, 320)
  patterns = np.kron(random.integers(0, 200, (10, 7, 7)), np.ones((4, 4), int))
  images = patterns[labels] + random.integers(0, 55, (320, 28, 28))
  split = np.where(np.arange(320) < 256, 'train', 'test')
  np.savez(
      path, images=images.astype(np.uint8), labels=labels, split=split
  )


def _watch(process, path, every):
  """Returns (epochs, bytes resident, open files) as a run goes on."""
  found = []
  while process.poll() is None:
    time.sleep(0.2)
    try:
      lines = path.read_bytes().count(b'\n')
      statm = pathlib.Path(f'/proc/{process.pid}/statm').read_text().split()
      files = len(os.listdir(f'/proc/{process.pid}/fd'))
    except OSError:
      continue
    if lines and (not found or lines >= found[-1][0] + every):
      resident = int(statm[1]) * os.sysconf('SC_PAGE_SIZE')
      found.append((lines, resident, files))
  return found


@pytest.mark.slow
def test_a_thousand_epochs_take_no_more_than_a_hundred(tmp_path):
  data = tmp_path / 'data.npz'
  _write_data(data)
  process = killing.start(
      'mnist', '--dataset=arrays', f'--data_dir={data}',
      f'--judge_workdir={tmp_path / "judge"}', f'--workdir={tmp_path / "run"}',
      f'--epochs={EPOCHS}', '--nuisance_dim=1', '--students=student',
      '--eval_every=10', '--checkpoint_every=10', '--batch_size=64',
      '--noprogress',
  )  # pyformat: disable
  found = _watch(process, tmp_path / 'run' / 'metrics.jsonl', 10)
  _, err = process.communicate()
  assert process.returncode == 0, err[-3000:]
  records = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert len(records) == 2 * EPOCHS
  assert max(map(len, records)) < 1000
  # Of the student, whose programs are all there after some epochs.
  student = [row for row in found if row[0] > EPOCHS + 100]
  resident = [row[1] for row in student]
  files = [row[2] for row in found]
  print(
      f'resident {resident[0] / 2**20:.1f} MiB at epoch'
      f' {student[0][0] - EPOCHS}, {resident[-1] / 2**20:.1f} MiB at'
      f' {student[-1][0] - EPOCHS}; open files {min(files)} to {max(files)}'
  )
  assert student[-1][0] > 2 * EPOCHS - 100
  assert resident[-1] < 1.02 * resident[0]
  assert max(files) < min(files) + 20
  kept = list((tmp_path / 'run' / 'checkpoints').glob('*/*'))
  assert len(kept) == 4
  manifest = json.loads((tmp_path / 'run' / 'manifest.json').read_text())
  assert len(manifest['checkpoints']['teacher']) == 2
