"""Fuzz tests of the command lines and flagfiles of all binaries.

Each is a call of a binary in this process, to where its work would begin: most
are refused before that. What a refused one leaves is nothing.
"""

import contextlib
import hashlib
import io
import os
import pathlib
import socket
import subprocess
import sys
import threading

from absl import flags
from absl.testing import flagsaver
import fuzzing
from hypothesis import strategies as st
import numpy as np
import own_flags
import pytest

from experiments import ablation
from experiments import benchmark
from experiments import benchmark_compile
from experiments import benchmark_digits
from experiments import benchmark_grid
from experiments import benchmark_whole
from experiments import celeba
from experiments import command_line
from experiments import convert
from experiments import edit
from experiments import edit_flags
from experiments import edit_inputs
from experiments import evaluate
from experiments import face_steps
from experiments import judge
from experiments import mnist
from experiments import reproduce
from experiments import reproduced_runs
from experiments import svhn
from jacsup_jax.core import errors
from jacsup_jax.data import preparing
from jacsup_jax.data.synthetic_faces import synthetic_faces_dataset_builder
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import judges
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import compilation
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import hosts

_FACES = synthetic_faces_dataset_builder
ROOT = pathlib.Path(__file__).parents[1]
BINARIES = {
    'mnist': (mnist.define_flags, mnist.main),
    'svhn': (svhn.define_flags, svhn.main),
    'celeba': (celeba.define_flags, celeba.main),
    'judge': (judge.define_flags, judge.main),
    'edit': (edit_flags.define_flags, edit.main),
    'evaluate': (evaluate.define_flags, evaluate.main),
    'convert': (convert.define_flags, convert.main),
    'ablation': (lambda: ablation.define_flags('4'), ablation.main),
    'ablation_5': (lambda: ablation.define_flags('5'), ablation.main),
    'reproduce': (reproduce.define_flags, reproduce.main),
    'benchmark': (benchmark.define_flags, benchmark.main),
}


class _WorkBeganError(BaseException):
  """The first step of what takes time, or writes, has been reached."""


def _begin(*unused_args, **unused_kwargs):
  raise _WorkBeganError


@pytest.fixture
def place(tmp_path, monkeypatch):
  """A directory to work in, with data; nothing there may change."""
  (tmp_path / 'file').write_text('of the user')
  (tmp_path / 'folder').mkdir()
  os.mkfifo(tmp_path / 'pipe')
  np.savez(
      tmp_path / 'digits.npz',
      images=np.zeros((12, 28, 28), np.uint8),
      labels=np.arange(12) % 3,
      split=np.array(['train'] * 8 + ['test'] * 4),
  )
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'sets'))
  for module, names in (
      (preparing, ['prepare_builder']),
      (edit, ['_serve']),
      (edit_inputs, ['open_source']),
      (judges, ['train']),
      (attribute_judges, ['train']),
      (stages, ['run']),
      (workdirs.WorkDir, ['begin']),
      (reproduce, ['_write_table', '_write_properties']),
      (reproduced_runs, ['run']),
      (benchmark_compile, ['compile_step', 'report_weak_scaling']),
      (benchmark_digits, ['measure_mnist_step']),
      (benchmark_grid, ['measure_mnist_grid']),
      (benchmark_whole, ['measure_input', 'measure_flips', 'measure_start']),
      (face_steps, ['make_step']),
  ):  # pyformat: disable
    for name in names:
      monkeypatch.setattr(module, name, _begin)
  monkeypatch.setattr(compilation, 'keep_programs', lambda directory: None)
  monkeypatch.setattr(parallel, 'connect', _connect)
  return tmp_path


def _connect(coordinator, process_count, **unused_kwargs):
  """In the place of parallel.connect, which changes the whole process."""
  if coordinator is not None:
    hosts.parse_address('coordinator', coordinator)
  if process_count != 1:
    raise _WorkBeganError


def _snapshot(folder):
  """All that is below a directory, with content and times."""
  found = {}
  for path in sorted(folder.rglob('*')):
    status = path.lstat()
    content = path.read_bytes() if path.is_file() else b''
    found[path] = (
        status.st_mode, status.st_mtime_ns, hashlib.sha256(content).digest()
    )
  return found


