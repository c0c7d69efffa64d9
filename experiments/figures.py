"""Draws the figures of Lezama (2019) from stored runs, and a page of a run.

  python -m experiments.figures --workdir=runs/mnist_quick
  python -m experiments.figures --workdir=runs/mnist_quick --figure=1,2 \
      --format=pdf,svg
  python -m experiments.figures --workdir=runs/celeba64 \
      --workdir=runs/celeba64_fader --figure=4,7,8
"""

from collections.abc import Iterator, Sequence
import os
import pathlib
from typing import Any

from absl import flags

from experiments import celeba_figures
from experiments import celeba_runs
from experiments import command_line
from experiments import drawings
from experiments import drawn_runs
from experiments import front_figure
from experiments import run_gallery
from jacsup_jax.core import errors
from jacsup_jax.figures import face_figures
from jacsup_jax.figures import panels as figures
from jacsup_jax.runs import workdir as workdirs

FLAGS = flags.FLAGS
_FRONT = 'front'
_ACCEPTED = (*drawings.NAMES, _FRONT)
_GALLERY = 'gallery.html'


def define_flags() -> None:
  """Defines the flags of this binary; not at import, others have the names."""
  flags.DEFINE_multi_string(
      'workdir',
      ['runs/mnist'],
      'A run of experiments.mnist, svhn or celeba, finished or not; of several'
      ' seeds the first is drawn. Given more than once, --figure=4 and 7 have'
      ' the models of all runs (7 the first of each kind), 8 compares the'
      ' student of one with the Fader Networks of another, and front shows a'
      ' run of digits and one of faces.',
  )
  flags.DEFINE_list(
      'figure',
      [],
      f'What to draw, any of {", ".join(_ACCEPTED)}; by default all that the'
      ' run gives, and the gallery. Runs of mnist give 1 and 2, of svhn 9 to'
      ' 12, of celeba 4, 5, 7, and 8 with Fader Networks; sweeps are as 8, of'
      ' each model alone.',
  )
  flags.DEFINE_string(
      'data_dir',
      None,
      'Where TFDS keeps prepared sets, its own by default; for arrays the file,'
      ' for celeba_folder the folder, as in the run.',
  )
  flags.DEFINE_string(
      'output_dir',
      None,
      'Where the figures go; WORKDIR/figures by default, of several runs that'
      ' of the first.',
  )
  flags.DEFINE_list(
      'format',
      ['pdf'],
      f'Formats, any of {", ".join(figures.FORMATS)}. PDF and SVG have text as'
      ' text, and images as they were decoded.',
  )
  flags.DEFINE_boolean(
      'gallery',
      None,
      f'Write {_GALLERY}, one page with parameters, curves, tables and the'
      ' figures that are drawn, to WORKDIR (or --output_dir, if given). By'
      ' default with all figures of one run.',
  )


def choose(
    found: drawings.Drawings, asked: Sequence[str], what: str
) -> dict[str, Any]:
  """Chooses the figures that were asked for.

  Args:
    found: that can be drawn.
    asked: names, all that can be drawn if empty.
    what: cannot give others, for the error.

  Returns:
    The chosen, in the order of `found`.

  Raises:
    InputError: if one of them cannot be drawn, or nothing at all.
  """
  missing = [name for name in asked if name not in found]
  if missing or not found:
    why = ''
    if '8' in missing:
      why = ' (8 compares a student with Fader Networks)'
    given = ', '.join(found) or 'other runs'
    raise errors.InputError(
        f'--figure={",".join(asked)}: {what} cannot give'
        f' {", ".join(missing) or "any figure"}{why}; accepted: {given}.'
    )
  return {n: files for n, files in found.items() if not asked or n in asked}


def list_of_several(
    runs: Sequence[workdirs.WorkDir],
    asked: Sequence[str],
    data_dir: str | None,
) -> drawings.Drawings:
  """Lists the figures that several runs give together.

  Args:
    runs: in order.
    asked: of these figures; all if empty.
    data_dir: where the data are, of all that need them.

  Raises:
    InputError: if a run is damaged.
  """
  found = {}
  faces = [run for run in runs if run.manifest['experiment'] == 'celeba']
  if not asked or '4' in asked:
    rows = [
        {**row, 'source': run.path.name}
        for run in faces
        for row in drawn_runs.read_rows(run)
    ]
    if len(faces) == len(runs) and face_figures.has_tradeoff(rows):
      drawing = drawings.Drawing(
          lambda: face_figures.tradeoff(rows),
          'Figure 4: attribute flips against error, of several runs.',
      )
      found['4'] = {'figure_4': drawing}
  if len(faces) == len(runs) and (not asked or {'7', '8'} & set(asked)):
    found |= _list_of_models(faces, data_dir)
  return found


