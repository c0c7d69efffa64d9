"""A module bound to its variables, and modules described as JSON.

`Model` is the one way to encode and decode. It is a JAX pytree whose module is
static: a jitted function takes it as an argument, and two models of one module
share its program. Inside an objective, `dataclasses.replace(model,
params=params)` binds the parameters that are differentiated.
"""

from collections.abc import Mapping
import dataclasses
import functools
import types
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import errors

# Modules that `make_module` makes, by the name of their class.
MODULES: dict[str, type[nn.Module]] = {}
# Sizes are checked before arrays of them are made.
_LARGEST_SIZE = 2**18
# They say how a batch is spread over devices, or belong to linen.
_NOT_DESCRIBED = ('axis_name', 'parent', 'name')


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['params', 'batch_stats'],
  meta_fields=['module'],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """An autoencoder with its parameters and running statistics, if any."""

  module: nn.Module  # With the methods `encode` and `decode`.
  params: codes.Params
  batch_stats: codes.Params = dataclasses.field(default_factory=dict)

  @property
  def variables(self) -> codes.Variables:
    return {'params': self.params, 'batch_stats': self.batch_stats}

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return self.module.image_shape

  @property
  def image_range(self) -> tuple[float, float]:
    return self.module.image_range

  @property
  def num_factors(self) -> int:
    return self.module.num_factors

  @property
  def nuisance_dim(self) -> int:
    return self.module.nuisance_dim

  @property
  def factors_are_labels(self) -> bool:
    return self.module.factors_are_labels

  @property
  def has_bounded_factors(self) -> bool:
    return getattr(self.module, 'has_bounded_factors', False)

  @property
  def is_rival(self) -> bool:
    return getattr(self.module, 'is_rival', False)

  @property
  def has_free_units(self) -> bool:
    return getattr(self.module, 'has_free_units', False)

  def encode(
    self, images: jax.Array, attributes: jax.Array | None = None
  ) -> codes.Code:
    """Encodes images with the running statistics.

    Args:
      images: `[B, H, W, C]`, uint8, or floats in `image_range`.
      attributes: `[B, K]` labels in {-1, +1}: needed, as its factors, by a
        module whose `factors_are_labels`, else unused.

    Raises:
      InputError: if images have another type.
      ValueError: if attributes are needed and not given.
    """
    images = to_range(images, self.image_range)
    if not self.factors_are_labels:
      return self.module.apply(self.variables, images, method='encode')
    if attributes is None:
      raise ValueError(
        f'{type(self.module).__name__}.encode without attributes: its factors'
        ' are the labels of the images.'
      )
    return self.module.apply(
      self.variables, images, attributes, method='encode'
    )

  def decode(self, code: codes.Code) -> jax.Array:
    """Decodes to `[B, H, W, C]` floats, with the running statistics."""
    return self.module.apply(self.variables, code, method='decode')


def apply_train(
  module: nn.Module,
  params: codes.Params,
  batch_stats: codes.Params,
  method: str,
  *args: Any,
) -> tuple[Any, codes.Params]:
  """Applies a method in training mode: its result, and the new statistics."""
  result, updated = module.apply(
    {'params': params, 'batch_stats': batch_stats},
    *args,
    train=True,
    method=method,
    mutable='batch_stats',
  )
  return result, updated.get('batch_stats', batch_stats)


def to_range(images: jax.Array, image_range: tuple[float, float]) -> jax.Array:
  """Converts `[..., H, W, C]` bytes to floats; leaves floats as they are.

  The range is (0, 1) or (-1, 1). InputError if images have another type.
  """
  if jnp.issubdtype(images.dtype, jnp.floating):
    return images
  if images.dtype != jnp.uint8:
    raise errors.InputError(
      f'images are {images.dtype}; accepted: uint8, or floats in'
      f' {list(image_range)}.'
    )
  images = jnp.asarray(images, jnp.float32)
  if tuple(image_range) == (0, 1):
    return images / 255.0
  # Not x / 127.5 - 1: XLA multiplies by a rounded 1 / 127.5, and 255 leaves the
  # interval.
  return (2.0 * images - 255.0) / 255.0


def register(cls: type[nn.Module]) -> type[nn.Module]:
  """Adds a class of modules to those that `make_module` makes."""
  MODULES[cls.__name__] = cls
  return cls


def describe_module(module: nn.Module) -> dict[str, Any]:
  """Describes a module as JSON, from which `make_module` makes an equal one.

  How its batch is spread over devices (`axis_name`) is left out.
  """
  description: dict[str, Any] = {'name': type(module).__name__}
  for field in _list_fields(type(module)):
    value = getattr(module, field.name)
    if field.type is jnp.dtype:
      value = jnp.dtype(value).name
    elif isinstance(value, tuple):
      value = list(value)
    description[field.name] = value
  return description


def make_module(description: Mapping[str, Any]) -> nn.Module:
  """Makes the module of a description; fields that it lacks have defaults.

  Raises:
    InputError: if it names no registered class, or a field that is missing,
      unknown or of no accepted value.
  """
  name = description.get('name') if isinstance(description, Mapping) else None
  if not isinstance(name, str) or name not in MODULES:
    raise errors.InputError(
      f'a model named {name!r}; accepted: {", ".join(MODULES)}.'
    )
  cls = MODULES[name]
  kinds = {field.name: field.type for field in _list_fields(cls)}
  values = {key: description[key] for key in description if key != 'name'}
  try:
    return cls(**{k: _read_value(kinds[k], v) for k, v in values.items()})
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    shown = ', '.join(f'{k}={v!r}' for k, v in values.items())
    raise errors.InputError(
      f'a model {name}({shown}) cannot be made ({error}); accepted: the'
      f' fields {", ".join(kinds)}, each of its type.'
    ) from error


def _list_fields(cls):
  return [f for f in dataclasses.fields(cls) if f.name not in _NOT_DESCRIBED]


def _read_value(kind, value):
  """Converts a JSON value to the type of a module's field."""
  if kind is jnp.dtype:
    # Not `jnp.dtype(value)`: it hashes unlike the default of the modules, and
    # programs would be compiled twice.
    return getattr(jnp, jnp.dtype(value).name)
  if isinstance(kind, types.GenericAlias):
    if kind.__args__[-1] is not Ellipsis and len(value) != len(kind.__args__):
      raise TypeError(f'{value!r} is not of {len(kind.__args__)} numbers')
    return tuple(_read_value(int, item) for item in value)
  if type(value) is not kind and not (kind is float and type(value) is int):
    raise TypeError(f'{value!r} is no {kind.__name__}')
  if kind is int and not 0 <= value <= _LARGEST_SIZE:
    raise ValueError(f'{value} is not from 0 to {_LARGEST_SIZE}')
  return kind(value)
