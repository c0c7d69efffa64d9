"""What the page of experiments.edit asks for, without the web.

One thread computes and another one loads models and prepares photos, so that
the event loop never waits, and a slider not for somebody else's upload.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
import dataclasses
import io
import math
import re
import secrets
from typing import Any

import numpy as np
from PIL import Image

from experiments import attribute_groups
from experiments import edit_choices
from experiments import kept_photos
from jacsup_jax import editor
from jacsup_jax import networks
from jacsup_jax import types
from jacsup_jax import untrusted
from jacsup_jax.datasets import squares

# Strengths further out leave float32 and whatever the model has seen.
LARGEST_STRENGTH = 100.0
MOST_TILES = 15
# The pages are few: of one user, or of a class.
_MOST_PHOTOS = 64
_PHOTO_SECONDS = 30 * 60
_MOST_MODELS = 4
# Sliders go so far at least, and at most.
_LEAST_RANGE, _MOST_RANGE = 3.0, 6.0
_THUMBNAIL = 64  # Pixels of a side at most.
_SAMPLE = re.compile(r'sample-(0|[1-9][0-9]{0,3})')
# `(content, image_shape, what, align=...)` -> `[H, W, C]` uint8 and whether it
# was aligned by a face; raises InputError.
ReadPhoto = Callable[..., tuple[np.ndarray, bool]]


class NotFoundError(LookupError):
  """There is no such model or photo; its message is one line."""


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A model in memory.

  Attributes:
    editor: the model.
    samples: `[N, H, W, C]` uint8, N may be 0.
    without_samples: why there are none, else empty.
  """

  editor: editor.Editor
  samples: np.ndarray
  without_samples: str


