"""What surrounds the steps on faces: reading, evaluation, and starting."""

import functools
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments import face_steps
from experiments import timing
from jacsup_jax.data import faces
from jacsup_jax.data import feeding
from jacsup_jax.evaluation import attribute_flips as flips
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.models import autoencoders as networks

# Images that are read, and of a step.
_NUM_READ = 1024
_BATCH_SIZE = 32
# Images of which every attribute is flipped.
_NUM_FLIPPED = 8
_JUDGE_WIDTHS = {'first_width': 32, 'last_width': 512, 'hidden': 512}
# Prints how long it took to import and to compile, and the first step.
_STARTED = """
import time
start = time.perf_counter()
import jax
from experiments import celeba, face_steps
from jacsup_jax.training import attribute_steps as attribute_training, compilation
imported = time.perf_counter()
compilation.keep_programs({directory!r})
step = face_steps.make_step('phase_one', {image_size})
with compilation.measured() as clock:
  state = attribute_training.create_train_state(
      face_steps.init_variables(step.model, 0), step.optimizer
  )
  data = jax.device_put(face_steps.make_data(step.model, 8))
  steps = jax.jit(lambda state, data: face_steps.take_steps(
      step, state, None, data, num_steps=2))
  jax.block_until_ready(steps(state, data))
done = time.perf_counter()
print(imported - start, clock.seconds, done - imported)
"""


def measure_input(image_size: int, repeats: int) -> str:
  """Measures how many prepared images are read and decoded a second.

  JPEG files of noise on a slope at training resolution, in memory: the decoding
  is measured, not a disk.

  Args:
    image_size: pixels of a side.
    repeats: measurements.

  Returns:
    The table, with a heading.
  """
  dataset = _make_encoded_set(image_size)
  order = np.random.default_rng(0).permutation(_NUM_READ)
  rows = order.reshape(-1, _BATCH_SIZE)
  rates = []
  for _ in range(repeats):
    start = time.perf_counter()
    for _ in feeding.iterate_chunks(dataset, rows, chunk_steps=8):
      pass
    rates.append(_NUM_READ / (time.perf_counter() - start))
  rate = statistics.median(rates)
  threads = timing.count_threads()
  return '\n'.join([
      f'Reading faces: {image_size}x{image_size} pixels, JPEG,'
      f' {timing.describe_machine()}; median of {repeats} x {_NUM_READ}.',
      f'{rate:.0f} images/s, {rate / threads:.0f} a core.',
  ])


def measure_flips(image_size: int, repeats: int) -> str:
  """Measures how many flips are decoded and judged a second.

  Args:
    image_size: pixels of a side.
    repeats: measurements.

  Returns:
    The table, with a heading.
  """
  machine = timing.describe_machine()
  model = face_steps.make_step('phase_one', image_size).model
  variables = face_steps.init_variables(model, 0)
  judge = networks.AttributeJudge(
      face_steps.NUM_FACTORS, image_size, **_JUDGE_WIDTHS
  )
  judge_variables = face_steps.init_variables(judge, 1)
  data = face_steps.make_data(model, _NUM_FLIPPED)

  @jax.jit
  def count(variables, judge_variables, images, attributes):
    encode, decode = (
        make(model, variables['batch_stats'])
        for make in (networks.make_encode, networks.make_decode)
    )
    return flips.count_flips(
        lambda images, unused_labels: encode(variables['params'], images),
        functools.partial(decode, variables['params']),
        functools.partial(attribute_judges.classify, judge, judge_variables),
        images,
        attributes,
        1.0,
        batch_size=_NUM_FLIPPED,
    )

  args = jax.tree.map(
      jnp.asarray,
      (variables, judge_variables, data.images, data.attributes.astype(int)),
  )
  num_flips = _NUM_FLIPPED * face_steps.NUM_FACTORS
  times = timing.measure({'flips': lambda: count(*args)}, repeats, num_flips)
  rate = 1e3 / statistics.median(times['flips'])
  return '\n'.join([
      f'Flips of attributes: {image_size}x{image_size} pixels, k ='
      f' {face_steps.NUM_FACTORS}, d = {model.nuisance_dim}, one of {machine};'
      f' median of {repeats} x {num_flips}.',
      f'{rate:.0f} flips/s.',
  ])


def measure_start(image_size: int) -> str:
  """Measures what passes until the first step, in processes of their own.

  Args:
    image_size: pixels of a side.

  Returns:
    The table, with a heading: with compiled programs new, and kept.
  """
  lines = [
      f'Starting a teacher on faces: {image_size}x{image_size} pixels,'
      f' {timing.describe_machine()}; seconds.',
      f'{"":20} {"import":>8} {"compile":>8} {"to the first step":>18}',
  ]
  with tempfile.TemporaryDirectory() as directory:
    code = _STARTED.format(directory=directory, image_size=image_size)
    for name in ('programs new', 'programs kept'):
      done = subprocess.run(
          [sys.executable, '-c', code],
          check=True,
          capture_output=True,
          text=True,
          env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      )
      imported, compiled, first = map(float, done.stdout.split()[-3:])
      lines.append(
          f'{name:20} {imported:8.1f} {compiled:8.1f} {first:18.1f}'
      )
  return '\n'.join(lines)


def _make_encoded_set(image_size):
  """Makes a set that decodes what it is asked for."""
  rng = np.random.default_rng(0)
  slope = np.linspace(0, 200, image_size)[:, None, None]
  files = []
  for _ in range(16):
    noise = rng.integers(0, 56, (image_size, image_size, 3))
    file = io.BytesIO()
    Image.fromarray((slope + noise).astype(np.uint8)).save(file, 'JPEG')
    files.append(file.getvalue())

  def read_images(indices):
    images = [
        np.asarray(Image.open(io.BytesIO(files[i % len(files)])))
        for i in indices
    ]
    return np.stack(images), None

  return faces.FaceDataset(
      name='noise',
      split='train',
      attribute_names=('Smiling',),
      image_size=image_size,
      fingerprint='noise',
      attributes=np.ones((_NUM_READ, 1), np.int8),
      images=None,
      read_images=read_images,
  )
