"""Answer the page's requests: models, photos, edits; without the web.

One thread computes and another loads models and prepares photos, so the event
loop never waits, and sliders keep moving during somebody else's upload.
"""

import asyncio
import collections
from collections.abc import Mapping, Sequence
from concurrent import futures
import io
import secrets
import time
from typing import Any, NamedTuple, NoReturn

import numpy as np
from PIL import Image

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.editor import descriptions
from jacsup_jax.editor import drawings
from jacsup_jax.editor import editor
from jacsup_jax.editor import exports
from jacsup_jax.editor import photos
from jacsup_jax.editor import requests
from jacsup_jax.figures import pictures

# Samples of a model that the page offers to start from.
NUM_SAMPLES = 24
_MOST_MODELS = 4
_THUMBNAIL = 64  # longest side, in pixels
_MOST_TILES = 256  # of one request; more would keep other users waiting


class NotFoundError(LookupError):
  """There is no such model or photo; the message is one line."""


class Photo(NamedTuple):
  """A picture of a model that is edited."""

  image: np.ndarray  # [H, W, C] uint8, as prepared for the model
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
        {
          'id': own.id,
          'group': own.group,
          'title': own.title,
          'counterpart': own.counterpart,
        }
        for own in self._choices.values()
      ],
      'can_align': self._align is not None,
      'largest_photo': photos.MOST_BYTES,
    }

  async def describe(self, model: str) -> dict[str, Any]:
    """Loads a model and describes it and its samples as JSON."""
    loaded = await self._load(model)
    return {
      'id': model,
      'title': loaded.editor.title or self._choices[model].title,
      'samples': len(loaded.samples),
      'without_samples': loaded.without_samples,
      **descriptions.describe_model(loaded.editor),
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
    photo_id = await self._add(loaded, model, image)
    return {'photo': photo_id, 'is_aligned': is_aligned}

  async def add_drawing(self, model: str, content: bytes) -> dict[str, Any]:
    """Stores a drawing, a picture of strokes; returns as JSON its id."""
    loaded = await self._load(model)
    shape = loaded.editor.image_shape
    image = await self._run(self._preparing, drawings.read, content, shape)
    return {'photo': await self._add(loaded, model, image)}

  async def describe_photo(self, model: str, photo: str) -> dict[str, Any]:
    """Describes as JSON where a photo is, and whether it is an unusual one.

    `unlike` says how many times the usual error its reconstruction has, if that
    is more than almost all of the training data have, else None.
    """
    own = (await self._load(model)).editor
    _, encoded = await self._find(model, photo)
    error = float(np.mean(np.square(encoded.images - encoded.reconstructions)))
    return {
      'positions': descriptions.describe_positions(own, encoded),
      'unlike': own.profile.compare(error),
    }

  async def draw_photo(self, model: str, photo: str, which: str) -> bytes:
    """Draws a photo by its id: its `original`, or its `reconstruction`."""
    loaded = await self._load(model)
    image, encoded = await self._find(model, photo)
    if which not in ('original', 'reconstruction'):
      raise NotFoundError(f'no picture {files.describe(which)} of a photo.')
    if which == 'reconstruction':
      [image] = await self._run(
        self._computing, loaded.editor.reconstruct, encoded
      )
    return _encode(image)

  async def edit(self, request: Mapping[str, Any]) -> bytes:
    """Draws an edit of a `photo` of a `model`; see `requests.read_request`."""
    own, encoded = await self._open(request)
    strengths, detail = requests.read_request(request, own.units)
    edit = lambda: own.edit(encoded, strengths, detail)[0]
    return await self._run(self._computing, lambda: _encode(edit()))

  async def draw_tiles(self, request: Mapping[str, Any]) -> bytes:
    """Draws small edits at the settings of a `grid`, as one picture.

    The grid is text as of --sweep or --grid.
    """
    own, encoded = await self._open(request)
    strengths, detail = requests.read_request(request, own.units)
    text = request.get('grid')
    if not isinstance(text, str):
      raise errors.InputError('grid: accepted: text such as Smiling:-3:3:7.')
    tiles, _ = requests.parse_tiles(
      own.units, strengths, text, 'grid', 2 if ',' in text else 1
    )
    rows, cols = tiles.shape[:2]
    if rows * cols > _MOST_TILES:
      raise errors.InputError(
        f'grid has {rows * cols} tiles; accepted: at most {_MOST_TILES}.'
      )
    edits = await self._edit_in_turn(own, encoded, [*np.vstack(tiles)], detail)
    return await self._run(self._preparing, _draw_thumbnails, edits, cols)

  async def export(self, request: Mapping[str, Any]) -> bytes:
    """Makes a file to keep, of `format` png or gif; see `exports`.

    A gif goes from the strengths `start`, by default none, to those of the
    edit.
    """
    own, encoded = await self._open(request)
    last, detail = requests.read_request(request, own.units)
    kind = request.get('format')
    if kind == 'png':
      [edit] = await self._edit_in_turn(own, encoded, [last], detail)
      return await self._run(self._preparing, exports.to_png, edit)
    if kind != 'gif':
      raise errors.InputError(
        f'the format is {files.describe(kind)}; accepted: png, gif.'
      )
    start = {'strengths': request.get('start', {})}
    first, _ = requests.read_request(start, own.units)
    if np.array_equal(first, last):
      raise errors.InputError('nothing is moved; move a slider first.')
    steps = [*exports.make_steps(first, last)]
    edits = await self._edit_in_turn(own, encoded, steps, detail)
    return await self._run(self._preparing, exports.to_gif, edits)

  async def _edit_in_turn(self, own, encoded, settings, detail):
    """Edits at several settings; sliders that move meanwhile go between."""
    edits = []
    for strengths in settings:
      edit = lambda strengths=strengths: own.edit(encoded, strengths, detail)[0]
      edits.append(await self._run(self._computing, edit))
    return edits

  async def _open(self, request):
    """Finds the editor and the encoded photo that a request names."""
    model, photo_id = request.get('model'), request.get('photo')
    if not isinstance(model, str) or not isinstance(photo_id, str):
      raise errors.InputError('accepted: the ids of a model and a photo.')
    own = (await self._load(model)).editor
    return own, (await self._find(model, photo_id)).encoded

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

  async def _find(self, model, photo_id) -> Photo:
    photo = self.photos.get(model, photo_id)
    if photo is not None:
      return photo
    loaded = await self._load(model)
    samples = {f'sample-{i}': own for i, own in enumerate(loaded.samples)}
    image = samples.get(photo_id)
    if image is None:
      # Photos are added for one of two models that are compared.
      other = self.photos.get(self._choices[model].counterpart, photo_id)
      if other is None:
        raise NotFoundError('the photo is no longer stored here; add it again.')
      image = other.image
    return await self._keep(loaded, model, photo_id, image)

  async def _add(self, loaded, model, image):
    photo_id = secrets.token_urlsafe(12)
    await self._keep(loaded, model, photo_id, image)
    return photo_id

  async def _keep(self, loaded, model, photo_id, image):
    encoded = await self._run(
      self._computing, loaded.editor.encode, image[None]
    )
    photo = Photo(image, encoded)
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


def _encode(image):
  """Encodes `[H, W, C]` uint8, C of 1 or 3, as lossless WebP."""
  file = io.BytesIO()
  # At 256x256 this takes half the time of the fastest PNG, at no larger size.
  pictures.to_picture(image).save(
    file, format='WEBP', lossless=True, quality=0, method=0
  )
  return file.getvalue()


def _draw_thumbnails(images, cols=None):
  """Draws N images `[H, W, C]` uint8, small, in rows of `cols`; None: one."""
  height, width = images[0].shape[:2]
  factor = min(1.0, _THUMBNAIL / max(height, width))
  size = (round(width * factor), round(height * factor))
  resize = lambda own: own.resize(size, Image.Resampling.LANCZOS)
  small = [np.asarray(resize(pictures.to_picture(image))) for image in images]
  cols = cols or len(small)
  tiles = np.stack(small).reshape(
    -1, cols, *small[0].shape[:2], images[0].shape[-1]
  )
  return _encode(pictures.tile(tiles))
