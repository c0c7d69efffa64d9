"""Trains the judges: classifiers that say what an image shows.

Of classes, an ensemble over seeds of the released code's MLP, since judges of
equal accuracy differ by some points in the swaps that they see; of faces, one
convolutional classifier of all attributes, whose best epoch is kept.

  python -m experiments.judge --dataset=mnist_embedded --seeds=3
  python -m experiments.judge --dataset=synthetic_faces
"""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from experiments import cli
from experiments import flags
from experiments import progress
from jacsup_jax.core import config as config_lib
from jacsup_jax.data import registry
from jacsup_jax.evaluation import judges

_LARGEST = {'low': 1, 'high': config_lib.LARGEST_WIDTH}


@dataclasses.dataclass(frozen=True)
class Config:
  """The flags of this binary."""

  dataset: str = config_lib.option(
    registry.DEFAULT_DATASET,
    'mnist_embedded (in the package), arrays (a file of your own), the TFDS'
    ' name of images of one size with a class label, or faces:'
    f' {", ".join(registry.KNOWN_FACES)}.',
    group='data',
  )
  data_dir: pathlib.Path | None = config_lib.option(
    None,
    'Where TFDS keeps prepared data sets, the .npz file of arrays, or the'
    ' folder of celeba_folder.',
    group='data',
  )
  face: flags.FaceDataConfig = flags.FaceDataConfig()
  in_memory: bool = config_lib.option(
    True, 'Faces: decode all images at once and keep them.', group='data'
  )
  epochs: int = config_lib.option(10, 'Passes over the training data.', low=1)
  seeds: int = config_lib.option(
    3, 'Classes: number of judges, of the seeds 0, 1, ...', low=1, high=1000
  )
  seed: int = config_lib.option(
    0, 'Faces: seed of the judge.', low=0, high=config_lib.LARGEST_INTEGER
  )
  batch_size: int = config_lib.option(128, 'Faces: examples per step.', low=1)
  first_width: int = config_lib.option(
    32, 'Faces: channels of the first layer.', **_LARGEST
  )
  last_width: int = config_lib.option(
    512, 'Faces: largest number of channels.', **_LARGEST
  )
  hidden: int = config_lib.option(
    512, 'Faces: units of the dense layer.', **_LARGEST
  )
  workdir: pathlib.Path | None = config_lib.option(
    None,
    'Where to save; default: runs/judge_DATASET, of faces'
    ' runs/attribute_judge_DATASET_SIZE.',
    group='output',
  )


def main(config: Config) -> None:
  """Trains the judges of a data set, or shows those that are there."""
  if config.dataset in registry.KNOWN_FACES:
    _judge_faces(config)
  else:
    _judge_classes(config)


def restore_or_train_classes(
  directory: pathlib.Path | None,
  dataset: str,
  data_dir: pathlib.Path | None,
  image_shape: tuple[int, int, int] | None = None,
  **settings: Any,
) -> judges.Judges:
  """Restores the judges of a data set, or trains and saves them.

  None stands for the default directory, and for images of any shape (H, W, C);
  the settings are those of `judges.restore_or_train`.
  """
  directory = directory or judges.default_directory(dataset, data_dir)
  progress.announce(f'judges in {directory}, trained if missing')
  return judges.restore_or_train(
      directory, dataset, data_dir, image_shape=image_shape,
      report=progress.report_judge, **settings,
  )  # fmt: skip


def restore_or_train_faces(
  directory: pathlib.Path | None,
  train: registry.Dataset,
  selection: registry.Dataset,
  missing: judges.JudgeConfig | None = None,
  **settings: Any,
) -> Any:
  """Restores the judge of a set of faces, or trains and saves one.

  Args:
    directory: of the judge; None for the default.
    train: the training data.
    selection: on which its epoch is chosen.
    missing: how one that is missing is trained; one that is there may differ.
    **settings: of `attribute_judges.restore_or_train`.
  """
  # Imported here: experiments of classes need neither.
  from jacsup_jax.evaluation import attribute_judges
  from jacsup_jax.evaluation import judge_files

  directory = directory or attribute_judges.default_directory(
    train.name, train.image_shape[0]
  )
  if missing is not None and not judge_files.exist(directory):
    settings = {'batch_size': min(judges.BATCH_SIZE, len(train))}
    for name, value in dataclasses.asdict(missing).items():
      settings[name.removeprefix('judge_')] = value
  progress.announce(f'judge in {directory}, trained if missing')
  return attribute_judges.restore_or_train(
    directory, train, selection, report=progress.report_judge, **settings
  )


def _judge_classes(config):
  """Shows the accuracy of each judge of classes."""
  ensemble = restore_or_train_classes(
    config.workdir,
    config.dataset,
    config.data_dir,
    seeds=tuple(range(config.seeds)),
    epochs=config.epochs,
  )
  for seed, accuracy in zip(ensemble.seeds, ensemble.accuracy):
    progress.say(f'judge {seed}: {accuracy:.2%} on the test split')
  progress.say(f'mean {np.mean(ensemble.accuracy):.2%}')


def _judge_faces(config):
  """Shows the accuracy of a judge of faces for each attribute."""
  load = functools.partial(
    registry.load,
    config.dataset,
    data_dir=config.data_dir,
    in_memory=config.in_memory,
    report=progress.announce,
    **config.face.load_options(),
  )
  data = load('train')
  selection = load('held_out' if config.face.held_out else 'validation')
  sizes = ('batch_size', 'first_width', 'last_width', 'hidden')
  settings = {x: getattr(config, x) for x in ('seed', 'epochs', *sizes)}
  judge = restore_or_train_faces(config.workdir, data, selection, **settings)
  progress.say(
    f'{"attribute":20} accuracy  balanced, on the {selection.split} split'
  )
  for name, accuracy, balanced in zip(
    judge.attribute_names, judge.accuracy, judge.balanced_accuracy
  ):
    progress.say(f'{name:20} {accuracy:8.2%}  {balanced:8.2%}')
  progress.say(
    f'mean {np.mean(judge.accuracy):.2%}, balanced'
    f' {np.mean(judge.balanced_accuracy):.2%}, epoch {judge.best_epoch} of'
    f' {judge.epochs}'
  )


if __name__ == '__main__':
  cli.run(main, Config())
