"""Tables of results as text: rows of results.json in, lines out.

Rows that differ by their seeds alone are one line, of their means and standard
deviations. Every deviation after "±" or "+-" is that of a sample, with the
divisor n - 1. pandas is imported where it is used.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

Row = Mapping[str, Any]


def _show_error(value):
  """Shows 0.00182 as 1.82e-3, as the paper does."""
  if not math.isfinite(value):  # Of a training that diverged.
    return str(value)
  mantissa, exponent = f'{value:.2e}'.split('e')
  return f'{mantissa}e{int(exponent)}'


_percent = '{:.1%}'.format
_three_digits = '{:.3f}'.format
# Columns of a table: title, and how a value is shown.
_DIGITS = {
  'model': ('model', str),
  'nuisance_dim': ('d', str),
  'class_swaps': ('class swaps', _percent),
  'class_swaps_std': ('+- judges', _percent),
  'class_swaps_noisy_judge': ('noisy judge', _percent),
  'class_swaps_true_labels': ('true labels', _percent),
  'mse': ('MSE', '{:.4f}'.format),
  'psnr': ('PSNR dB', '{:.2f}'.format),
}
_FACES = {
  'model': ('model', str),
  'nuisance_dim': ('d', str),
  'attribute_flips': ('flips', _percent),
  'attribute_flips_told': ('of told', _percent),
  'attribute_flips_as_asked': ('as asked', _percent),
  'preservation': ('preserved', _percent),
  'strength': ('alpha', '{:g}'.format),
  'mse': ('MSE', _show_error),
  'psnr': ('PSNR dB', '{:.2f}'.format),
  'judge_accuracy': ('judge real', _percent),
  'judge_accuracy_reconstructions': ('recon.', _percent),
}
# Shown where any row has a value.
_DIAGNOSTICS = {
  'jacobian_cosine': ('Jac. cos', _three_digits),
  'jacobian_norm_error': ('norm err', _percent),
  'jacobian_cosine_first_teacher': ('cos of 1st', _three_digits),
  'jacobian_norm_error_first_teacher': ('err of 1st', _percent),
}
# Shown where any row has them, also undefined: they were asked for.
_SCORES = {
  'mig': ('MIG', _three_digits),
  'sap': ('SAP', _three_digits),
  'dci_disentanglement': ('DCI d', _three_digits),
  'dci_completeness': ('DCI c', _three_digits),
  'dci_informativeness': ('DCI i', _three_digits),
  'modularity': ('modul.', _three_digits),
}


def format_results(results: Mapping[str, Any]) -> str:
  """Formats results.json: its `rows`, and the effect that they show."""
  effect = format_effect(results['rows'])
  table = format_rows(results['rows'])
  return f'{table}\n{effect}' if effect else table


def format_rows(rows: Sequence[Row], *, style: str = 'text') -> str:
  """Formats rows of digits or of faces as a table.

  Args:
    rows: of results.json; a value that is missing or None is shown as '-'.
    style: 'text' of aligned columns, or 'markdown'.

  Returns:
    Lines: a heading and one per row, or per rows that differ by seed alone;
    then one that explains their deviations.
  """
  columns = dict(_FACES if _are_faces(rows) else _DIGITS)
  for more, has in (
    (_DIAGNOSTICS, lambda row, name: row.get(name) is not None),
    (_SCORES, lambda row, name: name in row),
  ):
    columns |= {
      name: column
      for name, column in more.items()
      if any(has(row, name) for row in rows)
    }
  groups = group_seeds(rows)
  cells = [
    [
      _show_values([_get(row, name) for row in group], show)
      for name, (_, show) in columns.items()
    ]
    for group in groups
  ]
  titles = [title for title, _ in columns.values()]
  return _format_table(titles, cells, describe_deviation(groups), style)


def format_attributes(rows: Sequence[Row]) -> str:
  """Formats the flips of every attribute, next to its judge's accuracy.

  A line per attribute, in falling order of the judge's balanced accuracy, and
  their means. For each model: the judge's accuracy on its reconstructions, and
  its flips; lines before the table number the models.

  Args:
    rows: of results.json, measured by one judge on one data set.

  Raises:
    ValueError: if no row has flips by attribute.
  """
  rows = [row for row in rows if row.get('attribute_flips_by_attribute')]
  if not rows:
    raise ValueError('no row has attribute_flips_by_attribute.')
  groups = group_seeds(rows)
  # Columns of (title, the tables by attribute of each seed).
  columns = [
    ('judge', [rows[0]['judge_accuracy_by_attribute']]),
    ('balanced', [rows[0]['judge_balanced_accuracy_by_attribute']]),
  ]
  for i, group in enumerate(groups, start=1):
    for title, entry in (
      ('recon.', 'judge_accuracy_reconstructions'),
      ('flips', 'attribute_flips'),
    ):
      seeds = [row[f'{entry}_by_attribute'] for row in group]
      columns.append((f'{title} {i}', seeds))
  [balanced] = columns[1][1]
  names = sorted(balanced, key=lambda name: -balanced[name])
  width = max(map(len, [*names, 'attribute']))
  cells = [
    [name.ljust(width)]
    + [_show_values([s[name] for s in seeds], _percent) for _, seeds in columns]
    for name in names
  ]
  cells.append(
    ['mean'.ljust(width)]
    + [
      _show_values([mean([s[n] for n in names]) for s in seeds], _percent)
      for _, seeds in columns
    ]
  )
  titles = ['attribute'.ljust(width), *(title for title, _ in columns)]
  heading = [
    f'{i}: {group[0]["model"]}, d = {group[0]["nuisance_dim"]}'
    for i, group in enumerate(groups, start=1)
  ]
  table = _format_table(titles, cells, describe_deviation(groups), 'text')
  return '\n'.join([*heading, table])


def format_effect(rows: Sequence[Row]) -> str | None:
  """Says what Jacobian supervision changes, at the largest d of both chains.

  For faces: what the student keeps of its teacher, and how far it is from the
  student with cycle losses alone, where there is one of the same d. None where
  no d has a score of both.
  """
  if _are_faces(rows):
    return _format_face_effect(rows)
  # Model -> d -> seed -> score.
  scores = {'student': {}, 'student_no_jacobian': {}}
  for row in rows:
    if row['model'] in scores and row.get('class_swaps') is not None:
      of_dim = scores[row['model']].setdefault(row['nuisance_dim'], {})
      of_dim[row.get('seed')] = row['class_swaps']
  supervised, without = scores.values()
  dim = max(supervised.keys() & without.keys(), default=None)
  if dim is None:
    return None
  pair = supervised[dim], without[dim]
  means = [mean(list(of_seed.values())) for of_seed in pair]
  with_, without_ = (
    _show_values(list(of_seed.values()), _percent) for of_seed in pair
  )
  # Per seed, since the two share their teacher.
  spread = deviation(
    [
      100 * (score - pair[1][seed])
      for seed, score in pair[0].items()
      if seed in pair[1]
    ]
  )
  return (
    f'At d = {dim}, class swaps are {with_} with Jacobian'
    f' supervision and {without_} without:'
    f' {100 * (means[0] - means[1]):+.1f}'
    f'{"" if spread is None else f" ± {spread:.1f}"} points.'
  )


def group_seeds(rows: Sequence[Row]) -> list[list[Row]]:
  """Groups rows that differ by their seeds alone, and by what was measured.

  Rows of a group have the same model, stage (whose name may end in its seed),
  size and weights; the epochs of a stage that ends on a plateau are measured.
  Rows of one seed differ in something that their entries do not show; such a
  group is taken apart.

  Args:
    rows: of results.json.

  Returns:
    Groups in the order of their first rows.
  """
  groups = {}
  for row in rows:
    groups.setdefault(_identify(row), []).append(row)
  found = []
  for group in groups.values():
    seeds = {row['seed'] for row in group if 'seed' in row}
    whole = len(group) == 1 or len(seeds) == len(group)
    found += [group] if whole else [[row] for row in group]
  places = {id(row): i for i, row in enumerate(rows)}
  return sorted(found, key=lambda group: places[id(group[0])])


def mean(values: Sequence[float | None]) -> float | None:
  """Returns the mean of the values that are there, None without any."""
  known = _known(values)
  # NaN, of a training that diverged, is not left out.
  return float(known.mean(skipna=False)) if len(known) else None


def deviation(values: Sequence[float | None]) -> float | None:
  """Returns the standard deviation of a sample, whose divisor is n - 1.

  Args:
    values: None where one is missing; fewer than two give None.
  """
  known = _known(values)
  return float(known.std(skipna=False)) if len(known) > 1 else None


def describe_deviation(groups: Sequence[Sequence[Row]]) -> str | None:
  """Says what a table's ± are, None where no row has several seeds."""
  several = [group for group in groups if len(group) > 1]
  if not several:
    return None
  counts = ' or '.join(map(str, sorted({len(group) for group in several})))
  seeds = sorted({row['seed'] for group in several for row in group})
  listed = ', '.join(map(str, seeds))
  if len(seeds) > 3 and seeds[-1] - seeds[0] == len(seeds) - 1:
    listed = f'{seeds[0]} to {seeds[-1]}'
  return (
    f'±: standard deviation of the sample (divisor n - 1) over n = {counts}'
    f' seeds ({listed}).'
  )


