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
  """Says what Jacobian supervision changes, at the largest d of both chains.

  Args:
    rows: of results.json.

  Returns:
    One line, None where no d has a score of both.
  """
  scores = {
      model: {
          row['nuisance_dim']: row['class_swaps']
          for row in rows
          if row['model'] == model and row['class_swaps'] is not None
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
