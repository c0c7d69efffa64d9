"""Images to edit or to measure units on: of a run's data or this package's."""

from collections.abc import Callable, Sequence
import os
from typing import NamedTuple

import numpy as np

from experiments import celeba_runs
from experiments import svhn_runs
from jacsup_jax.core import errors
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import registry as datasets
from jacsup_jax.editor import editor
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import workdir as workdirs

_SPLIT = 'test'


class Samples(NamedTuple):
  """A split of which images are read when they are asked for."""

  count: int
  read: Callable[[Sequence[int]], np.ndarray]  # n indices -> [n, H, W, C] uint8

  def read_first(self, count: int) -> np.ndarray:
    """Reads the first images: `[n, H, W, C]` uint8, n at most `count`."""
    return self.read(range(min(count, self.count)))


def of_run(
    run: workdirs.WorkDir, *, data_dir: str | os.PathLike[str] | None = None
) -> Samples:
  """Opens the split that the models of a run are measured on.

  Args:
    run: of experiments.mnist, svhn or celeba.
    data_dir: where its data are.

  Raises:
    InputError: if the data are missing.
  """
  return of_split(run, run.manifest['flags']['eval_split'], data_dir=data_dir)


def of_split(
    run: workdirs.WorkDir,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
) -> Samples:
  """Opens a split of a run's data.

  Args:
    run: of experiments.mnist, svhn or celeba.
    split: of its data set.
    data_dir: where its data are.

  Raises:
    InputError: if the data are missing.
  """
  values = {**run.manifest['flags'], 'data_dir': data_dir}
  if run.manifest['experiment'] == 'celeba':
    celeba_runs.check_recorded(run, with_data=True)
    # A few of them are looked at, of many that are large.
    faces = celeba_runs.load_split(values, split, in_memory=False)
    return Samples(len(faces), lambda indices: faces.read(indices)[0])
  shape = (
      datasets.IMAGE_SHAPE
      if run.manifest['experiment'] == 'mnist'
      else svhn_runs.image_shape(values['dataset'])
  )
  data = datasets.load(
      values['dataset'], split, data_dir=data_dir, image_shape=shape
  )
  return _of_images(data.images)


def of_package(own: editor.Editor) -> Samples:
  """Opens images for a model without a run: drawn faces, or digits.

  Args:
    own: the model; of faces where it is a `FaceAutoencoder`, of digits where
      its images are `datasets.IMAGE_SHAPE`.

  Returns:
    Those of the test split, which models of this package are not trained on.

  Raises:
    InputError: if this package has no such images.
  """
  if isinstance(own.model, networks.FaceAutoencoder):
    size = own.image_shape[0]

    def draw(indices):
      faces = [drawn_faces.sample(index, _SPLIT) for index in indices]
      return np.stack([drawn_faces.draw_face(*face, size) for face in faces])

    return Samples(drawn_faces.SPLIT_SIZES[_SPLIT], draw)
  if own.image_shape != datasets.IMAGE_SHAPE:
    raise errors.InputError(
        f'there are no samples of shape {list(own.image_shape)} without a run;'
        ' accepted: a photo of your own, or the work directory of the run as'
        ' --workdir.'
    )
  return _of_images(datasets.load(datasets.DEFAULT_DATASET, _SPLIT).images)


def _of_images(images):
  return Samples(
      len(images), lambda indices: np.asarray(images[np.asarray(indices, int)])
  )