class Service:
  """Models that are loaded when asked for, and photos that are edited."""

  def __init__(
      self,
      choices: Sequence[edit_choices.Choice],
      *,
      read_photo: ReadPhoto | None = None,
      align: Callable[..., Any] | None = None,
      photos: kept_photos.KeptPhotos | None = None,
  ):
    """Loads nothing yet.

    Args:
      choices: one or more, of different ids.
      read_photo: makes an image for a model of an uploaded file; None takes the
        preparation of training.
      align: is given to `read_photo` for a photo that is to be aligned; None if
        no detector of faces is installed.
      photos: that are kept; None makes them.
    """
    self._choices = {choice.id: choice for choice in choices}
    self._read_photo = read_photo or _read_photo
    self._align = align
    self._photos = photos or kept_photos.KeptPhotos(
        _MOST_PHOTOS, _PHOTO_SECONDS
    )
    self._models: dict[str, Loaded] = {}  # The last used last.
    self._loading = asyncio.Lock()
    self._computing = futures.ThreadPoolExecutor(1, 'computing')
    self._preparing = futures.ThreadPoolExecutor(1, 'preparing')

  def close(self) -> None:
    """Ends the threads, once they have done what they do now."""
    for pool in (self._computing, self._preparing):
      pool.shutdown(wait=False, cancel_futures=True)

  def drop_expired(self) -> None:
    """Drops photos that were not used for long."""
    self._photos.drop_expired()

  def list_models(self) -> dict[str, Any]:
    """Returns what can be chosen, as JSON."""
    return {
        'models': [
            {'id': own.id, 'group': own.group, 'title': own.title}
            for own in self._choices.values()
        ],
        'can_align': self._align is not None,
    }

  async def describe(self, model: str) -> dict[str, Any]:
    """Returns what a model has to move, as JSON; loads it.

    Args:
      model: its id.

    Raises:
      InputError: if it cannot be loaded.
      NotFoundError: if there is none of this id.
    """
    loaded = await self._load(model)
    height, width, channels = loaded.editor.image_shape
    return {
        'id': model,
        'title': loaded.editor.title or self._choices[model].title,
        'height': height,
        'width': width,
        'channels': channels,
        'is_faces': isinstance(loaded.editor.model, networks.FaceAutoencoder),
        'samples': len(loaded.samples),
        'without_samples': loaded.without_samples,
        'units': [_describe_unit(unit) for unit in loaded.editor.units],
        'groups': attribute_groups.GROUPS,
    }

  async def draw_samples(self, model: str) -> bytes:
    """Returns the samples of a model side by side, small, as WebP."""
    loaded = await self._load(model)
    if not len(loaded.samples):
      raise NotFoundError(f'{model} has no samples: {loaded.without_samples}')
    return await self._run(
        self._preparing, lambda: _encode(_shrink(loaded.samples))
    )

  async def add_photo(
      self, model: str, content: bytes, align: bool
  ) -> dict[str, Any]:
    """Prepares and encodes a photo.

    Args:
      model: that it is for.
      content: of the file.
      align: by the face in it.

    Returns:
      As JSON the id that it is edited by, and whether a face was found.

    Raises:
      InputError: if it cannot be used.
      NotFoundError: if there is no such model.
    """
    loaded = await self._load(model)
    if align and self._align is None:
      raise types.InputError(
          'no detector of faces is installed; accepted: photos as they are.'
      )
    image, is_aligned = await self._run(
        self._preparing,
        lambda: self._read_photo(
            content,
            loaded.editor.image_shape,
            'the photo',
            align=self._align if align else None,
        ),
    )
    photo_id = secrets.token_urlsafe(12)
    await self._keep(model, photo_id, image)
    return {'photo': photo_id, 'is_aligned': is_aligned}

  async def draw_photo(self, model: str, photo_id: str, which: str) -> bytes:
    """Returns a photo as WebP.

    Args:
      model: that it is of.
      photo_id: of `add_photo`, or `sample-N`.
      which: `original` or `reconstruction`.
    """
    photo = await self._find(model, photo_id)
    images = {
        'original': photo.image, 'reconstruction': photo.reconstruction
    }  # pyformat: disable
    if which not in images:
      raise NotFoundError(f'no picture {untrusted.describe(which)}; accepted: {list(images)}.')
    return _encode(images[which])

  async def edit(self, request: Mapping[str, Any]) -> bytes:
    """Returns an edit as WebP.

    Args:
      request: `model` and `photo` by their ids, `strengths` by the names of
        units, in standard deviations, and `keep_detail` in [0, 1]; the last two
        may be missing.

    Raises:
      InputError: if it is none of these.
      NotFoundError: if there is no such model or photo.
    """
    loaded, photo, strengths, detail = await self._read(request)
    return await self._run(
        self._computing,
        lambda: _encode(
            loaded.editor.edit(photo.encoded, strengths, detail)[0]
        ),
    )

  async def draw_strip(self, request: Mapping[str, Any]) -> bytes:
    """Returns edits over a range of one unit, side by side, as WebP.

    Args:
      request: as of `edit`, and `unit`, the `low` and `high` strengths that it
        runs over, and the `count` of tiles.

    Raises:
      InputError, NotFoundError: as `edit`.
    """
    loaded, photo, strengths, detail = await self._read(request)
    unit = _find_unit(loaded.editor, request.get('unit'))
    low = _read_strength('low', request.get('low'))
    high = _read_strength('high', request.get('high'))
    count = request.get('count')
    if type(count) is not int or not 2 <= count <= MOST_TILES:
      raise types.InputError(
          f'count is {untrusted.describe(count)}; accepted: 2 to {MOST_TILES}.'
      )
    tiles = []
    for own in np.linspace(low, high, count):
      strengths = strengths.copy()
      strengths[unit] = own
      # One by one, so that a slider that is moved meanwhile comes between.
      tiles.append(
          await self._run(
              self._computing,
              loaded.editor.edit, photo.encoded, strengths, detail,
          )
      )  # pyformat: disable
    return await self._run(
        self._preparing, lambda: _encode(np.concatenate(tiles, axis=2)[0])
    )

  async def _load(self, model) -> Loaded:
    if model not in self._choices:
      raise NotFoundError(f'no model {untrusted.describe(model)} here.')
    if model not in self._models:
      # Whoever has another model does not wait for this one.
      async with self._loading:
        if model not in self._models:
          loaded = await self._run(
              self._preparing, _load, self._choices[model]
          )
          while len(self._models) >= _MOST_MODELS:
            del self._models[next(iter(self._models))]
          self._models[model] = loaded
    self._models[model] = loaded = self._models.pop(model)
    return loaded

  async def _find(self, model, photo_id) -> kept_photos.Photo:
    loaded = await self._load(model)
    photo = self._photos.get(model, photo_id)
    if photo is not None:
      return photo
    sample = _SAMPLE.fullmatch(str(photo_id))
    if not sample:
      raise NotFoundError('the photo is no longer kept here; add it again.')
    number = int(sample[1])
    if number >= len(loaded.samples):
      raise NotFoundError(
          f'no sample {number}; there are {len(loaded.samples)}, from 0 on.'
      )
    return await self._keep(model, photo_id, loaded.samples[number])

  async def _keep(self, model, photo_id, image):
    loaded = await self._load(model)

    def encode():
      encoded = loaded.editor.encode(image[None])
      reconstruction = loaded.editor.reconstruct(encoded)[0]
      return kept_photos.Photo(image, reconstruction, encoded)

    photo = await self._run(self._computing, encode)
    self._photos.put(model, photo_id, photo)
    return photo

  async def _read(self, request):
    """Reads what all edits have in common."""
    for name in ('model', 'photo'):
      if not isinstance(request.get(name), str):
        raise types.InputError(f'the request has no {name!r}; accepted: an id.')
    loaded = await self._load(request['model'])
    strengths = request.get('strengths', {})
    if not isinstance(strengths, dict):
      raise types.InputError(
          'strengths are no object; accepted: numbers by the names of units.'
      )
    values = np.zeros(len(loaded.editor.units), np.float32)
    for name, strength in strengths.items():
      values[_find_unit(loaded.editor, name)] = _read_strength(name, strength)
    detail = request.get('keep_detail', 0.0)
    if not _is_number(detail) or not 0 <= detail <= 1:
      raise types.InputError(
          f'keep_detail is {untrusted.describe(detail)}; accepted: 0 to 1.'
      )
    photo = await self._find(request['model'], request['photo'])
    return loaded, photo, values, float(detail)

  async def _run(self, pool, function, *args):
    return await asyncio.get_running_loop().run_in_executor(
        pool, function, *args
    )


