"""Measures an NVIDIA GPU: right numbers, speed beside PyTorch, real faces.

  python -m benchmarks.accelerator --part=check --output=FOLDER
  python -m benchmarks.accelerator --part=steps --output=FOLDER
  python -m benchmarks.accelerator --part=faces --output=FOLDER --bundle=BUNDLE

Each result is a line of FOLDER/accelerator.jsonl as soon as there is one; the
same command resumes after those that are there. `benchmarks.bundle` makes the
BUNDLE for a machine without a network.
"""

import importlib
import os
import pathlib
import signal

# PyTorch needs memory beside JAX; read when JAX first uses the GPU.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

from absl import flags  # noqa: E402
import jax  # noqa: E402

from benchmarks import records as records_lib  # noqa: E402
from benchmarks import timing  # noqa: E402
from jacsup_jax.core import errors  # noqa: E402
from jacsup_jax.data import files  # noqa: E402

FLAGS = flags.FLAGS
# Seconds that each part takes by default.
PARTS = {'check': 60, 'steps': 240, 'faces': 540}
# Versions of JAX with which this has run (0.12: the rehearsal).
TESTED = ('0.10.', '0.11.', '0.12.')
_REHEARSAL_SECONDS = 60


def define_flags() -> None:
  """Defines the flags; not on import, as tests import this module."""
  flags.DEFINE_multi_enum(
    'part',
    list(PARTS),
    list(PARTS),
    'What to measure: check, numbers and gradients against float64 on the'
    ' host; steps, the speed of training steps, in turn with PyTorch; faces,'
    ' a whole run on the faces of --bundle. Default: all.',
  )
  flags.DEFINE_string('output', None, 'Folder of the results.', required=True)
  flags.DEFINE_string(
    'bundle', None, 'Folder that benchmarks.bundle made, with the faces.'
  )
  flags.DEFINE_float(
    'seconds',
    None,
    'Limit of time of each part; default: '
    + ', '.join(f'{name} {limit}' for name, limit in PARTS.items()),
    lower_bound=1,
  )
  flags.DEFINE_boolean(
    'rehearse', False, 'Run everything in tiny sizes, on any device.'
  )


def main() -> str:
  """Runs the parts that the flags ask for; returns where the results are."""
  rehearse, bundle = FLAGS.rehearse, FLAGS.bundle
  if bundle is not None:
    bundle = files.expand_path('--bundle', bundle)
  output = files.expand_path('--output', FLAGS.output)
  if rehearse:
    _compile_fast()
  card = check_machine(rehearse)
  if 'faces' in FLAGS.part and not rehearse:
    _check_bundle(bundle)
  for name in FLAGS.part:
    seconds = FLAGS.seconds or PARTS[name]
    if rehearse:
      seconds = FLAGS.seconds or _REHEARSAL_SECONDS
    run_part(name, output, card, seconds, rehearse, bundle)
  return f'results: {output / "accelerator.md"}'


def run_part(
  name: str,
  output: pathlib.Path,
  card: str,
  seconds: float,
  rehearse: bool,
  bundle: pathlib.Path | None,
) -> None:
  """Runs a part until it is complete, its time is over or a signal comes."""
  records = records_lib.Records(output, card, seconds)
  part = importlib.import_module(f'benchmarks.accelerator_{name}')
  sizes = part.Sizes() if not rehearse else part.REHEARSAL

  def end(number, unused_frame):
    raise records_lib.Ended(signal.Signals(number).name)

  before = {
    number: signal.signal(number, end)
    for number in (signal.SIGTERM, signal.SIGALRM)
  }
  # Parts look at the time between measurements; this ends a single long one.
  signal.setitimer(signal.ITIMER_REAL, seconds * 1.05)
  try:
    part.run(records, sizes, bundle)
  except records_lib.Ended as ended:
    records.skip(f'{name}/ended', f'by {ended}; what was measured is kept')
    if str(ended) == 'SIGTERM':
      raise SystemExit(143) from ended
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
      signal.signal(number, handler)
    records.write()


def check_machine(rehearse: bool) -> str:
  """Returns the name of the card; InputError if it cannot be measured."""
  device = jax.devices()[0]
  if rehearse:
    return f'rehearsal on {device.device_kind}'
  if not jax.__version__.startswith(TESTED):
    raise errors.InputError(
      f'JAX {jax.__version__}; accepted: {"x and ".join(TESTED)}x, with which'
      ' this benchmark has run, or --rehearse.'
    )
  if device.platform != 'gpu':
    raise errors.InputError(
      f'JAX {jax.__version__} is on {device.platform}; accepted: an NVIDIA'
      ' GPU and jax[cuda13] or jax[cuda12], or --rehearse without a GPU.'
    )
  return device.device_kind


def _compile_fast():
  """Makes XLA compile fast instead of well: a rehearsal hardly runs."""
  jax.config.update('jax_disable_most_optimizations', True)
  jax.config.update('jax_enable_compilation_cache', False)
  # A third of the time on the CPU; an XLA that does not know it ignores it.
  option = '--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters'
  found = os.environ.get('XLA_FLAGS', '')
  os.environ['XLA_FLAGS'] = f'{found} {option}'.strip()


def _check_bundle(bundle):
  if not bundle or not (bundle / 'faces.npz').is_file():
    raise errors.InputError(
      f'--part=faces with --bundle={bundle}; accepted: a folder with the'
      ' faces.npz of `python -m benchmarks.bundle`.'
    )


if __name__ == '__main__':
  timing.run(main, define_flags)
