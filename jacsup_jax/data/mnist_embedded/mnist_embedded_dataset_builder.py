"""A TFDS builder of MNIST that needs neither network nor TensorFlow.

TFDS names a builder after its folder: this one is `mnist_embedded`.
"""

import os
import pathlib

import tensorflow_datasets as tfds

from jacsup_jax.data import mnist

SOURCE_DIR = pathlib.Path(__file__).parent

# The sha256 that TFDS registers for the originals.
SHA256 = {
    'train-images-idx3-ubyte.gz': (
        '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609'
    ),
    'train-labels-idx1-ubyte.gz': (
        '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c'
    ),
    't10k-images-idx3-ubyte.gz': (
        '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6'
    ),
    't10k-labels-idx1-ubyte.gz': (
        'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6'
    ),
}

_CITATION = """\
@article{lecun1998gradient,
  title={Gradient-based learning applied to document recognition},
  author={LeCun, Yann and Bottou, L{\\'e}on and Bengio, Yoshua and
          Haffner, Patrick},
  journal={Proceedings of the IEEE},
  volume={86},
  number={11},
  pages={2278--2324},
  year={1998}
}
"""


class Builder(tfds.core.GeneratorBasedBuilder):
  """MNIST from the files in this folder, in their original order."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'The four original files, original order.'}

  def __init__(
      self, *, source_dir: str | os.PathLike | None = None, **kwargs
  ):
    """Makes the builder.

    Args:
      source_dir: the folder of the four original files, if not this one.
      **kwargs: `data_dir` and the others that every TFDS builder takes.
    """
    self._source_dir = pathlib.Path(source_dir or SOURCE_DIR)
    super().__init__(**kwargs)

  def check_sources(self) -> None:
    """Checks the four files; raises InputError if one is not the original."""
    mnist.check_sha256(self._source_dir, SHA256)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=self,
        description='The MNIST database of handwritten digits.',
        features=tfds.features.FeaturesDict({
            'image': tfds.features.Image(
                shape=(28, 28, 1), encoding_format='png'
            ),
            'label': tfds.features.ClassLabel(num_classes=10),
        }),
        supervised_keys=('image', 'label'),
        homepage='http://yann.lecun.com/exdb/mnist/',
        citation=_CITATION,
        license='CC BY-SA 3.0',
        # Keep the order of the files, in which the last 10,000 training digits
        # are the customary validation set.
        disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Everything is here already.
    self.check_sources()
    return {split: self._generate_examples(split) for split in mnist.FILES}

  def _generate_examples(self, split):
    return mnist.generate_examples(self._source_dir, split)
