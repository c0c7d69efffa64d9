"""The student's step of `mnist_step` in PyTorch, for `experiments.benchmark`.

It does what the released code does, eager
and with PyTorch's defaults: a pass through the decoder for the code and another
for the swapped code, of the student and of the teacher. The teacher is under
`no_grad`, which is faster than the released code's `detach`; batches are slices
of a float tensor, so that loading costs nothing.
"""

from collections.abc import Callable, Mapping
import itertools
from typing import Any

import jax
import numpy as np
from PIL import Image
import torch
from torch import nn
from torch.utils import data

from jacsup_jax.core import codes
from jacsup_jax.core import config


def make_autoencoder(params: codes.Params) -> nn.ModuleDict:
  """Makes the modules of a `networks.MlpAutoencoder` with its parameters.

  Args:
    params: of the autoencoder, without a normalised code.

  Returns:
    'encoder' and 'decoder', of `[B, H * W * C]` images and flat codes in the
    order of `latents`.
  """
  encoder, decoder = params['encoder'], params['decoder']
  hidden = lambda layers: [layers[f'dense_{i}'] for i in range(len(layers) - 1)]
  last = f'dense_{len(decoder) - 1}'
  return nn.ModuleDict({
      'encoder': nn.Sequential(
          *_make_hidden(hidden(encoder)), _make_linear(encoder['code'])
      ),
      'decoder': nn.Sequential(
          *_make_hidden(hidden(decoder)), _make_linear(decoder[last]), nn.Tanh()
      ),
  })


def compute_losses(
    student: nn.ModuleDict,
    teacher: nn.ModuleDict,
    images: torch.Tensor,
    permutation: torch.Tensor,
    *,
    num_factors: int,
    weights: config.LossWeights,
) -> dict[str, torch.Tensor]:
  """Computes the terms of `objectives.student_objective`.

  Args:
    student: with a code of `num_factors` factors and its nuisance units.
    teacher: with a code of `num_factors` factors.
    images: `[B, H * W * C]` in [0, 1].
    permutation: `[B]` int64, the partner j of each example.
    num_factors: K.
    weights: of the terms.

  Returns:
    Scalars by the names of the metrics; 'loss' is their weighted sum.
  """
  code = student['encoder'](images)
  factors, nuisance = code[:, :num_factors], code[:, num_factors:]
  decoded = student['decoder'](code)
  swapped = student['decoder'](torch.cat((factors[permutation], nuisance), 1))
  with torch.no_grad():
    teacher_factors = teacher['encoder'](images)
    teacher_change = teacher['decoder'](teacher_factors[permutation]) - teacher[
        'decoder'
    ](teacher_factors)
  centred_factors = factors - factors.mean(0)
  centred_nuisance = nuisance - nuisance.mean(0)
  covariance = centred_nuisance.t() @ centred_factors / len(images)
  xcov = covariance.square().sum()
  terms = {
      'reconstruction': nn.functional.mse_loss(decoded, images),
      'factor_matching': nn.functional.mse_loss(factors, teacher_factors),
      'jacobian': nn.functional.mse_loss(swapped - decoded, teacher_change),
      'cross_covariance': xcov if weights.squared_xcov else xcov.sqrt(),
  }
  terms['loss'] = (
      terms['reconstruction']
      + weights.lambda_y * terms['factor_matching']
      + weights.lambda_diff * terms['jacobian']
      + weights.lambda_xcov * terms['cross_covariance']
  )
  return terms


def make_train_step(
    student_params: codes.Params,
    teacher_params: codes.Params,
    *,
    num_factors: int,
    weights: config.LossWeights,
    learning_rate: float,
    weight_decay: float,
) -> Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]:
  """Makes a training step with Adam and weight decay as L2 in the gradient.

  Args:
    student_params: to start from.
    teacher_params: of a teacher whose whole code is factors.
    num_factors: see `compute_losses`.
    weights: of the terms.
    learning_rate: of Adam.
    weight_decay: of Adam.

  Returns:
    (images, permutation) -> the losses before the step.
  """
  student = make_autoencoder(student_params)
  teacher = make_autoencoder(teacher_params)
  optimizer = torch.optim.Adam(
      student.parameters(), lr=learning_rate, weight_decay=weight_decay
  )

  def train_step(images, permutation):
    terms = compute_losses(
        student,
        teacher,
        images,
        permutation,
        num_factors=num_factors,
        weights=weights,
    )
    optimizer.zero_grad()
    terms['loss'].backward()
    optimizer.step()
    return terms

  return train_step


def make_epoch(
    train_step: Callable[[torch.Tensor, torch.Tensor], Any],
    images: np.ndarray,
    batch_size: int,
    num_threads: int,
) -> Callable[[], None]:
  """Makes a function that takes a step of each batch of images.

  Args:
    train_step: of `make_train_step`.
    images: `[M, H, W, C]` uint8.
    batch_size: an incomplete last batch is left out.
    num_threads: that PyTorch uses from now on.

  Returns:
    A function without arguments.
  """
  torch.set_num_threads(num_threads)
  floats = torch.from_numpy(images).flatten(1).float() / 255
  batches = [
      batch for batch in floats.split(batch_size) if len(batch) == batch_size
  ]

  def epoch():
    for batch in batches:
      train_step(batch, torch.randperm(batch_size))

  return epoch


def make_loaded_epoch(
    train_step: Callable[[torch.Tensor, torch.Tensor], Any],
    images: np.ndarray,
    batch_size: int,
    num_threads: int,
) -> Callable[[], None]:
  """Makes an epoch that reads its images as PyTorch's tutorials do.

  A `DataLoader` without workers, which shuffles, of a set that makes a picture
  of an image and a tensor of that, as torchvision's MNIST and `ToTensor` do.

  Args:
    train_step: of `make_train_step`.
    images: `[M, H, W, 1]` uint8.
    batch_size: an incomplete last batch is left out.
    num_threads: that PyTorch uses from now on.

  Returns:
    A function without arguments.
  """
  torch.set_num_threads(num_threads)
  loader = data.DataLoader(
      _Pictures(images), batch_size, shuffle=True, drop_last=True
  )

  def epoch():
    for batch in loader:
      train_step(batch.flatten(1), torch.randperm(batch_size))

  return epoch


class _Pictures(data.Dataset):
  """Images, each by way of a picture."""

  def __init__(self, images):
    self._images = torch.from_numpy(images[..., 0])

  def __len__(self):
    return len(self._images)

  def __getitem__(self, index):
    picture = Image.fromarray(self._images[index].numpy(), mode='L')
    # As ToTensor: bytes, channels first, floats in [0, 1].
    array = torch.from_numpy(np.array(picture, np.uint8, copy=True))
    return array[None].contiguous().to(torch.float32).div(255)


def _make_hidden(layers):
  """Returns linear layers, each with the ReLU after it."""
  return itertools.chain.from_iterable(
      (_make_linear(layer), nn.ReLU(inplace=True)) for layer in layers
  )


def _make_linear(params: Mapping[str, jax.Array]) -> nn.Linear:
  fan_in, fan_out = params['kernel'].shape
  linear = nn.Linear(fan_in, fan_out)
  with torch.no_grad():
    linear.weight.copy_(torch.from_numpy(np.array(params['kernel']).T))
    linear.bias.copy_(torch.from_numpy(np.array(params['bias'])))
  return linear
