"""Checks that an accelerator gives the right numbers; see `accelerator`.

Values and gradients of every term against float64 on the host, jit against
pmap, the forms of the convolutions, checkpoints, and determinism.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import problems
from benchmarks import records as records_lib
from jacsup_jax.core import codes
from jacsup_jax.models import convolutions
from jacsup_jax.models import model as models
from jacsup_jax.runs import checkpoints
from jacsup_jax.training import devices
from jacsup_jax.training import loop
from jacsup_jax.training import objectives

_CHECKPOINT = 'checkpoint.zip'


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is computed."""

  image_size: int = 32
  batch_size: int = 32
  num_steps: int = 4
  # What terms are compared for, and in which precisions; for what jit is
  # compared with pmap.
  steps: tuple[str, ...] = ('digits', *problems.FACE_STEPS)
  precisions: tuple[str, ...] = ('float32', 'bfloat16', 'TF32')
  stepped: tuple[str, ...] = ('digits', 'phase_two')
  compiles: int = 2  # of the same steps, to see whether they differ
  faces: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  digits: Mapping[str, Any] = dataclasses.field(default_factory=dict)


REHEARSAL = Sizes(
  image_size=8,
  batch_size=8,
  num_steps=2,
  steps=('phase_two',),
  precisions=('float32',),
  stepped=('digits',),
  compiles=1,
  faces=problems.TINY_FACES,
  digits=problems.TINY_DIGITS,
)


def run(
  records: records_lib.Records, sizes: Sizes, bundle: pathlib.Path | None
) -> None:
  """Checks all; errors and times are recorded, nothing is refused.

  Programs are compiled side by side: on a GPU that takes most of the time.
  """
  make = functools.partial(_make, sizes)
  work: dict[str, Callable[[], dict[str, Any]]] = {}
  for name in sizes.steps:
    # The second update of a step has an objective of its own.
    objective = 'cycle' if name == 'phase_two' else name
    work[f'check/terms of {objective}'] = functools.partial(
      compare_terms, make(name), objective, sizes.precisions
    )
  work['check/convolutions'] = functools.partial(
    _check_convolutions, sizes.precisions
  )
  for name in sizes.stepped:
    work[f'check/jit against pmap, {name}'] = functools.partial(
      _compare_modes, make(name), sizes.num_steps
    )
  work['check/checkpoint saved here'] = functools.partial(
    save_checkpoint, records.folder
  )
  if bundle is not None and (bundle / _CHECKPOINT).exists():
    work['check/checkpoint of the bundle'] = functools.partial(
      restore_checkpoint, bundle
    )
  work['check/deterministic'] = functools.partial(
    _check_deterministic,
    make(sizes.stepped[-1]),
    sizes.num_steps,
    sizes.compiles,
  )
  records.measure_all(work)


def _make(sizes, name):
  """Makes a step on digits or faces."""
  if name == 'digits':
    return problems.make_digits(
      sizes.batch_size, 10, 1, is_cached=False, **sizes.digits
    )
  return problems.make_faces(
    name, sizes.image_size, sizes.batch_size, **sizes.faces
  )


def compare_terms(
  problem: problems.Problem, objective: str, precisions: Sequence[str]
) -> dict[str, Any]:
  """Compares each term and its gradient with float64 on the host.

  Errors are relative; those of gradients by their norms.
  """
  host = jax.local_devices(backend='cpu')[0]
  with jax.enable_x64(True), jax.default_device(host):
    exact = _compute_terms(problem, objective, jnp.float64, 'highest', host)
  result: dict[str, Any] = {}
  for precision in precisions:
    ours = _compute_terms(problem, objective, *problems.PRECISIONS[precision])
    values, gradients = {}, {}
    for name, (value, gradient) in exact.items():
      found, found_gradient = ours[name]
      values[name] = abs(found - value) / max(abs(value), 1e-30)
      gradients[name] = _distance(found_gradient, gradient)
    result |= {
      f'largest error of a value in {precision}': max(values.values()),
      f'of a gradient in {precision}': max(gradients.values()),
      precision: {'values': values, 'gradients': gradients},
    }
  return result