def draw(
    workdir: Sequence[str | os.PathLike[str]],
    *,
    figure: Sequence[str] = (),
    data_dir: str | os.PathLike[str] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    formats: Sequence[str] = ('pdf',),
    gallery: bool | None = None,
) -> Iterator[pathlib.Path]:
  """Draws figures of runs, as the flags say.

  Args:
    workdir: of the runs.
    figure: names; all that the run gives if empty.
    data_dir: where the data are.
    output_dir: where the figures go; None is `figures` of the first run.
    formats: of `figures.FORMATS`.
    gallery: whether a page is written; None: with all figures of one run.

  Yields:
    Files, as they are written.

  Raises:
    InputError: if a name is unknown, a run cannot give a figure or is damaged,
      data are missing, or the files cannot be written.
  """
  _check('figure', figure, _ACCEPTED)
  _check('format', formats, figures.FORMATS)
  if not workdir or not formats:
    raise errors.InputError(
        '--workdir or --format is empty; accepted: one run or more, and any of'
        f' {", ".join(figures.FORMATS)}.'
    )
  runs = [drawn_runs.open_run(path) for path in workdir]
  output = pathlib.Path(output_dir or runs[0].figures)
  # Before what takes minutes.
  workdirs.check_writable(f'--output_dir={output}', output)
  if gallery is None:
    gallery = not figure and len(runs) == 1
  if gallery and len(runs) > 1:
    raise errors.InputError(
        f'--gallery with {len(runs)} of --workdir; accepted: one run.'
    )
  page_path = (output if output_dir else runs[0].path) / _GALLERY
  if gallery:
    workdirs.check_writable(f'--workdir={page_path.parent}', page_path.parent)
    if runs[0].is_complete:
      runs[0].read_results()

  page = run_gallery.Gallery()
  chosen = _list_chosen(runs, figure, data_dir)
  for name, drawing, drawn in drawings.save(output, chosen, formats):
    yield from (output / f'{name}.{ending}' for ending in formats)
    if gallery:
      page.add(name, drawing, drawn)
  if gallery:
    page.write(runs[0], page_path)
    yield page_path


def main() -> None:
  for path in draw(
      FLAGS.workdir,
      figure=FLAGS.figure,
      data_dir=FLAGS.data_dir,
      output_dir=FLAGS.output_dir,
      formats=FLAGS['format'].value,
      gallery=FLAGS.gallery,
  ):
    print(f'saved in {path}', flush=True)


def _check(name, values, accepted):
  """Raises InputError unless a list has only what is accepted."""
  unknown = [value for value in values if value not in accepted]
  if unknown:
    raise errors.InputError(
        f'--{name}={",".join(values)}: there is no {", ".join(unknown)};'
        f' accepted: any of {", ".join(accepted)}.'
    )


def _list_chosen(runs, asked, data_dir):
  """Lists the figures that are asked for."""
  front = {}
  if _FRONT in asked:
    loaded = [drawn_runs.load(run, data_dir) for run in runs]
    front = {_FRONT: {_FRONT: front_figure.list_front(loaded)}}
    asked = [name for name in asked if name != _FRONT]
    if not asked:
      return front
  if len(runs) > 1:
    found = list_of_several(runs, asked, data_dir)
    what = (
        'several runs, which give 4, 7 and 8 where all are of faces (4 and 8'
        ' where they are measured), and front,'
    )
  else:
    found = drawn_runs.list_drawings(drawn_runs.load(runs[0], data_dir))
    what = f'the run of {runs[0].manifest["experiment"]} in {runs[0].path}'
    if runs[0].manifest['experiment'] == 'celeba' and '5' not in found:
      what += ' (not measured; experiments.evaluate does)'
  return {**choose(found, asked, what), **front}


def _list_of_models(faces, data_dir):
  """Lists Figures 7 and 8 of the models of several runs.

  Of two runs with a model of the same kind, the first one's is taken.
  """
  loaded = [drawn_runs.load(run, data_dir) for run in faces]
  data = loaded[0].data
  finals, measured = {}, {}
  for own in loaded:
    _check_alike(loaded[0], own)
    for kind, model in celeba_figures.find_finals(own.trained).items():
      finals.setdefault(kind, model)
    of_rows = celeba_figures.find_measured(own.trained, own.rows)
    for kind, pair in of_rows.items():
      measured.setdefault(kind, pair)
  found = {
      '7': {'figure_7': celeba_figures.list_reconstructions(finals, data)}
  }
  if 'student' in measured and celeba_runs.FADER in measured:
    drawing = celeba_figures.list_comparison(
        measured['student'], measured[celeba_runs.FADER], data
    )
    found['8'] = {'figure_8': drawing}
  return found


def _check_alike(first, other):
  """Raises InputError unless two runs can be shown on the same images."""
  shown = [
      (run.data.attribute_names, run.data.image_size, run.data.fingerprint)
      for run in (first, other)
  ]
  if shown[0] != shown[1]:
    raise errors.InputError(
        f'--figure=7,8: {first.run.path} and {other.run.path} are of other'
        ' attributes, sizes or images; accepted: runs on the same data.'
    )


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
