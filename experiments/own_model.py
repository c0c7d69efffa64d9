"""Supervises a model that is not of this package: spots of light, in pure JAX.

python -m experiments.own_model --output=runs/own_model.png
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import cli
from experiments import progress
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import jacobian
from jacsup_jax.core import losses
from jacsup_jax.data import files
from jacsup_jax.evaluation import jacobian_agreement
from jacsup_jax.figures import grids
from jacsup_jax.figures import panels

SIZE, BATCH = 20, 64
FORMATS = tuple(f'.{name}' for name in panels.FORMATS)
WIDTHS = (3 * SIZE**2, 128, 64, 16, 64, 128, 36)  # A code of 16, and 6 spots.
# Not of JAX: a device that is missing would end the import.
LINE = np.linspace(-1, 1, SIZE, dtype=np.float32)


def render(centres, widths, colours):
  """Adds S spots: [B, S, 2], [B, S], [B, S, 3] -> [B, SIZE, SIZE, 3]."""
  offsets = LINE[None, None, None] - centres[..., None]
  x, y = jnp.exp(-((offsets / widths[..., None, None]) ** 2) / 2).swapaxes(0, 2)
  return jnp.einsum('sbw,sbh,bsc->bhwc', x, y, colours)


@jax.jit
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
  """Finds the place of the lamp: [B, SIZE, SIZE, 3] -> code."""
  # No bar has all three colours: what all have in common is the lamp's.
  light = jnp.maximum(jnp.min(images, axis=-1), 1e-9)
  sums = jnp.sum(light, 1), jnp.sum(light, 2)
  return codes.split(jnp.stack([s @ LINE / s.sum(1) for s in sums], 1), 2)


def teacher_decode(code):
  """Draws the lamp of a code."""
  grey = jnp.full((len(code.factors), 1, 3), 0.7)
  return render(code.factors[:, None], 0.2 * grey[..., 0], grey)


def apply(layers, x):
  """Applies dense layers with tanh between them."""
  for i, (kernel, bias) in enumerate(layers):
    x = (jnp.tanh(x) if i else x) @ kernel + bias[None]
  return x


def encode(params, images):
  """Encodes scenes."""
  return codes.split(apply(params[:3], images.reshape(len(images), -1)), 2)


def decode(params, code):
  """Draws the spots of a code."""
  spots = apply(params[3:], codes.merge(code)).reshape(-1, 6, 6)
  widths = 0.08 + 0.2 * jax.nn.sigmoid(spots[..., 2])
  return render(jnp.tanh(spots[..., :2]), widths, spots[..., 3:])


def objective(params, key, lambda_diff):
  """Computes the loss of a student on a batch of new scenes."""
  # Scenes are drawn apart from each other: each is paired with the next.
  images, pairs = sum(draw(key)), jnp.roll(jnp.arange(BATCH), 1)
  code, teacher_code = encode(params, images), teacher_encode(images)
  student = lambda code: decode(params, code)
  terms = losses.reconstruction_loss(images, student(code))
  terms += losses.factor_matching_loss(code.factors, teacher_code.factors)
  models = student, code, teacher_decode, teacher_code
  return jnp.mean(terms + lambda_diff * jacobian.secant_loss(*models, pairs))


@functools.partial(jax.jit, static_argnums=1)
def train(seed, steps, lambda_diff):
  """Returns the parameters of a trained student."""
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


@jax.jit
def apply_and_swap(params, images, pairs):
  """Returns a student's images, its swaps and products of its Jacobian's."""
  student, code = functools.partial(decode, params), encode(params, images)
  models = student, code, teacher_decode, teacher_encode(images)
  columns = jacobian_agreement.multiply_columns(*models)
  swapped = codes.swap_factors(code, pairs)
  both = jax.tree.map(lambda *own: jnp.concatenate(own), code, swapped)
  return *jnp.split(student(both), 2), columns


@dataclasses.dataclass(frozen=True)
class Config:
  """The flags of this binary."""

  seed: int = config.option(0, 'Seed of the students.', low=0, high=2**31 - 1)
  steps: int = config.option(1500, 'Training steps.', low=1)
  output: pathlib.Path = config.option(
    pathlib.Path('runs/own_model.png'),
    f'The picture, of the format of its ending: {", ".join(FORMATS)}.',
    group='output',
  )


def main(config):
  """Trains students with and without supervision, and draws their swaps."""
  # Before a training of minutes.
  path = files.check_output('--output', config.output, FORMATS)
  lamps, bars = draw(jax.random.key(-1))
  images, pairs = lamps + bars, jnp.roll(jnp.arange(BATCH), 1)
  exact = lamps[pairs] + bars
  rows = {'scene': images, 'lamp of': images[pairs], 'exact swap': exact}
  for name, weight in (('with', 1.0), ('without', 0.0)):
    params = train(config.seed, config.steps, weight)
    drawn, swapped, columns = apply_and_swap(params, images, pairs)
    rows |= {f'{name}: drawn': drawn, f'{name}: swap': swapped}
    found = jacobian_agreement.compute_agreement(columns, ('x', 'y'))
    error, of_swaps = (
      jnp.mean((a - b) ** 2) for a, b in ((drawn, images), (swapped, exact))
    )
    values = f'MSE {error:.5f}, of swaps {of_swaps:.5f}, cosine'
    progress.say(f'{name} Jacobian supervision: {values} {found["cosine"]:.3f}')
  figure = grids.reconstructions({name: x[:12] for name, x in rows.items()})
  files.write_whole(path, panels.encode(figure, path.suffix.lower()[1:]))
  progress.say(f'saved in {path}')


if __name__ == '__main__':
  cli.run(main, Config())
