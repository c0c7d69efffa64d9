"""Tests of experiments.cli and progress: flags, exit statuses, lines."""

import ast
import dataclasses
import io
import pathlib
import re
import shlex
import subprocess
import sys
from typing import Literal

from absl import flags
from jax import monitoring
import pytest

from experiments import ablation
from experiments import celeba
from experiments import cli
from experiments import compare
from experiments import convert
from experiments import evaluate
from experiments import figures
from experiments import judge
from experiments import mnist
from experiments import own_model
from experiments import progress
from experiments import reproduce
from experiments import svhn
from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.editor import main as editor
from jacsup_jax.runs import signals

FLAGFILES = pathlib.Path(__file__).parents[2] / 'experiments' / 'flagfiles'
STAGE = config_lib.Stage('d1', 'student', None, 1, 4, config_lib.LossWeights())

BINARIES = {
    'mnist': (mnist.main, mnist.Config()),
    'svhn': (svhn.main, svhn.DEFAULT),
    'celeba': (celeba.main, celeba.Config()),
    'ablation': (ablation.main, ablation.make_default),
    'reproduce': (reproduce.main, reproduce.Config()),
    'judge': (judge.main, judge.Config()),
    'evaluate': (evaluate.main, evaluate.Config()),
    'figures': (figures.main, figures.FiguresConfig()),
    'convert': (convert.main, convert.Config()),
    'own_model': (own_model.main, own_model.Config()),
    'compare': (compare.main, compare.Config()),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Inner(config_lib.Options):
  rate: float = config_lib.option(0.5, 'A rate.', low=0)
  sizes: tuple[int, ...] = config_lib.option((1, 2), 'Sizes.')


@dataclasses.dataclass(frozen=True)
class Config:
  word: Literal['a', 'b'] = config_lib.option('a', 'A word.', group='what')
  names: tuple[str, ...] = config_lib.option((), 'Names.', choices=('x', 'y'))
  count: int | None = config_lib.option(None, 'A count.')
  on: bool = config_lib.option(True, 'A switch.')
  maybe: bool | None = config_lib.option(None, 'Another switch.')
  inner: Inner = Inner()
  run: cli.RunConfig = cli.RunConfig()


def test_flags_are_read_into_the_dataclasses(monkeypatch):
  monkeypatch.setenv('HOME', '/home/x')
  assert cli.parse(Config(), []) == Config()
  found = cli.parse(
      Config(),
      ['--word=b', '--names=y,x', '--count=3', '--noon', '--maybe',
       '--rate=0.25', '--sizes=4', '--workdir=~/y'],
  )  # fmt: skip
  assert found == Config(
      'b', ('y', 'x'), 3, False, True, Inner(0.25, (4,)),
      cli.RunConfig(workdir=pathlib.Path('/home/x/y')),
  )  # fmt: skip
  assert cli.parse(Config(), ['--sizes=']).inner.sizes == ()


@pytest.mark.parametrize('name', BINARIES)
def test_every_flag_that_names_a_place_is_expanded(monkeypatch, name):
  monkeypatch.setenv('HOME', '/home/x')
  monkeypatch.setenv('SCRATCH', '/scratch')
  default = BINARIES[name][1]
  default = default([]) if callable(default) else default
  fields = {field.name for field, *_ in cli._list_fields(default)}
  places = [x for x in fields if re.search('dir$|input|output|_cache$', x)]
  assert places
  for place in places:
    for value, expected in (('~/a', '/home/x/a'), ('$SCRATCH/a', '/scratch/a')):
      found = {
        field.name: value
        for field, _, value, _ in cli._list_fields(
          cli.parse(default, [f'--{place}={value}'])
        )
      }[place]
      assert str(found[0] if isinstance(found, tuple) else found) == expected
    with pytest.raises(errors.InputError, match=f'--{place}=.s3://'):
      cli.parse(default, [f'--{place}=s3://bucket/a'])


def test_flags_are_defined_for_one_call():
  # A notebook's process runs several binaries, and has flags of its own.
  before = {*flags.FLAGS}
  for name in ('mnist', 'mnist', 'svhn'):
    cli.parse(BINARIES[name][1], ['--seed=3'])
  assert {*flags.FLAGS} == before


def test_values_that_decide_the_result_are_recorded_by_name():
  assert cli.as_dict(Config()) == {
      'word': 'a', 'names': (), 'count': None, 'on': True, 'maybe': None,
      'rate': 0.5, 'sizes': (1, 2),
  }  # fmt: skip
  recorded = cli.as_dict(mnist.Config())
  # What may change between two calls of the same run is not.
  assert not {'workdir', 'data_dir', 'resume', 'progress'} & recorded.keys()
  assert recorded['lambda_diff'] == 0.1 and recorded['seed'] == 0


def test_help_shows_groups_defaults_and_choices(invoke):
  status, out, err = invoke(cli.parse, Config(), '--help')
  assert (status, err) == (0, '')
  assert out.index('what:') < out.index('training:') < out.index('output:')
  assert '  --[no]on\n    A switch. Default: true.' in out
  assert 'A word. One of: a, b. Default: a.' in out
  assert 'Names. Any of: x, y. Default: none.' in out
  assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
  'path', sorted(FLAGFILES.glob('*.flags')), ids=lambda path: path.stem
)
def test_every_flagfile_can_be_read_and_says_what_to_expect(path):
  lines = path.read_text().splitlines()
  assert lines[1].startswith('# Expected') and lines[2].startswith('# Time: ')
  if '--table' in ' '.join(lines):
    default = ablation.make_default([f'--flagfile={path}'])
  else:
    name = path.stem.split('_')[0].rstrip('46')
    names = {'fashion': 'mnist', 'dsprites': 'svhn', 'shapes3d': 'svhn',
             'demo': 'celeba', 'drawn': 'mnist'}  # fmt: skip
    _, default = BINARIES[names.get(name, name)]
  found = cli.parse(default, [f'--flagfile={path}'])
  # The name of the run is that of the file: `reproduce` finds it by hand too.
  assert found.run.workdir == pathlib.Path(f'runs/{path.stem}')


