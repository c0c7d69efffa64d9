"""Tables of results as text: rows of results.json in, lines out."""

from collections.abc import Mapping, Sequence
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


def format_rows(rows: Sequence[Mapping[str, Any]]) -> str:
  """Formats rows as a table of fixed width.

  Args:
    rows: of results.json; a value that is missing or None is shown as '-'.

  Returns:
    Lines: a heading and one per row.
  """
  heading = [title.rjust(width) for title, width, _ in _COLUMNS.values()]
  lines = ['  '.join(heading)]
  for row in rows:
    cells = []
    for name, (_, width, show) in _COLUMNS.items():
      value = row.get(name)
      cells.append(('-' if value is None else show(value)).rjust(width))
    lines.append('  '.join(cells))
  return '\n'.join(lines)


def format_effect(rows: Sequence[Mapping[str, Any]]) -> str | None:
  """Says what Jacobian supervision changes at the largest d of both chains.

  Args:
    rows: of results.json.

  Returns:
    One line, None where one of the chains is missing.
  """
  largest = {
      model: max(
          (row for row in rows if row['model'] == model),
          key=lambda row: row['nuisance_dim'],
          default=None,
      )
      for model in ('student', 'student_no_jacobian')
  }
  student, without = largest.values()
  if student is None or without is None:
    return None
  points = 100 * (student['class_swaps'] - without['class_swaps'])
  return (
      f'At d = {student["nuisance_dim"]}, class swaps are'
      f' {student["class_swaps"]:.1%} with Jacobian supervision and'
      f' {without["class_swaps"]:.1%} without: {points:+.1f} points.'
  )
