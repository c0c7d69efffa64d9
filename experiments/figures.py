"""Draw the figures of Lezama (2019) from stored runs.

python -m experiments.figures --workdir=runs/mnist_quick --figure=1,2 \
      --format=pdf,svg
python -m experiments.figures --workdir=runs/celeba64,runs/celeba64_fader
"""

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np

from experiments import cli
from experiments import drawing
from experiments import progress
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.figures import curves
from jacsup_jax.figures import grids
from jacsup_jax.figures import panels
from jacsup_jax.runs import run as run_lib

FIGURES = (
    '1', '2', '4', '5', '7', '8', '9', '10', '11', '12', 'curves',
    'reconstructions', 'sweeps', 'swaps', 'front',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FiguresConfig:
  """Flags of this binary."""

  workdir: tuple[str, ...] = config.option(
    ('runs/mnist',),
    'Runs of experiments.mnist, svhn or celeba, finished or not; of several'
    ' seeds the first is drawn. Several runs of faces give 4 and 7 with the'
    ' models of all (7: the first of each kind), and 8 with the student of one'
    ' and the Fader Networks of another; front takes a run of digits and one'
    ' of faces.',
    group='what',
  )
  figure: tuple[str, ...] = config.option(
    (),
    'What to draw; default: all that the run gives, except front. Grey images'
    ' of classes give 1 and 2, images in colour 9 to 12, faces 4, 5, 7, and 8'
    ' with Fader Networks; sweeps are as 8, of each model alone.',
    choices=FIGURES,
    group='what',
  )
  data_dir: str | None = config.option(
    None, 'Where the data are; default: where the run found them.', group='data'
  )
  output_dir: str | None = config.option(
    None,
    'Where the figures go; default: WORKDIR/figures, of the first run.',
    group='output',
  )
  format: tuple[str, ...] = config.option(
    ('pdf',),
    'Formats of the files. PDF and SVG have text as text, and images as they'
    ' were decoded.',
    choices=panels.FORMATS,
    group='output',
  )

  def __post_init__(self):
    config.check(self)
    for name in ('workdir', 'format'):
      if not getattr(self, name):
        raise errors.InputError(f'--{name} is empty; accepted: one or more.')


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
  found, others = [], {*(names or FIGURES)} - {'front'}
  if len(runs) == 1:
    found = drawing.list_drawings(loaded[0])
  elif others and all(own.has_attributes for own in loaded):
    found = _list_of_several(loaded, others & {'7', '8'})
  if 'front' in names:
    found.append(_make_front(loaded))
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
  data_dir, folder = config.data_dir, config.output_dir
  data_dir = data_dir and files.expand_path('--data_dir', data_dir)
  folder = folder and files.expand_path('--output_dir', folder)
  runs = [run_lib.Run.open(path) for path in config.workdir]
  for path in draw(runs, config.figure, data_dir, folder, config.format):
    progress.say(f'saved in {path}')


def _list_of_several(loaded, with_images):
  """Lists Figures 4, 7 and 8 of the models of several runs of faces."""
  found, rows = [], []
  for own in loaded:
    rows += [{**row, 'source': own.path.name} for row in own.rows]
  if curves.has_tradeoff(rows):
    found.append(drawing.make('4', 'figure_4', curves.tradeoff, rows))
  if not with_images:
    return found
  describe = lambda x: (x.attribute_names, x.image_shape, x.fingerprint)
  first, finals, measured = loaded[0], {}, {}
  for own in loaded:
    if describe(own.data) != describe(first.data):
      raise errors.InputError(
        f'--figure=7,8: {first.path} and {own.path} are of other attributes,'
        ' sizes or images; accepted: runs on the same data.'
      )
    finals = own.finals | finals
    measured = own.measured | measured
  args = drawing.draw_reconstructions, first, finals.values()
  found.append(drawing.make('7', 'figure_7', *args))
  if {'student', 'fader'} <= set(measured):
    args = first, measured['student'], measured['fader']
    found.append(drawing.make('8', 'figure_8', drawing.draw_comparison, *args))
  return found


def _make_front(loaded):
  """Makes the front picture of a run of classes, one of faces, or both."""
  by_kind = {own.has_attributes: own for own in loaded}
  digits, people = by_kind.get(False), by_kind.get(True)
  teacher = digits and digits.finals.get('teacher')
  if (
    len(by_kind) < len(loaded)
    or (digits and not (teacher and teacher.model.num_factors >= 2))
    or (people and not {'teacher', 'student'} & {*people.measured})
  ):
    raise errors.InputError(
      f'--figure=front with {", ".join(str(own.path) for own in loaded)};'
      ' accepted: a complete run of digits of two factors, of faces, or both.'
    )
  one = drawing.make('front', 'front', _draw_front, digits, people)
  # Twice a README's width, in pixels.
  return one._replace(options={'dpi': 170, 'colors': 256})


def _draw_front(digits, people):
  """Draws factors of teacher and student, and attributes confirmed most."""
  shown, faces = [], ()
  if digits:
    finals = digits.finals
    student = finals.get('student') or finals.get('student_from_scratch')
    for name, trained in (('teacher', finals['teacher']), ('student', student)):
      if trained is not None:
        grid, *_ = drawing.vary_factors(digits, trained, 9, limit=1000)
        shown.append((f'{name}, d = {trained.stage.nuisance_dim}', grid))
  if people:
    measured = people.measured
    trained, row = measured.get('student') or measured['teacher']
    names = drawing.find_best(row, 5)
    values = np.linspace(-row['strength'], row['strength'], 7)
    swept = drawing.sweep_attributes(people, trained, names, values)
    faces = people.images(range(len(names))), swept, names
  return grids.front(shown, *faces)


if __name__ == '__main__':
  cli.run(main, FiguresConfig())
