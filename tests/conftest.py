"""Settings of all tests."""

import atexit
import os
import shutil
import tempfile

# Most of the time is compilation. Before a release, 0: programs as users have
# them.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

# One cache of compiled programs for all workers and child processes of a
# session: each program is compiled once. It starts empty and is deleted.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _cache = tempfile.mkdtemp(prefix='jacsup_jax_tests_')
  atexit.register(shutil.rmtree, _cache, ignore_errors=True)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _cache
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '0'

import jax  # noqa: E402

# A missing axis is an error, not a silent broadcast.
jax.config.update('jax_numpy_rank_promotion', 'raise')
