"""Packs what a machine without a network needs to run `accelerator`.

  python -m benchmarks.bundle --data_dir=FOLDER --output=runs/bundle

FOLDER has CelebA's layout, with images at 64x64. The bundle is what such a
machine lacks beside JAX, Flax, Optax and Orbax: wheels, faces (as WebP of lower
quality, with their attributes) and a checkpoint saved here. Prints sizes and
how much the faces have lost. Faces may not be passed on: keep it out of git.
"""

from collections.abc import Sequence
from concurrent import futures
import functools
import io
import os
import pathlib
import subprocess
import sys

from absl import flags
import numpy as np
from PIL import Image

from benchmarks import accelerator_check
from benchmarks import timing
from jacsup_jax.core import errors
from jacsup_jax.data import celeba
from jacsup_jax.data import files
from jacsup_jax.data import registry

FLAGS = flags.FLAGS
IMAGE_SIZE = 64
# Training imports these; sets of TFDS are not prepared there.
WHEELS = (
  'array_record',
  'grain',
  'importlib_resources',
  'portpicker',
  'tensorboardX',
)
_PLATFORMS = (
  'manylinux_2_28_x86_64',
  'manylinux_2_24_x86_64',
  'manylinux_2_17_x86_64',
  'manylinux2014_x86_64',
)
_MOST_BYTES = 60 << 20
_SPLITS = ('train', 'validation')


def define_flags() -> None:
  """Defines the flags; not on import, as tests import this module."""
  flags.DEFINE_string(
    'data_dir',
    None,
    "Folder of faces in CelebA's layout; default: without faces.",
  )
  flags.DEFINE_string('output', 'runs/bundle', 'Folder of the bundle.')
  flags.DEFINE_integer(
    'quality', 85, 'Quality of WebP.', lower_bound=1, upper_bound=100
  )
  flags.DEFINE_string('python', '3.12', 'Version of Python there.')
  flags.DEFINE_boolean('wheels', True, 'Download the wheels.')


def main() -> str:
  """Makes the bundle of the flags; returns its sizes."""
  output = files.expand_path('--output', FLAGS.output)
  files.check_writable(f'--output={output}', output)
  output.mkdir(parents=True, exist_ok=True)
  lines = []
  if FLAGS.wheels:
    download(output / 'wheels', FLAGS.python)
  if FLAGS.data_dir is not None:
    faces = files.expand_path('--data_dir', FLAGS.data_dir)
    psnr, count = pack(faces, output, FLAGS.quality)
    lines.append(f'{count} faces as WebP of quality {FLAGS.quality}:')
    lines.append(f'  PSNR {psnr:.2f} dB against those decoded here')
  accelerator_check.save_checkpoint(output)
  sizes = {
    path.relative_to(output): path.stat().st_size
    for path in sorted(output.rglob('*'))
    if path.is_file()
  }
  lines += [f'{size / 2**20:8.2f} MiB  {path}' for path, size in sizes.items()]
  total = sum(sizes.values())
  lines.append(f'{total / 2**20:8.2f} MiB  in all')
  if total > _MOST_BYTES:
    raise errors.InputError(
      f'{output} has {total / 2**20:.1f} MiB with --quality={FLAGS.quality};'
      f' accepted: at most {_MOST_BYTES >> 20}, so a lower quality.'
    )
  return '\n'.join(lines)


def download(folder: pathlib.Path, python: str) -> None:
  """Downloads the wheels, without those that they need in turn."""
  folder.mkdir(exist_ok=True)
  for old in folder.glob('*.whl'):  # Two versions would stop the installation.
    old.unlink()
  command = [sys.executable, '-m', 'pip', 'download', '-q', '--no-deps']
  command += ['--only-binary=:all:', '--implementation=cp']
  command += [f'--python-version={python}', f'--dest={folder}']
  command += [f'--platform={platform}' for platform in _PLATFORMS]
  done = subprocess.run(
    [*command, *WHEELS], capture_output=True, text=True, check=False
  )
  if done.returncode:
    raise errors.InputError(
      f'pip cannot download {", ".join(WHEELS)} ({done.stderr[-300:]});'
      ' accepted: a machine with a network, or --nowheels.'
    )


def pack(
  folder: pathlib.Path, output: pathlib.Path, quality: int
) -> tuple[float, int]:
  """Writes faces.npz; returns what its images have lost, and their number.

  Raises:
    InputError: if the folder is not whole.
  """
  source = celeba.find_source(folder, IMAGE_SIZE, False)
  encoded, squares, attributes, is_validation = [], [], [], []
  encode = functools.partial(_encode, quality)
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for split in _SPLITS:
      faces = [*source.generate(split)]
      for content, error in pool.map(encode, faces):
        encoded.append(content)
        squares.append(error)
      attributes += [face.attributes for face in faces]
      is_validation += [split == 'validation'] * len(faces)
  write(
    output / 'faces.npz',
    encoded,
    np.stack(attributes),
    np.array(is_validation),
    source.attribute_names,
  )
  return float(10 * np.log10(255**2 / np.mean(squares))), len(encoded)


def write(
  path: pathlib.Path,
  encoded: Sequence[bytes],
  attributes: np.ndarray,
  is_validation: np.ndarray,
  names: Sequence[str],
) -> None:
  """Writes images as one array of bytes: a file each would double them."""
  file = io.BytesIO()
  np.savez(
    file,
    content=np.frombuffer(b''.join(encoded), np.uint8),
    ends=np.cumsum([len(content) for content in encoded]),
    attributes=attributes,
    is_validation=is_validation,
    names=np.array(names),
  )
  files.write_whole(path, file.getvalue())


def _encode(quality: int, face: registry.Face) -> tuple[bytes, float]:
  """Encodes a face; returns also its mean squared error."""
  file = io.BytesIO()
  Image.fromarray(face.image).save(file, 'WEBP', quality=quality, method=6)
  with Image.open(file) as image:
    decoded = np.asarray(image.convert('RGB'), np.float64)
  return file.getvalue(), float(np.mean(np.square(decoded - face.image)))


if __name__ == '__main__':
  timing.run(main, define_flags)
