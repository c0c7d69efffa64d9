"""Tables of results as text: rows of results.json in, lines out.

Rows that differ by their seeds alone are one line, of their means and
deviations; see `averages`.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from jacsup_jax.evaluation import averages

# Column of a row: title, width, and how its value is shown.
_COLUMNS = {
    'model': ('model', 20, str),
    'nuisance_dim': ('d', 3, str),
    'class_swaps': ('class swaps', 11, '{:.1%}'.format),
    'class_swaps_std': ('+- judges', 9, '{:.1%}'.format),
    'class_swaps_noisy_judge': ('noisy judge', 11, '{:.1%}'.format),
    'class_swaps_true_labels': ('true labels', 11, '{:.1%}'.format),
    'mse': ('MSE', 7, '{:.4f}'.format),
    'psnr': ('PSNR dB', 7, '{:.2f}'.format),
}
# Shown where any row has them.
_DIAGNOSTIC_COLUMNS = {
    'jacobian_cosine': ('Jac. cos', 8, '{:.3f}'.format),
    'jacobian_norm_error': ('norm err', 8, '{:.1%}'.format),
    'jacobian_cosine_first_teacher': ('cos of 1st', 10, '{:.3f}'.format),
    'jacobian_norm_error_first_teacher': ('err of 1st', 10, '{:.1%}'.format),
}
_FACE_COLUMNS = {
    'model': ('model', 20, str),
    'nuisance_dim': ('d', 5, str),
    'attribute_flips': ('flips', 6, '{:.1%}'.format),
    'attribute_flips_told': ('of told', 7, '{:.1%}'.format),
    'attribute_flips_as_asked': ('as asked', 8, '{:.1%}'.format),
    'preservation': ('preserved', 9, '{:.1%}'.format),
    'strength': ('alpha', 5, '{:g}'.format),
    'mse': ('MSE', 8, lambda value: _show_error(value)),
    'psnr': ('PSNR dB', 7, '{:.2f}'.format),
    'judge_accuracy': ('judge real', 10, '{:.1%}'.format),
    'judge_accuracy_reconstructions': ('recon.', 6, '{:.1%}'.format),
}
# Of rows that have them, after the others.
_SCORE_COLUMNS = {
    'mig': ('MIG', 5, '{:.3f}'.format),
    'sap': ('SAP', 5, '{:.3f}'.format),
    'dci_disentanglement': ('DCI d', 5, '{:.3f}'.format),
    'dci_completeness': ('DCI c', 5, '{:.3f}'.format),
    'dci_informativeness': ('DCI i', 5, '{:.3f}'.format),
    'modularity': ('modul.', 6, '{:.3f}'.format),
}


def format_results(results: Mapping[str, Any]) -> str:
  """Formats results.json: its rows, and the effect that they show.

  Args:
    results: with `rows`.

  Returns:
    Lines.
  """
  effect = format_effect(results['rows'])
  table = format_rows(results['rows'])
  return f'{table}\n{effect}' if effect else table


def format_rows(rows: Sequence[Mapping[str, Any]]) -> str:
  """Formats rows as a table of fixed width, of digits or of faces.

  Args:
    rows: of results.json; a value that is missing or None is shown as '-'.

  Returns:
    Lines: a heading and one per row, or per rows that differ by seed alone;
    then one that says what their deviations are.
  """
  titles, table, explanation = make_cells(rows)
  widths = [width for _, width, _ in _choose_columns(rows).values()]
  if explanation:
    widths = [
        max(width, *map(len, cells))
        for width, cells in zip(widths, zip(*table))
    ]
  lines = [
      '  '.join(cell.rjust(width) for cell, width in zip(cells, widths))
      for cells in [titles, *table]
  ]
  return '\n'.join(lines + ([explanation] if explanation else []))


def make_cells(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[list[str], list[list[str]], str | None]:
  """Makes the cells of the table of `format_rows`.

  Args:
    rows: of results.json.

  Returns:
    Titles of the columns, a list of cells per row, and what their deviations
    are, if any.
  """
  columns = _choose_columns(rows)
  groups = averages.group_seeds(rows)
  table = [
      [
          _show_values([row.get(name) for row in group], show)
          for name, (_, _, show) in columns.items()
      ]
      for group in groups
  ]
  titles = [title for title, _, _ in columns.values()]
  return titles, table, averages.describe_deviation(groups)


def format_attributes(rows: Sequence[Mapping[str, Any]]) -> str:
  """Formats the flips of every attribute, next to what its judge is worth.

  A line per attribute, the worst told by the judge last, and their means. For
  each model: the judge's accuracy on its reconstructions, and its flips.

  Args:
    rows: of results.json, measured by one judge on one data set.

  Returns:
    Lines; the columns of row i have the number i + 1 in their titles, which a
    line of its own explains.

  Raises:
    ValueError: if no row has flips by attribute.
  """
  rows = [row for row in rows if row.get('attribute_flips_by_attribute')]
  if not rows:
    raise ValueError('no row has attribute_flips_by_attribute.')
  groups = averages.group_seeds(rows)
  real = rows[0]['judge_accuracy_by_attribute']
  balanced = rows[0]['judge_balanced_accuracy_by_attribute']
  names = sorted(real, key=lambda name: -balanced[name])
  width = max(len(name) for name in (*names, 'attribute'))
  heading = ['judge', 'balanced']
  for i in range(len(groups)):
    heading += [f'recon. {i + 1}', f'flips {i + 1}']
  # A cell has a value of each seed of its group.
  table = {}
  for name in names:
    table[name] = [[real[name]], [balanced[name]]]
    for group in groups:
      table[name] += [
          [row[f'{entry}_by_attribute'][name] for row in group]
          for entry in ('judge_accuracy_reconstructions', 'attribute_flips')
      ]
  # Over the attributes, of each seed.
  table['mean'] = [
      [sum(values) / len(names) for values in zip(*column)]
      for column in zip(*table.values())
  ]
  shown = {
      name: [_show_values(values, '{:.1%}'.format) for values in cells]
      for name, cells in table.items()
  }
  explanation = averages.describe_deviation(groups)
  widths = [len(title) for title in heading]
  if explanation:
    widths = [
        max(width, *map(len, cells))
        for width, cells in zip(widths, zip(*shown.values()))
    ]
  lines = [
      f'{i + 1}: {group[0]["model"]}, d = {group[0]["nuisance_dim"]}'
      for i, group in enumerate(groups)
  ]
  for name, cells in {'attribute': heading, **shown}.items():
    cells = [cell.rjust(w) for cell, w in zip(cells, widths)]
    lines.append('  '.join([name.ljust(width), *cells]))
  return '\n'.join(lines + ([explanation] if explanation else []))


def format_effect(rows: Sequence[Mapping[str, Any]]) -> str | None:
  """Says what Jacobian supervision changes, at the largest d of both chains.

  For faces: what the student keeps of its teacher, and how far it is from the
  student with cycle losses alone, where there is one of the same d.

  Args:
    rows: of results.json.

  Returns:
    One line, None where no d has a score of both.
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
  means = [averages.mean(list(of_seed.values())) for of_seed in pair]
  with_, without_ = (
      _show_values(list(of_seed.values()), '{:.1%}'.format) for of_seed in pair
  )
  # Of each seed, since the two share their teacher.
  differences = [
      100 * (score - pair[1][seed])
      for seed, score in pair[0].items()
      if seed in pair[1]
  ]
  spread = averages.deviation(differences)
  return (
      f'At d = {dim}, class swaps are {with_} with Jacobian'
      f' supervision and {without_} without:'
      f' {100 * (means[0] - means[1]):+.1f}'
      f'{"" if spread is None else f" ± {spread:.1f}"} points.'
  )


