"""Tests of experiments.reproduce, paper_tables and paper_numbers."""

import json
import os
import pathlib
import signal

import pytest

from experiments import paper_numbers
from experiments import paper_tables
from experiments import progress
from experiments import reproduce
from jacsup_jax.core import errors
from jacsup_jax.runs import signals

ROOT = pathlib.Path(__file__).parents[2]
TABLE = paper_numbers.TABLE_4


def _row(paper, rate, *, seed=0, dim=14, mse=0.02, **changes):
  return {
      'model': paper.model, 'nuisance_dim': dim, 'seed': seed, 'epochs': 5,
      'class_swaps': rate, 'mse': mse, **paper.weights, **changes,
  }  # fmt: skip


def _write_run(path, rows, **changes):
  path.mkdir(parents=True)
  results = {'protocol': 'test split', 'judges': {'sha256': 'x'}, 'rows': rows}
  (path / 'results.json').write_text(json.dumps(results | changes))
  return path


def test_the_tables_have_the_papers_numbers():
  # Counted and read in the document; two of Table 2 stand for both labels.
  assert {n: len(t.rows) for n, t in paper_numbers.TABLES.items()} == {
      1: 5, 2: 8, 4: 14, 5: 6, 6: 3
  }  # fmt: skip
  assert TABLE.rows[7].rate == 0.705
  assert paper_numbers.TABLE_5.rows[-1].mse == 1.84e-3
  assert paper_numbers.TABLE_6.rows[0].weights == {'lambda_xcov': 1e-3}
  assert len({tuple(row.weights.items()) for row in TABLE.rows}) == 14


def test_means_and_deviations_are_over_seeds():
  rows = [
    _row(TABLE.rows[4], 0.5, seed=1, mse=0.01),
    _row(TABLE.rows[4], 0.7, seed=0, mse=0.03),
  ]
  found = paper_tables.match(TABLE, rows)
  assert [len(ours) for ours in found] == [0] * 4 + [2] + [0] * 9
  # 0.1414 = sqrt((0.1^2 + 0.1^2) / 1), of a sample.
  assert '60.0 ± 14.1' in paper_tables.format_markdown(TABLE, rows)


def test_labels_given_and_predicted_are_rows_of_their_own():
  table = paper_numbers.TABLE_2
  labels = [row.labels for row in table.rows if row.model == 'fader']
  assert labels == ['given', 'predicted'] * 2
  paper = table.rows[-2]
  rows = [
    _row(paper, None, dim=32, attribute_flips=rate, labels=labels)
    for rate, labels in ((0.67, 'given'), (0.45, 'predicted'))
  ]
  text = paper_tables.format_markdown(table, rows)
  for line in ('labels given | 2048 | 32 | 43.1 | 67.0 |',
               'labels predicted | 2048 | 32 | 43.1 | 45.0 |'):  # fmt: skip
    assert line in text


def test_weights_that_passed_through_float32_match():
  row = _row(TABLE.rows[0], 0.3, lambda_xcov=0.10000000149011612)
  assert len(paper_tables.match(TABLE, [row])[0]) == 1
  row['lambda_xcov'] = 0.1001
  assert paper_tables.match(TABLE, [row])[0].empty


def test_a_reduced_run_is_matched_by_its_smallest_and_largest_size():
  table = paper_numbers.TABLE_1
  rows = [_row(table.rows[0], 1.0, dim=0)]
  rows += [_row(table.rows[1], 0.9 - dim / 10, dim=dim) for dim in (1, 2, 3)]
  found = paper_tables.match(table, rows)
  # d = 18 is neither the paper's smallest nor its largest.
  dims = [ours['nuisance_dim'].tolist() for ours in found[:3]]
  assert dims == [[0], [3], []]


def test_a_table_as_text(tmp_path):
  row = _row(TABLE.rows[0], 0.25, seed=3)
  paper_tables.write(TABLE, [row], tmp_path / 'x')
  lines = (tmp_path / 'x.csv').read_text().splitlines()
  assert lines[0].startswith('model,λ_y,λ_diff,λ_xcov,"d, paper","d, ours",')
  assert 'perceptrons, ours",cnn,svm,lowest family,"MSE' in lines[0]
  # A run of an earlier version, by perceptrons alone.
  assert lines[1] == 'student,0,0,0.1,14,14,33.6,25.0,,,,0.0115,0.02000,100,5,3'
  assert lines[2] == 'student,0,0,0.01,14,,32.6,,,,,0.0117,,100,,'
  families = {
      'class_swaps_family': 'svm', 'class_swaps_mlp': 0.5,
      'class_swaps_cnn': 0.375, 'class_swaps_svm': 0.25,
  }  # fmt: skip
  cells = paper_tables.make_cells(TABLE, [row | families]).to_numpy()[0]
  assert cells[7:11].tolist() == ['50.0', '37.5', '25.0', '25.0']


@pytest.mark.parametrize(
    ('count', 'rate', 'expected'),
    [(14, lambda x: x / 2, 1), (14, lambda x: 1 - x, -1),
     (2, lambda x: x, None), (14, lambda x: 0.5, None)],
)  # fmt: skip
def test_rank_correlation(count, rate, expected):
  rows = [_row(row, rate(row.rate)) for row in TABLE.rows[:count]]
  found = paper_tables.rank_correlation(TABLE, rows)
  assert found == (expected and pytest.approx(expected))


