"""Tables of results as text: rows of results.json in, lines out.

Rows that differ by their seeds alone are one line, of their means and standard
deviations, with the divisor n - 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]


def _show_error(value):
  """Shows 0.00182 as 1.82e-3, as the paper does."""
  return f'{value:.2e}'.replace('e-0', 'e-').replace('e+0', 'e')


_percent = '{:.1%}'.format
_three_digits = '{:.3f}'.format
# Columns of a table: title, and how a value is shown.
_MODEL = {'model': ('model', str), 'nuisance_dim': ('d', str)}
_DIGITS = {
  **_MODEL,
  'class_swaps': ('class swaps', _percent),
  'class_swaps_family': ('family', str),
  'class_swaps_mlp': ('mlp', _percent),
  'class_swaps_mlp_std': ('+- judges', _percent),
  'class_swaps_cnn': ('cnn', _percent),
  'class_swaps_cnn_std': ('+- judges', _percent),
  'class_swaps_svm': ('svm', _percent),
  'class_swaps_noisy_judge': ('noisy mlp', _percent),
  'class_swaps_true_labels': ('true labels', _percent),
  'mse': ('MSE', '{:.4f}'.format),
  'psnr': ('PSNR dB', '{:.2f}'.format),
}
# More columns of the same rows, shown where any row has a value.
_LIKENESS = {
  'judge_accuracy_reconstructions_mlp': ('recon. mlp', _percent),
  'judge_accuracy_reconstructions_cnn': ('recon. cnn', _percent),
  'judge_accuracy_reconstructions_svm': ('recon. svm', _percent),
  'precision_swapped': ('precision', _percent),
  'precision_reconstructions': ('of recon.', _percent),
  'recall_swapped': ('recall', _percent),
  'recall_reconstructions': ('of recon.', _percent),
  'frechet_swapped': ('Frechet', '{:.1f}'.format),
  'frechet_reconstructions': ('of recon.', '{:.1f}'.format),
  'probe_linear_factors': ('y: linear', _percent),
  'probe_mlp_factors': ('y: MLP', _percent),
  'probe_linear_nuisance': ('z: linear', _percent),
  'probe_mlp_nuisance': ('z: MLP', _percent),
}
_LIKENESS_NOTE = (
  'recon.: what judges see of reconstructions; precision, recall, Frechet: of'
  ' swapped images;\ny, z: how often a probe reads the class from factors, from'
  ' the nuisance.'
)
_FACES = {
  **_MODEL,
  'labels': ('labels', str),
  'attribute_flips_balanced': ('balanced flips', _percent),
  'attribute_flips_balanced_told': ('of told', _percent),
  'attribute_flips_balanced_stgan': ('STGAN 13', _percent),
  'kept': ('kept', _percent),
  'outside_inside': ('outside', '{:.2f}'.format),
  'attribute_flips': ('flips', _percent),
  'preservation': ('kept', _percent),
  'strength': ('alpha', '{:g}'.format),
  'mse': ('MSE', _show_error),
  'ssim': ('SSIM', _three_digits),
  'judge_accuracy': ('judge real', _percent),
  'judge_accuracy_reconstructions': ('recon.', _percent),
}
_BY_ATTRIBUTE = 'attribute_flips_balanced_by_attribute'
# Shown where any row has a value.
_DIAGNOSTICS = {
  'edit_error': ('edit error', '{:.2f}'.format),
  'edit_leak': ('leak', '{:.2f}'.format),
  'class_swaps_ceiling': ('ceiling', _percent),
  'class_swaps_ceiling_mlp': ('c. mlp', _percent),
  'class_swaps_ceiling_cnn': ('c. cnn', _percent),
  'class_swaps_ceiling_svm': ('c. svm', _percent),
  'jacobian_cosine': ('Jac. cos', _three_digits),
  'jacobian_norm_error': ('norm err', _percent),
  'jacobian_cosine_first_teacher': ('cos of 1st', _three_digits),
  'jacobian_norm_error_first_teacher': ('err of 1st', _percent),
}
# Shown where any row has them, also undefined: they were asked for.
_SCORES = {
  'units': ('factors by', str),
  'run': ('run', str),
  'mig': ('MIG', _three_digits),
  'sap': ('SAP', _three_digits),
  'dci_disentanglement': ('DCI d', _three_digits),
  'dci_completeness': ('DCI c', _three_digits),
  'dci_informativeness': ('DCI i', _three_digits),
  'modularity': ('modul.', _three_digits),
  'factor_vae_score': ('FactorVAE', _three_digits),
  'infom': ('InfoM', _three_digits),
  'infoe': ('InfoE', _three_digits),
  'infoc': ('InfoC', _three_digits),
}


def format_results(results: Mapping[str, Any]) -> str:
  """Formats results.json: its `rows`, and the effect that they show."""
  effect = format_effect(results['rows'])
  table = format_rows(results['rows'])
  return f'{table}\n{effect}' if effect else table


def name_family(row: Row) -> Row:
  """Returns a row whose class swaps have the name of a family of judges.

  Those of earlier versions were measured by perceptrons alone, without a name.
  """
  if row.get('class_swaps') is None or 'class_swaps_family' in row:
    return row
  own = {'class_swaps_family': 'mlp', 'class_swaps_mlp': row['class_swaps']}
  return {**row, **own, 'class_swaps_mlp_std': row.get('class_swaps_std')}


def format_rows(rows: Sequence[Row]) -> str:
  """Formats rows of digits or of faces as tables; what is None is '-'.

  Those of digits are two: class swaps by each family of judges, with the lowest
  first; then what the judges make of reconstructions, how natural images are,
  and what probes read in factors (y) and nuisance (z).
  """
  parts = [_format_table(*own) for own in _make_tables(rows)]
  if len(parts) > 1:
    parts[1] += f'\n{_LIKENESS_NOTE}'
  return '\n\n'.join(parts)


def format_markdown(rows: Sequence[Row]) -> str:
  """Formats rows as `format_rows` does, as tables of Markdown."""
  parts = []
  for titles, cells, groups in _make_tables(rows):
    lines = [titles, ['---'] * len(titles), *cells]
    parts.append('\n'.join(f'| {" | ".join(line)} |' for line in lines))
    parts.append(_explain_deviations(groups))
  return '\n\n'.join(filter(None, parts)) + '\n'


def format_csv(rows: Sequence[Row]) -> str:
  """Formats rows as one table of comma-separated values."""
  import pandas

  frames = [
    pandas.DataFrame(cells, columns=titles)
    for titles, cells, _ in _make_tables(rows)
  ]
  # Tables begin with the same model and size.
  frames = [frames[0], *(own.iloc[:, len(_MODEL) :] for own in frames[1:])]
  return pandas.concat(frames, axis=1).to_csv(index=False, lineterminator='\n')


def _make_tables(rows):
  """Lists tables: titles, the cells of each line, and groups to explain."""
  rows = [name_family(row) for row in rows]
  groups = group_seeds(rows)
  are_faces = any('attribute_flips' in row for row in rows)
  columns = dict(_FACES if are_faces else _DIGITS)
  for name, column in _DIAGNOSTICS.items():
    if any(row.get(name) is not None for row in rows):
      columns[name] = column
  for name, column in _SCORES.items():
    if any(name in row for row in rows):
      columns[name] = column
  tables = [(*_make_cells(groups, columns), groups)]
  known = (row.get(name) for row in rows for name in _LIKENESS)
  if not are_faces and any(value is not None for value in known):
    tables.append((*_make_cells(groups, _MODEL | _LIKENESS), ()))
  return tables


def _make_cells(groups, columns):
  """Returns titles, and the cells of each line."""
  show_cell = lambda group, name: _show_values(
    [row.get(name) for row in group], columns[name][1]
  )
  cells = [[show_cell(group, name) for name in columns] for group in groups]
  return [title for title, _ in columns.values()], cells


def format_attributes(rows: Sequence[Row]) -> str:
  """Formats the balanced flips of attributes, next to their judge's accuracy.

  A line per attribute, in falling order of the judge's balanced accuracy, and
  their means. All rows are measured by the same judges.
  """
  rows = [row for row in rows if _BY_ATTRIBUTE in row]
  groups = group_seeds(rows)
  # Title -> the tables by attribute of each seed.
  columns = {
    'judge': [rows[0]['judge_accuracy_by_attribute']],
    'balanced': [rows[0]['judge_balanced_accuracy_by_attribute']],
  }
  heading = []
  for i, group in enumerate(groups, start=1):
    heading.append(f'{i}: {group[0]["model"]}, d = {group[0]["nuisance_dim"]}')
    for title, entry in (
      (f'recon. {i}', 'judge_accuracy_reconstructions_by_attribute'),
      (f'flips {i}', _BY_ATTRIBUTE),
    ):
      columns[title] = [row[entry] for row in group]
  [balanced] = columns['balanced']
  names = sorted(balanced, key=lambda name: -balanced[name])
  width = max(map(len, [*names, 'attribute']))
  cells = []
  for line, averaged in (*((name, [name]) for name in names), ('mean', names)):
    cells.append([line.ljust(width)])
    for seeds in columns.values():
      means = [np.mean([seed[name] for name in averaged]) for seed in seeds]
      cells[-1].append(_show_values(means, _percent))
  titles = ['attribute'.ljust(width), *columns]
  return '\n'.join([*heading, _format_table(titles, cells, groups)])


def format_effect(rows: Sequence[Row]) -> str | None:
  """Says what Jacobian supervision changes, at the largest d of both chains.

  None where no d has class swaps of both.
  """
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
  own, other = supervised[dim], without[dim]
  pair = [list(of_seed.values()) for of_seed in (own, other)]
  points = f'{100 * (np.mean(pair[0]) - np.mean(pair[1])):+.1f}'
  # Per seed, since the two share their teacher.
  paired = [100 * (own[x] - other[x]) for x in own if x in other]
  if len(paired) > 1:
    points += f' ± {np.std(paired, ddof=1):.1f}'
  return (
    f'At d = {dim}, class swaps (lowest family of judges) are'
    f' {_show_values(pair[0], _percent)} with Jacobian supervision and'
    f' {_show_values(pair[1], _percent)} without: {points} points.'
  )


def group_seeds(rows: Sequence[Row]) -> list[list[Row]]:
  """Groups rows of the same model, stage, size and weights but other seeds.

  Rows of one seed differ in something that their entries do not show: such a
  group is taken apart.
  """
  groups = {}
  for row in rows:
    groups.setdefault(_identify(row), []).append(row)
  found = []
  for group in groups.values():
    seeds = {row['seed'] for row in group if 'seed' in row}
    whole = len(group) == 1 or len(seeds) == len(group)
    found += [group] if whole else [[row] for row in group]
  return sorted(found, key=lambda group: rows.index(group[0]))


def _format_table(titles, cells, groups):
  """Aligns columns, and explains the deviations of the groups below."""
  import pandas

  # The titles as a row, so that a table without rows has them too.
  frame = pandas.DataFrame(
    [[row[0], *(f' {cell}' for cell in row[1:])] for row in [titles, *cells]]
  )
  text = frame.to_string(index=False, header=False)
  note = _explain_deviations(groups)
  return f'{text}\n{note}' if note else text


def _explain_deviations(groups):
  counts = sorted({len(group) for group in groups} - {1})
  if not counts:
    return ''
  return (
    '±: standard deviation of the sample (divisor n - 1) over n ='
    f' {" or ".join(map(str, counts))} seeds.'
  )


def _show_values(values, show):
  """Shows the values of a cell, one of each seed: a value, or mean ± std."""
  known = [value for value in values if value is not None]
  if not known:
    return '-'
  if isinstance(known[0], str):
    return '/'.join(dict.fromkeys(known))
  if len(known) == 1 or show is str:
    return show(known[0])
  return f'{show(np.mean(known))} ± {show(np.std(known, ddof=1))}'


def _identify(row):
  """Returns what rows that differ by their seeds alone have in common."""
  chosen = []
  for name, value in row.items():
    if name == 'stage' and isinstance(value, str):
      value = value.removesuffix(f'_seed{row.get("seed")}')
    # Modes and the like; other numbers are measured, and so is the family.
    is_mode = isinstance(value, (str, bool))
    is_mode = is_mode and name not in ('sha256', 'class_swaps_family')
    if is_mode or name == 'nuisance_dim' or name.startswith('lambda_'):
      # Weights may have passed through float32.
      shown = f'{value:.6g}' if isinstance(value, float) else value
      chosen.append(f'{name} {shown}')
  return tuple(sorted(chosen))
