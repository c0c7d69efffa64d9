"""A TFDS builder of drawn faces that needs neither network nor TensorFlow.

TFDS names a builder after its folder: this one is `synthetic_faces`.
"""

import dataclasses
import functools
import hashlib
import io
import pathlib

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from jacsup_jax.data import drawn_faces
from jacsup_jax.data import face_records
from jacsup_jax.data import squares


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
  """One image size; see `make_config`."""

  image_size: int = drawn_faces.IMAGE_SIZE


def make_config(image_size: int) -> Config:
  """Makes the configuration of an image size.

  Args:
    image_size: S, in pixels, not larger than the drawings.

  Returns:
    The configuration. Its name changes with the code that draws, so that a
    set drawn by other code is not taken for this one.
  """
  code = pathlib.Path(drawn_faces.__file__).read_bytes()
  return Config(
      name=f'{image_size}px-{hashlib.sha256(code).hexdigest()[:12]}',
      description=f'Faces of {image_size} pixels.',
      image_size=image_size,
  )


class Builder(tfds.core.GeneratorBasedBuilder):
  """Drawn faces as PNGs of one size."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Drawn by drawn_faces.draw.'}

  def _info(self) -> tfds.core.DatasetInfo:
    return face_records.make_info(
        self,
        image_size=self.builder_config.image_size,
        attribute_names=drawn_faces.ATTRIBUTES,
        description='Drawn faces with the attributes that they show.',
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Everything is drawn.
    return {
        split: self._generate_examples(split)
        for split in drawn_faces.SPLIT_SIZES
    }

  def _generate_examples(self, split):
    sha256 = hashlib.sha256()
    draw = functools.partial(
        _draw, split=split, image_size=self.builder_config.image_size
    )
    # No threads: many small operations under Python's lock, which two threads
    # took twice as long for as one.
    for index in range(drawn_faces.SPLIT_SIZES[split]):
      png, attributes, digest = draw(index)
      sha256.update(attributes.tobytes() + digest)
      yield index, {'image': io.BytesIO(png), 'attributes': attributes}
    face_records.note(self, split, sha256.hexdigest(), [])


def _draw(
    index: int, *, split: str, image_size: int
) -> tuple[bytes, np.ndarray, bytes]:
  """Gives a face as PNG, its attributes, and the sha256 of its pixels."""
  image, attributes = drawn_faces.draw(index, split)
  digest = hashlib.sha256(image.tobytes()).digest()
  if image_size != drawn_faces.IMAGE_SIZE:
    image = squares.resize(Image.fromarray(image), image_size)
  return squares.encode_png(image), attributes, digest
