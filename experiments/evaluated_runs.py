"""What measuring a run again has in common for digits and faces."""

from collections.abc import Mapping, Sequence
import json
import pathlib
import sys
from typing import Any

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.runs import workdir as workdirs


def check_model(run: workdirs.WorkDir, *widths: str) -> None:
  """Checks the values in a manifest that any model is made by.

  Args:
    run: with a manifest that has `compute_dtype` and `seed`.
    *widths: names of flags that are numbers of units or channels; older runs
      may lack them.

  Raises:
    InputError: if a value cannot be.
  """
  values = run.manifest['flags']
  for name in widths:
    if not 1 <= values.get(name, 1) <= config.LARGEST_WIDTH:
      raise errors.InputError(
          f'{run.path} has a run of --{name}={values[name]}; accepted: 1 to'
          f' {config.LARGEST_WIDTH}.'
      )
  dtype, seed = values['compute_dtype'], values['seed']
  if dtype not in config.COMPUTE_DTYPES or not 0 <= seed < 2**31:
    raise errors.InputError(
        f'{run.path} has a run of --compute_dtype={dtype} and --seed={seed};'
        f' accepted: {" or ".join(config.COMPUTE_DTYPES)}, and 0 to 2147483647.'
    )


def find_finished(
    run: workdirs.WorkDir,
    chain: Sequence[config.Stage],
    *,
    done: str = 'measured',
) -> list[config.Stage]:
  """Returns the finished stages of a run; what is unfinished is said.

  Args:
    run: with a manifest.
    chain: its stages.
    done: what is done with those that are.

  Raises:
    InputError: if none is finished.
  """
  finished = [stage for stage in chain if stage.name in run.manifest['stages']]
  unfinished = [stage.name for stage in chain if stage not in finished]
  if not finished:
    raise errors.InputError(
        f'--workdir={run.path} has no finished stage (unfinished:'
        f' {", ".join(unfinished)}); accepted: a run with one or more.'
    )
  if unfinished:
    _note(f'not {done}, as unfinished: {", ".join(unfinished)}')
  return finished


def compare_judges(
    run: workdirs.WorkDir, entry: str, found: Mapping[str, Any], *, what: str
) -> None:
  """Says so where a run was measured by another judge.

  Args:
    run: whose results.json may have one.
    entry: of results.json that describes it.
    found: description of the judge now.
    what: does not compare then.
  """
  if not run.is_complete:
    return
  own = run.read_results().get(entry, found)
  if not isinstance(own, Mapping) or own.get('sha256') != found['sha256']:
    _note(
        f'the {entry} of results.json had other weights: {what} do not compare'
    )


def write(
    run: workdirs.WorkDir,
    dataset: str,
    split: str,
    *,
    protocol: str,
    fingerprint: str,
    rows: Sequence[Mapping[str, Any]],
    **judged_by: Mapping[str, Any],
) -> pathlib.Path:
  """Writes WORKDIR/evaluations/DATASET_SPLIT.json, in results.json's format.

  Args:
    run: that was measured; nothing else in it changes.
    dataset: name of what it was measured on.
    split: of that.
    protocol: how.
    fingerprint: of the data.
    rows: one per model.
    **judged_by: description of the judge or judges, under its name.

  Returns:
    The file.
  """
  results = {
      'experiment': 'evaluate',
      'protocol': protocol,
      'dataset': {'name': dataset, 'fingerprint': fingerprint},
      **judged_by,
      'rows': rows,
  }
  return write_text(run, dataset, split, json.dumps(results, indent=1))


def write_text(
    run: workdirs.WorkDir, dataset: str, ending: str, text: str
) -> pathlib.Path:
  """Writes WORKDIR/evaluations/DATASET_ENDING.json; returns the file."""
  path = make_path(run, dataset, ending)
  path.parent.mkdir(exist_ok=True)
  workdirs.write_whole(path, text)
  return path


def make_path(
    run: workdirs.WorkDir, dataset: str, ending: str
) -> pathlib.Path:
  """Returns where `write_text` writes."""
  return run.path / 'evaluations' / f'{dataset.replace("/", "-")}_{ending}.json'


def _note(text):
  print(f'note: {text}', file=sys.stderr)
