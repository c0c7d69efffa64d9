"""Tests of experiments.command_line."""

import json
import os
import sys

from absl import flags
from absl.testing import flagsaver
import pytest

from experiments import command_line
from experiments import mnist
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.runs import circumstances

STAGE = config.Stage('d1', 'student', 'teacher', 1, 4, config.LossWeights())


@pytest.fixture
def invoke(monkeypatch, capsys):
  """Runs a main with arguments; returns status, stdout and stderr."""

  def run(main, *args):
    monkeypatch.setattr(sys, 'argv', ['experiments/mnist.py', *args])
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as exit_info:
      command_line.run(main)
    return exit_info.value.code or 0, *capsys.readouterr()

  return run


@pytest.fixture
def parsed():
  with flagsaver.flagsaver():
    flags.FLAGS(['experiments/mnist.py'])
    yield flags.FLAGS


def _fail(message):
  def main():
    raise errors.InputError(message)

  return main


# Values.


def test_a_main_that_returns_ends_with_status_0(invoke):
  assert invoke(lambda: print('done')) == (0, 'done\n', '')


def test_a_mistake_is_one_line_and_status_2(invoke):
  # Line breaks of a library's message are folded.
  status, out, err = invoke(_fail('--seed is\n  bad; accepted: good.'))
  assert (status, out) == (2, '')
  assert err == 'error: --seed is bad; accepted: good.\n'


def test_a_bug_keeps_its_traceback(monkeypatch):
  def main():
    raise ZeroDivisionError

  monkeypatch.setattr(sys, 'argv', ['experiments/mnist.py'])
  with flagsaver.flagsaver(), pytest.raises(ZeroDivisionError):
    command_line.run(main)


@pytest.mark.parametrize(
    ('argument', 'parts'),
    [
        # absl's suggestion is kept.
        ('--epoch=3', ["'epoch'", 'Did you mean: epochs']),
        ('--epochs=many', ['--epochs=many']),
        ('--parallel=tpu', ['parallel', 'tpu', 'jit', 'pmap']),
        ('epochs=3', ["'epochs=3'", 'flags only']),
        ('--process_id=1', ['--process_id=1', 'without --distributed']),
    ],
)
def test_bad_arguments_are_named(invoke, argument, parts):
  status, out, err = invoke(lambda: print('ran'), argument)
  assert (status, out) == (2, '')
  assert err.count('\n') == 1 and err.startswith('error: ')
  for part in parts:
    assert part in err


@pytest.mark.parametrize(
    ('arguments', 'parts'),
    [
        (['--process_count=2'], ['without --coordinator and --process_id']),
        (
            ['--coordinator=x', '--process_count=2', '--process_id=1'],
            ['--coordinator=x', 'HOST:PORT'],
        ),
        (
            ['--coordinator=x:1', '--process_count=2', '--process_id=2'],
            ['--process_id=2', '--process_count=2', 'accepted: 0 to 1'],
        ),
        (['--distributed_timeout=0'], ['--distributed_timeout=0', '1 or']),
    ],
)
def test_a_place_among_processes_is_checked(invoke, arguments, parts):
  status, out, err = invoke(lambda: print('ran'), '--distributed', *arguments)
  assert (status, out) == (2, '')
  assert err.count('\n') == 1 and err.startswith('error: ')
  for part in parts:
    assert part in err


def test_a_single_process_has_nobody_to_wait_for(invoke):
  arguments = ['--coordinator=x:1', '--process_count=1', '--process_id=0']
  status, out, _ = invoke(lambda: print('ran'), '--distributed', *arguments)
  assert (status, out) == (0, 'ran\n')


@pytest.mark.parametrize('value', [0, -3])
def test_numbers_below_the_lowest_are_refused(parsed, value):
  parsed.epochs = value
  with pytest.raises(errors.InputError, match=f'--epochs={value}; accepted: 1'):
    command_line.check_at_least(1, 'batch_size', 'epochs')


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_what_is_not_finite_is_refused(parsed, value):
  parsed.weight_decay = float(value)
  message = f'--weight_decay={value}; accepted: 0'
  with pytest.raises(errors.InputError, match=message):
    command_line.check_at_least(0, 'weight_decay')


