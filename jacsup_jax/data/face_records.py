"""What the prepared sets of faces have in common: features and notes.

The notes are kept in the metadata of a prepared set: for each split, the
sha256 of the sources that it was made from, and the images left out.
"""

import numpy as np
import tensorflow_datasets as tfds

from jacsup_jax.core import errors


def make_info(
    builder: tfds.core.DatasetBuilder,
    *,
    image_size: int,
    attribute_names: tuple[str, ...],
    description: str,
    homepage: str | None = None,
    citation: str | None = None,
) -> tfds.core.DatasetInfo:
  """Describes a set of square faces with attributes in {-1, +1}.

  Args:
    builder: whose set it is.
    image_size: S, in pixels.
    attribute_names: of the K attributes, in order.
    description: a sentence.
    homepage: of the sources.
    citation: of the sources.

  Returns:
    The description that TFDS asks of a builder.
  """
  return tfds.core.DatasetInfo(
      builder=builder,
      description=description,
      features=tfds.features.FeaturesDict({
          'image': tfds.features.Image(
              shape=(image_size, image_size, 3), encoding_format='png'
          ),
          'attributes': tfds.features.Tensor(
              shape=(len(attribute_names),), dtype=np.int8
          ),
      }),
      homepage=homepage,
      citation=citation,
      metadata=tfds.core.MetadataDict(),
      # The order of the sources: the last examples can be held out.
      disable_shuffling=True,
  )


def note(
    builder: tfds.core.DatasetBuilder,
    split: str,
    sources_sha256: str,
    skipped: list[str],
) -> None:
  """Keeps what a split was made from, when its examples are generated.

  Args:
    builder: with an info of `make_info`.
    split: its name.
    sources_sha256: hexadecimal digits.
    skipped: names of the images left out.
  """
  builder.info.metadata[split] = {
      'sources_sha256': sources_sha256, 'skipped': skipped
  }


def read_notes(
    builder: tfds.core.DatasetBuilder, split: str
) -> tuple[str, list[str]]:
  """Reads what `note` kept, from a prepared set.

  Args:
    builder: of the prepared set.
    split: its name.

  Returns:
    The sha256 of the sources, and the names of the images left out.

  Raises:
    InputError: if they are missing.
  """
  try:
    notes = builder.info.metadata[split]
    return notes['sources_sha256'], list(notes['skipped'])
  except (KeyError, TypeError) as error:
    raise errors.InputError(
        f'{builder.data_dir} has no notes of its split {split!r}: delete that'
        ' folder and run again'
    ) from error
