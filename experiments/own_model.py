"""Supervises a model that is not of this package; see the README."""

from absl import flags
import jax
import jax.numpy as jnp
import optax

from experiments import command_line
from jacsup_jax.core import codes
from jacsup_jax.core import codes as latents
from jacsup_jax.core import jacobian
from jacsup_jax.core import losses
from jacsup_jax.evaluation import jacobian_agreement as jacobian_diagnostics
from jacsup_jax.figures import panels as figures

FLAGS = flags.FLAGS
SIZE, BATCH = 20, 64
WIDTHS = (3 * SIZE**2, 128, 64, 16, 64, 128, 36)  # A code of 16, and 6 spots.
LINE = jnp.linspace(-1, 1, SIZE)


def render(centres, widths, colours):
  """Adds S spots: [B, S, 2], [B, S], [B, S, 3] -> [B, SIZE, SIZE, 3]."""
  offsets = LINE[None, None, None] - centres[..., None]
  x, y = jnp.exp(-((offsets / widths[..., None, None]) ** 2) / 2).swapaxes(0, 2)
  return jnp.einsum('sbw,sbh,bsc->bhwc', x, y, colours)


def draw(key):
  """A white lamp and a bar of any place, angle, length and colour, apart."""
  lamp, place, turn, length, hue = jax.random.uniform(key, (5, BATCH, 1, 2))
  turn = jnp.pi * turn[..., :1] + jnp.array([[[0, jnp.pi / 2]]])
  axis = (0.2 + 0.3 * length[..., :1]) * jnp.cos(turn)
  centres = place - 0.5 + axis * jnp.linspace(-1, 1, 5)[None, :, None]
  hue = 2 * jnp.pi * (hue[..., :1] + jnp.arange(3)[None, None] / 3)
  colours = jnp.tile(0.4 * jax.nn.relu(jnp.cos(hue)), (1, 5, 1))
  bars = render(centres, jnp.full((BATCH, 5), 0.12), colours)
  return teacher_decode(codes.Code(1.4 * lamp[:, 0] - 0.7, None)), bars


def teacher_encode(images):
  # No bar has all three colours: what all have in common is the lamp's.
  light = jnp.maximum(jnp.min(images, axis=-1), 1e-9)
  sums = jnp.sum(light, 1), jnp.sum(light, 2)
  return latents.split(jnp.stack([s @ LINE / s.sum(1) for s in sums], 1), 2)


def teacher_decode(code):
  grey = jnp.full((len(code.factors), 1, 3), 0.7)
  return render(code.factors[:, None], 0.2 * grey[..., 0], grey)


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
  # Scenes are drawn apart from each other: each is paired with the next.
  images, pairs = sum(draw(key)), jnp.roll(jnp.arange(BATCH), 1)
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
  lamps, bars = draw(jax.random.key(-1))
  images, pairs = lamps + bars, jnp.roll(jnp.arange(BATCH), 1)
  exact, teacher_code = lamps[pairs] + bars, teacher_encode(images)
  rows = {'scene': images, 'lamp of': images[pairs], 'exact swap': exact}
  for name, weight in (('with', 1.0), ('without', 0.0)):
    params = jax.jit(train, static_argnums=1)(FLAGS.seed, FLAGS.steps, weight)
    student, code = lambda code: decode(params, code), encode(params, images)
    drawn, swapped = jacobian.decode_swapped(student, code, pairs)
    rows |= {f'{name}: drawn': drawn, f'{name}: swap': swapped}
    models = student, code, teacher_decode, teacher_code
    columns = jacobian_diagnostics.multiply_columns(*models)
    found = jacobian_diagnostics.compute_agreement(columns, ('x', 'y'))
    errors = [jnp.mean((drawn - images) ** 2), jnp.mean((swapped - exact) ** 2)]
    values = f'MSE {errors[0]:.5f}, of swaps {errors[1]:.5f}, cosine'
    print(f'{name} Jacobian supervision: {values} {found["cosine"]:.3f}')
  rows = {name: images[:12] for name, images in rows.items()}
  figures.save(figures.reconstructions(rows), FLAGS.output)


if __name__ == '__main__':
  flags.DEFINE_integer('seed', 0, 'Of the students.', 0, 2**31 - 1)
  flags.DEFINE_integer('steps', 1500, 'Of their training.', lower_bound=1)
  flags.DEFINE_string('output', 'runs/own_model.png', 'The picture.')
  command_line.run(main)