def _known(values):
  # pylint: disable=import-outside-toplevel
  import pandas

  return pandas.Series([v for v in values if v is not None], dtype=float)


def _format_table(titles, cells, explanation, style):
  # pylint: disable=import-outside-toplevel
  import pandas

  if style == 'markdown':
    rows = [titles, ['---'] * len(titles), *cells]
    lines = [f'| {" | ".join(row)} |' for row in rows]
    return '\n'.join(lines + (['', explanation] if explanation else []))
  # The titles as a row, so that a table without rows has them too.
  frame = pandas.DataFrame(
    [[row[0], *(f' {cell}' for cell in row[1:])] for row in [titles, *cells]]
  )
  text = frame.to_string(index=False, header=False)
  return f'{text}\n{explanation}' if explanation else text


def _get(row, name):
  """Returns an entry; of older rows, deviations over judges had divisor n."""
  if name == 'class_swaps_std' and row.get('class_swaps_by_judge'):
    return deviation(row['class_swaps_by_judge'])
  return row.get(name)


def _show_values(values, show):
  """Shows the values of a cell, one of each seed: a value, or mean ± std."""
  known = [value for value in values if value is not None]
  if not known:
    return '-'
  # What names the rows is the same in all.
  if len(known) == 1 or isinstance(known[0], str) or show is str:
    return show(known[0])
  return f'{show(mean(known))} ± {show(deviation(known))}'