@pytest.mark.parametrize(
  ('args', 'workdir'),
  [
    (['--flagfile=svhn_quick'], 'runs/svhn_quick'),
    (['--flagfile', 'svhn_quick.flags', '--seed=2'], 'runs/svhn_quick'),
    (['-flagfile=mine'], 'here'),
    # A file has precedence over a bundled one, a folder has not.
    (['--flagfile=mnist_quick'], 'there'),
    (['--flagfile=mnist_best'], 'runs/mnist_best'),
  ],
)
def test_a_flagfile_is_a_path_or_a_bundled_name(
  tmp_path, monkeypatch, args, workdir
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'mine').write_text('--workdir=here')
  (tmp_path / 'mnist_quick').write_text('--workdir=there')
  (tmp_path / 'mnist_best').mkdir()
  assert cli.find('workdir', args) == workdir
  default = mnist.Config() if 'best' in workdir else svhn.DEFAULT
  assert cli.parse(default, args).run.workdir == pathlib.Path(workdir)


def _list_examples():
  """Lists the commands of docstrings as the binary and its arguments."""
  for path in sorted(FLAGFILES.parent.glob('*.py')):
    doc = ast.get_docstring(ast.parse(path.read_text())) or ''
    for line in doc.replace('\\\n', ' ').splitlines():
      if line.strip().startswith('python -m experiments.'):
        _, _, module, *args = shlex.split(line)
        yield module.removeprefix('experiments.'), args
  for line in editor._EXAMPLES.strip().splitlines()[1:]:
    yield 'edit', shlex.split(line)[1:]