def _invoke(main, args):
  """Runs a binary; returns its status (None: work began) and stderr."""
  out, err = io.StringIO(), io.StringIO()
  status = None
  with pytest.MonkeyPatch.context() as patch:
    # Flags of a binary that runs are under its path; here they are ours.
    patch.setattr(sys, 'argv', [__name__, *args])
    with (
        flagsaver.flagsaver(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
      try:
        command_line.run(main)
      except SystemExit as error:
        status = error.code or 0
      except _WorkBeganError:
        pass
  return status, err.getvalue()


def _check(main, args, place):
  """Asserts that a call is refused in one line, or would begin to work."""
  before = _snapshot(place)
  status, err = _invoke(main, args)
  if status is not None:
    assert status == 2, (status, args, err)
    assert err.startswith('error: ') and err.endswith('\n'), err
    fuzzing.check_message(err[:-1])
  else:
    assert not err or err.startswith('--compute_dtype=bfloat16'), err
  assert _snapshot(place) == before
  return status


_NUMBERS = (
    '', 'x', '-1', '0', '1', '2', '1e3', '0.5', 'nan', 'inf', '-inf', '1e999',
    str(2**31 - 1), str(2**31), str(2**63), '9' * 400, '9' * 5000, '٣', '1_0',
    ' 1', '0x10',
)  # pyformat: disable
_PATHS = (
    '', '.', 'new', 'new/deeper', 'file', 'file/below', 'folder', 'pipe',
    'pipe/below', 'digits.npz', '/proc/nowhere/x', '/sys/x', '/dev/null',
    '/dev/null/x', 'x' * 300, 'x' * 5000, '~nobody/x', 'a\nb', '\x1b[31m',
    '\udcff', 'ø', '-x', '--',
)  # pyformat: disable
_WORDS = (
    '', ',', 'student', 'student,student', 'x', 'random', 'jit', 'tpu',
    'mnist_embedded', 'arrays', 'synthetic_faces', 'celeba_folder', 'celeb_a',
    'mnits', 'a:b', '../x', 'tpu:v5e:0x0', 'gpu:h100:9', '1,2', '4', '4,8',
    '8,4', 'nan', 'test', 'validation', 'None', 'x' * 3000, 'a\nb', '\0',
    '127.0.0.1:1', 'host:', '[::1]:70000', 'mnist/x', 'groups', 'huggingface:x',
)  # pyformat: disable


def _values(flag):
  """Draws values of a flag, most of which are none that it takes."""
  kind = flag.flag_type()
  if kind == 'bool':
    return st.sampled_from(['', 'maybe', '2', 'TRUE', 'no', 'x' * 3000])
  if kind in ('int', 'float'):
    return st.sampled_from(_NUMBERS)
  paths = (
      'workdir', 'data_dir', 'compilation_cache', 'output', 'runs_dir', 'input',
      'animate', 'export',
  )  # pyformat: disable
  if flag.name.endswith(paths):
    return st.sampled_from(_PATHS)
  return st.sampled_from(_WORDS) | st.text(max_size=6)


def _args(defined):
  """Draws command lines of one to four flags, and of what is none."""
  # What is described is printed, with status 0.
  defined = [flag for flag in defined if flag.name != 'describe']
  by_type = st.sampled_from(sorted(defined, key=lambda flag: flag.name))
  flag = by_type.flatmap(
      lambda flag: _values(flag).map(lambda value: f'--{flag.name}={value}')
  )
  other = st.sampled_from([
      '--no', '--nox', '-', '--', '--=', '--epoch=1', '--workdirs=x', 'words',
      '--seed', '--flagfile', '--flagfile=', '--flagfile=nowhere',
      '--flagfile=folder', '--flagfile=pipe', '--flagfile=digits.npz',
      '--flagfile=/dev/zero', '--undefok=x', '\0', '-1', '--noworkdir',
      '--distributed', '--process_id=1', '--workdir=', '--dataset=arrays',
      '--data_dir=digits.npz', '--data_dir=digits.npz', '--dataset=arrays',
  ])  # pyformat: disable
  return st.lists(
      st.one_of(flag, flag, flag, other), min_size=1, max_size=4
  )


@pytest.mark.parametrize('name', BINARIES)
def test_command_lines(place, name):
  define, main = BINARIES[name]
  # It decides which other flags there are, before they are parsed.
  first = ['--table=5'] if name == 'ablation_5' else []
  statuses = []
  with own_flags.defined(define):
    # Of modules that disclaim theirs, they are filed under who defines them.
    defined = [
        flag
        for module, found in flags.FLAGS.flags_by_module_dict().items()
        if module.startswith('experiments.') or module == own_flags.__name__
        for flag in found
        if flag.name != 'table' or name == 'reproduce'
    ]
    fuzzing.run(
        f'command lines: {name}',
        _args(defined),
        lambda args: statuses.append(
            _check(main, [*first, *args], place)
        ),
    )
  # They are about mistakes.
  assert statuses.count(2) > len(statuses) / 2


def test_flagfiles(place):
  whole = (ROOT / 'experiments/flagfiles/mnist_quick.flags').read_bytes()
  lines = st.lists(
      st.sampled_from([
          '', '#', '//', '--', '--flagfile', '--flagfile=', '--flagfile=it',
          '--flagfile=./it', '--flagfile=pipe', '--flagfile pipe',
          '--flagfile=folder', '--flagfile=other', '-flagfile=other',
          '--seed=-1', '--seed', '--seed=\0', ' --seed=x', 'words',
          '--epochs=0', '--workdir=/proc/x', '--workdir=file', '\x85', '\r',
          '--help=x', '--noresume=x',
      ]),
      max_size=5,
  ).map(lambda lines: '\n'.join(lines).encode())  # pyformat: disable
  (place / 'other').write_bytes(b'--epochs=0\n')

  def check(content):
    (place / 'it').write_bytes(content)
    _check(mnist.main, ['--flagfile=it', '--epochs=0'], place)

  fuzzing.run('flagfiles', st.one_of(fuzzing.bytes_of(whole), lines), check)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('--flagfile=it', 'leads back to itself'),
        ('--flagfile=two\n' * 3, 'leads back to itself, by it and two'),
        ('--seed=0\n' * 2**17, 'accepted: 1,048,576 at most'),
        ('--flagfile=half\n' * 3, 'it, with those before it'.split(',')[0]),
        ('--flagfile=pipe', 'pipe is a pipe'),
        ('\udcff', 'is no text'),
    ],
    ids=['itself', 'two', 'long', 'many', 'pipe', 'binary'],
)
def test_flagfiles_that_were_found_out(place, content, message):
  (place / 'it').write_bytes(content.encode(errors='surrogateescape'))
  (place / 'two').write_text('--flagfile=it')
  (place / 'half').write_text('#' * 2**19)
  if content.startswith('--flagfile=half'):
    message = '--flagfile=half, with those before it, has more than 1,048,576'
  with fuzzing.limited():
    status, err = _invoke(mnist.main, ['--flagfile', 'it'])
  assert status == 2 and err.count('\n') == 1
  assert message in err