def _compute_terms(problem, objective, dtype, precision, device=None):
  """Computes terms and their gradients, as float64 of NumPy by name."""
  step = problem.step
  size = step.batch_size
  wide = np.float64 if dtype == jnp.float64 else np.float32
  images = problem.images[:size].astype(np.float64) / 255
  if problem.attributes is not None:
    images = 2 * images - 1
  permutation = np.random.default_rng(1).permutation(size).astype(np.int32)
  args = (problem.variables, problem.teacher, images, problem.attributes)
  args = jax.tree.map(lambda x: np.asarray(x, wide), args)
  args = jax.device_put((*args, permutation[np.newaxis]), device)
  compute = jax.jit(_make_gradients(problem, objective, dtype))
  found = {}
  with jax.default_matmul_precision(precision):
    names = jax.eval_shape(compute, *args, 0)[0]
    # One program: which term is differentiated is a number to it.
    for i, name in enumerate(sorted(names)):
      terms, gradient = jax.device_get(compute(*args, i))
      found[name] = float(terms[name]), gradient
  return found


def _make_gradients(problem, objective, dtype):
  """Makes `(..., index) -> (terms, gradient of one of them)`."""
  step = problem.step
  module = step.module.clone(dtype=dtype)
  teacher_module = step.teacher_module and step.teacher_module.clone(
    dtype=dtype
  )
  if objective == 'digits':
    compute = dataclasses.replace(
      step, module=module, teacher_module=teacher_module
    ).make_objective()
  else:
    is_cycle = objective == 'cycle'
    compute = functools.partial(
      objectives.cycle_objective
      if is_cycle
      else objectives.attribute_objective,
      module=module,
      weights=step.weights,
    )

  def gradients(variables, teacher, images, attributes, permutations, index):
    inputs = objectives.Inputs(images, permutations, attributes=attributes)
    if teacher_module is not None:
      model = models.Model(teacher_module, **teacher)
      outputs = objectives.compute_teacher_outputs(
        model.encode, model.decode, images, permutations
      )
      inputs = inputs._replace(teacher=outputs)

    def compute_terms(params):
      return compute(params, variables['batch_stats'], inputs)[1][0]

    terms, pull_back = jax.vjp(compute_terms, variables['params'])
    chosen = {
      name: (index == i) * jnp.ones_like(terms[name])
      for i, name in enumerate(sorted(terms))
    }
    return terms, pull_back(chosen)[0]

  return gradients


def _check_convolutions(precisions):
  """Compares all forms of the convolutions with float64 on the host."""
  rng = np.random.default_rng(0)
  shapes = ((8, 16, 16, 24), (8, 8, 8, 32), (4, 4, 24, 32))
  args = [rng.standard_normal(shape) for shape in shapes]

  def compute(x, y, kernel):
    found = {}
    for form, operands in (
      (convolutions.down_natively, (x, kernel)),
      (convolutions.down_by_blocks, (x, kernel)),
      (convolutions.down_by_products, (x, kernel)),
      (convolutions.adjoint_natively, (y, kernel)),
      (convolutions.adjoint_by_blocks, (y, kernel)),
      (convolutions.adjoint_by_products, (y, kernel)),
      (convolutions.kernel_gradient_natively, (x, y)),
      (convolutions.kernel_gradient_transposed, (x, y)),
      (convolutions.kernel_gradient_by_products, (x, y)),
    ):
      found[form.__name__] = form(*operands)
    return found

  host = jax.local_devices(backend='cpu')[0]
  with jax.enable_x64(True), jax.default_device(host):
    exact = jax.device_get(jax.jit(compute)(*args))
  result = {}
  for name in precisions:
    dtype, precision = problems.PRECISIONS[name]
    with jax.default_matmul_precision(precision):
      own = jax.jit(compute)(*(jnp.asarray(x, dtype) for x in args))
    own = jax.tree.map(lambda x: np.asarray(x, np.float64), own)
    errors = {form: _distance(own[form], exact[form]) for form in exact}
    result |= {f'largest error in {name}': max(errors.values()), name: errors}
  return result


