"""Trains the judges: classifiers that say what an image shows.

Of classes, three families, since a swap is worth what judges of other kinds
confirm: the released code's MLP and convolutional networks, each an ensemble
over seeds, and a support vector machine. Of faces, two convolutional
classifiers of all attributes, one strided and one residual, whose best epochs
are kept.

  python -m experiments.judge --dataset=mnist_embedded --seeds=3
  python -m experiments.judge --dataset=synthetic_faces
"""

import dataclasses
import functools
import pathlib

import numpy as np

from experiments import cli
from experiments import face_flags
from experiments import progress
from experiments import session
from jacsup_jax.core import config as config_lib
from jacsup_jax.data import registry
from jacsup_jax.evaluation import judges


@dataclasses.dataclass(frozen=True)
class Config(config_lib.Options, group='data'):
  """The flags of this binary."""

  dataset: str = config_lib.option(
    registry.DEFAULT_DATASET,
    'mnist_embedded (in the package), arrays (a file of your own), the TFDS'
    ' name of images of one size with a class label, or faces:'
    f' {", ".join(registry.KNOWN_FACES)}.',
  )
  data_dir: pathlib.Path | None = config_lib.option(
    None,
    'Where TFDS keeps prepared data sets, the .npz file of arrays, or the'
    ' folder of celeba_folder.',
  )
  face: face_flags.FaceDataConfig = face_flags.FaceDataConfig()
  in_memory: bool = config_lib.option(
    True, 'For faces: decode all images at once and keep them in memory.'
  )
  judge: judges.JudgeConfig = judges.JudgeConfig()
  seeds: int = config_lib.option(
    3,
    'For classes: number of networks per family, with seeds 0, 1, ...; two or'
    ' more, so that there is a standard deviation.',
    low=2,
    high=1000,
  )
  seed: int = config_lib.option(
    0, 'For faces: seed of the judges.', low=0, high=config_lib.LARGEST_INTEGER
  )
  batch_size: int = config_lib.option(
    128, 'For faces: examples per step.', low=1
  )
  workdir: pathlib.Path | None = config_lib.option(
    None,
    'Where to save; default for classes: runs/judge_DATASET, with a folder for'
    ' each family; for faces: runs/attribute_judges_DATASET_SIZE, with a'
    ' folder for each judge.',
    group='output',
  )


def main(config: Config) -> None:
  """Trains the judges of a data set, or shows those that are there."""
  if config.dataset in registry.KNOWN_FACES:
    _judge_faces(config)
  else:
    _judge_classes(config)


def _judge_classes(config):
  """Shows the accuracy of each judge of classes."""
  found = session.restore_or_train_classes(
    config.workdir,
    config.dataset,
    config.data_dir,
    seeds=tuple(range(config.seeds)),
    epochs=config.judge.judge_epochs,
  )
  for judge in found:
    for seed, accuracy in zip(judge.seeds, judge.accuracy):
      progress.say(f'{judge.family} {seed}: {accuracy:.2%} on the test split')
    progress.say(f'{judge.family} mean {np.mean(judge.accuracy):.2%}')


def _judge_faces(config):
  """Shows the accuracy of both judges of faces for each attribute."""
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
  for judge in session.restore_or_train_faces(
      config.workdir, data, selection, config.judge, seed=config.seed,
      batch_size=config.batch_size,
  ):  # fmt: skip
    progress.say(
      f'{judge.kind:20} accuracy  balanced, on the {selection.split} split'
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
