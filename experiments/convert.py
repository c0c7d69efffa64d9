"""Converts weights of PyTorch to runs and judges of this package, and back.

  python -m experiments.convert --input=model.pth --kind=mnist_teacher \
      --output=runs/released_teacher
  python -m experiments.convert --input=runs/mnist --kind=mnist_student \
      --to=torch --output=student.pth

Files of PyTorch (anything but *.safetensors) need PyTorch, *.safetensors do
not; names and shapes in both are those of the released code.
"""

from collections.abc import Sequence
import hashlib
import os
import pathlib

from absl import flags

from experiments import command_line
from experiments import common_flags
from experiments import converted_runs
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.data import registry as datasets
from jacsup_jax.interop import released as convert
from jacsup_jax.interop import safetensors_files
from jacsup_jax.interop import torch_files
from jacsup_jax.runs import workdir as workdirs

FLAGS = flags.FLAGS
_CHECKPOINT = 'checkpoint'
_WRITE = {
    'torch': torch_files.write_state_dict,
    'safetensors': safetensors_files.write_state_dict,
}
_SAFETENSORS = '.safetensors'
_FACES = 'celeba_folder'


def define_flags() -> None:
  """Defines the flags of this binary."""
  flags.DEFINE_string(
      'input',
      None,
      'What to convert: a state dict (*.safetensors, else a file of PyTorch), a'
      ' work directory of experiments.mnist or celeba, or a directory of judges'
      ' of digits.',
  )
  flags.DEFINE_enum(
      'kind',
      None,
      convert.KINDS,
      'Which of the released networks it is: the first teacher on digits, which'
      ' has BatchNorm; a student, which has none; a judge of digits; or an'
      ' autoencoder of faces.',
  )
  flags.DEFINE_enum(
      'to',
      _CHECKPOINT,
      [_CHECKPOINT, *_WRITE],
      'What to write: a work directory (or a directory of judges), a file of'
      ' PyTorch, or one of safetensors.',
  )
  flags.DEFINE_string(
      'output', None, 'Where to write it; nothing may be there.'
  )
  flags.DEFINE_string(
      'stage',
      None,
      'Of a work directory: which model; the teacher, or the last student, by'
      ' default.',
  )
  flags.DEFINE_integer(
      'seed',
      None,
      'Of a work directory of several seeds: which; the first by default.',
      lower_bound=0,
      upper_bound=common_flags.LARGEST_INTEGER,
  )
  flags.DEFINE_integer(
      'judge', 0, 'Of a directory of judges: which one.', lower_bound=0
  )
  flags.DEFINE_integer(
      'num_factors',
      2,
      'k of a student in a file, whose shapes tell k + d alone.',
      lower_bound=1,
      upper_bound=config.LARGEST_WIDTH,
  )
  flags.DEFINE_string(
      'dataset',
      None,
      'Data set that a file\'s model was trained on, for the run that is made'
      ' of it; mnist_embedded by default, of faces celeba_folder.',
  )
  flags.DEFINE_string(
      'data_dir',
      None,
      'Of digits: where that set is, as for experiments.mnist.',
  )
  flags.DEFINE_list(
      'attributes',
      [],
      'Names of the factors of a file\'s faces, in their order.',
  )
  flags.DEFINE_integer(
      'epochs',
      100,
      'Epochs that a file\'s model was trained for, as tables are to say.',
      lower_bound=1,
      upper_bound=common_flags.LARGEST_INTEGER,
  )


def convert_model(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    kind: str,
    to: str = _CHECKPOINT,
    stage: str | None = None,
    seed: int | None = None,
    judge: int = 0,
    num_factors: int = 2,
    dataset: str | None = None,
    data_dir: str | None = None,
    attributes: Sequence[str] = (),
    epochs: int = 100,
) -> str:
  """Converts a model; all arguments are the flags of those names.

  Args:
    source: --input.
    output: that is not there yet.
    kind: one of `convert.KINDS`.
    to: 'checkpoint', 'torch' or 'safetensors'.
    stage: of a work directory.
    seed: of a work directory.
    judge: of a directory of judges.
    num_factors: of a student in a file.
    dataset: of a file's model.
    data_dir: of that.
    attributes: of a file's faces.
    epochs: of a file's model.

  Returns:
    A line on what was written.

  Raises:
    InputError: if it cannot be converted; nothing is written then.
  """
  output = pathlib.Path(output)
  if untrusted.exists(output):
    raise errors.InputError(
        f'--output={output} is there already; accepted: a new name.'
    )
  workdirs.check_writable(f'--output={output}', output)
  if to == 'torch':
    torch_files.import_torch(output)  # Before anything else is done.
  is_directory = os.path.isdir(source)
  if is_directory and to == _CHECKPOINT:
    raise errors.InputError(
        f'--input={source} is a directory, of which --to={to} would make one'
        f' again; accepted: --to={" or ".join(_WRITE)}, or a file.'
    )
  described = {}
  if not is_directory:
    described, layout, converted = _read_file(source, kind, num_factors)
  elif kind == 'mnist_judge':
    layout, converted = converted_runs.read_judge(source, judge)
  else:
    layout, converted = converted_runs.read_run(source, kind, stage, seed)
  model = f'{kind}, {_describe(layout)}'
  if to != _CHECKPOINT:
    state = convert.to_state_dict(layout, *converted)
    with workdirs.writing(output):
      output.parent.mkdir(parents=True, exist_ok=True)
    _WRITE[to](output, state)
    return f'{model}: {len(state)} tensors in {output}'
  if kind == 'celeba':
    stage = converted_runs.write_faces(
        output,
        layout,
        converted,
        source=described,
        dataset=dataset or _FACES,
        attributes=list(attributes),
        epochs=epochs,
    )
    return f'{model}: stage {stage} of the run in {output}'
  of_data = {
      'dataset': dataset or datasets.DEFAULT_DATASET,
      'data_dir': data_dir,
      'epochs': epochs,
  }
  if kind == 'mnist_judge':
    ensemble = converted_runs.write_judge(output, layout, converted, **of_data)
    return (
        f'{model}: {ensemble.accuracy[0]:.2%} right on the test split of'
        f' {ensemble.dataset}; in {output}'
    )
  stage = converted_runs.write_digits(
      output, layout, converted, source=described, **of_data
  )
  return f'{model}: stage {stage} of the run in {output}'


def main() -> None:
  for name in ('input', 'kind', 'output'):
    if not FLAGS[name].value:
      raise errors.InputError(f'--{name} is missing; accepted: see --help.')
  names = (
      'kind', 'to', 'stage', 'seed', 'judge', 'num_factors', 'dataset',
      'data_dir', 'attributes', 'epochs',
  )  # pyformat: disable
  values = {name: FLAGS[name].value for name in names}
  print(convert_model(FLAGS.input, FLAGS.output, **values))


def _read_file(path, kind, num_factors):
  """Reads a state dict; returns what file it is of, layout and variables."""
  read = torch_files.read_state_dict
  if os.fspath(path).endswith(_SAFETENSORS):
    read = safetensors_files.read_state_dict
  state = read(path)
  layout = convert.infer_layout(path, state, kind, num_factors)
  converted = convert.from_state_dict(path, state, layout)
  with open(path, 'rb') as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
  described = {'file': os.path.basename(path), 'sha256': sha256}
  return described, layout, converted


def _describe(layout):
  """Says the sizes of a model in a few words."""
  model = layout.model
  if layout.kind == 'mnist_judge':
    return f'{model.num_classes} classes'
  return f'k = {model.num_factors}, d = {model.nuisance_dim}'


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
