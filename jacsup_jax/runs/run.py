"""A run that is on the disk: its models, its data and its results.

The manifest holds each model's description, so that models of any experiment
are made again here in one way.
"""

import os
from typing import Any

import jax

from jacsup_jax.baselines import fader
from jacsup_jax.core import config as configs
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import steps

# Modules of baselines, which models/ does not import.
models.register(fader.FaderAutoencoder)


class Run:
  """A run that has begun, opened for reading; its `path` is absolute."""

  def __init__(self, workdir: workdirs.WorkDir):
    if workdir.manifest is None:
      raise errors.InputError(
        f'{workdir.path} holds no run (no manifest.json); accepted: the'
        ' --workdir of an experiment.'
      )
    self.workdir = workdir
    self.path = workdir.path
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
    """Returns the name of a finished stage; None stands for the first one."""
    if name is None and self.stages:
      return self.stages[0]
    if name in self.stages:
      return name
    unfinished = 'unfinished' if name in self.planned else 'unknown'
    found = f'has the {unfinished} stage {name}'
    if name is None:
      found = 'has no finished stage'
    accepted = f'one of {", ".join(self.stages)}' if self.stages else 'another'
    raise errors.InputError(f'{self.path} {found}; accepted: {accepted}.')

  def stage(self, name: str) -> configs.Stage:
    """Returns a finished stage with the epochs that it was trained for."""
    entry = self.manifest['stages'][self.find_stage(name)]
    return configs.Stage.from_json(entry['stage'])

  def module(self, stage: str) -> Any:
    """Makes the linen module of a finished stage."""
    entry = self.manifest['stages'][self.find_stage(stage)]
    return models.make_module(entry['module'])

  def restore(self, stage: str) -> models.Model:
    """Restores the model at the end of a finished stage.

    Raises InputError if the stage is not finished, or its checkpoint is
    missing, damaged, or not that of the manifest.
    """
    return self.trained(stage).model

  def trained(
    self, stage: str, template: steps.TrainState | None = None
  ) -> steps.Trained:
    """Restores a finished stage as `runs.stages.run` returned it.

    The state of the optimizer is left empty, unless there is a template, a
    state of the same shapes.
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

    The data are where the run found them, unless `data_dir` is given; `dataset`
    names other data of the same shape. Options of `registry.load` replace those
    of the run.
    """
    own = self.manifest['dataset']
    if dataset in (None, own['name']):
      data_dir = data_dir or own.get('data_dir')
    options = {**own.get('options', {}), **options}
    for name in ('image_shape', 'attributes'):
      if options.get(name) is not None:
        options[name] = tuple(options[name])
    name = dataset or own['name']
    return registry.load(name, split, data_dir=data_dir, **options)
