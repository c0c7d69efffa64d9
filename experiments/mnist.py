"""Section 3 of Lezama (2019): progressive discovery of factors in digits.

Trains a teacher with k units, then students of d = 1, 2, ... nuisance units,
each grown from the last and supervised by it; measures reconstruction and class
swaps of all; draws Figures 1 and 2.

  python -m experiments.mnist --flagfile=experiments/flagfiles/mnist_quick.flags
"""

from absl import flags

from experiments import command_line
from experiments import common_flags
from experiments import discovery_command
from experiments import mnist_figures
from experiments import mnist_runs


def define_flags() -> None:
  """Defines the flags of this binary, with the paper's values."""
  common_flags.define_data_flags()
  discovery_command.define_flags(
      name='mnist', epochs=100, nuisance_dim=14, lambda_y=0.25, lambda_diff=0.1
  )
  flags.DEFINE_boolean(
      'fold_normalization',
      None,
      'Fold the first teacher\'s BatchNorm into its student, which is dropped'
      ' otherwise. By default with --growth=preserving only.',
  )


def main() -> None:
  discovery_command.run(mnist_runs.EXPERIMENT, mnist_figures.list_drawings)


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
