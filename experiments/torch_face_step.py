"""The teacher's step on faces in PyTorch, for `experiments.benchmark`.

Eager and with PyTorch's defaults, as the released code trains: the factors are
repeated over every feature map and concatenated to it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from jacsup_jax import types


def make_autoencoder(params: types.Params) -> nn.ModuleDict:
  """Makes the modules of a `networks.FaceAutoencoder` with its parameters.

  Args:
    params: of the autoencoder.

  Returns:
    'encoder' and 'decoder', lists of blocks of `[B, C, H, W]` feature maps, in
    training mode.
  """
  encoder, decoder = params['encoder'], params['decoder']
  return nn.ModuleDict({
      'encoder': nn.ModuleList(
          _make_down_block(encoder[f'down_{i}']) for i in range(len(encoder))
      ),
      'decoder': nn.ModuleList(
          _make_up_block(decoder[f'up_{i}']) for i in range(len(decoder))
      ),
  })


def compute_losses(
    model: nn.ModuleDict,
    images: torch.Tensor,
    attributes: torch.Tensor,
    weights: types.AttributeLossWeights,
) -> dict[str, torch.Tensor]:
  """Computes the terms of `attribute_objectives.teacher_objective`.

  Args:
    model: of `make_autoencoder`.
    images: `[B, 3, S, S]` in [-1, 1].
    attributes: `[B, K]` labels in {-1, +1}.
    weights: of the terms.

  Returns:
    Scalars by the names of the metrics; 'loss' is their weighted sum.
  """
  x = images
  for block in model['encoder']:
    x = block(x)
  num_factors = attributes.shape[1]
  factors = x[:, -num_factors:].mean((2, 3))
  nuisance = x[:, :-num_factors]
  x = nuisance
  for block in model['decoder']:
    channels = factors[:, :, None, None].expand(-1, -1, *x.shape[2:])
    x = block(torch.cat((x, channels), 1))
  flat = nuisance.flatten(1)
  covariance = (flat - flat.mean(0)).t() @ (factors - factors.mean(0))
  xcov = (covariance / len(images)).square().sum()
  terms = {
      'reconstruction': nn.functional.mse_loss(x, images),
      'attribute_hinge': (1 - factors * attributes).clamp(min=0).mean(),
      'cross_covariance': xcov if weights.squared_xcov else xcov.sqrt(),
  }
  terms['loss'] = (
      weights.lambda_reconstruction * terms['reconstruction']
      + weights.lambda_prediction * terms['attribute_hinge']
      + weights.lambda_xcov * terms['cross_covariance']
  )
  return terms


def make_train_step(
    params: types.Params,
    *,
    weights: types.AttributeLossWeights,
    learning_rate: float,
    b1: float,
) -> Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]:
  """Makes a training step with Adam.

  Args:
    params: to start from.
    weights: of the terms.
    learning_rate: of Adam.
    b1: of Adam.

  Returns:
    (images, attributes) -> the losses before the step.
  """
  model = make_autoencoder(params)
  optimizer = torch.optim.Adam(
      model.parameters(), lr=learning_rate, betas=(b1, 0.999)
  )

  def train_step(images, attributes):
    terms = compute_losses(model, images, attributes, weights)
    optimizer.zero_grad()
    terms['loss'].backward()
    optimizer.step()
    return terms

  return train_step


def make_steps(
    train_step: Callable[[torch.Tensor, torch.Tensor], Any],
    batch: types.Batch,
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
      train_step(images, attributes)

  return steps


def make_tensors(batch: types.Batch) -> tuple[torch.Tensor, torch.Tensor]:
  """Returns NumPy images and attributes as PyTorch has them, channels first."""
  images = torch.from_numpy(batch.images).permute(0, 3, 1, 2).contiguous()
  return images, torch.from_numpy(batch.labels)


def _make_down_block(params):
  kernel = np.array(params['kernel']).transpose(3, 2, 0, 1)
  features, channels = kernel.shape[:2]
  convolution = nn.Conv2d(channels, features, 4, stride=2, padding=1)
  _copy(convolution.weight, kernel)
  _copy(convolution.bias, params['bias'])
  return nn.Sequential(
      convolution, *_make_norm(params), nn.LeakyReLU(0.2, inplace=True)
  )


def _make_up_block(params):
  # Flax's transposed kernel is PyTorch's reversed.
  kernel = np.array(params['kernel'])[::-1, ::-1].transpose(2, 3, 0, 1)
  channels, features = kernel.shape[:2]
  convolution = nn.ConvTranspose2d(
      channels, features, 4, stride=2, padding=1, bias=False
  )
  _copy(convolution.weight, kernel)
  norm = _make_norm(params)
  activation = nn.ReLU(inplace=True) if norm else nn.Tanh()
  return nn.Sequential(convolution, *norm, activation)


def _make_norm(params):
  """Returns a list of the BatchNorm of a block, empty if it has none."""
  if 'norm' not in params:
    return []
  norm = nn.BatchNorm2d(len(params['norm']['scale']))
  _copy(norm.weight, params['norm']['scale'])
  _copy(norm.bias, params['norm']['bias'])
  return [norm]


def _copy(parameter, value):
  with torch.no_grad():
    parameter.copy_(torch.from_numpy(np.array(value)))
