"""Training steps on faces in PyTorch, for `experiments.benchmark`.

Eager and with PyTorch's defaults, as the released code trains: the factors are
repeated over every feature map and concatenated to it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from jacsup_jax.core import codes
from jacsup_jax.core import config


class Code(NamedTuple):
  factors: torch.Tensor  # [B, K]
  nuisance: torch.Tensor  # [B, C, 2, 2]


def make_autoencoder(variables: codes.Variables) -> nn.ModuleDict:
  """Makes the modules of a `networks.FaceAutoencoder` with its variables.

  Args:
    variables: of the autoencoder.

  Returns:
    'encoder' and 'decoder', lists of blocks of `[B, C, H, W]` feature maps, in
    training mode.
  """
  parts = {}
  for part, make_block in (
      ('encoder', _make_down_block),
      ('decoder', _make_up_block),
  ):
    prefix = 'down' if part == 'encoder' else 'up'
    params = variables['params'][part]
    stats = variables['batch_stats'][part]
    names = [f'{prefix}_{i}' for i in range(len(params))]
    parts[part] = nn.ModuleList(
        make_block(params[name], stats.get(name)) for name in names
    )
  return nn.ModuleDict(parts)


def encode(
    model: nn.ModuleDict, images: torch.Tensor, num_factors: int
) -> Code:
  """Encodes `[B, 3, S, S]` images."""
  x = images
  for block in model['encoder']:
    x = block(x)
  return Code(x[:, -num_factors:].mean((2, 3)), x[:, :-num_factors])


def decode(model: nn.ModuleDict, code: Code) -> torch.Tensor:
  """Decodes to `[B, 3, S, S]` images."""
  x = code.nuisance
  for block in model['decoder']:
    channels = code.factors[:, :, None, None].expand(-1, -1, *x.shape[2:])
    x = block(torch.cat((x, channels), 1))
  return x


def compute_losses(
    model: nn.ModuleDict,
    teacher: nn.ModuleDict | None,
    images: torch.Tensor,
    attributes: torch.Tensor,
    permutation: torch.Tensor,
    weights: config.AttributeLossWeights,
) -> dict[str, torch.Tensor]:
  """Computes the terms of `attribute_objectives`, but the cycle losses.

  Args:
    model: of `make_autoencoder`.
    teacher: the same, in evaluation mode; None for a teacher's objective.
    images: `[B, 3, S, S]` in [-1, 1].
    attributes: `[B, K]` labels in {-1, +1}.
    permutation: `[B]`, the partner of each example.
    weights: of the terms.

  Returns:
    Scalars by the names of the metrics; 'loss' is their weighted sum.
  """
  code = encode(model, images, attributes.shape[1])
  decoded = decode(model, code)
  flat = code.nuisance.flatten(1)
  covariance = (flat - flat.mean(0)).t() @ (code.factors - code.factors.mean(0))
  xcov = (covariance / len(images)).square().sum()
  hinge = (1 - code.factors * attributes).clamp(min=0)
  terms = {
      'reconstruction': nn.functional.mse_loss(decoded, images),
      'attribute_hinge': hinge.mean(),
      'cross_covariance': xcov if weights.squared_xcov else xcov.sqrt(),
  }
  loss = (
      weights.lambda_reconstruction * terms['reconstruction']
      + weights.lambda_prediction * terms['attribute_hinge']
      + weights.lambda_xcov * terms['cross_covariance']
  )
  if teacher is not None:
    with torch.no_grad():
      theirs = encode(teacher, images, attributes.shape[1])
      change = decode(
          teacher, Code(theirs.factors[permutation], theirs.nuisance)
      ) - decode(teacher, theirs)
    swapped = decode(model, Code(code.factors[permutation], code.nuisance))
    terms['factor_matching'] = nn.functional.mse_loss(
        code.factors, theirs.factors
    )
    terms['jacobian'] = nn.functional.mse_loss(swapped - decoded, change)
    loss = loss + weights.lambda_y * terms['factor_matching']
    loss = loss + weights.lambda_diff * terms['jacobian']
  return {**terms, 'loss': loss}


def compute_cycle_losses(
    model: nn.ModuleDict,
    images: torch.Tensor,
    num_factors: int,
    permutation: torch.Tensor,
    weights: config.AttributeLossWeights,
) -> dict[str, torch.Tensor]:
  """Computes the terms of `attribute_objectives.cycle_objective`.

  Args:
    model: of `make_autoencoder`; its encoder takes no gradient.
    images: `[B, 3, S, S]` in [-1, 1].
    num_factors: K.
    permutation: `[B]`, the partner of each example.
    weights: of the terms.

  Returns:
    Scalars by the names of the metrics; 'loss' is their weighted sum.
  """
  with torch.no_grad():
    code = encode(model, images, num_factors)
  swapped = Code(code.factors[permutation], code.nuisance)
  cycled = encode(model, decode(model, swapped), num_factors)
  nuisance = (cycled.nuisance - code.nuisance).square().flatten(1).sum(1)
  terms = {
      'attribute_cycle': (1 - cycled.factors * swapped.factors)
      .clamp(min=0)
      .mean(),
      'nuisance_cycle': nuisance.mean(),
  }
  terms['loss'] = (
      weights.lambda_attribute_cycle * terms['attribute_cycle']
      + weights.lambda_nuisance_cycle * terms['nuisance_cycle']
  )
  return terms


def make_train_step(
    variables: codes.Variables,
    teacher: codes.Variables | None,
    *,
    weights: config.AttributeLossWeights,
    learning_rate: float,
    b1: float,
) -> Callable[..., dict[str, torch.Tensor]]:
  """Makes a training step with Adam; see `attribute_training.train_step`.

  Args:
    variables: to start from.
    teacher: of the supervising model, if the weights need one.
    weights: of the terms.
    learning_rate: of Adam.
    b1: of Adam.

  Returns:
    (images, attributes, permutation) -> the losses before each update.
  """
  model = make_autoencoder(variables)
  if teacher is not None:
    teacher = make_autoencoder(teacher).eval().requires_grad_(False)
  optimizers = {
      part: torch.optim.Adam(
          model[part].parameters(), lr=learning_rate, betas=(b1, 0.999)
      )
      for part in ('encoder', 'decoder')
  }

  def update(terms, *parts):
    for part in parts:
      optimizers[part].zero_grad()
    terms['loss'].backward()
    for part in parts:
      optimizers[part].step()

  def train_step(images, attributes, permutation):
    terms = compute_losses(
        model, teacher, images, attributes, permutation, weights
    )
    update(terms, 'encoder', 'decoder')
    if not weights.needs_cycle:
      return terms
    model['encoder'].requires_grad_(False)
    cycle_terms = compute_cycle_losses(
        model, images, attributes.shape[1], permutation, weights
    )
    update(cycle_terms, 'decoder')
    model['encoder'].requires_grad_(True)
    loss = terms['loss'] + cycle_terms['loss']
    return {**terms, **cycle_terms, 'loss': loss}

  return train_step


def make_steps(
    train_step: Callable[..., Any],
    batch: codes.Batch,
    num_steps: int,
    num_threads: int,
) -> Callable[[], None]:
  """Makes a function that takes steps of one batch.

  Args:
    train_step: of `make_train_step`.
    batch: NumPy arrays, images `[B, S, S, 3]`.
    num_steps: that it takes.
    num_threads: that PyTorch uses from now on.

  Returns:
    A function without arguments.
  """
  torch.set_num_threads(num_threads)
  images, attributes = make_tensors(batch)

  def steps():
    for _ in range(num_steps):
      train_step(images, attributes, torch.randperm(len(images)))

  return steps


def make_tensors(batch: codes.Batch) -> tuple[torch.Tensor, torch.Tensor]:
  """Returns NumPy images and attributes as PyTorch has them, channels first."""
  images = torch.from_numpy(batch.images).permute(0, 3, 1, 2).contiguous()
  return images, torch.from_numpy(batch.labels)


def _make_down_block(params, stats):
  kernel = np.array(params['kernel']).transpose(3, 2, 0, 1)
  features, channels = kernel.shape[:2]
  convolution = nn.Conv2d(channels, features, 4, stride=2, padding=1)
  _copy(convolution.weight, kernel)
  _copy(convolution.bias, params['bias'])
  return nn.Sequential(
      convolution, *_make_norm(params, stats), nn.LeakyReLU(0.2, inplace=True)
  )


def _make_up_block(params, stats):
  # Flax's transposed kernel is PyTorch's reversed.
  kernel = np.array(params['kernel'])[::-1, ::-1].transpose(2, 3, 0, 1)
  channels, features = kernel.shape[:2]
  convolution = nn.ConvTranspose2d(
      channels, features, 4, stride=2, padding=1, bias=False
  )
  _copy(convolution.weight, kernel)
  norm = _make_norm(params, stats)
  activation = nn.ReLU(inplace=True) if norm else nn.Tanh()
  return nn.Sequential(convolution, *norm, activation)


def _make_norm(params, stats):
  """Returns a list of the BatchNorm of a block, empty if it has none."""
  if 'norm' not in params:
    return []
  norm = nn.BatchNorm2d(len(params['norm']['scale']))
  _copy(norm.weight, params['norm']['scale'])
  _copy(norm.bias, params['norm']['bias'])
  _copy(norm.running_mean, stats['norm']['mean'])
  _copy(norm.running_var, stats['norm']['var'])
  return [norm]


def _copy(parameter, value):
  with torch.no_grad():
    parameter.copy_(torch.from_numpy(np.array(value)))