def _are_faces(rows):
  return any('attribute_flips' in row for row in rows)


def _format_face_effect(rows):
  """Compares the largest student with its teacher and the cycle student."""
  chains = {'teacher': {}, 'student': {}, 'student_cycle': {}}
  several = False
  for group in group_seeds(rows):
    chain = chains.get(group[0]['model'])
    found = [
      mean([row.get(name) for row in group])
      for name in ('attribute_flips', 'mse')
    ]
    if chain is not None and None not in found:
      chain[group[0]['nuisance_dim']] = found
      several |= len(group) > 1
  teachers, students, cycles = chains.values()
  if not teachers or not students:
    return None
  # The smallest: a student of equal size would have nothing to gain.
  teacher_flips, teacher_error = teachers[min(teachers)]
  dim = max(students.keys() & cycles.keys(), default=max(students))
  flips, error = students[dim]
  if not teacher_flips or not teacher_error:
    return None
  at = 'In the mean over seeds, at' if several else 'At'
  line = (
    f'{at} d = {dim}, the student keeps {flips / teacher_flips:.1%} of its'
    f" teacher's flips at {error / teacher_error:.1%} of its error"
  )
  if dim in cycles:
    points = 100 * (flips - cycles[dim][0])
    side = 'above' if points >= 0 else 'below'
    line += f', {abs(points):.1f} points {side} the student with cycle losses'
  return f'{line}.'


def _identify(row):
  """Returns what rows that differ by their seeds alone have in common."""
  stage = row.get('stage')
  if isinstance(stage, str):
    stage = stage.removesuffix(f'_seed{row.get("seed")}')
  chosen = {
    name: value
    for name, value in row.items()
    if name.startswith('lambda_')
    # Modes and the like; other numbers are measured.
    or (isinstance(value, (str, bool)) and name not in ('stage', 'sha256'))
  }
  items = sorted(map(_show_item, chosen.items()))
  return (stage, row.get('nuisance_dim'), *items)


def _show_item(item):
  name, value = item
  # Weights may have passed through float32; NaN does not equal itself.
  if isinstance(value, float) and math.isfinite(value):
    value = f'{value:.6g}'
  return f'{name} {value}'
