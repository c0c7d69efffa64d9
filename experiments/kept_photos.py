"""Photos that a server keeps for a while, in memory and nowhere else."""

from collections.abc import Callable
import collections
import dataclasses
import time

import numpy as np

from jacsup_jax.editor import editor


@dataclasses.dataclass(frozen=True)
class Photo:
  """An image that is being edited, as a model has encoded it.

  Attributes:
    image: `[H, W, C]` uint8, the photo as prepared for the model.
    reconstruction: `[H, W, C]` uint8.
    encoded: of the one image, B = 1.
  """

  image: np.ndarray
  reconstruction: np.ndarray
  encoded: editor.Encoded


class KeptPhotos:
  """The photos that were used last, so many at most and for so long.

  Not for several threads: one event loop calls it.
  """

  def __init__(
      self,
      most: int,
      seconds: float,
      clock: Callable[[], float] = time.monotonic,
  ):
    """Keeps none yet.

    Args:
      most: photos that are kept; of one more the longest unused is dropped.
      seconds: from the last use of a photo until it is dropped.
      clock: returns seconds.
    """
    self._most = most
    self._seconds = seconds
    self._clock = clock
    # By (model, photo): when it was used last, and itself; oldest use first.
    self._photos = collections.OrderedDict()

  def __len__(self) -> int:
    return len(self._photos)

  def put(self, model: str, photo_id: str, photo: Photo) -> None:
    """Keeps a photo of a model."""
    self.drop_expired()
    self._photos[model, photo_id] = (self._clock(), photo)
    self._photos.move_to_end((model, photo_id))
    while len(self._photos) > self._most:
      self._photos.popitem(last=False)

  def get(self, model: str, photo_id: str) -> Photo | None:
    """Returns a photo, which counts as used; None if it is not kept."""
    self.drop_expired()
    entry = self._photos.get((model, photo_id))
    if entry is None:
      return None
    self._photos[model, photo_id] = (self._clock(), entry[1])
    self._photos.move_to_end((model, photo_id))
    return entry[1]

  def drop_expired(self) -> None:
    """Drops what was not used for long."""
    oldest = self._clock() - self._seconds
    while self._photos:
      key = next(iter(self._photos))
      if self._photos[key][0] > oldest:
        return
      del self._photos[key]
