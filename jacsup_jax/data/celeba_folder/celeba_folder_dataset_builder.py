"""A TFDS builder of the faces in a folder, without network or TensorFlow.

TFDS names a builder after its folder: this one is `celeba_folder`.
"""

import collections
from collections.abc import Iterator
from concurrent import futures
import dataclasses
import hashlib
import io

import tensorflow_datasets as tfds

from jacsup_jax.core import errors
from jacsup_jax.data import face_folder
from jacsup_jax.data import face_records
from jacsup_jax.data import squares

_CITATION = """\
@inproceedings{liu2015faceattributes,
  title={Deep Learning Face Attributes in the Wild},
  author={Liu, Ziwei and Luo, Ping and Wang, Xiaogang and Tang, Xiaoou},
  booktitle={Proceedings of International Conference on Computer Vision (ICCV)},
  month={December},
  year={2015}
}
"""

_AHEAD = 256  # Images being decoded while one is written.


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
  """One folder at one image size; see `make_config`."""

  # TFDS prints configurations.
  folder: face_folder.FaceFolder | None = dataclasses.field(
      default=None, repr=False
  )
  image_size: int = 64
  skip_bad_images: bool = False


def make_config(
    folder: face_folder.FaceFolder, image_size: int, *, skip_bad_images: bool
) -> Config:
  """Makes the configuration of a folder, named after its content.

  Args:
    folder: from `face_folder.open_folder`.
    image_size: S, in pixels.
    skip_bad_images: whether images that cannot be decoded are left out, not
      refused. It is not part of the name: a set says what it left out.

  Returns:
    The configuration; different folders have different names.
  """
  return Config(
      name=f'{image_size}px-{folder.digest[:12]}',
      description=f'Centre squares of {image_size} pixels.',
      folder=folder,
      image_size=image_size,
      skip_bad_images=skip_bad_images,
  )


class Builder(tfds.core.GeneratorBasedBuilder):
  """Faces in the order of the attribute list, as PNGs of one size."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Centre squares, resized with a Lanczos filter.'}

  def _info(self) -> tfds.core.DatasetInfo:
    config = self.builder_config
    return face_records.make_info(
        self,
        image_size=config.image_size,
        attribute_names=config.folder.attribute_names,
        description='Faces and their attributes, from a folder of the user.',
        homepage='https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html',
        citation=_CITATION,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Everything is in the folder.
    folder = self.builder_config.folder
    return {
        split: self._generate_examples(split)
        for split in face_folder.SPLITS
        if len(folder.find(split))
    }

  def _generate_examples(self, split):
    config = self.builder_config
    folder, skipped, sha256 = config.folder, [], hashlib.sha256()
    count = 0
    for index, content, png in _prepare_images(config, split):
      name = folder.names[index]
      if png is None:
        skipped.append(name)
        continue
      attributes = folder.attributes[index]
      sha256.update(f'{name};'.encode() + attributes.tobytes())
      sha256.update(hashlib.sha256(content).digest())
      count += 1
      yield index, {'image': io.BytesIO(png), 'attributes': attributes}
    if not count:
      raise errors.InputError(
          f'{folder.images}: none of the {len(skipped)} images of the split'
          f' {split!r} can be decoded'
      )
    face_records.note(self, split, sha256.hexdigest(), skipped)


def _prepare_images(
    config: Config, split: str
) -> Iterator[tuple[int, bytes, bytes | None]]:
  """Yields positions, contents and PNGs; None for an image that is skipped.

  Pillow works outside Python's lock, so threads use all cores.
  """
  folder = config.folder
  images = face_folder.read_images(folder, folder.find(split))
  pending = collections.deque()

  def finish():
    index, content, future = pending.popleft()
    try:
      return index, content, future.result()
    except squares.BadImageError as error:
      if config.skip_bad_images:
        return index, content, None
      raise errors.InputError(
          f'{folder.images}: {folder.names[index]} cannot be decoded'
          f' ({error}): replace it, or leave such images out with'
          ' --skip_bad_images'
      ) from error

  with futures.ThreadPoolExecutor() as pool:
    for index, content in images:
      future = pool.submit(
          _prepare_image, content, config.image_size, folder.names[index]
      )
      pending.append((index, content, future))
      if len(pending) == _AHEAD:
        yield finish()
    while pending:
      yield finish()


def _prepare_image(content: bytes | None, image_size: int, name: str) -> bytes:
  if content is None:
    raise squares.BadImageError('its entry in the archive is damaged')
  return squares.encode_png(squares.decode(content, image_size, name))
