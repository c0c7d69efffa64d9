"""Prepare the drawn faces for TFDS, without network or TensorFlow."""

from collections.abc import Iterator
import functools
import hashlib
import pathlib

from PIL import Image

from jacsup_jax.data import drawn_canvas
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import drawn_parts
from jacsup_jax.data import face_builder
from jacsup_jax.data import images


class SyntheticFaces(face_builder.FaceBuilder):
  """Drawn faces with the attributes that they show."""


def make_config(image_size: int) -> face_builder.Config:
  """Makes the configuration for an image size.

  Args:
    image_size: S, in pixels, not larger than the drawings.

  Returns:
    The configuration. Its name changes with the code that draws, so that a
    set drawn by other code is not taken for this one.
  """
  code = hashlib.sha256()
  for module in (drawn_canvas, drawn_parts, drawn_faces):
    code.update(pathlib.Path(module.__file__).read_bytes())
  return face_builder.Config(
      name=f'{image_size}px-{code.hexdigest()[:12]}',
      description=f'Faces of {image_size} pixels.',
      image_size=image_size,
      attribute_names=drawn_faces.ATTRIBUTES,
      generators={
          split: functools.partial(_generate, split, image_size)
          for split in drawn_faces.SPLIT_SIZES
      },
  )


def _generate(
    split: str, image_size: int
) -> Iterator[tuple[int, face_builder.Example]]:
  # No threads: many small operations under Python's lock, which two threads
  # took twice as long for as one.
  for index in range(drawn_faces.SPLIT_SIZES[split]):
    image, attributes = drawn_faces.draw(index, split)
    source = attributes.tobytes() + hashlib.sha256(image.tobytes()).digest()
    if image_size != drawn_faces.IMAGE_SIZE:
      image = images.resize(Image.fromarray(image), image_size)
    png = images.encode_png(image)
    yield index, face_builder.Example(png, attributes, source)