def test_every_run_has_its_flagfile_and_work_directory():
  scales = [*reproduce.TABLES.values()]
  scales += [runs for runs, _ in reproduce.FIGURES.values()]
  for name in {r for runs in scales for own in runs.values() for r in own}:
    text = (ROOT / 'experiments/flagfiles' / f'{name}.flags').read_text()
    assert f'--workdir=runs/{name}\n' in text
    command = reproduce._make_command(reproduce.Config(), name, None)
    assert ('--table=' in text) == (command[1] == 'experiments.ablation')
  assert {int(n) for n in reproduce.TABLES} == set(paper_numbers.TABLES)


def test_published_results_are_read_with_no_run(tmp_path, invoke):
  status, out, err = invoke(
      reproduce.main, reproduce.Config(), '--table=1', '--figure=1',
      '--scale=full', f'--runs_dir={ROOT / "results"}', '--norun',
      f'--output={tmp_path}',
  )  # fmt: skip
  assert status == 0, err
  line = '| student with Jacobian supervision | 14 | 14 | 61.7 | 60.7 ± 4.5 |'
  assert line in out and line in (tmp_path / 'table1.md').read_text()
  assert (tmp_path / 'table1.csv').exists()
  assert (tmp_path / 'mnist_table1_figure_1a.png').exists()


def test_missing_runs_are_made_by_their_commands(tmp_path, monkeypatch, invoke):
  rows = [{**_row(row, None), 'attribute_flips': 0.5, 'mse': 0.1}
          for row in paper_numbers.TABLE_2.rows]  # fmt: skip
  commands = []

  def run_command(command):
    commands.append(command)
    [path] = [x.split('=')[1] for x in command if x.startswith('--workdir')]
    _write_run(pathlib.Path(path), rows)

  args = ('--table=2', f'--runs_dir={tmp_path}', '--data_dir=faces')
  status, _, err = invoke(reproduce.main, reproduce.Config(), *args, '--norun')
  assert status == 2 and 'experiments.celeba' in err
  monkeypatch.setattr(reproduce, 'run_command', run_command)
  status, _, err = invoke(reproduce.main, reproduce.Config(), *args)
  assert status == 0, err
  assert [command[1] for command in commands] == ['experiments.celeba'] * 2
  assert all('--data_dir=faces' in command for command in commands)
  assert (tmp_path / 'reproduce' / 'figure_4.png').exists()


def test_the_plot_of_table_1_shows_the_field(tmp_path):
  rows = [
    {'model': model, 'nuisance_dim': 14, 'seed': 0, 'class_swaps': 0.5}
    for model in ('teacher', 'tcvae')
  ]
  config = reproduce.Config(runs_dir=tmp_path)
  table = paper_numbers.TABLES[1]
  assert reproduce._read_rivals(config, table) == []
  workdir = tmp_path / 'mnist_field'
  workdir.mkdir()
  results = {'protocol': '', 'judges': [], 'rows': rows}
  (workdir / 'results.json').write_text(json.dumps(results))
  [row] = reproduce._read_rivals(config, table)
  assert row['model'] == 'tcvae' and row['class_swaps_mlp'] == 0.5


def test_a_command_that_fails_ends_this_one(monkeypatch):
  said = []
  monkeypatch.setattr(progress, 'say', lambda *args: said.append(args[0]))
  with pytest.raises(SystemExit) as info:
    reproduce.run_command(('-c', 'import sys; sys.exit(2)'))
  assert info.value.code == 2 and 'ended with status 2' in said[-1]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_run(monkeypatch, tmp_path, number):
  # It says that it has begun, and is asked to end.
  program = (
    'import os, pathlib, signal, sys, time\n'
    'def end(number, frame):\n'
    '  pathlib.Path(sys.argv[1]).write_text(str(number))\n'
    '  sys.exit()\n'
    f'signal.signal({int(number)}, end)\n'
    f'os.kill({os.getpid()}, {int(number)})\n'
    'time.sleep(60)'
  )
  monkeypatch.setattr(progress, 'say', lambda *unused_args: None)
  with pytest.raises(signals.Interrupted) as info:
    reproduce.run_command(('-c', program, str(tmp_path / 'end')))
  assert info.value.exit_status == 128 + number
  assert (tmp_path / 'end').read_text() == str(int(number))
  assert signals.received() is None


def test_rows_of_several_runs(tmp_path):
  first = _row(TABLE.rows[0], 0.3, sha256='a')
  one = _write_run(tmp_path / 'one', [first])
  two = _write_run(
    tmp_path / 'two', [first, _row(TABLE.rows[1], 0.4, sha256='b')]
  )
  rates = [row['class_swaps'] for row in reproduce.read_rows([one, two])]
  assert rates == [0.3, 0.4]
  changes = {'protocols': {'protocol': 'another'}, 'judges': {'judges': []}}
  for what, change in changes.items():
    other = _write_run(tmp_path / what, [first], **change)
    with pytest.raises(errors.InputError, match=f'different {what}, see'):
      reproduce.read_rows([one, other])
