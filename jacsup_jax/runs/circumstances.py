"""What the bits of a run depend on besides its flags and its data.

A manifest has it, so that who repeats a run knows whether to expect the same
bits. On a CPU sums are split among threads, and what a processor has of vector
instructions decides how they are compiled: both decide rounding.
"""

from collections.abc import Mapping
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
from typing import Any

import jax

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
# Entries of a manifest; where all are the same, so are the bits.
ENTRIES = (
    'versions', 'code', 'devices', 'processes', 'machine', 'environment',
)  # pyformat: disable
_VARIABLES = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'NVIDIA_TF32_OVERRIDE')
# Of JAX's variables, those that say where things are kept or who meets where.
_OF_PLACES = (
    'JAX_COMPILATION_CACHE', 'JAX_PERSISTENT_CACHE', 'JAX_COORDINATOR',
    'JAX_LOG',
)  # pyformat: disable
_SETTINGS = (
    'jax_enable_x64', 'jax_default_matmul_precision', 'jax_default_prng_impl',
    'jax_threefry_partitionable',
)  # pyformat: disable
# Of a processor's features, those that compilers choose instructions by.
_VECTORS = ('sse', 'avx', 'fma', 'f16c', 'amx', 'asimd', 'sve', 'bf16')


def describe_versions() -> dict[str, str]:
  """Returns the versions of Python and of the packages that compute."""
  versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
  return {'python': platform.python_version(), **versions}


def hash_code(*packages: str) -> str:
  """Returns the sha256 of all Python files of packages, with their names.

  Args:
    packages: that can be imported, as directories.

  Returns:
    64 hexadecimal digits, the same wherever the packages are installed.
  """
  digest = hashlib.sha256()
  for package in packages:
    [root] = importlib.util.find_spec(package).submodule_search_locations
    root = pathlib.Path(root)
    # The order in which a directory is listed is not that of names.
    for path in sorted(root.rglob('*.py'), key=lambda p: p.parts):
      content = path.read_bytes()
      name = f'{package}/{path.relative_to(root).as_posix()}'
      digest.update(f'{name} {len(content)}\n'.encode())
      digest.update(content)
  return digest.hexdigest()


def describe_environment() -> dict[str, Any]:
  """Returns variables of the environment and settings that decide numbers."""
  variables = {
      name: value
      for name, value in sorted(os.environ.items())
      if name in _VARIABLES
      or (name.startswith('JAX_') and not name.startswith(_OF_PLACES))
  }
  settings = {
      name: getattr(jax.config, name)
      for name in _SETTINGS
      if hasattr(jax.config, name)
  }
  return {**variables, **settings}


def describe_machine() -> dict[str, Any]:
  """Returns the processor, its threads, the system and its mathematics."""
  processor = _read_processor()
  features = processor.get('flags', processor.get('Features', '')).split()
  return {
      # Virtual machines may hide the name, and not the numbers.
      'processor': ' '.join(
          processor[name]
          for name in ('model name', 'cpu family', 'model', 'stepping')
          if name in processor
      ) or platform.processor(),
      'vectors': ' '.join(sorted(f for f in features if _is_vector(f))),
      'threads': count_threads(),
      'system': f'{platform.system()} {platform.machine()}',
      'libc': ' '.join(platform.libc_ver()).strip(),
  }


def count_threads() -> int:
  """Returns among how many threads XLA spreads a computation on the CPU."""
  # As XLA decides it.
  for name in ('PJRT_NPROC', 'NPROC'):
    text = os.environ.get(name, '')
    if text.isdecimal() and int(text):
      return int(text)
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def compare(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
  """Compares the circumstances of two runs.

  Args:
    there: entries of a manifest; what one lacks, as older ones do, is left out.
    here: the same.

  Returns:
    A line for each value of `ENTRIES` that differs.
  """
  lines = []
  for entry in ENTRIES:
    if entry not in there or entry not in here:
      continue
    a, b = (
        x if isinstance(x, Mapping) else {entry: x}
        for x in (there[entry], here[entry])
    )
    lines += [
        f'{name}: {_show(name, a)} there, {_show(name, b)} here'
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name)
    ]
  return lines


def _show(name, values):
  value = values.get(name)
  return value[:12] if name == 'code' and isinstance(value, str) else value


def _is_vector(feature):
  return any(part in feature for part in _VECTORS)


def _read_processor():
  """Returns the entries of the first processor, where Linux tells them."""
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8')
  except (OSError, ValueError):
    return {}
  lines = (line.partition(':') for line in text.split('\n\n')[0].splitlines())
  return {name.strip(): value.strip() for name, _, value in lines}
