"""Tests of jacsup_jax.memory."""

import jax
import jax.numpy as jnp

from jacsup_jax.core import config
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import memory

VECTOR = jax.ShapeDtypeStruct((1000,), jnp.float32)
STUDENT = networks.MlpAutoencoder(2, 2, False, widths=(64, 32))
TEACHER = networks.MlpAutoencoder(3, 0, False, widths=(64, 32))


def _estimate(batch_size=128, keeps_outputs=True, weights=config.LossWeights()):
  return memory.estimate_discovery(
      STUDENT,
      TEACHER,
      weights,
      batch_size=batch_size,
      keeps_outputs=keeps_outputs,
  )


# Values.


def test_what_is_read_no_more_is_free():
  # The argument, and two of the products at a time.
  chain = lambda x: jnp.sin(jnp.cos(jnp.sin(jnp.cos(x))))
  assert memory.estimate_bytes(chain, VECTOR) == 3 * 4000


def test_what_is_read_later_is_kept():
  def backwards(x):
    a, b, c = x + 1, x + 2, x + 3
    return a * (b * c)

  # The argument, three sums and one product.
  assert memory.estimate_bytes(backwards, VECTOR) == 5 * 4000


def test_a_loop_needs_its_body_once():
  def loop(x):
    return jax.lax.scan(
        lambda carry, _: (jnp.sin(jnp.cos(carry)), None), x, length=100
    )[0]

  assert memory.estimate_bytes(loop, VECTOR) <= 5 * 4000


def test_state_is_counted():
  variables = networks.init_variables(STUDENT, 0, STUDENT.image_shape)
  size = sum(x.nbytes for x in jax.tree.leaves(variables['params']))
  # Parameters, two moments and gradients; of a batch of 1 hardly more.
  assert 4 * size < _estimate(batch_size=1) < 12 * size


# Invariants.


def test_larger_batches_and_teachers_in_the_step_need_more():
  assert _estimate(256) > _estimate(128)
  assert _estimate(keeps_outputs=False) > _estimate()
  unsupervised = config.LossWeights(0.0, 0.0)
  assert _estimate(weights=unsupervised) < _estimate()


# Oracle.


def test_estimate_is_of_the_order_of_what_the_compiler_says():
  def step(params, images):
    def loss(params):
      code = STUDENT.apply({'params': params}, images, method='encode')
      decoded = STUDENT.apply({'params': params}, code, method='decode')
      return jnp.mean((decoded - images) ** 2)

    return jax.grad(loss)(params)

  params = networks.init_variables(STUDENT, 0, STUDENT.image_shape)['params']
  images = jnp.zeros((128, 28, 28, 1))
  found = jax.jit(step).lower(params, images).compile().memory_analysis()
  said = (
      found.argument_size_in_bytes
      + found.output_size_in_bytes
      + found.temp_size_in_bytes
  )
  # Above it, since nothing is fused; not by so much as to be of no use.
  assert 0.8 < memory.estimate_bytes(step, params, images) / said < 3


def test_faces_are_estimated():
  model = networks.FaceAutoencoder(
      2, 2, image_size=8, first_width=4, last_width=4
  )
  phase_1 = config.AttributeLossWeights()
  student = config.AttributeLossWeights(lambda_y=1.0, lambda_diff=1.0)
  estimate = lambda teacher, weights, batch_size: memory.estimate_editing(
      model, teacher, weights, batch_size=batch_size
  )
  alone = estimate(None, phase_1, 8)
  assert estimate(None, phase_1, 16) > alone
  assert estimate(model, student, 8) > alone
