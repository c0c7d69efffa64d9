"""Supervises a model that is not of this package, on pictures of bars.

The teacher, made by hand, draws a spot at a bar's centre of mass. The student
is a perceptron and a renderer of spots; another has no Jacobian supervision.
"""

from absl import flags
import jax
import jax.numpy as jnp
import optax

from experiments import command_line
from jacsup_jax import figures
from jacsup_jax import jacobian
from jacsup_jax import jacobian_diagnostics
from jacsup_jax import latents
from jacsup_jax import losses
from jacsup_jax import types

FLAGS = flags.FLAGS
SIZE, BATCH = 20, 64
WIDTHS = (3 * SIZE**2, 128, 64, 8, 64, 128, 36)  # A code of 8, and 6 spots.
GRID = jnp.stack(jnp.meshgrid(*2 * [jnp.linspace(-1, 1, SIZE)]), axis=-1)


def render(centres, widths, colours):
  """Adds S spots: [B, S, 2], [B, S], [B, S, 3] -> [B, SIZE, SIZE, 3]."""
  offsets = GRID[None, None] - centres[:, :, None, None]
  distances = jnp.sum(offsets**2, axis=-1) / widths[..., None, None] ** 2
  return jnp.einsum('bshw,bsc->bhwc', jnp.exp(-distances / 2), colours)


def draw_bars(key):
  place, turn, length, hue = jax.random.uniform(key, (4, BATCH, 1, 2))
  turn = jnp.pi * turn[..., :1] + jnp.array([[[0, jnp.pi / 2]]])
  axis = (0.1 + 0.35 * length[..., :1]) * jnp.cos(turn)
  centres = place - 0.5 + axis * jnp.linspace(-1, 1, 5)[None, :, None]
  hue = 2 * jnp.pi * (hue[..., :1] + jnp.arange(3)[None, None] / 3)
  colours = jnp.tile(0.25 + 0.2 * jnp.cos(hue), (1, 5, 1))
  return render(centres, jnp.full((BATCH, 5), 0.12), colours)


def teacher_encode(images):
  light = jnp.sum(images, axis=-1, keepdims=True)
  centre = jnp.sum(light * GRID[None], (1, 2)) / jnp.sum(light, (1, 2))
  return types.Code(centre, jnp.zeros((len(images), 0)))


def teacher_decode(code):
  grey = jnp.full((len(code.factors), 1, 3), 0.5)
  return render(code.factors[:, None], 0.4 * grey[..., 0], grey)


def apply(layers, x):
  for i, (kernel, bias) in enumerate(layers):
    x = (jnp.tanh(x) if i else x) @ kernel + bias[None]
  return x


def encode(params, images):
  return latents.split(apply(params[:3], images.reshape(len(images), -1)), 2)


def decode(params, code):
  spots = apply(params[3:], latents.merge(code)).reshape(-1, 6, 6)
  widths = 0.08 + 0.2 * jax.nn.sigmoid(spots[..., 2])
  return render(jnp.tanh(spots[..., :2]), widths, spots[..., 3:])


def objective(params, key, lambda_diff):
  images, pairs = draw_bars(key), jax.random.permutation(key, BATCH)
  code, teacher_code = encode(params, images), teacher_encode(images)
  student = lambda code: decode(params, code)
  terms = losses.reconstruction_loss(images, student(code))
  terms += losses.factor_matching_loss(code.factors, teacher_code.factors)
  models = student, code, teacher_decode, teacher_code
  return jnp.mean(terms + lambda_diff * jacobian.secant_loss(*models, pairs))


def train(seed, steps, lambda_diff):
  optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
  *keys, data_key = jax.random.split(jax.random.key(seed), len(WIDTHS))
  init = lambda k, n, m: (jax.random.normal(k, (n, m)) / n**0.5, jnp.zeros(m))
  params = list(map(init, keys, WIDTHS, WIDTHS[1:]))

  def step(state, key):
    gradients = jax.grad(objective)(state[0], key, lambda_diff)
    updates, moments = optimizer.update(gradients, state[1])
    return (optax.apply_updates(state[0], updates), moments), None

  keys = jax.random.split(data_key, steps)
  return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]


def main():
  images, pairs = draw_bars(jax.random.key(-1)), jnp.roll(jnp.arange(BATCH), 1)
  rows = {'bar': images[:12], 'place of': images[pairs][:12]}
  teacher_code = teacher_encode(images)
  for name, weight in (('with', 1.0), ('without', 0.0)):
    params = jax.jit(train, static_argnums=1)(FLAGS.seed, FLAGS.steps, weight)
    student, code = lambda code: decode(params, code), encode(params, images)
    drawn, swapped = jacobian.decode_swapped(student, code, pairs)
    rows |= {f'student {name}': drawn[:12], f'swapped, {name}': swapped[:12]}
    models = student, code, teacher_decode, teacher_code
    columns = jacobian_diagnostics.multiply_columns(*models)
    found = jacobian_diagnostics.compute_agreement(columns, ('x', 'y'))
    off = teacher_encode(swapped).factors - teacher_code.factors[pairs]
    off, mse = jnp.mean(abs(off)) * SIZE / 2, jnp.mean((drawn - images) ** 2)
    print(f'{name} Jacobian supervision: MSE {mse:.5f}, swapped bars {off:.2f}')
    print(f'  pixels off, cosine with the teacher\'s columns {found["cosine"]}')
  figures.save(figures.reconstructions(rows), FLAGS.output)


if __name__ == '__main__':
  seeds = {'lower_bound': 0, 'upper_bound': 2**31 - 1}
  flags.DEFINE_integer('seed', 0, 'Of the students.', **seeds)
  flags.DEFINE_integer('steps', 1500, 'Of their training.', lower_bound=1)
  flags.DEFINE_string('output', 'runs/own_model.png', 'The picture.')
  command_line.run(main)
