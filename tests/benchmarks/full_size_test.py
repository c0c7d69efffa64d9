"""The paper's run on faces at its full size: two steps of every stage.

Slow; needs CelebA at 256x256 beside the project.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
REAL = ROOT.parent / 'shared' / 'data' / 'celeba256'
FLAGFILES = ROOT / 'experiments' / 'flagfiles'
BATCH_SIZE = 8
# Images of the partitions train, validation and test.
SIZES = (2 * BATCH_SIZE, 4, 4)
MOST_BYTES = 12 * 2**30

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not REAL.is_dir(), reason='needs CelebA at 256x256 beside the project'
  ),
]


def _write_first_images(folder):
  """Writes the first images of CelebA, parted anew, in its own layout."""
  lines = (REAL / 'list_attr_celeba.txt').read_text().splitlines()
  count = sum(SIZES)
  rows = lines[2 : 2 + count]
  names = [row.split()[0] for row in rows]
  (folder / 'img_align_celeba').mkdir(parents=True)
  with zipfile.ZipFile(REAL / 'img_align_celeba.zip') as archive:
    for entry in archive.namelist():
      name = pathlib.PurePath(entry).name
      if name in names:
        path = folder / 'img_align_celeba' / name
        path.write_bytes(archive.read(entry))
  text = '\n'.join([str(count), lines[1], *rows])
  (folder / 'list_attr_celeba.txt').write_text(f'{text}\n')
  partitions = sum(([i] * size for i, size in enumerate(SIZES)), [])
  (folder / 'list_eval_partition.txt').write_text(
    ''.join(f'{name} {i}\n' for name, i in zip(names, partitions))
  )


def _run(root, name, *args):
  """Runs a flagfile of the paper on the few images, an epoch a stage."""
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'experiments.celeba',
      f'--flagfile={FLAGFILES / name}',
      '--dataset=celeba_folder',
      f'--data_dir={root / "faces"}',
      f'--batch_size={BATCH_SIZE}',
      '--epochs=1',
      '--cycle_epochs=1',
      '--student_epochs=1',
      f'--judge_workdir={root / "judge"}',
      '--judge_epochs=1',
      '--strengths=40',
      *args,
    ],
    cwd=ROOT,
    env={**os.environ, 'TFDS_DATA_DIR': str(root / 'prepared')},
    capture_output=True,
    text=True,
    check=False,
  )  # pyformat: disable
  assert done.returncode == 0, done.stderr[-3000:]
  # Of the largest child so far; Linux counts in KiB.
  peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
  print(f'{name}: at most {peak / 2**30:.1f} GiB')
  return peak


def test_schedule_of_the_paper_fits_and_takes_steps(tmp_path):
  _write_first_images(tmp_path / 'faces')
  teacher, student = tmp_path / 'teacher', tmp_path / 'student'
  peaks = [
    _run(tmp_path, 'celeba_teacher.flags', f'--workdir={teacher}'),
    _run(
      tmp_path,
      'celeba_student.flags',
      f'--teacher_workdir={teacher}',
      f'--workdir={student}',
    ),
  ]
  assert max(peaks) < MOST_BYTES
  rows = json.loads((student / 'results.json').read_text())['rows']
  assert [(row['stage'], row['nuisance_dim']) for row in rows] == [
    ('teacher', 2048),
    ('student_d4096', 4096),
    ('student_d8192', 8192),
    ('student_cycle_d4096', 4096),
    ('student_cycle_d8192', 8192),
    ('random', 2048),
  ]
  assert len(rows[0]['attribute_flips_by_attribute']) == 40
  records = [
    json.loads(line)
    for run in (teacher, student)
    for line in (run / 'metrics.jsonl').read_text().splitlines()
  ]
  assert len(records) == 6
  assert all(record['loss'] < 1e3 for record in records)
