"""Draws Figures 1 and 2 of Lezama (2019) from the models of a run."""

from collections.abc import Sequence
import functools
import textwrap

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax import figures
from jacsup_jax import networks
from jacsup_jax import stages
from jacsup_jax import traversals
from jacsup_jax import workdirs
from jacsup_jax.datasets import batches

# Model of a chain: letter in Figure 1, its name, and the end of file names.
_CHAINS = {
    'student': ('b', 'student with Jacobian supervision', ''),
    'student_no_jacobian': (
        'c', 'student without Jacobian supervision', '_no_jacobian'
    ),
}  # pyformat: disable
_GRID_SIZE = 17
_NUM_VALUES = 10
# Digits of Figure 2 in the paper.
_EXAMPLE_LABELS = (7, 2, 0)


def draw(
    workdir: workdirs.WorkDir,
    trained: Sequence[stages.Trained],
    images: np.ndarray,
    labels: np.ndarray,
) -> None:
  """Writes the figures of a run to its work directory, `figures/*.png`.

  figure_1a, 1b, 1c: what the first teacher, the last student and the last one
    without Jacobian supervision decode while the first two factors run from
    their 1 % to their 99 % quantile, to the right and upwards. In b and c alike
    the nuisance is that of the first image, as in a class swap: factors of one,
    nuisance of another. (The mean nuisance would flatter: it is no image's, and
    with it a student with Jacobian supervision decodes classes nearer to the
    teacher's than with almost any image's.)
  figure_1d, 1d_no_jacobian: class swaps and error over each chain's training.
  figure_2, 2_no_jacobian: a row for each unit of each chain, decoded by the
    student that found it, from its 1 % to its 99 % quantile; all other units
    are those of three images.
  reconstructions: the first image of each class, by the models of Figure 1.

  Models that are not there are left out, and with a single factor a, b and c.

  Args:
    workdir: of the run; its metrics.jsonl gives the curves.
    trained: all models of the run, parents before their children.
    images: `[M, H, W, C]` uint8, held out from training.
    labels: `[M]` int.
  """
  floats = batches.to_float(jnp.asarray(images))
  labels = np.asarray(labels)
  teacher = next(model for model in trained if model.stage.parent is None)
  chains = {
      name: _chain(trained, name)
      for name in _CHAINS
      if any(model.stage.model == name for model in trained)
  }

  def save(figure, name):
    figures.save(figure, workdir.figures / f'{name}.png')

  finals = {'a': ('teacher', teacher)}
  for name, chain in chains.items():
    letter, shown_name, _ = _CHAINS[name]
    finals[letter] = (shown_name, chain[-1])
  if teacher.model.num_factors >= 2:
    for letter, (name, model) in finals.items():
      save(_draw_factors(name, model, floats), f'figure_1{letter}')

  metrics = workdir.read_metrics()
  examples = _first_of_classes(labels, _EXAMPLE_LABELS, 3)
  for name, chain in chains.items():
    _, shown_name, suffix = _CHAINS[name]
    of_chain = {model.stage.name for model in chain}
    records = [record for record in metrics if record['stage'] in of_chain]
    save(figures.training_curves(records, shown_name), f'figure_1d{suffix}')
    students = chain[1:]
    rows = [_decode_unit(model, floats, floats[examples]) for model in students]
    figure = figures.traversals(
        np.stack(rows),
        [f'd = {model.stage.nuisance_dim}' for model in students],
        xlabel='newest unit, from its 1 % to its 99 % quantile',
    )
    save(figure, f'figure_2{suffix}')

  shown = floats[_first_of_classes(labels, (), 10)]
  rows = {'original': shown}
  for name, model in finals.values():
    label = textwrap.fill(_title(name, model), 24)
    rows[label] = _decode(model, _encode(model, shown))
  save(figures.reconstructions(rows), 'reconstructions')


def _chain(trained, name):
  """Returns the models from the first teacher to the last of a chain."""
  by_name = {model.stage.name: model for model in trained}
  model = max(
      (model for model in trained if model.stage.model == name),
      key=lambda model: model.stage.nuisance_dim,
  )
  chain = [model]
  while chain[0].stage.parent is not None:
    chain.insert(0, by_name[chain[0].stage.parent])
  return chain


def _title(name, model):
  return f'{name}, d = {model.stage.nuisance_dim}'


def _first_of_classes(labels, preferred, count):
  """Returns indices of the first image of up to `count` classes."""
  classes = dict.fromkeys([*preferred, *np.unique(labels).tolist()])
  firsts = [np.flatnonzero(labels == label)[:1] for label in classes]
  return np.concatenate(firsts)[:count]


def _draw_factors(name, model, images):
  """Draws the grid of a model's first two factors."""
  codes = _encode(model, images)
  first = jax.tree.map(lambda x: x[:1], codes)
  horizontal, vertical = (
      traversals.quantile_values(codes, unit, _GRID_SIZE) for unit in (0, 1)
  )
  grid = traversals.vary_factors(
      functools.partial(_decode, model), first, 0, 1, horizontal, vertical
  )
  return figures.factor_grid(
      np.asarray(grid),
      np.asarray(horizontal),
      np.asarray(vertical),
      _title(name, model),
  )


def _decode_unit(model, images, examples):
  """Decodes examples with a student's newest unit varied over its range."""
  unit = model.model.code_dim - 1
  values = traversals.quantile_values(
      _encode(model, images), unit, _NUM_VALUES
  )
  return traversals.vary_unit(
      functools.partial(_decode, model), _encode(model, examples), unit, values
  )


def _encode(trained, images):
  return _jitted_encode(trained.model, trained.variables, images)


def _decode(trained, code):
  return _jitted_decode(trained.model, trained.variables, code)


@functools.partial(jax.jit, static_argnums=0)
def _jitted_encode(model, variables, images):
  encode = networks.make_encode(model, variables['batch_stats'])
  return encode(variables['params'], images)


@functools.partial(jax.jit, static_argnums=0)
def _jitted_decode(model, variables, code):
  decode = networks.make_decode(model, variables['batch_stats'])
  return decode(variables['params'], code)
