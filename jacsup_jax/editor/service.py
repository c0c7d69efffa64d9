"""Answer the page's requests: models, photos, edits; without the web.

One thread computes and another loads models and prepares photos, so the event
loop never waits, and sliders keep moving during somebody else's upload.
"""

import asyncio
import collections
from collections.abc import Mapping, Sequence
from concurrent import futures
import secrets
import time
from typing import Any, NamedTuple, NoReturn

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.editor import editor
from jacsup_jax.editor import photos
from jacsup_jax.editor import requests
from jacsup_jax.editor import wire

# Samples of a model that the page offers to start from.
NUM_SAMPLES = 24
_MOST_MODELS = 4


class Photo(NamedTuple):
  """An image that is being edited."""

  image: np.ndarray  # [H, W, C] uint8, as prepared for the model
  reconstruction: np.ndarray  # [H, W, C] uint8
  encoded: editor.Encoded  # B = 1


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

  def __len__(self) -> int:
    return len(self._photos)

  def put(self, model: str, photo_id: str, photo: Photo) -> None:
    """Stores a photo of a model."""
    self._photos[model, photo_id] = (self.clock(), photo)
    self._photos.move_to_end((model, photo_id))
    self.drop_expired()
    while len(self._photos) > self.most:
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
      'units': list(map(wire.describe_unit, loaded.editor.units)),
      'groups': wire.GROUPS,
    }

  async def draw_samples(self, model: str) -> bytes:
    """Draws thumbnails of a model's samples side by side."""
    loaded = await self._load(model)
    if not len(loaded.samples):
      raise wire.NotFoundError(
        f'{model} has no samples: {loaded.without_samples}'
      )
    draw = lambda: wire.encode(wire.shrink(loaded.samples))
    return await self._run(self._preparing, draw)

  async def add_photo(
    self, model: str, content: bytes, align: bool
  ) -> dict[str, Any]:
    """Prepares and encodes a photo for a model, aligned by the face in it.

    Returns as JSON its id, and whether a face was found.
    """
    loaded = await self._load(model)
    shape = loaded.editor.image_shape
    find_face = self._align if align else None
    read = lambda: photos.read(content, shape, 'the photo', align=find_face)
    image, is_aligned = await self._run(self._preparing, read)
    photo_id = secrets.token_urlsafe(12)
    await self._keep(loaded, model, photo_id, image)
    return {'photo': photo_id, 'is_aligned': is_aligned}

  async def draw_photo(self, model: str, photo: str, which: str) -> bytes:
    """Draws a photo by its id: its `original`, or its `reconstruction`."""
    found = await self._find(await self._load(model), model, photo)
    images = {'original': found.image, 'reconstruction': found.reconstruction}
    if which not in images:
      raise wire.NotFoundError(
        f'no picture {files.describe(which)} of a photo.'
      )
    return wire.encode(images[which])

  async def edit(self, request: Mapping[str, Any]) -> bytes:
    """Draws an edit.

    The request has a `model` and a `photo` by their ids, and what
    `requests.read_request` reads.
    """
    model, photo_id = request.get('model'), request.get('photo')
    if not isinstance(model, str) or not isinstance(photo_id, str):
      raise errors.InputError(
        'the request has no model or no photo; accepted: their ids.'
      )
    loaded = await self._load(model)
    strengths, detail = requests.read_request(request, loaded.editor.units)
    photo = await self._find(loaded, model, photo_id)
    edit = lambda: loaded.editor.edit(photo.encoded, strengths, detail)[0]
    return await self._run(self._computing, lambda: wire.encode(edit()))

  async def _load(self, model) -> Loaded:
    if model not in self._choices:
      raise wire.NotFoundError(f'no model {files.describe(model)} here.')
    if model not in self._models:
      async with self._loading:
        # Another request may have loaded it meanwhile.
        if model not in self._models:
          self._models[model] = await self._run(
            self._preparing, _load, self._choices[model]
          )
    self._models.move_to_end(model)
    while len(self._models) > _MOST_MODELS:
      self._models.popitem(last=False)
    return self._models[model]

  async def _find(self, loaded, model, photo_id) -> Photo:
    photo = self.photos.get(model, photo_id)
    if photo is not None:
      return photo
    samples = {f'sample-{i}': own for i, own in enumerate(loaded.samples)}
    if photo_id not in samples:
      raise wire.NotFoundError(
        'the photo is no longer stored here; add it again.'
      )
    return await self._keep(loaded, model, photo_id, samples[photo_id])

  async def _keep(self, loaded, model, photo_id, image):
    def encode():
      encoded = loaded.editor.encode(image[None])
      return Photo(image, loaded.editor.reconstruct(encoded)[0], encoded)

    photo = await self._run(self._computing, encode)
    self.photos.put(model, photo_id, photo)
    return photo

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
