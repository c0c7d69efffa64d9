"""Tests of experiments.benchmark, its parts, and PyTorch's steps."""

import dataclasses
import functools
import importlib.util
import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import killing
import numpy as np
import pytest

import experiments
from experiments import benchmark_digits
from experiments import benchmark_faces
from experiments import benchmark_grid
from experiments import face_steps
from experiments import paper_numbers
from experiments import timing
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.models import layers
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import objectives
from jacsup_jax.training import steps as training

# Two pixels, three hidden units, a code of one factor and one nuisance unit.
_TINY = networks.MlpAutoencoder(1, 1, image_shape=(1, 2, 1), widths=(3,))
_TINY_TEACHER = _TINY.clone(num_factors=2, nuisance_dim=0)

_HAS_TORCH = importlib.util.find_spec('torch') is not None


def _make_tiny_step(name):
  make_model = lambda channels: networks.FaceAutoencoder(
      2, channels, image_size=16, first_width=4, last_width=6
  )
  if name == 'student':
    return face_steps.FaceStep(name, make_model(5), make_model(3))
  return face_steps.FaceStep(name, make_model(3), None)


# Values.


def test_flops_of_a_product():
  # [4, 5] x [5, 6] in three layouts: 2 * 4 * 5 * 6.
  assert timing.Product((4, 5), (5, 6), (1, 0)).flops == 240
  assert timing.Product((5, 4), (5, 6), (0, 0)).flops == 240
  assert timing.Product((4, 5), (6, 5), (1, 1)).flops == 240


def test_student_products_of_a_tiny_model():
  # Encoder 2-3-2 on 5 images, decoder 2-3-2 on 10 codes.
  assert benchmark_digits.student_products(_TINY, 5) == [
      timing.Product((5, 2), (2, 3), (1, 0)),
      timing.Product((5, 3), (3, 2), (1, 0)),
      timing.Product((10, 2), (2, 3), (1, 0)),
      timing.Product((10, 3), (3, 2), (1, 0)),
      # Weights, then inputs, of the decoder's layers.
      timing.Product((10, 3), (10, 2), (0, 0)),
      timing.Product((10, 2), (3, 2), (1, 1)),
      timing.Product((10, 2), (10, 3), (0, 0)),
      timing.Product((10, 3), (2, 3), (1, 1)),
      # Of the encoder's, without the gradient of the images.
      timing.Product((5, 3), (5, 2), (0, 0)),
      timing.Product((5, 2), (3, 2), (1, 1)),
      timing.Product((5, 2), (5, 3), (0, 0)),
  ]


def test_flops_of_a_tiny_model():
  # 12 weights in each half. Encoder: 2 * 5 * 12 forward, as much for the
  # weights, 2 * 5 * 6 for the inputs of its second layer: 300. Decoder, twice
  # the batch: 3 * 2 * 10 * 12 = 720.
  flops = sum(p.flops for p in benchmark_digits.student_products(_TINY, 5))
  assert flops == 1020
  # Forward alone, both halves on the batch: 2 * 5 * 24.
  products = benchmark_digits.teacher_products(_TINY_TEACHER, 5)
  flops = sum(product.flops for product in products)
  assert flops == 240


def test_table():
  rows = [
      timing.Row('ours', [4.0, 2.0, 3.0], 500_000_000, [2.0, 1.5, 1.5]),
      timing.Row('theirs', [9.0, 8.0, 10.0]),
  ]
  # 128 images in 3 ms; shares 0.5, 0.75 and 0.5.
  assert timing.format_table(rows, 128).splitlines() == [
      '                      ms/step  fastest  images/s  GFLOP limit ms share',
      'ours                     3.00     2.00     42667  0.500     1.50  0.50',
      'theirs                   9.00     8.00     14222      -        -     -',
  ]


def test_comparison_is_of_the_same_repeat():
  # Ratios 2, 3, 4: a slow second repeat slows both.
  assert timing.compare([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]) == 3.0


