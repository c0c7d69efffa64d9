"""Appendix A.5 of Lezama (2019): progressive discovery of factors in SVHN.

As experiments.mnist, with convolutions, on colour images of 32x32: a teacher
with k units, students of d = 1, 2, ... nuisance units grown from it;
reconstruction and class swaps of all; Figures 9 to 12. The same on dSprites
and Shapes3D, images of 64x64 whose every label is known.

  python -m experiments.svhn --flagfile=svhn_quick
"""

import dataclasses
import functools
import pathlib

import jax.numpy as jnp

from experiments import cli
from experiments import mnist
from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders

IMAGE_SHAPE = (32, 32, 3)
# Sets of TFDS that have images of another shape.
IMAGE_SHAPES = {'dsprites': (64, 64, 1), 'shapes3d': (64, 64, 3)}


@dataclasses.dataclass(frozen=True)
class ModelConfig(config_lib.Options, group='what'):
  """The autoencoder, see `autoencoders.SvhnAutoencoder`."""

  first_width: int = config_lib.option(
    64,
    'Channels of the first layer; the next two have two and four times as'
    ' many.',
    low=1,
    high=config_lib.LARGEST_WIDTH,
  )
  normalize_students: bool = config_lib.option(
    True,
    "Students normalize their code (BatchNorm), as the paper's figure of this"
    ' network shows; otherwise only the first teacher does, as for digits.',
  )
  linear_code: bool = config_lib.option(
    False,
    "Use no ReLU on the code. With the paper's ReLU, a unit that is below 0 on"
    ' all images gets no gradient.',
  )


@dataclasses.dataclass(frozen=True)
class Config(mnist.Config):
  """The flags of this binary."""

  model: ModelConfig = ModelConfig()


DEFAULT = cli.with_defaults(
  Config(),
  workdir=pathlib.Path('runs/svhn'),
  dataset='svhn_cropped',
  epochs=25,
  nuisance_dim=16,
  lambda_y=0.025,
  lambda_diff=0.01,
)


def make_module(
  config: Config, num_factors: int, nuisance_dim: int, is_first: bool
) -> autoencoders.SvhnAutoencoder:
  """Makes an autoencoder for the images of the run."""
  own = config.model
  return autoencoders.SvhnAutoencoder(
    num_factors,
    nuisance_dim,
    normalize_code=is_first or own.normalize_students,
    image_shape=IMAGE_SHAPES.get(config.result.dataset, IMAGE_SHAPE),
    widths=tuple(own.first_width * i for i in (1, 2, 4)),
    linear_code=own.linear_code,
    dtype=jnp.dtype(config.chain.compute_dtype),
  )


def main(config: Config) -> None:
  """Trains, measures and draws a run."""
  preserving = config.chain.growth == 'preserving'
  folds = preserving and not config.model.normalize_students
  if folds and not config.model.linear_code:
    raise errors.InputError(
      '--growth=preserving with --nonormalize_students folds the BatchNorm of'
      ' the code into the layer before it, which the ReLU of --nolinear_code'
      ' prevents; accepted: --linear_code, --normalize_students, or'
      ' --growth=random.'
    )
  mnist.train_and_evaluate(
    'svhn',
    config,
    functools.partial(make_module, config),
    IMAGE_SHAPES.get(config.result.dataset, IMAGE_SHAPE),
  )


if __name__ == '__main__':
  cli.run(main, DEFAULT)
