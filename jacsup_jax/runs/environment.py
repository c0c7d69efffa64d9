"""Versions, devices and settings that decide the last bits of a run."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

from jacsup_jax.training import devices

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
_VARIABLES = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'NVIDIA_TF32_OVERRIDE')


def describe() -> dict[str, Any]:
  """Returns `versions`, `devices` and `environment` of the manifest."""
  versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
  return {
    'versions': {'python': platform.python_version(), **versions},
    'devices': devices.describe_devices(),
    'environment': {
      'git_commit': _read_commit(),
      'system': f'{platform.system()} {platform.machine()}',
      'cpu_threads': os.cpu_count(),
      **{n: os.environ[n] for n in _VARIABLES if n in os.environ},
    },
  }


def _read_commit():
  """Returns the commit of this clone, with '+' if files have changed."""
  root = pathlib.Path(__file__).parents[2]
  if not (root / '.git').exists():  # An installed package.
    return None
  command = 'git describe --always --exclude=* --abbrev=40 --dirty=+'
  try:
    return subprocess.run(
      command.split(), cwd=root, capture_output=True, check=True, text=True,
      timeout=5,
    ).stdout.strip()  # fmt: skip
  except (OSError, subprocess.SubprocessError):
    return None