def test_missing_torch_names_the_command(monkeypatch):
  class NoTorch:

    def find_spec(self, name, path=None, target=None):
      if name == 'torch':
        raise ModuleNotFoundError("No module named 'torch'", name='torch')

  monkeypatch.setattr(sys, 'meta_path', [NoTorch(), *sys.meta_path])
  for name in ('torch_step', 'torch_face_step'):
    monkeypatch.delitem(sys.modules, f'experiments.{name}', raising=False)
    monkeypatch.delattr(experiments, name, raising=False)
  monkeypatch.delitem(sys.modules, 'torch', raising=False)
  with pytest.raises(errors.InputError, match='pip install torch$'):
    benchmark_digits.measure_mnist_step('jit', 4, 1, 1, against='torch')
  with pytest.raises(errors.InputError, match='pip install torch$'):
    benchmark_faces.measure_celeba_step(
        _make_tiny_step('phase_one'), 'jit', 4, 1, 'torch'
    )


@pytest.mark.parametrize(
    'args, parts',
    [
        (('--what=start', '--image_size=0'), ('--image_size=0', 'from 8')),
        (('--what=flips', '--batch_size=4'), ('--batch_size=4', 'flips')),
        (('--what=input', '--against=torch'), ('--what=input', 'mnist_step')),
    ],
)
def test_mistakes_are_one_line(args, parts):
  done = subprocess.run(
      [sys.executable, '-m', 'experiments.benchmark', *args],
      cwd=killing.ROOT,
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1 and done.stderr.startswith('error: ')
  for part in parts:
    assert part in done.stderr


# Invariants.


def test_listed_products_are_those_that_the_step_has():
  """The gradient of the real objective has the products that are listed."""
  batch_size = 64
  model = networks.MlpAutoencoder(11, 1)
  variables = networks.init_variables(model, 0, model.image_shape)
  images = jnp.zeros((batch_size, *model.image_shape))
  inputs = training.StepInputs(
      images,
      codes.TeacherOutputs(jnp.zeros((batch_size, 11)), images, images),
      jnp.arange(batch_size),
  )
  objective = training.make_student_objective(model, config.LossWeights())
  jaxpr = jax.make_jaxpr(jax.grad(objective, has_aux=True))(
      variables['params'], {}, inputs
  )
  # All but the cross-covariance's, which are between columns of the batch.
  xcov = 2 * batch_size * 11
  found = sorted(flops for flops in _dot_flops(jaxpr.jaxpr) if flops > xcov)
  products = benchmark_digits.student_products(model, batch_size)
  listed = [product.flops for product in products]
  # The encoder's last layer, forward and backward, is padded; the limit is not.
  code = 2 * batch_size * model.widths[-1] * model.code_dim
  columns = layers.count_code_columns(model.code_dim)
  assert listed.count(code) == 3
  padded = [x * columns // model.code_dim if x == code else x for x in listed]
  assert found == sorted(padded)


def test_products_program_multiplies():
  products = benchmark_digits.student_products(_TINY, 5)
  results = timing.make_products_fn(products, num_steps=2)()
  # The first product, by another library.
  rng = np.random.default_rng(0)
  left, right = (
      rng.standard_normal(shape, np.float32) for shape in ((5, 2), (2, 3))
  )
  # Sums of two float32 products.
  np.testing.assert_allclose(results[0], left @ right, rtol=1e-5, atol=1e-6)
  assert [x.shape for x in results[4:6]] == [(3, 2), (10, 3)]


def test_programs_are_measured_in_turn(monkeypatch):
  seconds = itertools.count(0.0)
  monkeypatch.setattr(timing.time, 'perf_counter', lambda: next(seconds))
  called = []
  programs = {name: lambda name=name: called.append(name) for name in 'ab'}
  times = timing.measure(programs, repeats=2, num_steps=100)
  assert called == ['a', 'b', 'a', 'b', 'a', 'b']
  # One second for 100 steps.
  assert times == {'a': [10.0, 10.0], 'b': [10.0, 10.0]}


@pytest.mark.parametrize(
    'mode', ['jit', pytest.param('pmap', marks=pytest.mark.slow)]
)
def test_real_step_is_measured(monkeypatch, mode):
  monkeypatch.setattr(benchmark_digits, 'NUM_STEPS', 2)
  size = 4 * jax.device_count()
  against = 'torch' if _HAS_TORCH and mode == 'jit' else None
  lines = benchmark_digits.measure_mnist_step(
      mode, size, 1, 1, against
  ).splitlines()
  assert f'batch {size}, float32, {mode}' in lines[0]
  assert len(lines) == 4 + 3 * (against is not None)
  assert lines[-1].startswith('PyTorch / ours: ' if against else 'teacher in')


@pytest.mark.slow
def test_grid_is_measured_against_its_members(monkeypatch):
  monkeypatch.setattr(benchmark_grid, 'NUM_STEPS', 2)
  rows = paper_numbers.TABLES[4].rows[3:5]
  few = dataclasses.replace(paper_numbers.TABLES[4], rows=rows)
  monkeypatch.setitem(paper_numbers.TABLES, 4, few)
  size = 4 * jax.device_count()
  heading, _, *rows, ratio = benchmark_grid.measure_mnist_grid(
      'jit', size, 2, 1
  ).splitlines()
  assert heading.startswith('Student steps of 2 models: k = 2, d = 2')
  assert [row[:10].strip() for row in rows] == ['at once', 'one by one']
  assert float(ratio.removeprefix('One by one / at once: ')[:-1]) > 0


@pytest.mark.parametrize('name', face_steps.STEPS)
def test_step_on_faces_is_measured(monkeypatch, name):
  monkeypatch.setattr(benchmark_faces, 'NUM_STEPS', 2)
  against = 'torch' if _HAS_TORCH else None
  step = _make_tiny_step(name)
  lines = benchmark_faces.measure_celeba_step(
      step, 'jit', 4, 1, against
  ).splitlines()
  dim = 20 if name == 'student' else 12
  assert f'{name}, 16x16 pixels, k = 2, d = {dim}, batch 4, float32' in lines[0]
  assert lines[2].startswith('ours ')
  assert len(lines) == 3 + 2 * (against is not None)
  if against:
    assert lines[-1].startswith('ours / PyTorch: ')


@pytest.mark.parametrize('name', face_steps.STEPS)
def test_listed_products_are_the_convolutions_of_the_step(name):
  """As many multiplications as the compiled convolutions and products have."""
  step = _make_tiny_step(name)
  batch_size = 4
  flops = sum(p.flops for p in face_steps.list_products(step, batch_size))
  counted = []

  def count(equation):
    shapes = [v.aval.shape for v in equation.invars]
    if equation.primitive.name == 'down':
      x, kernel = shapes
    elif equation.primitive.name == 'down_adjoint':
      y, kernel = shapes
      x = (y[0], 2 * y[1], 2 * y[2])
    elif equation.primitive.name == 'down_kernel_gradient':
      x, y = shapes
      kernel = (4, 4, x[-1], y[-1])
    else:
      return
    counted.append(x[0] * x[1] * x[2] // 4 * 2 * np.prod(kernel))

  variables, teacher = (
      face_steps.init_variables(model, 0)
      for model in (step.model, step.teacher_model)
  )
  state = attribute_training.create_train_state(variables, step.optimizer)
  data = face_steps.make_data(step.model, batch_size)
  jaxpr = jax.make_jaxpr(
      functools.partial(face_steps.take_steps, step, num_steps=1)
  )(state, teacher, data)
  _visit(jaxpr.jaxpr, count)
  # The factors' channels of the small maps are in the program alone: 2 of 5 or
  # more of two layers of four, here; of 552 at the paper's widths.
  assert flops <= sum(counted) < 1.6 * flops


def test_faces_are_measured_with_jit_only():
  with pytest.raises(errors.InputError, match='^--parallel=pmap .*: jit.$'):
    benchmark_faces.measure_celeba_step(
        _make_tiny_step('phase_one'), 'pmap', 4, 1, None
    )


# The steps in PyTorch.


@pytest.mark.skipif(
    not _HAS_TORCH, reason='PyTorch is not installed (pip install torch)'
)
@pytest.mark.parametrize('squared_xcov', [True, False])
def test_torch_losses_are_ours(squared_xcov):
  import torch  # pylint: disable=g-import-not-at-top

  from experiments import torch_step  # pylint: disable=g-import-not-at-top

  weights = config.LossWeights(squared_xcov=squared_xcov)
  model = networks.MlpAutoencoder(4, 1, image_shape=(6, 6, 1), widths=(16, 8))
  teacher_model = model.clone(num_factors=4, nuisance_dim=0)
  variables = networks.init_variables(model, 0, model.image_shape)
  teacher = networks.init_variables(teacher_model, 1, model.image_shape)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (32, *model.image_shape), np.uint8)
  optimizer = training.make_optimizer(1e-3, 1e-2)
  state = training.create_train_state(variables, optimizer)
  cache = training.compute_teacher_cache(
      teacher_model, teacher, jnp.asarray(images)
  )
  train_step = torch_step.make_train_step(
      variables['params'],
      teacher['params'],
      num_factors=4,
      weights=weights,
      learning_rate=1e-3,
      weight_decay=1e-2,
  )
  floats = (images / 255).astype(np.float32)
  our_train_step = jax.jit(
      functools.partial(
          training.train_step,
          objective=training.make_student_objective(model, weights),
          optimizer=optimizer,
      )
  )
  # The later steps compare the optimizers and their weight decay.
  for _ in range(3):
    permutation = rng.permutation(len(images))
    inputs = training.StepInputs(
        jnp.asarray(floats),
        codes.TeacherOutputs(*cache, cache.images[permutation]),
        jnp.asarray(permutation),
    )
    state, ours = our_train_step(state, inputs)
    theirs = train_step(
        torch.from_numpy(floats).flatten(1), torch.from_numpy(permutation)
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
      # Sums in another order.
      np.testing.assert_allclose(
          ours[name], theirs[name].detach(), rtol=1e-5, atol=1e-7, err_msg=name
      )


@pytest.mark.skipif(
    not _HAS_TORCH, reason='PyTorch is not installed (pip install torch)'
)
@pytest.mark.parametrize('squared_xcov', [True, False])
@pytest.mark.parametrize('name', face_steps.STEPS)
def test_torch_losses_of_faces_are_ours(name, squared_xcov):
  import torch  # pylint: disable=g-import-not-at-top

  from experiments import torch_face_step  # pylint: disable=g-import-not-at-top

  # Of terms that are of the size of 1, so that none hides another.
  weights = dataclasses.replace(
      face_steps.WEIGHTS[name],
      lambda_prediction=1.0,
      lambda_xcov=1.0,
      squared_xcov=squared_xcov,
  )
  if weights.needs_cycle:
    weights = dataclasses.replace(
        weights, lambda_attribute_cycle=1.0, lambda_nuisance_cycle=0.1
    )
  step = _make_tiny_step(name)
  variables, teacher = (
      face_steps.init_variables(model, seed)
      for seed, model in enumerate((step.model, step.teacher_model))
  )
  batch = face_steps.to_batch(face_steps.make_data(step.model, 5))
  optimizer = training.make_optimizer(1e-3, 0.0, b1=0.5)
  state = attribute_training.create_train_state(variables, optimizer)
  permutation = np.array([3, 0, 4, 1, 2])
  outputs = None
  if teacher is not None:
    apply = lambda method: lambda x: step.teacher_model.apply(
        teacher, x, method=method
    )
    outputs = objectives.compute_teacher_outputs(
        apply('encode'), apply('decode'), batch.images, permutation
    )
  inputs = attribute_training.StepInputs(
      jnp.asarray(batch.images), batch.labels, outputs, permutation
  )
  our_train_step = jax.jit(
      functools.partial(
          attribute_training.train_step,
          model=step.model,
          weights=weights,
          optimizer=optimizer,
      )
  )
  train_step = torch_face_step.make_train_step(
      variables, teacher, weights=weights, learning_rate=1e-3, b1=0.5
  )
  tensors = torch_face_step.make_tensors(batch)
  # The later steps compare gradients and optimizers.
  for _ in range(3):
    state, ours = our_train_step(state, inputs)
    theirs = train_step(*tensors, torch.from_numpy(permutation))
    assert ours.keys() == theirs.keys()
    for key in ours:
      # Sums in another order; Adam divides small gradients by their size.
      np.testing.assert_allclose(
          ours[key], theirs[key].detach(), rtol=2e-4, err_msg=key
      )


def _dot_flops(jaxpr):
  """Returns the multiplications and additions of every product of a jaxpr."""
  found = []

  def visit(equation):
    if equation.primitive.name == 'dot_general':
      left, right = (v.aval.shape for v in equation.invars)
      (left_axes, right_axes), _ = equation.params['dimension_numbers']
      product = timing.Product(left, right, (left_axes[0], right_axes[0]))
      found.append(product.flops)

  _visit(jaxpr, visit)
  return found


def _visit(jaxpr, visit):
  """Calls `visit` with every equation of a jaxpr, and of those in it."""
  for equation in jaxpr.eqns:
    visit(equation)
    for parameter in jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')
    ):
      if hasattr(parameter, 'jaxpr'):
        _visit(parameter.jaxpr, visit)
      elif hasattr(parameter, 'eqns'):
        _visit(parameter, visit)