def test_the_table_of_an_ablation_is_found_in_no_pipe(place):
  del place
  with fuzzing.limited():
    assert ablation.find_table(['--flagfile=pipe', '--table=5']) == '4'
    assert ablation.find_table(['--table=5']) == '5'


@pytest.mark.parametrize(
    ('name', 'args', 'message'),
    [
        # Each was a traceback, a hang, or was not refused.
        ('mnist', ['--compilation_cache=/proc/nowhere/x'], 'cannot be written'),
        ('mnist', ['--workdir=/proc/x'], '--workdir=/proc/x cannot be written'),
        ('mnist', ['--workdir=/sys/x'], '--workdir=/sys/x cannot be written'),
        ('mnist', [f'--workdir={"x" * 300}'], 'is no name of a directory'),
        ('mnist', ['--workdir=a\0b'], '--workdir='),
        ('mnist', [f'--epochs={2**31}'], 'accepted: 2147483647 at most'),
        ('mnist', ['--nuisance_dim=1000000000'], 'accepted: 65536 at most'),
        ('mnist', ['--num_factors=1000000000'], 'accepted: 65536 at most'),
        ('svhn', ['--first_width=1000000000'], 'accepted: 65536 at most'),
        (
            'mnist',
            ['--dataset=arrays', '--data_dir=digits.npz',
             '--batch_size=8', '--judge_workdir=/proc/x'],
            '/proc/x cannot be written to',
        ),
        ('mnist', ['--nuisance_dim=0'], '--nuisance_dim=0 is not larger'),
        ('celeba', ['--adam_b1=1'], '--adam_b1=1.0; accepted: from 0'),
        ('svhn', ['--growth=preserving', '--nonormalize_students'],
         'accepted: --linear_code'),
        ('ablation', ['--distributed', '--coordinator=x:1',
                      '--process_count=1', '--process_id=0'],
         'a table is trained by one process'),
        ('benchmark', ['--what=compile', '--against=torch'],
         '--against=torch with --what=compile'),
        ('benchmark', ['--what=input', '--batch_size=1'],
         '--batch_size=1 with --what=input'),
        ('celeba', ['--first_width=1000000000'], 'accepted: 65536 at most'),
        ('celeba', ['--image_size=1073741824'], '8 to 4096'),
        ('celeba', ['--nuisance_dims=4,1000000000'], 'multiples of 4 up to'),
        (
            'judge',
            ['--dataset=arrays', '--data_dir=digits.npz', '--workdir=/proc/x'],
            '/proc/x cannot be written to',
        ),
        ('judge', ['--seeds=1000000'], '--seeds=1000000; accepted: 1000'),
        ('ablation', ['--seeds=2000000000'], 'accepted: 1000 at most'),
        ('reproduce', ['--table=3', '--output=/proc/x'], '--output=/proc/x'),
        ('reproduce', ['--table=1', '--runs_dir=/sys', '--output=new'], '/sys'),
        ('benchmark', ['--nuisance_dim=1000000000'], 'accepted: 65536 at most'),
        ('benchmark', ['--batch_size=1000000000'], 'accepted: 65536 at most'),
        ('mnist', ['--distributed', '--coordinator=a..b:1',
                   '--process_count=2', '--process_id=0'], 'HOST:PORT'),
    ],
)  # pyformat: disable
def test_command_lines_that_were_found_out(place, name, args, message):
  define, main = BINARIES[name]
  before = _snapshot(place)
  with own_flags.defined(define), fuzzing.limited():
    status, err = _invoke(main, args)
  assert status == 2 and err.count('\n') == 1, err
  assert err.startswith('error: ') and message in err
  assert _snapshot(place) == before


