"""Tests of runs of several processes: they are one, and they end together."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import killing
import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.training import hosts
from jacsup_jax.training import native_log

DEVICES = 4
# Rounding of sums in another order, relative to the largest of a tree.
TOLERANCE = 1e-5
# Adam makes steps of one size also of gradients that are zero but for rounding:
# small ones, so that runs whose sums have another order stay comparable.
RUN = (
    '--dataset=arrays', '--nuisance_dim=1', '--eval_every=1',
    '--checkpoint_every=1', '--learning_rate=1e-5',
)  # pyformat: disable
ENDED = 'has ended (killed, or its host is gone)'


def _environment(devices, root):
  return {
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
      'PYTHONPATH': str(killing.ROOT),
      # What one of these has compiled, the next ones take.
      'JAX_COMPILATION_CACHE_DIR': str(root / 'cache'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
  }


def _start(args, devices, root):
  return subprocess.Popen(
      [sys.executable, *args],
      cwd=killing.ROOT,
      env=_environment(devices, root),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
  )


def _finish(process):
  """Returns status, stdout and stderr."""
  out, err = process.communicate(timeout=600)
  return process.returncode, out, err


def _of_processes(port, count, index):
  return (
      '--distributed', f'--coordinator=127.0.0.1:{port}',
      f'--process_count={count}', f'--process_id={index}',
      # A busy machine compiles one process's program long before the other's.
      '--distributed_timeout=300',
  )  # pyformat: disable


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A place with data and judges, which all runs here share."""
  root = tmp_path_factory.mktemp('distributed')
  patterns = np.random.default_rng(0).integers(0, 200, (10, 7, 7))
  random = np.random.default_rng(1)
  labels = random.integers(0, 10, 640)
  images = np.kron(patterns, np.ones((4, 4), int))[labels]
  images = images + random.integers(0, 55, images.shape)
  np.savez(
      root / 'data.npz',
      images=images.astype(np.uint8),
      labels=labels,
      split=np.array(['train'] * 384 + ['test'] * 256),
  )
  return root


def _invoke(root, run, *args, devices=2):
  """Starts experiments.mnist."""
  return _start(
      (
          '-m', 'experiments.mnist', *RUN, f'--data_dir={root / "data.npz"}',
          f'--workdir={root / run}', f'--judge_workdir={root / "judge"}', *args,
      ),
      devices,
      root,
  )  # pyformat: disable


def _invoke_two(root, run, *args):
  """Starts it as two processes of two devices each."""
  port = hosts.find_free_port()
  return [
      _invoke(root, run, *args, *_of_processes(port, 2, i)) for i in range(2)
  ]


def _assert_mistake(process, *parts):
  status, out, err = _finish(process)
  assert status == 2, err[-3000:]
  assert err.count('\n') == 1 and err.startswith('error: '), err
  assert 'Traceback' not in out
  for part in parts:
    assert part in err


@pytest.fixture(scope='module')
def undisturbed(root):
  """The work directory of a whole run of two processes, and their outputs."""
  ended = [_finish(p) for p in _invoke_two(root, 'undisturbed', '--epochs=3')]
  assert [status for status, _, _ in ended] == [0, 0], ended
  return root / 'undisturbed', ended


# Values.


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('10.0.0.2:1234', ('10.0.0.2', 1234)),
        ('node-1:80', ('node-1', 80)),
        ('[fe80::1]:1234', ('fe80::1', 1234)),
    ],
)
def test_an_address_is_host_and_port(text, expected):
  assert hosts.parse_address('coordinator', text) == expected


@pytest.mark.parametrize(
    'text', ['', 'host', 'host:', ':1234', 'host:port', 'host:0', 'host:70000',
             'fe80::1:1234', 'a..b:1', f'{"a" * 70}:1']
)  # pyformat: disable
def test_other_addresses_are_refused(text):
  with pytest.raises(errors.InputError, match='--coordinator=.*HOST:PORT'):
    hosts.parse_address('coordinator', text)


def test_own_addresses_have_the_port():
  addresses = hosts.find_own_addresses(1234)
  assert addresses and all(port == 1234 for _, port in addresses)


@pytest.mark.parametrize(
    ('args', 'parts'),
    [
        (['--distributed'], ['--distributed', 'environment', 'Slurm']),
        (
            [*_of_processes(1, 2, 1), '--distributed_timeout=1'],
            ['process 1', '127.0.0.1:1', 'within 1 s'],
        ),
    ],
)
def test_a_process_that_meets_nobody_says_why(root, args, parts):
  _assert_mistake(_invoke(root, 'never', *args), *parts)
  assert not (root / 'never').exists()


