"""A chain of stages that trains in milliseconds: quadratics with noise."""

import contextlib
import resource

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import config
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import loop
from jacsup_jax.training import steps

EPOCHS = 3
STEPS = 10  # An epoch.
CHAIN = (
  config.Stage('teacher', 'teacher', None, 0, EPOCHS, config.LossWeights()),
  config.Stage('d1', 'student', 'teacher', 1, EPOCHS, config.LossWeights()),
)
# Entries of a record that depend on the clock.
CLOCK = ('seconds', 'images_per_second', 'input_bound')


class Quadratic:
  """Pulls the parameters towards noise that the epoch and the step decide."""

  batch_size = 4
  steps_per_epoch = STEPS

  def __init__(self, nan_at=-1):
    self.nan_at = nan_at  # A step, counted from the first stage on.

  def create(self, stage, trained):
    module = autoencoders.MlpAutoencoder(
      2, stage.nuisance_dim, image_shape=(2, 2, 1), widths=(3,)
    )
    shapes = jax.eval_shape(lambda: autoencoders.init_variables(module, 0))
    shift, step = 0, np.int32(0)
    if parent := trained.get(stage.parent):
      step = parent.state.step
      # A child depends on every bit of its parent.
      shift = sum(map(np.sum, jax.tree.leaves(parent.state.params)))
    draw = np.random.default_rng(stage.seed).normal
    params = jax.tree.map(
      lambda x: (draw(size=x.shape) + shift).astype(x.dtype), shapes['params']
    )
    momentum = jax.tree.map(np.zeros_like, params)
    return module, steps.TrainState(step, params, {}, (momentum, ()))

  def make_epoch(self, *unused_args):
    def chunks(epoch, unused_first):
      yield loop.Chunk(0, STEPS, epoch)

    return loop.Epoch(STEPS, _train, self.nan_at, chunks, part_steps=2)


@jax.jit
def _train(state, nan_at, epoch, bounds):
  def step(state, row):
    key = jax.random.fold_in(jax.random.key(epoch), row)
    error = jax.tree.map(
      lambda p: p - jax.random.normal(key, p.shape), state.params
    )
    momentum = jax.tree.map(lambda m, e: 0.9 * m + e, state.opt_state[0], error)
    params = jax.tree.map(lambda p, m: p - 0.1 * m, state.params, momentum)
    loss = sum(jnp.sum(e**2) for e in jax.tree.leaves(error))
    loss = jnp.where(state.step == nan_at, jnp.nan, loss)
    new = steps.TrainState(state.step + 1, params, {}, (momentum, ()))
    return new, {'loss': loss, 'distance': loss, 'constant': jnp.ones(())}

  return loop.loop_steps(step, state, jnp.arange(STEPS), bounds)


def evaluate(model):
  leaves = jax.tree.leaves(model.params)
  return {'sum': float(sum(map(np.sum, leaves))), 'dim': model.nuisance_dim}


def begin(path):
  workdir = workdirs.WorkDir(path)
  workdir.begin('quadratic', {}, {'name': 'none', 'fingerprint': ''})
  return workdir


def run(path, *, chain=CHAIN, nan_at=-1, save_every=2, **kwargs):
  """Runs a chain; evaluates and saves after epochs 2 and 3 of each stage."""
  kwargs = {'evaluate': evaluate, 'eval_every': 2} | kwargs
  kwargs |= {'workdir': begin(path), 'checkpoint_every': save_every}
  return stages.run(chain, Quadratic(nan_at), **kwargs)


def read_metrics(path):
  """Reads the records without what depends on the clock."""
  records = workdirs.WorkDir(path).read_metrics()
  return [{k: r[k] for k in r if k not in CLOCK} for r in records]


class Killed(BaseException):
  """Ends a run within a test, as SIGKILL would."""


def kill_at(stage, epoch):
  """Makes a `report` that ends the run at a record."""

  def kill(current, record):
    if (current.name, record['epoch']) == (stage, epoch):
      raise Killed

  return kill


@contextlib.contextmanager
def file_size_limit(size):
  """Files cannot grow beyond a size: writing fails as on a full disk."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