def test_the_lowest_is_accepted(parsed):
  parsed.epochs = 1
  command_line.check_at_least(1, 'epochs')


def test_line_of_an_epoch(capsys):
  record = {
      'epoch': 2, 'loss': 0.25, 'jacobian': 1.0, 'images_per_second': 1000.4,
      'eval_class_swaps': None, 'eval_mse': 0.1,
  }  # pyformat: disable
  command_line.Progress(draw=False).report(STAGE, record)
  assert capsys.readouterr() == (
      'd1 2/4 loss=0.2500 eval_mse=0.1000 1000 images/s\n', ''
  )


def test_bar_is_on_stderr_and_goes_on_after_a_resume(capsys):
  progress = command_line.Progress(draw=True)
  record = {'loss': 0.25, 'images_per_second': 1.0}
  progress.report(STAGE, {'epoch': 3, **record})
  progress.report(STAGE, {'epoch': 4, **record})
  progress.close()
  progress.close()
  out, err = capsys.readouterr()
  assert out == ''
  assert '4/4' in err and 'd1' in err


def test_described_is_what_a_manifest_would_have(invoke):
  status, out, _ = invoke(pytest.fail, '--describe', '--epochs=3')
  assert status == 0
  found = json.loads(out)
  assert found['flags']['epochs'] == 3
  assert {*circumstances.ENTRIES, 'how', 'flags'} == set(found)


def test_paths_of_how_a_run_is_made_are_absolute(parsed):
  parsed.data_dir, parsed.judge_workdir = 'gs://bucket/x', 'judge'
  how = command_line.describe_circumstances()['how']
  assert how['data_dir'] == 'gs://bucket/x'
  assert how['judge_workdir'] == os.path.abspath('judge')
  assert how['compilation_cache'] is None
  assert how['deterministic'] is False


def test_other_data_than_expected_are_refused(parsed):
  command_line.check_data('digits', '0123')
  parsed.expected_data = '0123'
  command_line.check_data('digits', '0123')
  message = '--expected_data=0123: digits has the fingerprint 4567; accepted'
  with pytest.raises(errors.InputError, match=message):
    command_line.check_data('digits', '4567')


def test_deterministic_operations_are_asked_for(monkeypatch, invoke):
  asked = []
  monkeypatch.setattr(
      command_line.compilation, 'ask_for_determinism', lambda: asked.append(1)
  )
  assert invoke(lambda: None)[0] == 0 and not asked
  assert invoke(lambda: None, '--deterministic')[0] == 0 and asked


# Invariants.


def test_flags_of_the_result_are_all_but_where_and_how_to_run(parsed):
  found = command_line.result_flags()
  assert found['seed'] == 0
  assert found['lambda_diff'] == 0.1  # The paper's.
  assert found['students'] == ['student']
  # What a user may change between two calls of the same run.
  for name in (
      'workdir', 'data_dir', 'resume', 'progress', 'judge_workdir',
      'deterministic', 'describe', 'expected_data',
  ):  # pyformat: disable
    assert name not in found
    assert name in parsed
  # None of absl's or of another library's.
  assert 'verbosity' not in found
  assert list(found) == sorted(found)


def test_every_flag_has_a_sentence_of_help():
  by_module = flags.FLAGS.flags_by_module_dict()
  defined = by_module[mnist.__name__]
  assert {'workdir', 'dataset', 'lambda_y'} <= {flag.name for flag in defined}
  for flag in defined:
    assert len(flag.help) > 3 and flag.help.endswith('.'), flag.name


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_what_becomes_of_bfloat16_is_said(monkeypatch, invoke, dtype):
  monkeypatch.setattr(
      command_line.parallel, 'describe_bfloat16', lambda: 'it is rounded.'
  )
  status, _, err = invoke(lambda: None, f'--compute_dtype={dtype}')
  assert status == 0
  said = '--compute_dtype=bfloat16: it is rounded.\n'
  assert err == (said if dtype == 'bfloat16' else '')
