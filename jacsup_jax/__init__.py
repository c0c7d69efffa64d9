"""Jacobian supervision (Lezama, ICLR 2019) in JAX and Flax.

Train, measure and restore:
  load_data: a split of an image set, by name.
  fit_teacher: train a first teacher, which has factors only.
  fit_student: grow a student from its parent, and train it.
  evaluate: reconstruction error and class swaps of a model.
  Run: the run of a work directory: its stages, models, data and results.
  Model: a module with its parameters: `encode` and `decode`.
  Trained: a model at the end of its stage.
  Dataset: images and labels of one split.

Codes:
  Code: `(factors, nuisance)`.
  split, merge: a code from an array of its units, and back.
  take_partners: rows of an array by a permutation of the batch.
  swap_factors: factors of other examples, each with its own nuisance.
  flip_factor: one attribute set to the opposite sign.

Losses and growth, pure functions of arrays and of `decode(code) -> images`:
  losses: eqs. (8) to (13).
  jacobian: changes of images with their factors, in four forms.
  regularizers: HSIC and orthogonal columns, instead of cross-covariance.
  secant_loss, tangent_loss, path_loss, full_loss: Jacobian supervision.
  student_objective: a student's whole loss, a function of its parameters.
  LossWeights: weights of its terms.
  Supervision: which Jacobians it compares.
  grow: parameters of a larger code, from those of a smaller one.
  fold_normalization: BatchNorm of a code, folded into its layer.

  InputError: a mistake in what was asked for, in one line.

Names are imported when they are first used.

Example:
  >>> import jax.numpy as jnp
  >>> import jacsup_jax as js
  >>> test = js.load_data('mnist_embedded', 'test')
  >>> test.images.shape[1:], test.num_classes
  ((28, 28, 1), 10)
  >>> code = js.split(jnp.arange(6.0).reshape(2, 3), num_factors=2)
  >>> js.swap_factors(code, jnp.array([1, 0])).factors.tolist()
  [[3.0, 4.0], [0.0, 1.0]]
"""

import importlib
import os
from typing import Any

__version__ = '0.2.0'

# Module -> what it has, or itself.
_SOURCES = {
  'core.codes': 'Code flip_factor merge split swap_factors take_partners',
  'core.config': 'LossWeights Supervision',
  'core.errors': 'InputError',
  'core.growth': 'fold_normalization grow',
  'core.jacobian': 'jacobian full_loss path_loss secant_loss tangent_loss',
  'core.losses': 'losses',
  'core.regularizers': 'regularizers',
  'data.registry': 'Dataset load_data',
  'models.model': 'Model',
  'runs.run': 'Run',
  'training.fitting': 'fit_student fit_teacher student_objective',
  'training.steps': 'Trained',
}
_MODULE_OF = {
  name: module for module, names in _SOURCES.items() for name in names.split()
}
__all__ = ['evaluate', *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
  if name not in _MODULE_OF:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = importlib.import_module(f'{__name__}.{_MODULE_OF[name]}')
  if not value.__name__.endswith(f'.{name}'):
    value = getattr(value, 'load' if name == 'load_data' else name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})


def evaluate(
  model: Any,
  data: Any,
  *,
  judge_workdir: str | os.PathLike[str] | None = None,
  data_dir: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
  """Measures the reconstruction and, on classes, the class swaps of a model.

  Args:
    model: a Model, or what `fit_teacher` and `fit_student` return.
    data: a split that it was not trained on, `[N, H, W, C]` images with labels;
      see `load_data`.
    judge_workdir: where the judges of the classes are. Those that are missing
      are trained there, within minutes; by default in runs/judge_NAME.
    data_dir: see `load_data`, for the judges' training data.

  Returns:
    A row like those of results.json: the sizes of the code, `mse`, `psnr` and,
    on classes, class swaps by judges of each family and the lowest of these,
    `class_swaps` (rates in [0, 1]), how natural images are, and what probes
    read in the code; see `evaluation.class_scores`.
  """
  from jacsup_jax.data import files
  from jacsup_jax.data import registry
  from jacsup_jax.evaluation import class_judges
  from jacsup_jax.evaluation import class_scores
  from jacsup_jax.evaluation import reconstruction

  model = getattr(model, 'model', model)
  row = {'num_factors': model.num_factors, 'nuisance_dim': model.nuisance_dim}
  if data.attribute_names is not None:
    mse = float(reconstruction.measure_mse(model, data.images, data.labels))
    low, high = model.image_range
    return {**row, 'mse': mse, 'psnr': reconstruction.psnr(mse, high - low)}
  directory = judge_workdir or class_judges.default_directory(
    data.name, data_dir
  )
  judges = class_judges.restore_or_train(
    files.expand_path('judge_workdir', directory),
    data.name,
    data_dir,
    image_shape=data.image_shape,
  )
  probed = registry.load(
    data.name,
    class_scores.choose_probed_split(data.split),
    data_dir=data_dir,
    image_shape=data.image_shape,
  )
  scores = class_scores.ClassScores(judges, data, probed)
  return row | scores.measure(model)
