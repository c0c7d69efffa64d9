"""The flags that experiments share: data, measurements, places, devices."""

import dataclasses
import pathlib
from typing import Any, ClassVar, Literal

from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.data import registry


@dataclasses.dataclass(frozen=True)
class ResultConfig:
  """What a run is trained and measured on."""

  dataset: str = config_lib.option(
    registry.DEFAULT_DATASET,
    'mnist_embedded (in the package), arrays (a file of yours), or the TFDS'
    ' name of images with a class label.',
    group='data',
  )
  eval_split: Literal['test', 'validation'] = config_lib.option(
    'test',
    'What to measure on. validation is then held out of training.',
    group='data',
  )
  eval_every: int = config_lib.option(
    5, 'Epochs between evaluations.', low=1, group='output'
  )


@dataclasses.dataclass(frozen=True)
class FaceDataConfig:
  """How faces are loaded."""

  image_size: int = config_lib.option(
    64, 'Pixels of a side of faces, a power of two.', group='data'
  )
  attributes: tuple[str, ...] = config_lib.option(
    (), 'Names of the attributes of faces; default: all.', group='data'
  )
  skip_bad_images: bool = config_lib.option(
    False,
    'Leave out images of celeba_folder that cannot be decoded, and note how'
    ' many; otherwise they are refused.',
    group='data',
  )
  held_out: int = config_lib.option(
    0,
    'Number of faces at the end of the training split to leave out, as the'
    ' split on which alpha and the epoch of a judge are chosen.',
    low=0,
    group='data',
  )

  def __post_init__(self):
    config_lib.check(self)
    config_lib.check_image_size(self.image_size)

  def load_options(self) -> dict[str, Any]:
    """Returns options of `registry.load`."""
    return {**dataclasses.asdict(self), 'attributes': self.attributes or None}


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Where a run reads and writes, and how it works: not part of its result."""

  decides_result: ClassVar[bool] = False

  workdir: pathlib.Path = config_lib.option(
    pathlib.Path('runs/run'),
    'Directory of the run; new, or to be continued.',
    group='output',
  )
  resume: bool = config_lib.option(
    True, 'Continue the run that is in --workdir.', group='output'
  )
  judge_workdir: pathlib.Path | None = config_lib.option(
    None,
    'Directory of the judge, which is trained if missing; default: a folder'
    ' of runs/ named after the data set.',
    group='output',
  )
  data_dir: pathlib.Path | None = config_lib.option(
    None,
    'Where TFDS keeps prepared data sets (default: its own folder); the .npz'
    ' file of --dataset=arrays; the folder of --dataset=celeba_folder.',
    group='data',
  )
  checkpoint_every: int = config_lib.option(
    10, 'Epochs between checkpoints.', low=1, group='output'
  )
  progress: bool | None = config_lib.option(
    None,
    'Show a progress bar; default: on a terminal only, a line per epoch'
    ' elsewhere.',
    group='output',
  )
  tensorboard: bool = config_lib.option(
    False, 'Also write metrics and pictures for TensorBoard.', group='output'
  )
  compilation_cache: pathlib.Path | None = config_lib.option(
    None,
    'Directory in which compiled programs are kept for later runs; it should'
    ' be writable by you alone, since they are executed.',
    group='devices',
  )
  deterministic: bool = config_lib.option(
    False,
    'Make GPUs give the same bits each time, at some cost of speed; CPUs and'
    ' TPUs always do.',
    group='devices',
  )
  distributed: bool = config_lib.option(
    False,
    'This is one of several processes, each with its own devices, all with'
    ' the same flags; --batch_size counts the examples of all of them.',
    group='devices',
  )
  coordinator: str | None = config_lib.option(
    None,
    'HOST:PORT of the first process; with --process_count and --process_id.'
    ' Default: from the environment (TPU hosts, Slurm, Open MPI).',
    group='devices',
  )
  process_count: int | None = config_lib.option(
    None, 'Number of processes.', low=1, group='devices'
  )
  process_id: int | None = config_lib.option(
    None, 'Index of this process; 0 writes --workdir.', low=0, group='devices'
  )

  def __post_init__(self):
    config_lib.check(self)
    given = [self.coordinator, self.process_count, self.process_id]
    if given != [None] * 3 and (None in given or not self.distributed):
      raise errors.InputError(
        '--coordinator, --process_count and --process_id are incomplete or'
        ' without --distributed; accepted: all four, or none of the three.'
      )
    if self.process_id is not None and self.process_id >= self.process_count:
      raise errors.InputError(
        f'--process_id={self.process_id} with'
        f' --process_count={self.process_count}; accepted: 0 to'
        f' {self.process_count - 1}.'
      )