def _compare_modes(problem, num_steps):
  """Takes the same steps by jit and by pmap."""
  found = {}
  for mode in ('jit', 'pmap'):
    name = devices.axis_name(mode)
    step = dataclasses.replace(
      problem.step, module=problem.step.module.clone(axis_name=name)
    )
    if step.teacher_module is not None:
      teacher = step.teacher_module.clone(axis_name=name)
      step = dataclasses.replace(step, teacher_module=teacher)
    compiled = devices.compile_epoch(mode, step.batch_size, step)
    state = jax.tree.map(jnp.copy, problem.state)
    with jax.default_matmul_precision('highest'):
      found[mode] = jax.device_get(
        compiled(state, problem.constants, _list_rows(problem, num_steps))
      )
  (state, metrics), (other, other_metrics) = found['jit'], found['pmap']
  return {
    'steps': num_steps,
    'distance of parameters': _distance(other.params, state.params),
    'largest distance of a term': max(
      _distance(other_metrics[name], metrics[name]) for name in metrics
    ),
  }


def _list_rows(problem, num_steps):
  """Lists the same batch for each step."""
  row = np.arange(problem.step.batch_size, dtype=np.int32)
  return np.tile(row, (num_steps, 1))


def _check_deterministic(problem, num_steps, compiles):
  """Compiles and runs the same steps again, with and without the flag."""
  args = (
    problem.state,
    problem.constants,
    _list_rows(problem, num_steps),
    loop.make_bounds(),
  )
  lower = jax.jit(problem.step).lower(*args)
  result = {}
  for is_asked in (True, False)[:compiles]:
    options = {'xla_gpu_deterministic_ops': is_asked}
    hashes = set()
    for _ in range(compiles):
      compiled = lower.compile(compiler_options=options)
      for _ in range(2):
        state, _ = compiled(*args)
        hashes.add(codes.hash_tree(jax.device_get(state.params)))
    name = 'with' if is_asked else 'without'
    result[f'same bits {name} --deterministic'] = len(hashes) == 1
  return result


def _make_saved():
  """Makes the small problem whose state is saved, the same everywhere."""
  return problems.make_digits(
    8, 3, 1, is_cached=False, image_shape=(6, 6, 1), widths=(16, 8)
  )


def save_checkpoint(folder: pathlib.Path) -> dict[str, Any]:
  """Saves a state of the device as FOLDER/checkpoint.zip, and restores it."""
  device_state = jax.tree.map(lambda x: x + 1, _make_saved().state)
  state = jax.device_get(device_state)
  with tempfile.TemporaryDirectory() as temporary:
    root = pathlib.Path(temporary)
    with checkpoints.StageCheckpoints(root / 'stage') as saved:
      sha256 = saved.save(int(state.step), state, {})
      restored = saved.restore_last(sha256, state)
    (root / 'sha256').write_text(sha256)
    path = shutil.make_archive(str(folder / 'checkpoint'), 'zip', root)
  same = codes.hash_tree(restored._asdict()) == codes.hash_tree(state._asdict())
  return {
    'restored to the same bits': same,
    'sha256': sha256[:12],
    'bytes': pathlib.Path(path).stat().st_size,
  }


def restore_checkpoint(folder: pathlib.Path) -> dict[str, Any]:
  """Restores FOLDER/checkpoint.zip, saved on another machine."""
  template = jax.device_get(_make_saved().state)
  with tempfile.TemporaryDirectory() as temporary:
    root = pathlib.Path(temporary)
    shutil.unpack_archive(folder / _CHECKPOINT, root)
    sha256 = (root / 'sha256').read_text()
    with checkpoints.StageCheckpoints(root / 'stage') as saved:
      state = saved.restore_last(sha256, template)
  # It checks the hash of the parameters, and of all that it read.
  return {'restored': True, 'sha256': sha256[:12], 'step': int(state.step)}


def _distance(found, exact) -> float:
  """Returns the norm of a difference of trees, relative to the second."""
  square: Callable[..., float] = lambda tree: sum(
    float(np.sum(np.square(x))) for x in jax.tree.leaves(tree)
  )
  difference = jax.tree.map(
    lambda a, b: np.asarray(a, np.float64) - np.asarray(b, np.float64),
    found,
    exact,
  )
  return float(np.sqrt(square(difference) / max(square(exact), 1e-60)))
