"""Tables of results as text: rows of results.json in, lines out."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

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
    Lines: a heading and one per row.
  """
  columns = dict(_FACE_COLUMNS if _are_faces(rows) else _COLUMNS)
  for name, column in _SCORE_COLUMNS.items():
    if any(name in row for row in rows):
      columns[name] = column
  heading = [title.rjust(width) for title, width, _ in columns.values()]
  lines = ['  '.join(heading)]
  for row in rows:
    cells = []
    for name, (_, width, show) in columns.items():
      value = row.get(name)
      cells.append(('-' if value is None else show(value)).rjust(width))
    lines.append('  '.join(cells))
  return '\n'.join(lines)


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
  real = rows[0]['judge_accuracy_by_attribute']
  balanced = rows[0]['judge_balanced_accuracy_by_attribute']
  names = sorted(real, key=lambda name: -balanced[name])
  width = max(len(name) for name in (*names, 'attribute'))
  heading = ['attribute'.ljust(width), 'judge', 'balanced']
  for i in range(len(rows)):
    heading += [f'recon. {i + 1}', f'flips {i + 1}']
  lines = [
      f'{i + 1}: {row["model"]}, d = {row["nuisance_dim"]}'
      for i, row in enumerate(rows)
  ]
  lines.append('  '.join(heading))

  def add_line(name, values):
    cells = [f'{v:.1%}'.rjust(len(t)) for v, t in zip(values, heading[1:])]
    lines.append('  '.join([name.ljust(width), *cells]))

  table = {}
  for name in names:
    table[name] = [real[name], balanced[name]]
    for row in rows:
      table[name] += [
          row['judge_accuracy_reconstructions_by_attribute'][name],
          row['attribute_flips_by_attribute'][name],
      ]
    add_line(name, table[name])
  columns = zip(*table.values())
  add_line('mean', [sum(column) / len(names) for column in columns])
  return '\n'.join(lines)


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
  scores = {
      model: {
          row['nuisance_dim']: row['class_swaps']
          for row in rows
          if row['model'] == model and row.get('class_swaps') is not None
      }
      for model in ('student', 'student_no_jacobian')
  }
  supervised, without = scores.values()
  dim = max(supervised.keys() & without.keys(), default=None)
  if dim is None:
    return None
  return (
      f'At d = {dim}, class swaps are {supervised[dim]:.1%} with Jacobian'
      f' supervision and {without[dim]:.1%} without:'
      f' {100 * (supervised[dim] - without[dim]):+.1f} points.'
  )


def _format_face_effect(rows):
  """Compares the largest student with its teacher and the cycle student."""
  chains = {'teacher': {}, 'student': {}, 'student_cycle': {}}
  for row in rows:
    chain = chains.get(row['model'])
    measured = [row.get(name) for name in ('attribute_flips', 'mse')]
    if chain is not None and None not in measured:
      chain[row['nuisance_dim']] = row
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
  line = (
      f'At d = {dim}, the student keeps {kept:.1%} of its teacher\'s flips at'
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


def _are_faces(rows):
  return any('attribute_flips' in row for row in rows)


def _show_error(value):
  """Shows 0.00182 as 1.82e-3, as the paper does."""
  if not math.isfinite(value):  # Of a training that diverged.
    return str(value)
  mantissa, exponent = f'{value:.2e}'.split('e')
  return f'{mantissa}e{int(exponent)}'
