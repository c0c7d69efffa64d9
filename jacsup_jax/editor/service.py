"""Answer the page's requests: models, photos, edits; without the web.

One thread computes and another loads models and prepares photos, so the event
loop never waits, and sliders keep moving during somebody else's upload.
"""

import asyncio
import collections
from collections.abc import Mapping, Sequence
from concurrent import futures
import io
import math
import secrets
import time
from typing import Any, NamedTuple, NoReturn

import numpy as np
from PIL import Image

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.editor import editor
from jacsup_jax.editor import photos
from jacsup_jax.editor import requests
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.figures import pictures

# Samples of a model that the page offers to start from.
NUM_SAMPLES = 24
_MOST_MODELS = 4
# CelebA's attributes in the order in which the page shows them.
_ATTRIBUTES = {
    'Hair': (
        'Bald', 'Bangs', 'Black_Hair', 'Blond_Hair', 'Brown_Hair', 'Gray_Hair',
        'Receding_Hairline', 'Straight_Hair', 'Wavy_Hair',
    ),
    'Face shape': (
        'Chubby', 'Double_Chin', 'High_Cheekbones', 'Oval_Face', 'Pale_Skin',
        'Rosy_Cheeks',
    ),
    'Eyes and brows': (
        'Arched_Eyebrows', 'Bags_Under_Eyes', 'Bushy_Eyebrows', 'Narrow_Eyes',
    ),
    'Nose and mouth': (
        'Big_Lips', 'Big_Nose', 'Mouth_Slightly_Open', 'Pointy_Nose', 'Smiling',
    ),
    'Beard': (
        '5_o_Clock_Shadow', 'Goatee', 'Mustache', 'No_Beard', 'Sideburns',
    ),
    'Accessories and make-up': (
        'Eyeglasses', 'Heavy_Makeup', 'Wearing_Earrings', 'Wearing_Hat',
        'Wearing_Lipstick', 'Wearing_Necklace', 'Wearing_Necktie',
    ),
    'Whole person': ('Attractive', 'Blurry', 'Male', 'Young'),
}  # fmt: skip
_GROUP_OF = {
  name: group for group, names in _ATTRIBUTES.items() for name in names
}
# Sliders reach this many standard deviations at least, and at most.
_LEAST_REACH, _MOST_REACH = 3.0, 6.0
_THUMBNAIL = 64  # longest side, in pixels
# `[H, W, C]` uint8, as prepared for the model, and encoded, B = 1.
Photo = tuple[np.ndarray, editor.Encoded]


class NotFoundError(LookupError):
  """There is no such model or photo; the message is one line."""


class Loaded(NamedTuple):
  """A model in memory."""

  editor: editor.Editor
  samples: np.ndarray  # [N, H, W, C] uint8; N may be 0
  without_samples: str  # why there are none, else empty


class PhotoStore:
  """The `most` recently used photos of the last `seconds`, in memory."""

  def __init__(self, most=64, seconds=30 * 60, clock=time.monotonic):
    self.most, self.seconds, self.clock = most, seconds, clock
    # (model, photo) -> (time of last use, photo), least recently used first.
    self._photos = collections.OrderedDict()

  def put(self, model: str, photo_id: str, photo: Photo) -> None:
    """Stores a photo of a model."""
    self._photos[model, photo_id] = (self.clock(), photo)
    self._photos.move_to_end((model, photo_id))
    if len(self._photos) > self.most:
      self._photos.popitem(last=False)

  def get(self, model: str, photo_id: str) -> Photo | None:
    """Returns a photo, which counts as a use; None if it is not stored."""
    self.drop_expired()
    _, photo = self._photos.get((model, photo_id), (0.0, None))
    if photo is not None:
      self.put(model, photo_id, photo)
    return photo

  def drop_expired(self) -> None:
    """Drops the photos that have not been used for too long."""
    oldest = self.clock() - self.seconds
    while self._photos and next(iter(self._photos.values()))[0] <= oldest:
      self._photos.popitem(last=False)


