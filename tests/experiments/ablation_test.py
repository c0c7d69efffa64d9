"""Tests of experiments.ablation."""

import json
import re

import pytest

from experiments import ablation
from experiments import cli
from experiments import paper_numbers


def _stages(table, *args):
  config = cli.parse(ablation.make_default([f'--table={table}']), args)
  return ablation.make_face_stages(config.chain, table)


def test_table_5_has_a_student_of_one_teacher_for_each_row():
  teacher, *students = _stages('5', '--seeds=1')
  assert teacher.name == 'teacher' and teacher.nuisance_dim == 2048
  assert not teacher.weights.needs_cycle
  assert [s.name for s in students] == [f'student_row{i}' for i in range(1, 7)]
  assert {s.parent for s in students} == {'teacher'}
  for stage, row in zip(students, paper_numbers.TABLE_5.rows):
    found = {name: getattr(stage.weights, name) for name in row.weights}
    assert found == row.weights and stage.epochs == 50
    assert stage.weights.lambda_prediction == 0


def test_table_6_has_a_teacher_for_each_row_and_seed():
  stages = _stages('6', '--seeds=2', '--seed=3')
  assert [stage.name for stage in stages[:3]] == [
    f'teacher_row{i}_seed3' for i in (1, 2, 3)
  ]
  assert [stage.weights.lambda_xcov for stage in stages] == [
      1e-3, 1e-2, 1e-1
  ] * 2  # fmt: skip
  assert {stage.seed for stage in stages} == {3, 4}


def test_without_a_table_it_says_what_it_would_train(
  invoke, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  status, out, err = invoke(ablation.main, ablation.make_default)
  assert (status, err) == (0, '') and not [*tmp_path.iterdir()]
  assert out.startswith('No --table is given: nothing is trained.')
  commands = re.findall('^python -m experiments.ablation (.*)', out, re.M)
  names = ('mnist_table4', 'celeba_table5', 'celeba_table6')
  assert commands == [
    f'--flagfile={name}{suffix}' for name in names for suffix in ('', '_quick')
  ]
  assert out.count('  Time: ') == out.count('  Expected') == len(commands)
  for command in commands:
    found = cli.parse(ablation.make_default([command]), [command])
    assert found.table == command.removesuffix('_quick')[-1]


def test_table_4_trains_all_rows_at_once(
  digit_flags, root, invoke, monkeypatch
):
  # Two rows instead of 14: with and without supervision.
  table = paper_numbers.TABLES[4]
  rows = (table.rows[0], table.rows[6])
  few = table._replace(rows=rows)
  monkeypatch.setitem(paper_numbers.TABLES, 4, few)
  monkeypatch.setattr(paper_numbers, 'TABLE_4', few)
  status, out, err = invoke(
      ablation.main, ablation.make_default, '--table=4', *digit_flags,
      f'--workdir={root / "table4"}',
  )  # fmt: skip
  assert status == 0, err
  results = json.loads((root / 'table4' / 'results.json').read_text())
  assert [row['model'] for row in results['rows']] == [
      'teacher', 'student', 'student', 'random'
  ]  # fmt: skip
  for row, paper in zip(results['rows'][1:], rows):
    found = {name: row[name] for name in paper.weights}
    assert found == pytest.approx(paper.weights)
  assert (root / 'table4' / 'table.md').read_text().strip() in out
  assert (root / 'table4' / 'table.csv').exists()
