"""Draw the figures of Lezama (2019) from stored runs.

python -m experiments.figures --workdir=runs/mnist_quick --figure=1,2
python -m experiments.figures --workdir=runs/celeba64,runs/celeba64_fader
"""

from collections.abc import Sequence
import dataclasses
import pathlib

from experiments import cli
from experiments import drawing
from experiments import progress
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.figures import curves
from jacsup_jax.figures import panels
from jacsup_jax.runs import run as run_lib


@dataclasses.dataclass(frozen=True)
class FiguresConfig(config.Options, group='what'):
  """Flags of this binary."""

  workdir: tuple[pathlib.Path, ...] = config.option(
    (pathlib.Path('runs/mnist'),),
    'Runs of experiments.mnist, svhn or celeba, finished or not; of several'
    ' seeds, the first is drawn. Several runs of classes give the swaps of'
    ' their students side by side, and tradeoff. Several runs of faces give'
    ' Figures 4 and 7 with all their models (7: the first of each kind), and'
    ' Figure 8 with the student of one and the Fader Networks of another.',
  )
  figure: tuple[str, ...] = config.option(
    (),
    'What to draw; default: all that the run allows. Gray images of classes'
    ' give Figures 1 and 2, color images 9 to 12, faces 4, 5, 7 and, with'
    ' Fader Networks, 8. sweeps is like 8 for each model alone; edits plots'
    ' flips against the attributes kept, by strength; tradeoff plots swaps'
    ' against error.',
    choices=drawing.FIGURES,
  )
  data_dir: pathlib.Path | None = config.option(
    None, 'Where the data are; default: where the run found them.', group='data'
  )
  output_dir: pathlib.Path | None = config.option(
    None,
    'Folder of the figures; default: WORKDIR/figures of the first run.',
    group='output',
  )
  format: tuple[str, ...] = config.option(
    ('pdf',),
    'File formats. PDF and SVG keep text as text, and images as they were'
    ' decoded.',
    choices=panels.FORMATS,
    group='output',
  )

  def __post_init__(self):
    super().__post_init__()
    if not self.workdir or not self.format:
      raise errors.InputError(
        '--workdir or --format is empty; accepted: one or more of each.'
      )


def draw(
  runs: Sequence[run_lib.Run],
  names: Sequence[str] = (),
  data_dir: pathlib.Path | None = None,
  folder: pathlib.Path | None = None,
  formats: Sequence[str] = ('png',),
) -> list[pathlib.Path]:
  """Draws the figures of a run, or those that several runs give together.

  Arguments are as the flags, see `FiguresConfig`. Returns the files written.

  Raises:
    InputError: if a run is damaged or cannot give a figure that is named.
  """
  folder = folder or runs[0].path / 'figures'
  # Before models are restored, which may take minutes.
  files.check_writable(f'--output_dir={folder}', folder)
  loaded = [load(run, data_dir) for run in runs]
  found = []
  if len(runs) == 1:
    found = drawing.list_drawings(loaded[0])
  elif all(own.has_attributes for own in loaded):
    found = _list_of_faces(loaded, {*(names or drawing.FIGURES)} & {'7', '8'})
  elif not any(own.has_attributes for own in loaded):
    found = _list_of_classes(loaded)
  given = list(dict.fromkeys(one.figure for one in found))
  missing = [name for name in names if name not in given]
  if missing or not found:
    raise errors.InputError(
      f'--figure={",".join(names)}: {", ".join(str(run.path) for run in runs)}'
      f' cannot give {", ".join(missing) or "any figure"}; accepted:'
      f' {", ".join(given) or "other runs"}.'
    )
  chosen = [one for one in found if not names or one.figure in names]
  return drawing.save(chosen, folder, formats)


def load(
  run: run_lib.Run, data_dir: pathlib.Path | None = None
) -> drawing.Loaded:
  """Restores the models of a run's first seed, and loads its data.

  A teacher given by another run (--teacher_workdir) comes first.
  """
  seed = run.stage(run.find_stage(None)).seed
  stages = [stage for stage in run.stages if run.stage(stage).seed == seed]
  trained = [run.trained(stage) for stage in stages]
  parent = trained[0].stage.parent
  if parent is not None and run.config.get('teacher_workdir'):
    given = run_lib.Run.open(run.config['teacher_workdir'], '--teacher_workdir')
    trained.insert(0, given.trained(parent))
  data = run.load_data(run.config.get('eval_split') or 'test', data_dir)
  rows = [row for row in run.rows if row.get('seed', seed) == seed]
  records = run.workdir.read_metrics()
  return drawing.Loaded(run.path, trained, data, rows, records)


def main(config: FiguresConfig) -> None:
  """Draws the figures that the flags ask for."""
  runs = [run_lib.Run.open(path) for path in config.workdir]
  args = config.figure, config.data_dir, config.output_dir, config.format
  for path in draw(runs, *args):
    progress.say(f'saved in {path}')


def _list_of_classes(loaded):
  """Lists the swaps by the students of several runs, and their trade-off."""
  shown = {}
  for own in loaded:
    _check_data('swaps', loaded[0], own)
    for kind, trained in own.finals.items():
      if kind != 'teacher' or len(own.finals) == 1:
        shown[f'{own.path.name}: {own.name(trained)}'] = trained
  args = drawing.draw_swaps, loaded[0], shown
  found = [drawing.make('swaps', 'swaps', *args)]
  if any(curves.has_tradeoff(own.rows, curves.SWAPS) for own in loaded):
    args = 'tradeoff', drawing.draw_tradeoff, loaded
    found.append(drawing.make('tradeoff', *args))
  return found


def _list_of_faces(loaded, with_images):
  """Lists Figures 4, 7 and 8 of the models of several runs of faces."""
  found, rows = [], []
  for own in loaded:
    rows += [{**row, 'source': own.path.name} for row in own.rows]
  if curves.has_tradeoff(rows):
    found.append(drawing.make('4', 'figure_4', curves.tradeoff, rows))
  if not with_images:
    return found
  first, finals, measured = loaded[0], {}, {}
  for own in loaded:
    _check_data('7,8', first, own)
    finals = own.finals | finals
    measured = own.measured | measured
  args = drawing.draw_reconstructions, first, finals.values()
  found.append(drawing.make('7', 'figure_7', *args))
  if {'student', 'fader'} <= set(measured):
    args = first, measured['student'], measured['fader']
    found.append(drawing.make('8', 'figure_8', drawing.draw_comparison, *args))
  return found


def _check_data(figure, first, other):
  """Raises InputError unless two runs are on the same data."""
  describe = lambda x: (x.attribute_names, x.image_shape, x.fingerprint)
  if describe(other.data) != describe(first.data):
    raise errors.InputError(
      f'--figure={figure}: {first.path} and {other.path} are of other'
      ' attributes, sizes or images; accepted: runs on the same data.'
    )


if __name__ == '__main__':
  cli.run(main, FiguresConfig())
