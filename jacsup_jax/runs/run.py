"""A run that is on the disk: its models, its data and its results."""

import importlib
import os
from typing import Any

import jax

from jacsup_jax.core import config as configs
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import steps

# Networks and weights of baselines are known when their modules are imported:
# these two import them all.
_BASELINES = ('rivals', 'field_recipe')


class Run:
  """A run that has begun, opened for reading; its `path` is absolute."""

  def __init__(self, workdir: workdirs.WorkDir):
    if workdir.manifest is None:
      raise errors.InputError(
        f'{workdir.path} holds no run (no manifest.json); accepted: the'
        ' --workdir of an experiment.'
      )
    self.workdir, self.path = workdir, workdir.path
    self.manifest = workdir.manifest

  @classmethod
  def open(cls, path: str | os.PathLike[str], flag: str = '--workdir') -> 'Run':
    """Opens the run of a work directory, complete or not."""
    return cls(workdirs.WorkDir(path, flag))

  @property
  def config(self) -> dict[str, Any]:
    """Values of the flags that decide its result, by name."""
    return self.manifest['config']

  @property
  def stages(self) -> list[str]:
    """Names of the finished stages, in the order in which they were trained."""
    return list(self.manifest['stages'])

  @property
  def planned(self) -> list[str]:
    """Names of all stages, finished or not, in order."""
    return list(self.manifest['planned'])

  @property
  def results(self) -> dict[str, Any] | None:
    """Content of results.json; None before the run is complete."""
    return self.workdir.read_results() if self.workdir.is_complete else None

  @property
  def rows(self) -> list[dict[str, Any]]:
    """Rows of the results, one per model; empty before it is complete."""
    return (self.results or {'rows': []})['rows']

  @property
  def factor_names(self) -> list[str]:
    """Names of the first teacher's factors: of attributes, or y1, y2, ..."""
    if names := self.manifest['dataset'].get('attributes'):
      return list(names)
    count = self.module(self.find_stage(None)).num_factors
    return [f'y{i + 1}' for i in range(count)]

  def find_stage(self, name: str | None) -> str:
    """Returns the name of a finished stage; None stands for the first one.

    InputError if there is no such stage.
    """
    if name is None and self.stages:
      return self.stages[0]
    if name in self.stages:
      return name
    kind = 'unfinished' if name in self.planned else 'unknown'
    found = f'the {kind} stage {name}' if name else 'no finished stage'
    accepted = f'one of {", ".join(self.stages)}' if self.stages else 'another'
    raise errors.InputError(f'{self.path} has {found}; accepted: {accepted}.')

  def stage(self, name: str) -> configs.Stage:
    """Returns a finished stage with the epochs that it was trained for."""
    return configs.Stage.from_json(self._entry(name)['stage'])

  def module(self, stage: str) -> Any:
    """Makes the linen module of a finished stage."""
    return models.make_module(self._entry(stage)['module'])

  def _entry(self, name):
    entry = self.manifest['stages'][self.find_stage(name)]
    if entry['module'].get('name') not in models.MODULES:
      for module in _BASELINES:
        importlib.import_module(f'jacsup_jax.baselines.{module}')
    return entry

  def restore(self, stage: str) -> models.Model:
    """Restores the model at the end of a finished stage, else InputError."""
    return self.trained(stage).model

  def trained(
    self, stage: str, template: steps.TrainState | None = None
  ) -> steps.Trained:
    """Restores a finished stage as `runs.stages.run` returned it.

    The optimizer is left out, unless `template` is a state with its shapes.
    """
    module = self.module(stage)
    sha256 = self.manifest['stages'][stage]['sha256']
    if template is None:
      variables = jax.eval_shape(lambda: autoencoders.init_variables(module, 0))
      template = steps.TrainState(0, **variables, opt_state=())
    directory = self.workdir.checkpoints(stage)
    with checkpoints.StageCheckpoints(directory) as saved:
      state = saved.restore_last(sha256, template)
    return steps.Trained(self.stage(stage), module, state, sha256)

  def load_data(
    self,
    split: str = 'test',
    data_dir: str | os.PathLike[str] | None = None,
    dataset: str | None = None,
    **options: Any,
  ) -> registry.Dataset:
    """Loads a split of the data of the run, prepared as for its training.

    `dataset` names other data of the same shape; options of `registry.load`
    replace those of the run.
    """
    own = self.manifest['dataset']
    name = dataset or own['name']
    if name == own['name']:
      data_dir = data_dir or own.get('data_dir')
    options = {**own.get('options', {}), **options}
    for key, value in options.items():
      options[key] = tuple(value) if isinstance(value, list) else value
    return registry.load(name, split, data_dir=data_dir, **options)
