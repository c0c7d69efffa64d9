"""Supervision by all models of a chain, each of the units that it found.

A chain finds its units one growth after the other: the first teacher the first
k, each student those that it has grown by. Its parent supervises a student in
all units before its own, although it has itself learnt most of them from its
own parent, with an error that adds up along the chain. Here the units that a
model found are supervised by that model: units 0 to k - 1 by the first teacher,
the next ones by the first student, and so on, the newest by the parent. They
are moved one group at a time (`Supervision.blocks`), in the student and in the
model that found them, all others staying where they are; so how groups act
together is not compared, which the parent's swap of all units does. Factors are
matched with those of the model that found them, too.

A step has as many passes through decoders as the chain has models.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import changes
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import batches


class TeacherHistory(NamedTuple):
  """Models of a chain, the oldest first: constants of a stage."""

  codes: tuple[jax.Array, ...]  # [M, K_s], of the whole training set
  variables: tuple[codes.Variables, ...]


def trace(stage: config.Stage, trained: Mapping[str, Any]) -> list[Any]:
  """Returns the models that a stage descends from.

  Args:
    stage: that is supervised.
    trained: `stages.Trained` by name, its ancestors among them.

  Returns:
    The `stages.Trained`, its first teacher first and its supervisor last.
  """
  found, name = [], stage.supervisor
  while name is not None:
    found.append(trained[name])
    name = trained[name].stage.parent
  return found[::-1]


def count_units(models: Sequence[nn.Module]) -> tuple[int, ...]:
  """Returns how many units each model found, the oldest first."""
  dims = [0, *(model.code_dim for model in models)]
  return tuple(b - a for a, b in zip(dims, dims[1:]))


def compute_history(
    models: Sequence[nn.Module],
    variables: Sequence[codes.Variables],
    images: jax.Array,
) -> TeacherHistory:
  """Computes the codes of a whole data set by all models of a chain.

  Args:
    models: with their whole codes as factors, the oldest first.
    variables: of the models; they are applied with running statistics.
    images: `[M, H, W, C]` uint8.

  Returns:
    The history.
  """
  at_once = batches.count_at_once(images.shape[1:])
  codes = []
  for model, of_model in zip(models, variables, strict=True):

    def encode(image, model=model, of_model=of_model):
      code = model.apply(
          of_model, batches.to_float(image[None]), method='encode'
      )
      return code.factors[0]

    map_all = jax.jit(
        lambda images, encode=encode: jax.lax.map(
            encode, images, batch_size=at_once
        )
    )
    codes.append(map_all(images))
  return TeacherHistory(tuple(codes), tuple(variables))


def compute_outputs(
    history: TeacherHistory,
    models: Sequence[nn.Module],
    indices: jax.Array,
    partner_indices: jax.Array,
    supervision: config.Supervision,
) -> codes.TeacherOutputs:
  """Computes what each model of a chain changes by the units that it found.

  Args:
    history: of the chain.
    models: see `compute_history`.
    indices: `[B]`, of a batch, in the data.
    partner_indices: `[B]` or `[n, B]`, of the partners in the data.
    supervision: how the Jacobians are compared.

  Returns:
    TeacherOutputs, stopped: factors of all models, and `changes` in the order
    of `changes.make_targets` with `blocks`.
  """
  factors, changed, start = [], [], 0
  for model, variables, codes in zip(
      models, history.variables, history.codes, strict=True
  ):
    # What this model found comes last; the units before it are held.
    older = jnp.take(codes, indices, axis=0)
    older, newest = older[:, :start], older[:, start:]

    def decode(code, model=model, variables=variables):
      flat = jnp.concatenate([code.nuisance, code.factors], axis=1)
      whole = codes.split(flat, flat.shape[1])
      return model.apply(variables, whole, method='decode')

    targets = jnp.take(codes, jnp.atleast_2d(partner_indices), axis=0)
    _, of_model = changes.compute(
        supervision,
        decode,
        codes.Code(newest, older),
        targets[..., start:],
    )
    factors.append(newest)
    changed.append(of_model)
    start = model.code_dim
  return jax.lax.stop_gradient(
      codes.TeacherOutputs(
          jnp.concatenate(factors, axis=1),
          None,
          None,
          jnp.concatenate(changed),
      )
  )
