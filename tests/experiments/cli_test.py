"""Tests of experiments.cli and progress: flags, exit statuses, lines."""

import dataclasses
import io
import os
import pathlib
import sys
from typing import Literal

import pytest

from experiments import ablation
from experiments import celeba
from experiments import cli
from experiments import judge
from experiments import mnist
from experiments import progress
from experiments import reproduce
from experiments import svhn
from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
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
             'demo': 'celeba'}  # fmt: skip
    _, default = BINARIES[names.get(name, name)]
  found = cli.parse(default, [f'--flagfile={path}'])
  # The name of the run is that of the file: `reproduce` finds it by hand too.
  assert found.run.workdir == pathlib.Path(f'runs/{path.stem}')


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
         'strided, patches, mixer'),
        ('mnist --lambda_check=1 --checkers=', '--checkers='),
        ('mnist --checkers=teacher,mixer', '--lambda_check=0'),
        ('ablation --lambda_check=1 --checkers=mixer',
         'at once; accepted: teacher'),
        ('mnist --process_id=1', 'without --distributed'),
        ('mnist --distributed --coordinator=x:1 --process_count=2'
         ' --process_id=2', '0 to 1'),
        ('mnist --workdir=gs://bucket/run', 'gs://bucket/run'),
        ('mnist --workdir=~nobody-here/x', '~nobody-here/x'),
        ('mnist --workdir=/proc/x', '--workdir=/proc/x'),
        ('mnist --workdir=a[1]', 'checkpoints'),
        ('mnist --compilation_cache=/proc/x', '--compilation_cache=/proc/x'),
        ('mnist --dataset=nonsense --workdir=new', 'nonsense'),
        ('mnist --dataset=arrays --workdir=new', 'data_dir'),
        ('mnist --flagfile=nowhere', 'No such file'),
        ('mnist --flagfile=binary', 'UTF-8'),
        ('mnist --flagfile=loop', 'reads itself'),
        ('svhn --growth=preserving --nonormalize_students', '--linear_code'),
        ('celeba --image_size=100', 'powers of two'),
        ('celeba --nuisance_dims=4,x', 'numbers'),
        ('celeba --nuisance_dims=8,14', '--nuisance_dims=8,14'),
        ('mnist --keep_moments --learning_rate_schedule=cosine', 'cosine'),
        ('celeba --epochs=0', '--teacher_workdir'),
        ('celeba --epochs=0 --students=', 'nothing to train'),
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


def test_a_full_log_silences_what_follows_and_ends_nothing():
  with open('/dev/full', 'w', encoding='utf-8') as full:
    progress.say('lost', full)
    progress.say('lost too', full)
  reader, writer = os.pipe()
  os.close(reader)
  with os.fdopen(writer, 'w') as pipe:
    progress.say('nobody reads this', pipe)


def _record(epoch, **values):
  return {'epoch': epoch, 'loss': 0.25, 'images_per_second': 1000.4,
          'seconds': 30.0, **values}  # fmt: skip


def test_a_line_per_epoch_estimates_the_time_left(capsys):
  shown = progress.Progress([STAGE], draw=False)
  shown.report(STAGE, _record(1, eval_class_swaps=None, eval_mse=0.1))
  shown.report(STAGE, _record(2, eval_mse=[0.1, 0.3]))
  shown.report(STAGE, _record(4))
  assert capsys.readouterr().out.splitlines() == [
    'd1 1/4 loss=0.2500 eval_mse=0.1000 1000 images/s',
    'd1 2/4 loss=0.2500 eval_mse=0.2000 1000 images/s, about 60 s left',
    'd1 4/4 loss=0.2500 1000 images/s',
  ]


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
