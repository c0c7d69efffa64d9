"""Draw the figures of Lezama (2019) from stored runs.

python -m experiments.figures --workdir=runs/mnist_quick
python -m experiments.figures --workdir=runs/mnist_quick --figure=1,2 \
      --format=pdf,svg
python -m experiments.figures --workdir=runs/celeba64,runs/celeba64_fader \
      --figure=4,7,8
"""

from collections.abc import Sequence
import dataclasses
import functools
import os
import pathlib

import numpy as np

from experiments import cli
from experiments import decoding
from experiments import drawing
from experiments import progress
from jacsup_jax.core import errors
from jacsup_jax.core import options
from jacsup_jax.data import files
from jacsup_jax.figures import curves
from jacsup_jax.figures import faces
from jacsup_jax.figures import panels
from jacsup_jax.runs import run as run_lib

FIGURES = (
    '1', '2', '4', '5', '7', '8', '9', '10', '11', '12', 'curves',
    'reconstructions', 'sweeps', 'swaps', 'front',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FiguresConfig:
  """Flags of this binary."""

  workdir: tuple[str, ...] = options.option(
    ('runs/mnist',),
    'Runs of experiments.mnist, svhn or celeba, finished or not; of several'
    ' seeds the first is drawn. Several runs of faces give 4 and 7 with the'
    ' models of all (7: the first of each kind), and 8 with the student of one'
    ' and the Fader Networks of another; front takes a run of digits and one'
    ' of faces.',
    group='what',
  )
  figure: tuple[str, ...] = options.option(
    (),
    'What to draw; default: all that the run gives, except front. Grey images'
    ' of classes give 1 and 2, images in colour 9 to 12, faces 4, 5, 7, and 8'
    ' with Fader Networks; sweeps are as 8, of each model alone.',
    choices=FIGURES,
    group='what',
  )
  data_dir: str | None = options.option(
    None,
    'Where the data are; default: where the run found them.',
    group='data',
  )
  output_dir: str | None = options.option(
    None,
    'Where the figures go; default: WORKDIR/figures, of the first run.',
    group='output',
  )
  format: tuple[str, ...] = options.option(
    ('pdf',),
    'Formats of the files. PDF and SVG have text as text, and images as they'
    ' were decoded.',
    choices=panels.FORMATS,
    group='output',
  )

  def __post_init__(self):
    options.check(self)
    for name in ('workdir', 'format'):
      if not getattr(self, name):
        raise errors.InputError(f'--{name} is empty; accepted: one or more.')


def draw(
  runs: Sequence[run_lib.Run],
  *,
  names: Sequence[str] = (),
  data_dir: str | os.PathLike[str] | None = None,
  folder: str | os.PathLike[str] | None = None,
  formats: Sequence[str] = ('png',),
) -> list[pathlib.Path]:
  """Draws the figures of a run, or those that several runs give together.

  A run decides by what it holds which figures there are, see `drawing`. Several
  runs of faces give Figures 4, 7 and 8.

  Args:
    runs: complete or not.
    names: of `FIGURES`; all that the runs give if empty, except front.
    data_dir: where the data are; by default where the runs found them.
    folder: where the files go; by default `figures` of the first run.
    formats: of `panels.FORMATS`.

  Returns:
    The files written.

  Raises:
    InputError: if the runs cannot give a figure that is named, if one is
      damaged or has no finished stage, or if the folder cannot be written.
  """
  folder = pathlib.Path(folder or runs[0].path / 'figures')
  # Before models are restored, which may take minutes.
  files.check_writable(f'--output_dir={folder}', folder)
  loaded = [load(run, data_dir) for run in runs]
  found, others = [], [name for name in names if name != 'front']
  if len(runs) == 1:
    found = drawing.list_drawings(loaded[0])
  elif others or not names:
    if all(own.has_attributes for own in loaded):
      found = _list_of_several(loaded, {'7', '8'} & {*(names or FIGURES)})
  if 'front' in names:
    found.append(list_front(loaded))
  what = f'the run in {runs[0].path}' if len(runs) == 1 else 'these runs'
  return drawing.save(_choose(found, names, what), folder, formats)


def load(
  run: run_lib.Run, data_dir: str | os.PathLike[str] | None = None
) -> decoding.Loaded:
  """Restores the models of a run's first seed, and loads its data.

  A teacher given by another run (--teacher_workdir) comes first.

  Raises:
    InputError: if no stage is finished, or something is damaged or missing.
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
  return decoding.Loaded(run.path, trained, data, rows, records)


def list_front(loaded: Sequence[decoding.Loaded]) -> drawing.Drawing:
  """Lists the front picture of a run of classes, one of faces, or both.

  Classes: the first two factors, in the teacher and in the last student. Faces:
  the attributes confirmed most often for the last student, or the teacher
  without one, over -alpha to alpha.

  Raises:
    InputError: if there are other runs, or they lack the models.
  """
  of_faces = [own for own in loaded if own.has_attributes]
  of_classes = [own for own in loaded if not own.has_attributes]
  if len(of_faces) > 1 or len(of_classes) > 1:
    raise errors.InputError(
      f'--figure=front with {len(of_classes)} runs of digits and'
      f' {len(of_faces)} of faces; accepted: one of either, or of both.'
    )
  for own in loaded:
    needed = own.measured if own.has_attributes else own.finals
    known = {'teacher', 'student'} if own.has_attributes else {'teacher'}
    if not known & {*needed}:
      raise errors.InputError(
        f'--figure=front: {own.path} has no teacher that is finished, or of'
        ' faces measured; accepted: a complete run.'
      )
    if not own.has_attributes and needed['teacher'].model.num_factors < 2:
      raise errors.InputError(
        f'--figure=front: {own.path} has a teacher of one factor; accepted:'
        ' of two or more.'
      )
  # Twice a README's width, in pixels.
  return drawing.Drawing(
    'front',
    'front',
    functools.partial(_draw_front, of_classes, of_faces),
    dpi=170,
    colors=256,
  )


def main(config: FiguresConfig) -> None:
  """Draws the figures that the flags ask for."""
  data_dir, folder = (
      value and files.expand_path(f'--{name}', value)
      for name, value in (
          ('data_dir', config.data_dir), ('output_dir', config.output_dir)
      )
  )  # fmt: skip
  for path in draw(
    [run_lib.Run.open(path) for path in config.workdir],
    names=config.figure,
    data_dir=data_dir,
    folder=folder,
    formats=config.format,
  ):
    progress.say(f'saved in {path}')


def _choose(found, names, what):
  """Chooses the figures that are asked for; all if no names are given."""
  given = list(dict.fromkeys(one.figure for one in found))
  missing = [name for name in names if name not in given]
  if missing or not found:
    why = (
      ' (8 compares a student with Fader Networks)' if '8' in missing else ''
    )
    raise errors.InputError(
      f'--figure={",".join(names)}: {what} cannot give'
      f' {", ".join(missing) or "any figure"}{why}; accepted:'
      f' {", ".join(given) or "other runs"}.'
    )
  return [one for one in found if not names or one.figure in names]


def _list_of_several(loaded, with_images):
  """Lists Figures 4, 7 and 8 of the models of several runs of faces."""
  found = []
  rows = [
    {**row, 'source': own.path.name} for own in loaded for row in own.rows
  ]
  if curves.has_tradeoff(rows):
    draw_rows = functools.partial(curves.tradeoff, rows)
    found.append(drawing.Drawing('4', 'figure_4', draw_rows))
  if not with_images:
    return found
  first, finals, measured = loaded[0], {}, {}
  for own in loaded:
    alike = [(one.data.attribute_names, one.data.image_shape,
              one.data.fingerprint) for one in (first, own)]  # fmt: skip
    if alike[0] != alike[1]:
      raise errors.InputError(
        f'--figure=7,8: {first.path} and {own.path} are of other attributes,'
        ' sizes or images; accepted: runs on the same data.'
      )
    finals = own.finals | finals
    measured = own.measured | measured
  found.append(drawing.list_reconstructions(first, finals.values(), 'figure_7'))
  if {'student', 'fader'} <= set(measured):
    pairs = measured['student'], measured['fader']
    found.append(drawing.list_comparison(first, *pairs))
  return found


def _draw_front(of_classes, of_faces):
  grids, shown = [], ()
  for own in of_classes:
    kinds = ['teacher', *[k for k in ('student', 'student_from_scratch')
                          if k in own.finals][:1]]  # fmt: skip
    for kind, label in zip(kinds, ('teacher', 'student')):
      trained = own.finals[kind]
      grid, *_ = decoding.vary_factors(own, trained, 9, limit=1000)
      grids.append((f'{label}, d = {trained.stage.nuisance_dim}', grid))
  for own in of_faces:
    measured = own.measured
    trained, row = measured.get('student') or measured['teacher']
    indices = decoding.rank_attributes(row, own.data)[:5]
    values = np.linspace(-row['strength'], row['strength'], 7)
    shown = (
      own.images(range(len(indices))),
      decoding.sweep_attributes(own, trained, indices, values),
      [own.data.attribute_names[i] for i in indices],
    )
  return faces.front(grids, *shown)


if __name__ == '__main__':
  cli.run(main, FiguresConfig())