def test_missing_processes_are_named(root):
  args = _of_processes(hosts.find_free_port(), 3, 0)
  alone = _invoke(root, 'never', *args, '--distributed_timeout=1')
  _assert_mistake(alone, 'processes 1 and 2', '--process_count=3', '1 s')
  assert not (root / 'never').exists()


def test_hosts_with_other_flags_are_refused_on_all(root):
  port = hosts.find_free_port()
  processes = [
      _invoke(root, 'never', *_of_processes(port, 2, i), f'--seed={i}')
      for i in range(2)
  ]
  for process in processes:
    _assert_mistake(process, '--seed=0 at process 0, 1 at process 1')
  assert not (root / 'never').exists()


def test_a_batch_that_the_hosts_do_not_divide_is_refused_on_all(root):
  for process in _invoke_two(root, 'never', '--batch_size=30'):
    _assert_mistake(process, '--batch_size=30', '4 devices (2 processes of 2)')
  assert not (root / 'never').exists()


def test_only_the_first_process_prints(undisturbed):
  _, [(_, out, err), (_, other_out, other_err)] = undisturbed
  assert 'student_d01 3/3' in out and 'random' in out
  assert (err, other_out, other_err) == ('', '', '')


def test_what_jax_says_before_it_aborts_becomes_one_line():
  abort = (
      'F1125 17:46:00.657571 11691 client.h:80] Terminating process because the'
      ' JAX distributed service detected fatal errors. absl::Status:'
      ' UNAVAILABLE: {} are unhealthy\n'
  )
  warning = 'W1125 17:45:00.000000 1 other.cc:1] a warning\nof two lines\n'
  log = (
      warning
      + 'E1125 17:46:00.657402 11691 coordination_service_agent.cc:289] Polled\n'
      'more of it\n'
      + abort
      + '\nRPC: /xla.{}\n*** Check failure ***\n @ 0x7f\n'
  )
  for said, rpc, last in (
      ('', 'PollForError', 'error: lost (UNAVAILABLE: {} are unhealthy)\n'),
      ('', 'coordination.CoordinationService/RegisterTask', 'error: unmet\n'),
      ('error: known\n', 'PollForError', 'error: known\n'),
  ):
    done = subprocess.run(
        [sys.executable, '-I', native_log.__file__, 'lost ({})', 'unmet'],
        input=log.replace('/xla.{}', f'/xla.{rpc}') + said,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stderr == warning + last


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost'])
def test_a_server_listens_where_it_is_told_alone(host):
  with hosts.open_server(host, 0) as server:
    address, port = server.getsockname()[:2]
    assert address in ('127.0.0.1', '::1')
    socket.create_connection((address, port), 5).close()
    # Another address of the same machine (Linux has all of 127.0.0.0/8).
    if address == '127.0.0.1' and sys.platform == 'linux':
      with pytest.raises(OSError):
        socket.create_connection(('127.0.0.2', port), 5)


@pytest.mark.parametrize('host', [None, '0.0.0.0'])
def test_a_server_that_is_told_so_listens_on_all_addresses(host):
  with hosts.open_server(host, 0) as server:
    port = server.getsockname()[1]
    socket.create_connection(('127.0.0.1', port), 5).close()


def test_addresses_of_version_6_have_brackets():
  assert hosts.join_address('::1', 80) == '[::1]:80'
  assert hosts.join_address('10.0.0.2', 80) == '10.0.0.2:80'


def test_an_address_of_another_machine_is_refused_by_the_first(root):
  # Of RFC 5737: nobody's.
  args = _of_processes(1234, 2, 0)
  alone = _invoke(root, 'never', *args, '--coordinator=192.0.2.1:1234')
  _assert_mistake(alone, '--coordinator=192.0.2.1:1234', '0.0.0.0:PORT')
  assert not (root / 'never').exists()


def _listening(process):
  """Addresses that a process listens on: hexadecimal, as Linux has them."""
  folder = pathlib.Path('/proc') / str(process.pid)
  inodes = set()
  for path in (folder / 'fd').iterdir():
    try:
      inodes.add(os.readlink(path))
    except OSError:
      pass  # It was closed.
  rows = [
      line.split()
      for name in ('tcp', 'tcp6')
      for line in (folder / 'net' / name).read_text().splitlines()[1:]
  ]
  return {
      row[1].split(':')[0]
      for row in rows
      if row[3] == '0A' and f'socket:[{row[9]}]' in inodes
  }


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_no_process_of_a_run_listens_on_all_addresses(root):
  processes = _invoke_two(root, 'listening', '--epochs=1')
  found = [set(), set()]
  while not killing.has_epoch(root / 'listening', 'teacher'):
    for addresses, process in zip(found, processes):
      assert process.poll() is None, process.communicate()
      addresses |= _listening(process)
    time.sleep(0.05)
  for process in processes:
    process.kill()
    process.communicate()
  assert found[0]
  for addresses in found:
    # 0.0.0.0 and ::.
    assert not addresses & {'0' * 8, '0' * 32}


# Gradients and invariants: of steps.


@pytest.fixture(scope='module')
def measured(root):
  """What the worker saves, of one process and of both of two."""
  port = hosts.find_free_port()
  names = ('one', 'first', 'second')
  arguments = [(1, 0, DEVICES), (2, 0, 2), (2, 1, 2)]
  processes = [
      _start(
          (
              'tests/distributed_worker.py', str(root / f'{name}.npz'),
              'float32', f'127.0.0.1:{port}', str(count), str(index),
          ),
          devices,
          root,
      )
      for name, (count, index, devices) in zip(names, arguments)
  ]  # pyformat: disable
  for process in processes:
    status, _, err = _finish(process)
    assert status == 0, err[-3000:]
  return {name: dict(np.load(root / f'{name}.npz')) for name in names}


@pytest.mark.parametrize(
    'case',
    ['digits/jit', 'digits/pmap', 'faces/jit/resident', 'faces/jit/fed',
     'faces/pmap/fed'],
)  # pyformat: disable
@pytest.mark.parametrize(
    'what', ['gradients', 'params', 'batch_stats', 'metrics', 'mse']
)
def test_two_processes_are_one(measured, case, what):
  found = {
      process: {
          name: value
          for name, value in arrays.items()
          if name.startswith(f'{case}/{what}')
      }
      for process, arrays in measured.items()
  }
  one = found['one']
  largest = max(np.max(np.abs(value)) for value in one.values())
  assert largest > 0
  for process in ('first', 'second'):
    if what == 'mse' and process == 'second':
      continue  # Measured by the first alone.
    assert set(found[process]) == set(one)
    for name, value in found[process].items():
      np.testing.assert_allclose(
          value, one[name], rtol=0, atol=TOLERANCE * largest, err_msg=name
      )


def test_the_devices_of_both_processes_were_used(measured):
  for process, count in (('one', 1), ('first', 2), ('second', 2)):
    assert measured[process]['devices'] == DEVICES
    assert measured[process]['processes'] == count


# Invariants: of runs.


def test_a_run_of_two_processes_is_that_of_one(root, undisturbed):
  run, _ = undisturbed
  status, _, err = _finish(_invoke(root, 'one', '--epochs=3', devices=DEVICES))
  assert status == 0, err[-3000:]
  stages, results, records = killing.outcome(run)
  their_stages, their_results, their_records = killing.outcome(root / 'one')
  assert stages.keys() == their_stages.keys()
  assert len(records) == len(their_records) == 6
  close = lambda value: pytest.approx(value, rel=TOLERANCE)
  for found, expected in zip(records, their_records):
    for name in ('loss', 'reconstruction', 'eval_mse', 'eval_judge_accuracy'):
      assert found[name] == close(expected[name])
  for found, expected in zip(results['rows'], their_results['rows']):
    assert found['model'] == expected['model']
    assert found['mse'] == close(expected['mse'])
  # Nothing was trained there.
  assert results['rows'][-1] == their_results['rows'][-1]
  names = lambda run: {path.name for path in (run / 'figures').iterdir()}
  assert names(run) == names(root / 'one')


def test_the_same_command_is_complete_in_both_processes(root, undisturbed):
  run, _ = undisturbed
  before = (run / 'results.json').stat().st_mtime_ns
  first, second = (
      _finish(p) for p in _invoke_two(root, run.name, '--epochs=3')
  )
  assert (first[0], second[0]) == (0, 0)
  assert 'is complete' in first[1] and not second[1]
  assert (run / 'results.json').stat().st_mtime_ns == before


@pytest.mark.parametrize(
    'told',
    [(0,), (1,), (0, 1)],
)
@pytest.mark.slow
def test_a_signal_to_any_ends_both_and_the_run_goes_on(
    root, undisturbed, told
):
  run = f'told_{len(told)}_{told[0]}'
  processes = _invoke_two(root, run, '--epochs=3')
  while not killing.has_epoch(root / run, 'teacher'):
    assert processes[0].poll() is None
    time.sleep(0.01)
  start = time.monotonic()
  for index in told:
    processes[index].send_signal(signal.SIGTERM)
  ended = [_finish(process) for process in processes]
  assert time.monotonic() - start < 10
  for status, _, err in ended:
    assert status == 128 + signal.SIGTERM, err[-3000:]
    assert 'Traceback' not in err and 'error: ' not in err
    line = err.strip().splitlines()[-1]
    assert 'stopped by SIGTERM: ' in line and 'is saved in' in line
    assert 'the same command goes on' in line
  for process in _invoke_two(root, run, '--epochs=3'):
    status, _, err = _finish(process)
    assert status == 0, err[-3000:]
  assert killing.outcome(root / run) == killing.outcome(undisturbed[0])


@pytest.mark.slow
def test_numbers_that_are_not_finite_end_both(root, undisturbed):
  processes = _invoke_two(root, 'diverged', '--learning_rate=1e30')
  for process in processes:
    status, _, err = _finish(process)
    assert status == 1, err[-3000:]
    assert 'Traceback' not in err
    assert 'teacher, epoch 1, step' in err and 'not finite' in err
  assert not list(root.glob('diverged/checkpoints/*/[0-9]*'))


@pytest.mark.parametrize(
    ('victim', 'goes_on'),
    [(0, False),
     *(pytest.param(i, True, marks=pytest.mark.slow) for i in (0, 1))],
)
def test_a_killed_process_ends_the_other_and_the_run_goes_on(
    root, undisturbed, victim, goes_on
):
  run = f'killed_{victim}_{goes_on}'
  processes = _invoke_two(root, run, '--epochs=3')
  while not killing.has_epoch(root / run, 'teacher'):
    assert processes[0].poll() is None
    time.sleep(0.01)
  processes[victim].kill()
  start = time.monotonic()
  status, _, err = _finish(processes[1 - victim])
  assert time.monotonic() - start < 60
  processes[victim].communicate()
  # 134 where JAX was faster with its abort.
  assert status in (1, -signal.SIGABRT), err
  assert err.count('\n') == 1, err
  assert err.startswith('error: ')
  assert 'the last checkpoint' in err and 'the same command goes on' in err
  if status == 1:
    assert f'process {victim} of 2 {ENDED}' in err
  assert not (root / run / 'results.json').exists()
  if goes_on:
    ended = _resume_with_intruders(root, run)
    assert [status for status, _, _ in ended] == [0, 0], ended
    whole, _ = undisturbed
    assert killing.outcome(root / run) == killing.outcome(whole)


def _resume_with_intruders(root, run):
  port = hosts.find_free_port()
  first = _invoke(root, run, '--epochs=3', *_of_processes(port, 2, 0))
  intruder = _invoke(root, run, '--epochs=3', *_of_processes(port, 3, 2))
  _assert_mistake(intruder, '--process_id=2', '--process_count=2')
  second = _invoke(root, run, '--epochs=3', *_of_processes(port, 2, 1))
  return [_finish(first), _finish(second)]


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 2, 8])
def test_a_checkpoint_goes_on_with_other_devices(root, undisturbed, devices):
  run = f'on_{devices}'
  processes = _invoke_two(root, run, '--epochs=3')
  while not killing.has_finished(root / run, 'teacher'):
    assert processes[0].poll() is None
    time.sleep(0.01)
  for process in processes:
    process.kill()
    process.communicate()
  resumed = _finish(_invoke(root, run, '--epochs=3', devices=devices))
  assert resumed[0] == 0, resumed[2][-3000:]
  stages, results, _ = killing.outcome(root / run)
  whole_stages, whole_results, _ = killing.outcome(undisturbed[0])
  # It was not trained again.
  assert stages['teacher'] == whole_stages['teacher']
  for found, expected in zip(results['rows'], whole_results['rows']):
    assert found['mse'] == pytest.approx(expected['mse'], rel=TOLERANCE)


def test_a_taken_place_is_refused_and_the_run_goes_on(root):
  port = hosts.find_free_port()
  processes = [
      _invoke(root, 'taken', '--epochs=1', *_of_processes(port, 3, i))
      for i in range(2)
  ]
  # One of two that say the same is too many, whichever comes first.
  double = _invoke(root, 'taken', '--epochs=1', *_of_processes(port, 3, 1))
  while processes[1].poll() is None and double.poll() is None:
    time.sleep(0.05)
  refused = double if double.poll() is not None else processes[1]
  _assert_mistake(refused, '--process_id=1', 'is there already')
  assert processes[0].poll() is None
  for process in (*processes, double):
    process.kill()
    process.wait()


# Oracle: JSON values that are shared are those of the first process.


def test_a_finished_stage_has_the_parameters_of_the_first_process(undisturbed):
  run, _ = undisturbed
  manifest = json.loads((run / 'manifest.json').read_text())
  results = json.loads((run / 'results.json').read_text())
  recorded = [stage['sha256'] for stage in manifest['stages'].values()]
  assert [row['sha256'] for row in results['rows'][:-1]] == recorded
