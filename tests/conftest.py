"""Settings of all tests."""

import atexit
import os
import shutil
import signal
import tempfile

# Most of the time is compilation, which takes half as long with this.
_FLAGS = (
  '--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters'
  ' --xla_cpu_parallel_codegen_split_count=1'
)
os.environ.setdefault('XLA_FLAGS', _FLAGS)
# And half as long again without most optimizations: tests hardly run.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

# What a shell ignores for jobs in the background, tests would ignore, too.
for _number, _handler in (
  (signal.SIGINT, signal.default_int_handler),
  (signal.SIGHUP, signal.SIG_DFL),
):
  if signal.getsignal(_number) == signal.SIG_IGN:
    signal.signal(_number, _handler)

# One cache of compiled programs for all workers and child processes of a
# session: each program is compiled once. It starts empty and is deleted.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _cache = tempfile.mkdtemp(prefix='jacsup_jax_tests_')
  atexit.register(shutil.rmtree, _cache, ignore_errors=True)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _cache
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '0'

import jax  # noqa: E402
import pytest  # noqa: E402
from xdist import scheduler  # noqa: E402

# A missing axis is an error, not a silent broadcast.
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(autouse=True, scope='module')
def _drop_programs():
  """Frees the programs that a file compiled.

  A process may map 65,530 pieces of memory on Linux, and a program needs
  dozens; if one process runs all tests, it crashes without this.
  """
  yield
  jax.clear_caches()


_SHARING_RUNS = (
  *('mnist_test.py', 'evaluate_test.py', 'celeba_test.py', 'compare_test.py'),
)
# Files of few tests that take long: at the end one process would wait for them.
_FIRST = (
  *_SHARING_RUNS,
  *('accelerator_test.py', 'devices_test.py', 'svhn_test.py', 'api_test.py'),
)


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: not item.path.name.endswith(_FIRST))


class _Scheduling(scheduler.LoadFileScheduling):
  """Gives a process whole files, and one of them all that share runs."""

  def __init__(self, config, log):
    config.option.loadscopereorder = False
    super().__init__(config, log)

  def _split_scope(self, nodeid):
    path = nodeid.partition('::')[0]
    return 'runs' if path.endswith(_SHARING_RUNS) else path


def pytest_xdist_make_scheduler(config, log):
  return _Scheduling(config, log)