class Service:
  """Models that are loaded on demand, and photos that are edited.

  Methods raise InputError for what cannot be used and NotFoundError for a model
  or photo that does not exist; pictures are lossless WebP.
  """

  def __init__(
    self,
    choices: Sequence[editor.Choice],
    *,
    align: photos.AlignFn | None = None,
    store: PhotoStore | None = None,
  ):
    self.photos = PhotoStore() if store is None else store
    self._choices = {choice.id: choice for choice in choices}
    self._align = align
    # Least recently used first.
    self._models: dict[str, Loaded] = collections.OrderedDict()
    self._loading = asyncio.Lock()
    self._computing = futures.ThreadPoolExecutor(1, 'computing')
    self._preparing = futures.ThreadPoolExecutor(1, 'preparing')

  def close(self) -> None:
    """Ends the threads once they have finished their current work."""
    for pool in (self._computing, self._preparing):
      pool.shutdown(wait=False, cancel_futures=True)

  async def drop_expired(self) -> NoReturn:
    """Drops once a minute the photos that have not been used for too long."""
    while True:
      await asyncio.sleep(60)
      self.photos.drop_expired()

  async def list_models(self) -> dict[str, Any]:
    """Lists the models as JSON."""
    return {
      'models': [
        {'id': own.id, 'group': own.group, 'title': own.title}
        for own in self._choices.values()
      ],
      'can_align': self._align is not None,
      'largest_photo': photos.MOST_BYTES,
    }

  async def describe(self, model: str) -> dict[str, Any]:
    """Loads a model and describes its sliders, images and samples as JSON."""
    loaded = await self._load(model)
    return {
      'id': model,
      'title': loaded.editor.title or self._choices[model].title,
      'channels': loaded.editor.image_shape[-1],
      'samples': len(loaded.samples),
      'without_samples': loaded.without_samples,
      'units': list(map(_describe_unit, loaded.editor.units)),
      'groups': [*_ATTRIBUTES, 'Factors', 'Nuisance'],
    }

  async def draw_samples(self, model: str) -> bytes:
    """Draws thumbnails of a model's samples side by side."""
    loaded = await self._load(model)
    if not len(loaded.samples):
      raise NotFoundError(f'{model} has no samples: {loaded.without_samples}')
    return await self._run(self._preparing, _draw_thumbnails, loaded.samples)

  async def add_photo(
    self, model: str, content: bytes, align: bool
  ) -> dict[str, Any]:
    """Stores a photo; returns as JSON its id, and whether it was aligned."""
    loaded = await self._load(model)
    shape = loaded.editor.image_shape
    find_face = self._align if align else None
    image, is_aligned = await self._run(
      self._preparing, photos.read, content, shape, 'the photo', find_face
    )
    photo_id = secrets.token_urlsafe(12)
    await self._keep(loaded, model, photo_id, image)
    return {'photo': photo_id, 'is_aligned': is_aligned}

  async def draw_photo(self, model: str, photo: str, which: str) -> bytes:
    """Draws a photo by its id: its `original`, or its `reconstruction`."""
    loaded = await self._load(model)
    image, encoded = await self._find(loaded, model, photo)
    if which not in ('original', 'reconstruction'):
      raise NotFoundError(f'no picture {files.describe(which)} of a photo.')
    if which == 'reconstruction':
      [image] = await self._run(
        self._computing, loaded.editor.reconstruct, encoded
      )
    return _encode(image)

  async def edit(self, request: Mapping[str, Any]) -> bytes:
    """Draws an edit of a `photo` of a `model`; see `requests.read_request`."""
    model, photo_id = request.get('model'), request.get('photo')
    if not isinstance(model, str) or not isinstance(photo_id, str):
      raise errors.InputError('accepted: the ids of a model and a photo.')
    loaded = await self._load(model)
    strengths, detail = requests.read_request(request, loaded.editor.units)
    _, encoded = await self._find(loaded, model, photo_id)
    edit = lambda: loaded.editor.edit(encoded, strengths, detail)[0]
    return await self._run(self._computing, lambda: _encode(edit()))

  async def _load(self, model) -> Loaded:
    if model not in self._choices:
      raise NotFoundError(f'no model {files.describe(model)} here.')
    if model not in self._models:
      async with self._loading:
        # Another request may have loaded it meanwhile.
        if model not in self._models:
          self._models[model] = await self._run(
            self._preparing, _load, self._choices[model]
          )
    self._models.move_to_end(model)
    if len(self._models) > _MOST_MODELS:
      self._models.popitem(last=False)
    return self._models[model]

  async def _find(self, loaded, model, photo_id) -> Photo:
    photo = self.photos.get(model, photo_id)
    if photo is not None:
      return photo
    samples = {f'sample-{i}': own for i, own in enumerate(loaded.samples)}
    if photo_id not in samples:
      raise NotFoundError('the photo is no longer stored here; add it again.')
    return await self._keep(loaded, model, photo_id, samples[photo_id])

  async def _keep(self, loaded, model, photo_id, image):
    encoded = await self._run(
      self._computing, loaded.editor.encode, image[None]
    )
    self.photos.put(model, photo_id, (image, encoded))
    return image, encoded

  async def _run(self, pool, function, *args):
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, function, *args)


def _load(choice: editor.Choice) -> Loaded:
  """Loads a model and compiles what its first slider needs."""
  own = choice.load()
  samples, without = np.zeros((0, *own.image_shape), np.uint8), ''
  try:
    found = choice.open_samples(own)
    samples = found.read(range(min(found.count, NUM_SAMPLES)))
  except errors.InputError as error:
    without = str(error)
  encoded = own.encode(np.zeros((1, *own.image_shape), np.uint8))
  own.reconstruct(encoded)
  own.edit(encoded, np.zeros(len(own.units), np.float32))
  return Loaded(own, samples, without)


def _describe_unit(unit):
  """Describes a slider as JSON; `reach` is 0 if the unit cannot be moved."""
  reach = 0.0
  if unit.deviation > 0:
    # From one end of the training data to the other.
    span = (unit.high - unit.low) / unit.deviation
    reach = float(np.clip(math.ceil(span * 2) / 2, _LEAST_REACH, _MOST_REACH))
  label, group = unit.name, _GROUP_OF.get(unit.name, 'Factors')
  if unit.name in _GROUP_OF:
    label = unit.name.replace('_o_Clock', " o'clock").replace('_', ' ')
    label = label.capitalize()
  if unit.kind == unit_scales.NUISANCE:
    group = 'Nuisance'
  return {'name': unit.name, 'label': label, 'group': group, 'reach': reach}


def _encode(image):
  """Encodes `[H, W, C]` uint8, C of 1 or 3, as lossless WebP."""
  file = io.BytesIO()
  # At 256x256 this takes half the time of the fastest PNG, at no larger size.
  pictures.to_picture(image).save(
    file, format='WEBP', lossless=True, quality=0, method=0
  )
  return file.getvalue()


def _draw_thumbnails(images):
  """Draws `[N, H, W, C]` uint8 side by side, small."""
  height, width = images.shape[1:3]
  factor = min(1.0, _THUMBNAIL / max(height, width))
  size = (round(width * factor), round(height * factor))
  resize = lambda own: own.resize(size, Image.Resampling.LANCZOS)
  small = [np.asarray(resize(pictures.to_picture(image))) for image in images]
  row = np.concatenate(small, axis=1)
  return _encode(row.reshape(*row.shape[:2], -1))