def _choose_columns(rows):
  """Returns the columns of rows, of digits or of faces."""
  columns = _FACE_COLUMNS if _are_faces(rows) else _COLUMNS
  columns = columns | {
      name: column
      for name, column in _DIAGNOSTIC_COLUMNS.items()
      if any(row.get(name) is not None for row in rows)
  }
  return columns | {
      name: column
      for name, column in _SCORE_COLUMNS.items()
      # Those that are undefined in all rows too: they were asked for.
      if any(name in row for row in rows)
  }


def _format_face_effect(rows):
  """Compares the largest student with its teacher and the cycle student."""
  chains = {'teacher': {}, 'student': {}, 'student_cycle': {}}
  several = False
  for group in averages.group_seeds(rows):
    chain = chains.get(group[0]['model'])
    several |= chain is not None and len(group) > 1
    row = {
        name: averages.mean([row.get(name) for row in group])
        for name in ('attribute_flips', 'mse')
    }
    if chain is not None and None not in row.values():
      chain[group[0]['nuisance_dim']] = row
  teachers, students, cycles = chains.values()
  if not teachers or not students:
    return None
  # A student of equal size would have nothing to gain.
  teacher = teachers[min(teachers)]
  dim = max(students.keys() & cycles.keys(), default=max(students))
  student = students[dim]
  if not teacher['attribute_flips'] or not teacher['mse']:
    return None
  kept = student['attribute_flips'] / teacher['attribute_flips']
  error = student['mse'] / teacher['mse']
  at = 'In the mean over seeds, at' if several else 'At'
  line = (
      f'{at} d = {dim}, the student keeps {kept:.1%} of its teacher\'s flips at'
      f' {error:.1%} of its error'
  )
  if dim in cycles:
    points = 100 * (
        student['attribute_flips'] - cycles[dim]['attribute_flips']
    )
    side = 'above' if points >= 0 else 'below'
    line += (
        f', {abs(points):.1f} points {side} the student with cycle losses'
    )
  return f'{line}.'


def _show_values(values, show):
  """Shows the values of a cell, one of each seed: a value, or mean ± std."""
  known = [value for value in values if value is not None]
  if not known:
    return '-'
  # What names the rows is the same in all.
  if len(known) == 1 or isinstance(known[0], str) or show is str:
    return show(known[0])
  mean, std = averages.mean(known), averages.deviation(known)
  return f'{show(mean)} ± {show(std)}'


def _are_faces(rows):
  return any('attribute_flips' in row for row in rows)


def _show_error(value):
  """Shows 0.00182 as 1.82e-3, as the paper does."""
  if not math.isfinite(value):  # Of a training that diverged.
    return str(value)
  mantissa, exponent = f'{value:.2e}'.split('e')
  return f'{mantissa}e{int(exponent)}'
