"""Appendix A.5 of Lezama (2019): progressive discovery of factors in SVHN.

As experiments.mnist, with convolutions, on colour images of 32x32: a teacher
with k units, students of d = 1, 2, ... nuisance units grown from it;
reconstruction and class swaps of all; Figures 9 to 12. The same on dSprites
and Shapes3D, images of 64x64 whose every label is known.

  python -m experiments.svhn --flagfile=experiments/flagfiles/svhn_quick.flags
"""

from absl import flags

from experiments import command_line
from experiments import common_flags
from experiments import discovery_command
from experiments import svhn_figures
from experiments import svhn_runs
from jacsup_jax.core import config

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of this binary, with the paper's values."""
  common_flags.define_data_flags(
      'svhn_cropped',
      'the TFDS name of a set of colour 32x32 images, dsprites or shapes3d (of'
      ' 64x64, with a flagfile each)',
  )
  discovery_command.define_flags(
      name='svhn', epochs=25, nuisance_dim=16, lambda_y=0.025, lambda_diff=0.01
  )
  define_model_flags()


def define_model_flags() -> None:
  """Defines the flags that this binary has and experiments.mnist has not."""
  flags.DEFINE_integer(
      'first_width',
      64,
      'Channels of the first layer; the next two have two and four times as'
      ' many.',
  )
  flags.DEFINE_boolean(
      'normalize_students',
      True,
      'Students too have the BatchNorm of the code, as the paper draws it here;'
      ' else the first teacher alone, as for digits.',
  )
  flags.DEFINE_boolean(
      'linear_code',
      False,
      'The code has no ReLU. With one, as the paper draws it, a unit below 0 on'
      ' all images is not trained any more.',
  )


def main() -> None:
  command_line.check_at_least(1, 'first_width')
  command_line.check_at_most(config.LARGEST_WIDTH, 'first_width')
  experiment = svhn_runs.make_experiment(FLAGS.dataset)
  discovery_command.run(experiment, svhn_figures.list_drawings)


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
