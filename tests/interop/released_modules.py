"""The released networks' layouts as PyTorch modules, for tests.

`released_modules.npz` has small ones with random weights and what they compute,
for tests without PyTorch. In this folder it was made by

  python -c "import released_modules as m; m.save()"
"""

import pathlib

import numpy as np
import torch
from torch import nn

PATH = pathlib.Path(__file__).with_suffix('.npz')


class Digits(nn.Module):
  """Linear layers; codes are (nuisance, factors)."""

  def __init__(self, sizes, num_factors, normalize):
    super().__init__()
    self.num_factors = num_factors
    norm = [nn.BatchNorm1d(sizes[-1], affine=False)] if normalize else []
    self.encoder = nn.Sequential(*_dense(sizes), *norm)
    self.decoder = nn.Sequential(*_dense(sizes[::-1]), nn.Tanh())

  def encode(self, images):
    code = self.encoder(images.flatten(1))
    sizes = [code.shape[1] - self.num_factors, self.num_factors]
    return torch.split(code, sizes, dim=1)

  def decode(self, nuisance, factors):
    return self.decoder(torch.cat([nuisance, factors], 1))


class Judge(nn.Module):
  """Linear layers with names."""

  def __init__(self, sizes):
    super().__init__()
    self.model = nn.Sequential()
    for name, fan_in, features in zip(('fc1', 'fc2', 'out'), sizes, sizes[1:]):
      self.model.add_module(name, nn.Linear(fan_in, features))

  def forward(self, images):
    hidden = torch.relu(self.model.fc1(images.flatten(1)))
    return self.model.out(torch.relu(self.model.fc2(hidden)))


class Faces(nn.Module):
  """Convolutions down to 2x2 and back; factors are the last channels."""

  def __init__(self, widths, channels, num_factors):
    super().__init__()
    self.channels = channels
    sizes = [3, *widths, channels + num_factors]
    self.enc_layers = nn.ModuleList(
      nn.Sequential(
        nn.Conv2d(fan_in, features, 4, 2, 1),
        *([nn.BatchNorm2d(features)] if i else []),
        nn.LeakyReLU(0.2),
      )
      for i, (fan_in, features) in enumerate(zip(sizes, sizes[1:]))
    )
    sizes = [channels, *widths[::-1], 3]
    self.dec_layers = nn.ModuleList(
      nn.Sequential(
        nn.ConvTranspose2d(fan_in + num_factors, features, 4, 2, 1, bias=False),
        *([nn.BatchNorm2d(features)] if i < len(widths) else []),
        nn.ReLU() if i < len(widths) else nn.Tanh(),
      )
      for i, (fan_in, features) in enumerate(zip(sizes, sizes[1:]))
    )

  def encode(self, images):
    x = images
    for layer in self.enc_layers:
      x = layer(x)
    return x[:, : self.channels], x[:, self.channels :].mean((2, 3))

  def decode(self, nuisance, factors):
    x = nuisance
    for layer in self.dec_layers:
      constant = factors[:, :, None, None].expand(-1, -1, *x.shape[2:])
      x = layer(torch.cat([x, constant], 1))
    return x


def make(kind: str) -> nn.Module:
  """Makes a small network with random weights and statistics."""
  torch.manual_seed(0)
  sizes = [16, 8, 6, 4]
  if kind == 'mnist_teacher':
    module = Digits([*sizes, 2], 2, True)
  elif kind == 'mnist_student':
    module = Digits([*sizes, 5], 2, False)
  elif kind == 'mnist_judge':
    module = Judge([16, 6, 5, 4])
  else:
    module = Faces([4, 8], 5, 3)
  for norm in module.modules():
    if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
      norm.running_mean.normal_()
      norm.running_var.uniform_(0.3, 3)
      norm.num_batches_tracked.fill_(77)
      if norm.affine:
        norm.weight.data.normal_()
        norm.bias.data.normal_()
  return module.eval()


def measure(kind: str) -> dict[str, np.ndarray]:
  """Returns the weights of a small network, and what it computes."""
  module = make(kind)
  shape = (3, 3, 16, 16) if kind == 'celeba' else (3, 1, 4, 4)
  images = torch.rand(shape)
  found = {f'state/{n}': x.numpy() for n, x in module.state_dict().items()}
  found['images'] = images.numpy()
  if kind == 'mnist_judge':
    return found | {'outputs': module(images).detach().numpy()}
  nuisance, factors = (x.detach() for x in module.encode(images))
  factors.requires_grad_()
  outputs = module.decode(nuisance, factors)
  (gradient,) = torch.autograd.grad(outputs.square().sum(), factors)
  return found | {
    'nuisance': nuisance.numpy(),
    'factors': factors.detach().numpy(),
    'outputs': outputs.detach().numpy(),
    # Of the sum of the squared outputs, with respect to the factors.
    'gradient': gradient.numpy(),
  }


def save() -> None:
  kinds = ('mnist_teacher', 'mnist_student', 'mnist_judge', 'celeba')
  arrays = {f'{k}/{n}': x for k in kinds for n, x in measure(k).items()}
  np.savez_compressed(PATH, **arrays)


def _dense(sizes):
  layers = []
  for fan_in, features in zip(sizes, sizes[1:]):
    layers += [nn.ReLU()] if layers else []
    layers.append(nn.Linear(fan_in, features))
  return layers
