"""Define the TFDS builder that the package's own sets of faces share.

The metadata of a prepared set says, for each split, the sha256 of the sources
that it was made from and the images left out.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import hashlib
import io
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jacsup_jax.core import errors


class Example(NamedTuple):
  """One face, or one image that is left out."""

  png: bytes | None  # None if the image is left out.
  attributes: np.ndarray  # [K] int8 in {-1, +1}
  source: bytes  # enters the sha256 of the sources
  name: str = ''


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
  """One source of faces at one image size; its name tells sources apart.

  Attributes:
    image_size: S, in pixels.
    attribute_names: of the K attributes, in order.
    generators: by split, yields positions and examples in rising order.
  """

  image_size: int = 64
  attribute_names: tuple[str, ...] = ()
  # TFDS prints configurations.
  generators: Mapping[str, Callable[[], Iterator[tuple[int, Example]]]] = (
      dataclasses.field(default_factory=dict, repr=False)
  )


class FaceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Faces as PNGs of one size, in the order of their source."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    size = self.builder_config.image_size
    names = self.builder_config.attribute_names
    return tfds.core.DatasetInfo(
        builder=self,
        description=type(self).__doc__,
        features=tfds.features.FeaturesDict({
            'image': tfds.features.Image(
                shape=(size, size, 3), encoding_format='png'
            ),
            'attributes': tfds.features.Tensor(
                shape=(len(names),), dtype=np.int8
            ),
        }),
        metadata=tfds.core.MetadataDict(),
        # The last examples can be held out.
        disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    return {
        split: self._generate_examples(split)
        for split in self.builder_config.generators
    }

  def _generate_examples(self, split):
    sha256, skipped, count = hashlib.sha256(), [], 0
    for index, example in self.builder_config.generators[split]():
      if example.png is None:
        skipped.append(example.name)
        continue
      sha256.update(example.source)
      count += 1
      yield index, {
          'image': io.BytesIO(example.png), 'attributes': example.attributes
      }
    if not count:
      raise errors.InputError(
          f'none of the {len(skipped)} images of the split {split!r} can be'
          ' decoded'
      )
    self.info.metadata[split] = {
        'sources_sha256': sha256.hexdigest(), 'skipped': skipped
    }


def read_notes(
    builder: tfds.core.DatasetBuilder, split: str
) -> tuple[str, list[str]]:
  """Reads what a split of a prepared set was made from.

  Args:
    builder: of the prepared set.
    split: its name.

  Returns:
    The sha256 of the sources, and the names of the images left out.

  Raises:
    InputError: if the metadata are damaged.
  """
  try:
    notes = builder.info.metadata[split]
    return notes['sources_sha256'], list(notes['skipped'])
  except (KeyError, TypeError) as error:
    raise errors.InputError(
        f'{builder.data_dir} has no notes of its split {split!r}: delete that'
        ' folder and run again'
    ) from error
