"""PyTorch's steps compute the terms that ours do, step after step."""

import dataclasses

import numpy as np
import pytest

from benchmarks import problems
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import objectives
from jacsup_jax.training import steps

torch = pytest.importorskip('torch', reason='pip install torch')
torch_steps = pytest.importorskip('benchmarks.torch_steps')


def _compare(problem, take_step, state, as_bias=False):
  """Takes three steps of both: the later ones compare optimizers too."""
  train_step = torch_steps.make_train_step(problem, as_bias=as_bias)
  images, attributes = torch_steps.make_tensors(problem)
  rng = np.random.default_rng(0)
  for _ in range(3):
    permutation = rng.permutation(len(images))
    state, ours = take_step(state, permutation)
    theirs = train_step(images, attributes, torch.from_numpy(permutation))
    assert ours.keys() == theirs.keys()
    for name in ours:
      # Sums in another order; Adam divides small gradients by their size.
      np.testing.assert_allclose(
        ours[name], theirs[name].detach(), rtol=2e-4, err_msg=name
      )


@pytest.mark.parametrize('xcov', ['squared', 'norm'])
def test_terms_on_digits_are_ours(xcov):
  weights = problems.config.LossWeights(xcov=xcov)
  problem = problems.make_digits(
    32, 3, 1, weights, image_shape=(6, 6, 1), widths=(16, 8)
  )
  step = problem.step
  optimizer = steps.make_optimizer(step.optimization)
  images = problem.images.astype(np.float32) / 255

  def take_step(state, permutation):
    cache = problem.constants.teacher
    change = cache.images[permutation] - cache.images
    inputs = objectives.Inputs(
      images,
      permutation[np.newaxis],
      objectives.TeacherOutputs(cache.factors, change[np.newaxis]),
    )
    return steps.train_step(
      state, inputs, objective=step.make_objective(), optimizer=optimizer
    )

  _compare(problem, take_step, problem.state)


@pytest.mark.parametrize(
  ('xcov', 'as_bias'), [('squared', False), ('norm', True)]
)
@pytest.mark.parametrize('name', problems.FACE_STEPS)
def test_terms_on_faces_are_ours(name, xcov, as_bias):
  problem = problems.make_faces(name, 16, 5, **problems.TINY_FACES)
  # Terms of size 1, so that none hides another.
  weights = dataclasses.replace(
    problem.step.weights, lambda_prediction=1.0, lambda_xcov=1.0, xcov=xcov
  )
  if weights.needs_cycle:
    weights = dataclasses.replace(
      weights, lambda_attribute_cycle=1.0, lambda_nuisance_cycle=0.1
    )
  step = dataclasses.replace(problem.step, weights=weights)
  problem = problem._replace(step=step)
  optimizer = steps.make_optimizer(step.optimization)
  images = (2 * problem.images.astype(np.float32) - 255) / 255

  def take_step(state, permutation):
    permutations = permutation[np.newaxis]
    inputs = objectives.Inputs(
      images,
      permutations,
      attributes=problem.attributes.astype(np.float32),
    )
    if problem.teacher is not None:
      apply = lambda method: (
        lambda x: step.teacher_module.apply(problem.teacher, x, method=method)
      )
      outputs = objectives.compute_teacher_outputs(
        apply('encode'),
        apply('decode'),
        images,
        permutations,
        weights.supervision,
      )
      inputs = inputs._replace(teacher=outputs)
    return attribute_steps.train_step(
      state,
      inputs,
      module=step.module,
      weights=weights,
      optimizer=optimizer,
    )

  _compare(problem, take_step, problem.state, as_bias)