@pytest.mark.parametrize(
    'name',
    [
        'mnist_embedded/1.0.0',
        f'synthetic_faces/{_FACES.make_config(64).name}/1.0.0',
    ],
    ids=['mnist_embedded', 'synthetic_faces'],
)
def test_a_prepared_set_whose_description_is_damaged(place, name):
  folder = place / 'sets' / name
  folder.mkdir(parents=True)
  (folder / 'dataset_info.json').write_text('{"name": ')
  (folder / 'features.json').write_text('[]')
  binary = 'mnist' if name.startswith('mnist') else 'celeba'
  define, main = BINARIES[binary]
  args = ['--image_size=64'] if binary == 'celeba' else []
  before = _snapshot(place)
  with own_flags.defined(define), fuzzing.limited():
    status, err = _invoke(main, args)
  assert status == 2 and err.count('\n') == 1, err
  assert 'cannot be read' in err and 'delete it there' in err
  assert _snapshot(place) == before


@pytest.mark.parametrize('name', ['evaluate', 'mnist'])
def test_a_run_that_cannot_be_written_to_is_refused(
    place, monkeypatch, name
):
  # As an image that is mounted for reading: permissions do not tell.
  workdirs.check_writable('x', place)
  run = place / 'run'
  run.mkdir()
  (run / 'manifest.json').write_text(
      '{"experiment": "mnist", "flags": {}, "dataset": {}, "stages": {}}'
  )

  def refuse(*unused_args, **unused_kwargs):
    raise OSError(30, 'Read-only file system')

  monkeypatch.setattr(workdirs.tempfile, 'TemporaryFile', refuse)
  define, main = BINARIES[name]
  with own_flags.defined(define):
    status, err = _invoke(main, [f'--workdir={run}'])
  assert status == 2
  assert '--workdir=' in err and 'Read-only file system' in err


