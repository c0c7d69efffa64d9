"""What the page of experiments.edit asks for, without the web.

One thread computes and another one loads models and prepares photos, so that
the event loop never waits, and a slider not for somebody else's upload.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
import dataclasses
import re
import secrets
from typing import Any

import numpy as np

from experiments import attribute_groups
from experiments import edit_choices
from experiments import edit_wire
from experiments import kept_photos
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.data import photos
from jacsup_jax.editor import editor
from jacsup_jax.models import autoencoders as networks

# The pages are few: of one user, or of a class.
_MOST_PHOTOS = 64
_PHOTO_SECONDS = 30 * 60
_MOST_MODELS = 4
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
      kept: kept_photos.KeptPhotos | None = None,
  ):
    """Loads nothing yet.

    Args:
      choices: one or more, of different ids.
      read_photo: makes an image for a model of an uploaded file; None takes the
        preparation of training.
      align: see `alignment.find_aligner`; None if nothing finds faces here.
      kept: photos; None keeps none yet.
    """
    self._choices = {choice.id: choice for choice in choices}
    self._read_photo = read_photo or photos.read
    self._align = align
    if kept is None:
      kept = kept_photos.KeptPhotos(_MOST_PHOTOS, _PHOTO_SECONDS)
    self._photos = kept
    self._models: dict[str, Loaded] = {}  # The last used last.
    self._loading: dict[str, asyncio.Task] = {}
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
        'units': list(map(edit_wire.describe_unit, loaded.editor.units)),
        'groups': attribute_groups.GROUPS,
    }

  async def draw_samples(self, model: str) -> bytes:
    """Returns the samples of a model side by side, small, as WebP."""
    loaded = await self._load(model)
    if not len(loaded.samples):
      raise NotFoundError(f'{model} has no samples: {loaded.without_samples}')
    return await self._run(
        self._preparing,
        lambda: edit_wire.encode(edit_wire.shrink(loaded.samples)),
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
      raise errors.InputError(
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
      raise NotFoundError(
          f'no picture {untrusted.describe(which)}; accepted:'
          f' {", ".join(images)}.'
      )
    return edit_wire.encode(images[which])

  async def edit(self, request: Mapping[str, Any]) -> bytes:
    """Returns an edit as WebP.

    Args:
      request: `model` and `photo` by their ids, and what `edit_wire.read_edit`
        reads.

    Raises:
      InputError: if it is none of these.
      NotFoundError: if there is no such model or photo.
    """
    return await self._draw(request, edit_wire.read_edit)

  async def draw_strip(self, request: Mapping[str, Any]) -> bytes:
    """Returns edits over a range of one unit, side by side, as WebP.

    Args:
      request: `model` and `photo` by their ids, and what `edit_wire.read_strip`
        reads.

    Raises:
      InputError, NotFoundError: as `edit`.
    """
    return await self._draw(request, edit_wire.read_strip)

  async def _draw(self, request, read):
    for name in ('model', 'photo'):
      if not isinstance(request.get(name), str):
        raise errors.InputError(f'the request has no {name!r}; accepted: an id.')
    loaded = await self._load(request['model'])
    asked = read(request, loaded.editor.units)
    photo = await self._find(request['model'], request['photo'])
    tiles = []
    for strengths in asked.strengths[:-1]:
      # One by one, so that a slider that is moved meanwhile comes between; and
      # all by the program of a single edit.
      tiles.append(
          await self._run(
              self._computing,
              loaded.editor.edit,
              photo.encoded,
              strengths,
              asked.keep_detail,
          )
      )

    def finish():
      last = loaded.editor.edit(
          photo.encoded, asked.strengths[-1], asked.keep_detail
      )
      return edit_wire.encode(np.concatenate([*tiles, last], axis=2)[0])

    return await self._run(self._computing, finish)

  async def _load(self, model) -> Loaded:
    if model not in self._choices:
      raise NotFoundError(f'no model {untrusted.describe(model)} here.')
    loaded = self._models.pop(model, None)
    if loaded is None:
      if model not in self._loading:
        self._loading[model] = asyncio.create_task(self._load_new(model))
      # It goes on if who asked is gone: somebody will ask again.
      loaded = await asyncio.shield(self._loading[model])
      self._models.pop(model, None)
    self._models[model] = loaded
    while len(self._models) > _MOST_MODELS:
      del self._models[next(iter(self._models))]
    return loaded

  async def _load_new(self, model):
    try:
      loaded = await self._run(self._preparing, _load, self._choices[model])
      # Before anybody else is served, who would find it neither here nor there.
      self._models[model] = loaded
      return loaded
    finally:
      del self._loading[model]

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
  except errors.InputError as error:
    without = str(error)
  encoded = own.encode(np.zeros((1, *own.image_shape), np.uint8))
  own.reconstruct(encoded)
  own.edit(encoded, np.zeros(len(own.units), np.float32))
  return Loaded(own, samples, without)
