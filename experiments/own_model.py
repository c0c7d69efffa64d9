"""Supervises a model that is not of this package: python -m experiments.own_model

Pictures are bars. The teacher is made by hand: its factors are a bar's centre
of mass, and it draws a white spot there. The student is plain JAX, a perceptron
and a renderer of soft spots, that is to find the rest. A second one has no
Jacobian supervision: its factors are right, its image need not follow them.
"""

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import command_line
from jacsup_jax import figures
from jacsup_jax import jacobian
from jacsup_jax import jacobian_diagnostics
from jacsup_jax import latents
from jacsup_jax import losses
from jacsup_jax import types
from jacsup_jax import workdirs

FLAGS = flags.FLAGS
SIZE, BATCH, SPOTS, CODE = 20, 64, 8, 8  # Two of the code's units are factors.
GRID = jnp.stack(jnp.meshgrid(*2 * [jnp.linspace(-1, 1, SIZE)]), axis=-1)


def render(centres, widths, colours):
  """Adds S spots: [B, S, 2], [B, S] and [B, S, 3] -> [B, SIZE, SIZE, 3]."""
  offsets = GRID[None, None] - centres[:, :, None, None]
  distances = jnp.sum(offsets**2, axis=-1) / widths[..., None, None] ** 2
  return jnp.einsum('bshw,bsc->bhwc', jnp.exp(-distances / 2), colours)


def draw_bars(key):
  """Draws a batch of bars of any place, angle, length and colour."""
  uniform = lambda i, shape, low, high: jax.random.uniform(
      jax.random.fold_in(key, i), (BATCH, *shape), jnp.float32, low, high
  )
  angle, length = uniform(0, (1,), 0, jnp.pi), uniform(1, (1,), 0.1, 0.45)
  steps = length * jnp.linspace(-1, 1, 5)[None]
  axis = jnp.stack([steps * jnp.cos(angle), steps * jnp.sin(angle)], axis=-1)
  hue = 2 * jnp.pi * (uniform(2, (1, 1), 0, 1) + jnp.arange(3) / 3)
  colours = jnp.tile(0.25 + 0.2 * jnp.cos(hue), (1, 5, 1))
  centre = uniform(3, (1, 2), -0.5, 0.5)
  return render(centre + axis, jnp.full((BATCH, 5), 0.12), colours)


def teacher_encode(images):
  light = jnp.sum(images, axis=-1, keepdims=True)
  centre = jnp.sum(light * GRID[None], (1, 2)) / jnp.sum(light, (1, 2))
  return types.Code(centre, jnp.zeros((len(images), 0)))


def teacher_decode(code):
  size = len(code.factors)
  white = jnp.full((size, 1, 3), 0.5)
  return render(code.factors[:, None], jnp.full((size, 1), 0.2), white)


def init_params(key):
  widths = [3 * SIZE**2, 128, 64, CODE, 64, 128, 6 * SPOTS]
  keys = jax.random.split(key, len(widths) - 1)
  init = lambda key, n, m: (jax.random.normal(key, (n, m)) / n**0.5, jnp.zeros(m))
  return [init(*args) for args in zip(keys, widths, widths[1:])]


def perceptron(layers, x):
  for i, (kernel, bias) in enumerate(layers):
    x = (jnp.tanh(x) if i else x) @ kernel + bias[None]
  return x


def encode(params, images):
  return latents.split(perceptron(params[:3], images.reshape(BATCH, -1)), 2)


def decode(params, code):
  spots = perceptron(params[3:], latents.merge(code)).reshape(-1, SPOTS, 6)
  widths = 0.08 + 0.2 * jax.nn.sigmoid(spots[..., 2])
  return render(jnp.tanh(spots[..., :2]), widths, spots[..., 3:])


def objective(params, key, lambda_diff):
  data_key, pair_key = jax.random.split(key)
  images, pairs = draw_bars(data_key), jax.random.permutation(pair_key, BATCH)
  code, teacher_code = encode(params, images), teacher_encode(images)
  student = lambda code: decode(params, code)
  terms = losses.reconstruction_loss(images, student(code))
  terms += losses.factor_matching_loss(code.factors, teacher_code.factors)
  terms += lambda_diff * jacobian.secant_loss(
      student, code, teacher_decode, teacher_code, pairs
  )
  return jnp.mean(terms)


def train(seed, steps, lambda_diff):
  optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
  keys = jax.random.split(jax.random.key(seed), steps + 1)

  def step(state, key):
    gradients = jax.grad(objective)(state[0], key, lambda_diff)
    updates, moments = optimizer.update(gradients, state[1])
    return (optax.apply_updates(state[0], updates), moments), None

  params = init_params(keys[0])
  state = params, optimizer.init(params)
  return jax.jit(lambda s, k: jax.lax.scan(step, s, k))(state, keys[1:])[0][0]


def main():
  command_line.check_at_least(1, 'steps')
  images = draw_bars(jax.random.key(FLAGS.seed ^ 1))
  rows = {'image': images, 'place of': jnp.roll(images, 1, axis=0)}
  teacher_code = teacher_encode(images)
  for name, weight in (('with', 1.0), ('without', 0.0)):
    params = train(FLAGS.seed, FLAGS.steps, weight)
    student, code = lambda code: decode(params, code), encode(params, images)
    pairs = jnp.roll(jnp.arange(BATCH), 1)
    drawn, rows[f'swapped, {name}'] = jacobian.decode_swapped(
        student, code, pairs
    )
    agreement = jacobian_diagnostics.compute_agreement(
        jacobian_diagnostics.multiply_columns(
            student, code, teacher_decode, teacher_code
        ),
        ('x', 'y'),
    )
    moved = teacher_encode(rows[f'swapped, {name}']).factors
    error = jnp.abs(moved - teacher_code.factors[pairs]).mean()
    print(
        f'{name} Jacobian supervision: MSE {jnp.mean((drawn - images)**2):.5f},'
        f' cosine of the Jacobians {agreement["cosine"]:.3f}, a swapped bar is'
        f' {error * SIZE / 2:.2f} pixels from where it should be'
    )
  rows = {name: np.asarray(row[:10]) for name, row in rows.items()}
  figures.save(figures.reconstructions(rows), FLAGS.output)
  print(f'saved in {FLAGS.output}')


if __name__ == '__main__':
  flags.DEFINE_integer('seed', 0, 'Of everything.', lower_bound=0)
  flags.DEFINE_integer('steps', 2000, 'Of training.', lower_bound=1)
  flags.DEFINE_string('output', 'runs/own_model.png', 'The picture.')
  command_line.run(main)
