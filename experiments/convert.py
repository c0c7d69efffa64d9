"""Converts released PyTorch weights to runs and judges, and models back.

A file becomes a work directory that the other commands read (a file of a judge,
a directory of judges); a stage of a work directory becomes a file. Names and
shapes of the tensors are those of the released code, and say which network it
is. Files that end in .safetensors need no PyTorch.

  python -m experiments.convert --input=model.pth --output=runs/released
  python -m experiments.convert --input=runs/mnist --output=student.safetensors
"""

import dataclasses
import os
import pathlib

from experiments import cli
from experiments import progress
from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.interop import converted_runs


@dataclasses.dataclass(frozen=True)
class Config(config_lib.Options, group='what'):
  """The flags of this binary."""

  input: pathlib.Path | None = config_lib.option(
    None, "A state dict (*.safetensors, or PyTorch's) or a work directory."
  )
  output: pathlib.Path | None = config_lib.option(
    None,
    'A new directory if the input is a file, a new file if it is a directory.',
    group='output',
  )
  stage: str | None = config_lib.option(
    None,
    'For a work directory: the model to convert; default: the last finished'
    ' one.',
  )
  num_factors: int = config_lib.option(
    2,
    'For a file of a student on digits: k, which its shapes do not show.',
    low=1,
    high=config_lib.LARGEST_WIDTH,
  )
  dataset: str | None = config_lib.option(
    None,
    'For a file: the training data of its model; default: mnist_embedded, or'
    ' celeba_folder for faces.',
    group='data',
  )
  data_dir: pathlib.Path | None = config_lib.option(
    None, 'For a file: where these data are.', group='data'
  )
  attributes: tuple[str, ...] = config_lib.option(
    (), 'For a file of faces: names of the factors, in order.', group='data'
  )
  epochs: int = config_lib.option(
    100,
    'For a file: epochs that its model was trained for, as shown in tables.',
    low=1,
    high=config_lib.LARGEST_INTEGER,
  )


def main(config: Config) -> None:
  """Converts a file or a stage of a run."""
  given = dataclasses.asdict(config)
  source, output, stage = (given.pop(n) for n in ('input', 'output', 'stage'))
  if source is None or output is None:
    raise errors.InputError(
      '--input or --output is missing; accepted: both, see --help.'
    )
  if os.path.isdir(source):
    line = converted_runs.export_model(source, output, stage)
  else:
    line = converted_runs.import_model(source, output, **given)
  progress.say(line)


if __name__ == '__main__':
  cli.run(main, Config())
