"""Settings of all tests."""

import atexit
import shutil
import tempfile

import jax
import pytest

from experiments import mnist
from experiments import svhn
from jacsup_jax.training import compilation

# A missing axis is an error, not a silent broadcast.
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Many tests run the same small program again, as a killed run does that goes
# on: each is compiled once in a session.
_CACHE = tempfile.mkdtemp(prefix='jacsup_jax_tests_')
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
compilation.keep_programs(_CACHE)
# Binaries define their flags when they run; names are shared between them.
mnist.define_flags()


@pytest.fixture(scope='session')
def svhn_flags():
  """The flags that experiments.mnist, whose are defined, has not."""
  svhn.define_model_flags()