# In processes of their own.


def _start(args, place):
  return subprocess.Popen(
      [sys.executable, '-m', *args],
      cwd=place,
      env={
          **os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu',
          'TFDS_DATA_DIR': str(place / 'sets'),
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
  )  # pyformat: disable


_COMMANDS = [
    ['experiments.mnist', '--workdir=/proc/x'],
    ['experiments.svhn', '--dataset=arrays', '--data_dir=pipe'],
    ['experiments.celeba', '--dataset=celeba_folder', '--data_dir=\udcff'],
    ['experiments.judge', '--seeds=' + '9' * 5000],
    ['experiments.evaluate', '--workdir=pipe'],
    ['experiments.ablation', '--flagfile=pipe'],
    ['experiments.reproduce', '--table=3', '--output=file/x'],
    ['experiments.benchmark', '--what=\x1b[31m'],
]
_MORE_COMMANDS = [
    [f'experiments.{name}', *args]
    for args in (
        ['--flagfile=digits.npz'],
        ['words\nof two lines'],
        ['--nosuch'],
        ['--workdir=file', '--runs_dir=file', '--what=x', '--dataset=\udcff'],
    )
    for name in BINARIES
    if name != 'ablation_5'  # A flag of the same binary.
]


@pytest.mark.parametrize(
    'commands',
    [
        _COMMANDS[:4],
        _COMMANDS[4:],
        _MORE_COMMANDS[:16],
        pytest.param(_MORE_COMMANDS[16:], marks=pytest.mark.slow),
    ],
    ids=['first', 'second', 'third', 'more'],
)
def test_processes(place, commands):
  before = _snapshot(place)
  for start in range(0, len(commands), 2):
    processes = [_start(args, place) for args in commands[start : start + 2]]
    for process in processes:
      out, err = process.communicate(timeout=120)
      assert process.returncode == 2, (process.args, err)
      assert not out, process.args
      assert err.startswith(b'error: ') and err.endswith(b'\n'), err
      fuzzing.check_message(err[:-1].decode())
  assert _snapshot(place) == before


# Other processes of a run.


def test_addresses():
  parts = st.sampled_from([
      '', ':', '[', ']', '1', '0', '65536', 'host', '127.0.0.1', '::1', '.',
      'a..b', 'x' * 70, '\0', '\n', ' ', '\x1b', '٣', 'ø', '\udcff', '-', '%',
  ])  # pyformat: disable

  def check(text):
    try:
      host, port = hosts.parse_address('coordinator', text)
    except errors.InputError as error:
      fuzzing.check_message(str(error), '--coordinator=')
      return
    assert host and 0 < port < 2**16
    assert host.isprintable()

  fuzzing.run(
      'addresses', st.lists(parts, max_size=5).map(''.join), check
  )


def test_greetings():
  greeting = {'greeting': 'jacsup_jax', 'index': 1, 'count': 2}

  def check(content):
    theirs = socket.create_connection(server.getsockname())
    ours, _ = server.accept()
    with theirs:
      sender = threading.Thread(target=_send, args=(theirs, content))
      sender.start()
      link = hosts._Link(ours)
      index, count = link.receive_greeting()
      link.close()
      sender.join()
    assert index is None or (index > 0 and count > 0)
    assert type(index) in (int, type(None))

  with hosts.open_server('127.0.0.1', 0) as server:
    fuzzing.run('greetings', fuzzing.json_of(greeting), check)


def _send(connection, content):
  try:
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)
  except OSError:
    pass  # It was closed: this was no greeting.


def test_there_are_enough_cases():
  # Of these, each test asserts that it has had its own.
  assert sum(fuzzing.EXAMPLES.values()) >= 1500