def _load(choice: edit_choices.Choice) -> Loaded:
  """Loads a model, and compiles what its first slider needs."""
  own = choice.load()
  samples, without = np.zeros((0, *own.image_shape), np.uint8), ''
  try:
    samples = choice.load_samples(own)
  except types.InputError as error:
    without = str(error)
  encoded = own.encode(np.zeros((1, *own.image_shape), np.uint8))
  own.reconstruct(encoded)
  own.edit(encoded, np.zeros(len(own.units), np.float32))
  return Loaded(own, samples, without)


def _describe_unit(unit):
  reach = 0.0
  if unit.deviation > 0:
    # From one end of the training data to the other.
    span = (unit.high - unit.low) / unit.deviation
    reach = float(np.clip(math.ceil(span * 2) / 2, _LEAST_RANGE, _MOST_RANGE))
  return {
      'name': unit.name,
      'label': attribute_groups.make_label(unit.name),
      'kind': unit.kind,
      'group': attribute_groups.find_group(unit),
      'reach': reach,
  }


def _find_unit(own, name):
  names = [unit.name for unit in own.units]
  if name not in names:
    raise types.InputError(
        f'no unit {untrusted.describe(name)}; accepted: {", ".join(names)}.'
    )
  return names.index(name)


def _read_strength(name, value):
  if not _is_number(value) or not abs(value) <= LARGEST_STRENGTH:
    raise types.InputError(
        f'{name[:80]} is {untrusted.describe(value)}; accepted: a number from'
        f' {-LARGEST_STRENGTH:g} to {LARGEST_STRENGTH:g}.'
    )
  return float(value)


def _is_number(value):
  # JSON's true is no number, and NaN, which Python reads, fails what follows.
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _encode(image):
  """Encodes `[H, W, C]` as WebP without loss, C of 1 or 3."""
  file = io.BytesIO()
  # At 256x256 half of the time that the fastest PNG takes, and no larger.
  _as_picture(image).save(
      file, format='WEBP', lossless=True, quality=0, method=0
  )
  return file.getvalue()


def _as_picture(image):
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _shrink(images):
  """Returns `[h, N * w, C]`, all images side by side and small."""
  height, width = images.shape[1:3]
  factor = min(1.0, _THUMBNAIL / max(height, width))
  size = (round(width * factor), round(height * factor))
  small = [
      np.asarray(_as_picture(image).resize(size, Image.Resampling.LANCZOS))
      for image in images
  ]
  return np.concatenate(small, axis=1).reshape(
      size[1], -1, images.shape[-1]
  )


# Until `datasets.photos` is there, whose `read` this stands for.
def _read_photo(content, image_shape, what, *, align=None):
  del align
  try:
    image = squares.decode(content, image_shape[0], what)
  except squares.BadImageError as error:
    raise types.InputError(f'{what} cannot be used: {error}.') from error
  if image_shape[-1] == 1:
    image = np.asarray(Image.fromarray(image).convert('L'))[..., None]
  return image, False