@pytest.mark.parametrize(('name', 'args'), [*_list_examples()], ids=str)
def test_every_example_of_help_can_be_pasted(tmp_path, monkeypatch, name, args):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'photos').mkdir()
  args = [arg for arg in args if arg != '--help']
  if name == 'edit':
    editor._parse(args)
    return
  default = BINARIES[name][1]
  cli.parse(default(args) if callable(default) else default, args)


@pytest.mark.parametrize(
    ('command', 'part'),
    [
        ('mnist --epoch=3', 'Did you mean: epochs'),
        (f'mnist --epochs={2**31}', '--epochs=2147483648'),
        ('mnist epochs=3', 'flags only'),
        ('mnist --nuisance_dim=1000000000', '--nuisance_dim='),
        ('mnist --grow_by=9 --nuisance_dim=3', 'from 1 to 3'),
        ('mnist --keep_moments --optimizer=muon', 'Adam'),
        ('mnist --grow_when=plateau --learning_rate_schedule=cosine',
         '--grow_when=plateau'),
        ('mnist --lambda_check=1 --teacher_statistics=batch',
         '--teacher_statistics=batch'),
        ('mnist --lambda_check=1 --checkers=teacher,cnn',
         'patches, mixer'),
        ('mnist --lambda_check=1 --checkers=', '--checkers='),
        ('mnist --checkers=teacher,mixer', '--lambda_check=0'),
        ('ablation --table=4 --lambda_check=1 --checkers=mixer',
         'at once; accepted: teacher'),
        ('mnist --process_id=1', 'without --distributed'),
        ('mnist --distributed --coordinator=x:1 --process_count=2'
         ' --process_id=2', '0 to 1'),
        ('mnist --distributed --coordinator=x --process_count=2'
         ' --process_id=1', '--coordinator=x has no port'),
        ('mnist --workdir=gs://bucket/run', 'gs://bucket/run'),
        ('mnist --judge_workdir=s3://bucket/j', 's3://bucket/j'),
        ('celeba --dataset=celeba_folder --data_dir=gs://b/f', 'gs://b/f'),
        ('figures --workdir=hdfs://a/run', 'hdfs://a/run'),
        ('mnist --workdir=~nobody-here/x', '~nobody-here/x'),
        ('mnist --workdir=/proc/x', '--workdir=/proc/x'),
        ('mnist --workdir=a[1]', 'checkpoints'),
        ('mnist --compilation_cache=/proc/x', '--compilation_cache=/proc/x'),
        ('mnist --dataset=nonsense --workdir=new', 'nonsense'),
        ('mnist --dataset=arrays --workdir=new', 'data_dir'),
        ('mnist --baselines=vae', '--baselines=vae; accepted: beta_vae'),
        ('mnist --students=', 'nothing to train'),
        ('mnist --baselines=xcov --nuisance_dim=8 --workdir=new',
         'a code of 10 units for 10 classes'),
        ('mnist --baselines=qlae --factor_units=3,16',
         '--factor_units=3,16, of a code of 16 units'),
        ('ablation --table=4 --baselines=qlae', 'a table has none'),
        ('ablation --table=7', 'one of <4|5|6>'),
        ('ablation --students=', 'nothing to train'),
        ('mnist --flagfile=nowhere', 'such as celeba64, '),
        ('mnist --flagfile=mnist_quik', 'such as mnist_quick, '),
        ('ablation --flagfile here/mnist_quick', 'here/mnist_quick: no such'),
        ('mnist --flagfile=binary', 'UTF-8'),
        ('mnist --flagfile=loop', 'reads itself'),
        ('svhn --growth=preserving --nonormalize_students', '--linear_code'),
        ('celeba --image_size=100', 'powers of two'),
        ('celeba --nuisance_dims=4,x', 'numbers'),
        ('celeba --nuisance_dims=8,14', '--nuisance_dims=8,14'),
        ('mnist --keep_moments --learning_rate_schedule=cosine', 'cosine'),
        ('celeba --epochs=0', '--teacher_workdir'),
        ('celeba --epochs=0 --students=', 'nothing to train'),
        ('celeba --supervisor=cvae --students=student_from_scratch'
         ' --decode_labels=1', '--baselines=; accepted: cvae among'),
        ('celeba --eval_split=validation', '--held_out=0'),
        ('reproduce', '--table'),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_changes_nothing(
  tmp_path, monkeypatch, invoke, root, command, part
):
  del root  # Data are prepared there, if at all.
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'binary').write_bytes(b'--seed=\xff')
  (tmp_path / 'loop').write_text('--flagfile=loop')
  before = sorted(tmp_path.rglob('*'))
  binary, *args = command.split()
  status, _, err = invoke(*BINARIES[binary], *args)
  [line] = [x for x in err.splitlines() if not x.endswith(' ...')]
  assert status == 2 and line.startswith('error: ') and part in line
  assert sorted(tmp_path.rglob('*')) == before


def _raise(error):
  def main(unused_config):
    raise error

  return main


@pytest.mark.parametrize(
    ('error', 'status', 'line'),
    [
        (errors.InputError('--seed is\n  bad.'), 2, 'error: --seed is bad.'),
        (errors.RunError('not finite.'), 1, 'error: not finite.'),
        (OSError(28, 'No space left on device', '/x/y'), 1, 'error: /x/y'),
        (RuntimeError('RESOURCE_EXHAUSTED: x'), 1, '--batch_size'),
        (signals.Interrupted('step 3 is saved'), 143,
         'stopped: step 3 is saved'),
        (KeyboardInterrupt(), 130, 'SIGINT'),
    ],
)  # fmt: skip
def test_an_expected_error_is_one_line_and_a_status(
  invoke, error, status, line
):
  found, out, err = invoke(_raise(error), Config())
  assert (found, out) == (status, '')
  assert err.count('\n') == 1 and line in err


def _record(epoch, **values):
  return {'epoch': epoch, 'loss': 0.25, 'images_per_second': 1000.4,
          'seconds': 30.0, **values}  # fmt: skip


def test_a_line_per_epoch_estimates_the_time_left(capsys):
  shown = progress.Progress([STAGE], draw=False)
  shown.report(STAGE, _record(1, eval_class_swaps_mlp=None, eval_mse=0.1))
  shown.report(STAGE, _record(2, eval_mse=[0.1, 0.3]))
  shown.report(STAGE, _record(4))
  assert capsys.readouterr().out.splitlines() == [
    'd1 1/4 loss=0.2500 eval_mse=0.1000 1000 images/s',
    'd1 2/4 loss=0.2500 eval_mse=0.2000 1000 images/s, about 60 s left',
    'd1 4/4 loss=0.2500 1000 images/s',
  ]


_COMPILED = '/jax/core/compile/backend_compile_duration'


@pytest.mark.parametrize(
  ('epochs', 'expected'),
  [
    # A teacher of four epochs. Students are unknown: 1 epoch of 2 s, and twice
    # 18 s of compilation and 8 epochs of 2 s.
    ([(20, 18), 2, 2], 'at least 70 s'),
    # The second student is as slow as the first, not as the teacher: 7 epochs
    # of 10 s, and 25 s and 8 epochs of 10 s.
    ([(20, 18), 2, 2, 2, (35, 25)], 'about 3 min'),
    ([(20, 18), 2, 2, 2, (35, 25), *[10] * 7], 'about 2 min'),
    # More was compiled than the epoch took: for the evaluation.
    ([(20, 25), 2, 2], 'at least 70 s'),
  ],
)
def test_the_estimate_knows_that_students_are_slower(epochs, expected):
  stages = [dataclasses.replace(STAGE, name='teacher', model='teacher')]
  for i in (1, 2):
    stages.append(dataclasses.replace(STAGE, name=f'student_d0{i}', epochs=8))
  with progress.Progress(stages, draw=False) as shown:
    for i, own in enumerate(epochs):
      seconds, compiling = own if isinstance(own, tuple) else (own, 0.0)
      monitoring.record_event_duration_secs(_COMPILED, compiling)
      stage, epoch = (stages[0], i + 1) if i < 4 else (stages[1], i - 3)
      shown.report(stage, _record(epoch, seconds=seconds))
    assert shown._estimate() == expected


def test_a_line_says_how_long_programs_were_compiled(capsys):
  with progress.Progress([STAGE], draw=False) as shown:
    monitoring.record_event_duration_secs(_COMPILED, 2.5)
    monitoring.record_event_duration_secs(_COMPILED, 0.6)
    shown.report(STAGE, _record(1))
    monitoring.record_event_duration_secs('/jax/other', 9.0)
    shown.report(STAGE, _record(2))
  monitoring.record_event_duration_secs(_COMPILED, 9.0)
  shown.report(STAGE, _record(3))
  first, *rest = capsys.readouterr().out.splitlines()
  assert first == 'd1 1/4 loss=0.2500 1000 images/s, 3 s of compilation'
  assert not any('compilation' in line for line in rest)


@pytest.mark.parametrize(
  ('lost', 'draw'), [('stdout', False), ('stderr', True), ('stdout', None)]
)
def test_progress_that_cannot_be_shown_is_noted_once(monkeypatch, lost, draw):
  other = 'stdout' if lost == 'stderr' else 'stderr'
  left = io.StringIO()
  monkeypatch.setattr(sys, other, left)
  with open('/dev/full', 'w', encoding='utf-8') as full:
    monkeypatch.setattr(sys, lost, full)
    with progress.Progress([STAGE], draw) as shown:
      for epoch in (1, 2, 3):
        shown.report(STAGE, _record(epoch))
    monkeypatch.undo()
  note = f'note: {lost} is lost (No space left on device); the run continues.'
  assert left.getvalue().count(note) == 1


def test_long_work_on_models_says_at_times_how_far_it_is(monkeypatch, capsys):
  clock = iter([0, 1, 40, 40, 41])
  monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
  assert [*progress.track('measuring', 'abc')] == ['a', 'b', 'c']
  assert capsys.readouterr().err.splitlines() == [
    'measuring: 3 models ...',
    'measuring: 1 of 3 done ...',
  ]


def test_progress_without_stderr_shows_nothing(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', None)
  with progress.Progress([STAGE]) as shown:
    shown.report(STAGE, _record(1))


@pytest.mark.parametrize(
  ('command', 'lost'),
  [
    ('help', '| head -1'),
    ('work', '| true'),
    ('work', '>/dev/full'),
    ('mistake', '>&-'),
    ('mistake', '2>/dev/full'),
  ],
)
def test_a_short_command_ends_quietly_when_its_reader_leaves(command, lost):
  program = f"""
import sys
from experiments import cli, progress
from jacsup_jax.core import errors
def main(config):
  if '{command}' == 'mistake':
    raise errors.InputError('it is bad.')
  for _ in range(1000):
    progress.say('line ' * 20)
sys.argv = ['x'] + ['--help'] * ('{command}' == 'help')
cli.run(main, cli.RunConfig())
"""
  script = f'set -o pipefail; "$0" -c "$1" {lost}'
  done = subprocess.run(
      ['bash', '-c', script, sys.executable, program], cwd=FLAGFILES.parents[1],
      capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == (2 if command == 'mistake' else 0), done.stderr
  is_shown = command == 'mistake' and '2>' not in lost
  assert done.stderr == ('error: it is bad.\n' if is_shown else '')


def test_a_stage_has_one_bar(monkeypatch):
  err = io.StringIO()
  monkeypatch.setattr(sys, 'stderr', err)
  with progress.Progress([STAGE], draw=True) as shown:
    for epoch in (3, 4):
      shown.report(STAGE, _record(epoch))
  bars = err.getvalue()
  assert 'd1' in bars and '4/4' in bars
  # A bar that ends leaves a line break.
  assert bars.count('\n') == 2  # With the announcement.
