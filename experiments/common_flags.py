"""The flags that binaries share."""

from absl import flags

from jacsup_jax.core import config
from jacsup_jax.data import registry as datasets
from jacsup_jax.training import devices as parallel

# Flags that functions here define belong to the binary that calls them, whose
# --help then shows them.
flags.disclaim_key_flags()

LARGEST_INTEGER = 2**31 - 1  # Of JAX's default integers.


def define_data_flags(
    dataset: str = datasets.DEFAULT_DATASET,
    names: str = (
        'mnist_embedded (in the package), the TFDS name of a set of grey 28x28'
        ' images'
    ),
) -> None:
  """Defines the flags that say which set of classes is read.

  Args:
    dataset: default of --dataset.
    names: which are accepted, besides `arrays`.
  """
  flags.DEFINE_string(
      'dataset', dataset, f'Data set: {names}, or arrays (a file of your own).'
  )
  flags.DEFINE_string(
      'data_dir',
      None,
      'Where TFDS keeps prepared sets; its own by default. For arrays the .npz'
      ' file: images (uint8, or floats in [0, 1] or [0, 255]), labels (integers'
      ' from 0) and split (train or test of each).',
  )


def define_face_data_flags(*, image_size: int) -> None:
  """Defines the flags that say which set of faces is read.

  Args:
    image_size: default of --image_size.
  """
  flags.DEFINE_string(
      'dataset',
      datasets.DEFAULT_FACES,
      'Data set: synthetic_faces (drawn by this package), celeba_folder (the'
      ' folder of --data_dir in the layout of CelebA), or celeb_a (of TFDS).',
  )
  flags.DEFINE_string(
      'data_dir',
      None,
      'For celeba_folder: the folder with img_align_celeba (or its zip),'
      ' list_attr_celeba.txt and list_eval_partition.txt. Else where TFDS keeps'
      ' prepared sets; its own by default.',
  )
  flags.DEFINE_integer(
      'image_size', image_size, 'Pixels of a side, a power of two.'
  )
  flags.DEFINE_list(
      'attributes', [], 'Names of the attributes to edit; all by default.'
  )
  flags.DEFINE_boolean(
      'skip_bad_images',
      False,
      'Leave out images of celeba_folder that cannot be decoded, and say how'
      ' many; they are refused otherwise.',
  )
  flags.DEFINE_integer(
      'held_out', 0, 'Images at the end of the training split to leave out.'
  )


def define_training_flags(
    *,
    workdir: str,
    epochs: int,
    epochs_help: str = 'Passes over the data, in each stage.',
) -> None:
  """Defines the flags that every training binary has, but those of its data.

  Args:
    workdir: default of --workdir.
    epochs: default of --epochs.
    epochs_help: what these are.
  """
  flags.DEFINE_string(
      'workdir',
      workdir,
      'Directory that the run owns. With --distributed the first process alone'
      ' reads and writes it.',
  )
  flags.DEFINE_integer(
      'seed',
      0,
      'Seed of initialisation, data and swaps.',
      lower_bound=0,
      upper_bound=LARGEST_INTEGER,
  )
  flags.DEFINE_integer('batch_size', 128, 'Examples per step, on all devices.')
  flags.DEFINE_integer('epochs', epochs, epochs_help)
  flags.DEFINE_enum(
      'compute_dtype',
      'float32',
      config.COMPUTE_DTYPES,
      'What matrix products are computed in; parameters are float32.',
  )
  flags.DEFINE_enum(
      'parallel',
      'jit',
      parallel.MODES,
      'How devices share a step: jit over a mesh, or pmap.',
  )
  flags.DEFINE_string(
      'compilation_cache',
      None,
      'Directory that keeps compiled programs: the next run, or the same one'
      ' continued, reads and runs them, so let nobody else write there. None'
      ' are kept by default.',
  )
  flags.DEFINE_boolean('resume', True, 'Continue a run that is in --workdir.')
  flags.DEFINE_boolean(
      'deterministic',
      False,
      'On GPUs, the same command gives the same bits, at some cost of speed: it'
      ' adds --xla_gpu_deterministic_ops=true to XLA_FLAGS. On CPU and TPU'
      ' nothing is needed.',
  )
  flags.DEFINE_string(
      'expected_data',
      None,
      'Fingerprint of the training data, as in a manifest: others are refused'
      ' before anything is trained. By default any are accepted.',
  )
  flags.DEFINE_boolean(
      'describe',
      False,
      'Print, as JSON, the flags and circumstances that the manifest of this'
      ' command would have here, and end.',
  )
  flags.DEFINE_boolean(
      'progress',
      None,
      'Draw a progress bar; by default on a terminal only, a line per epoch'
      ' elsewhere.',
  )
  _define_fault_flags()
  _define_process_flags()


def _define_fault_flags():
  flags.DEFINE_enum(
      'on_checkpoint_error',
      'stop',
      ['stop', 'continue'],
      'What to do when a checkpoint, or a line of metrics, cannot be written (a'
      ' full disk): stop, or continue and try again at the next one. The last'
      ' checkpoint of a stage and the results must be written.',
  )
  flags.DEFINE_enum(
      'on_nan',
      'stop',
      ['stop', 'rollback'],
      'What to do when a loss or a gradient is not finite: stop, or rollback to'
      ' the last checkpoint and go on with the data in another order.',
  )
  flags.DEFINE_integer(
      'max_rollbacks',
      3,
      'How often a stage may go back, see --on_nan.',
      lower_bound=1,
  )
  flags.DEFINE_enum(
      'on_damage',
      'stop',
      ['stop', 'retrain'],
      'What to do when a stage has checkpoints and none of them is whole: stop,'
      ' or set them aside and retrain the stage from its start. Where one is'
      ' whole, the run always goes on from it.',
  )
  flags.DEFINE_float(
      'grace_seconds',
      10,
      'SIGTERM and SIGINT end the current step and save it; what is not done'
      ' after these seconds is left. A second signal ends the run at once.',
      lower_bound=2,
      upper_bound=86400,
  )


def _define_process_flags():
  flags.DEFINE_boolean(
      'distributed',
      False,
      'This is one of several processes of a run, as on several hosts, each'
      ' with its own devices; --batch_size is of all together. All read the'
      ' training data, and are given the same flags but --process_id. Without'
      ' --coordinator, --process_count and --process_id the environment says'
      ' which one this is: on hosts of a TPU, under Slurm, under Open MPI; the'
      ' first process then listens on all addresses of its host.',
  )
  flags.DEFINE_string(
      'coordinator',
      None,
      'HOST:PORT where the first process listens for the others, on that'
      ' address alone; 0.0.0.0:PORT, of the first process, on all it has.',
  )
  flags.DEFINE_integer(
      'process_count', None, 'How many processes there are.', lower_bound=1
  )
  flags.DEFINE_integer(
      'process_id',
      None,
      'Which of them this is, from 0: the first, which listens at --coordinator'
      ' and writes --workdir.',
      lower_bound=0,
  )
  flags.DEFINE_float(
      'distributed_timeout',
      300,
      'Seconds to wait for the other processes when a run begins.',
  )
