"""The same training steps in PyTorch: eager, and made faster rung by rung.

As the released code has them: one pass through a decoder for the code and
another for the swapped code, of the student and of the teacher; on faces the
factors are repeated over every feature map and concatenated to it, unless they
are added as a bias, as ours are. The teacher is under `no_grad`, which is
faster than the released code's `detach`. Batches are slices of a float tensor
on the device, so that loading costs nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks import timing
from jacsup_jax.core import codes

Terms = dict[str, torch.Tensor]


class Rung(NamedTuple):
  """How a step is made fast; each of `RUNGS` adds to the one before."""

  name: str
  # Feature maps in the order of NHWC, bfloat16 by autocast, cudnn.benchmark
  # and fused Adam; otherwise PyTorch's defaults, which on a GPU allow TF32 in
  # convolutions and not in products.
  is_mixed: bool = False
  # torch.compile of each loss with its derivative: swap and teacher included.
  is_compiled: bool = False
  is_graph: bool = False  # the whole step is one CUDA graph


EAGER = Rung('eager')
RUNGS = (
  EAGER,
  Rung('bfloat16', True),
  Rung('compiled', True, True),
  Rung('CUDA graph', True, True, True),
)


class Code(NamedTuple):
  factors: torch.Tensor  # [B, K]
  nuisance: torch.Tensor  # [B, D], or [B, C, 2, 2]

  def swap(self, permutation: torch.Tensor) -> 'Code':
    return Code(self.factors[permutation], self.nuisance)


class Mlp(nn.Module):
  """A `MlpAutoencoder` with its parameters, of `[B, H * W * C]` images."""

  def __init__(self, variables: codes.Variables, num_factors: int):
    super().__init__()
    params, self.num_factors = variables['params'], num_factors
    list_layers = lambda tree, count: [
      _make_linear(tree[f'dense_{i}']) for i in range(count)
    ]
    *hidden, last = list_layers(params['decoder'], len(params['decoder']))
    self.decoder = nn.Sequential(*_add_relus(hidden), last, nn.Tanh())
    hidden = list_layers(params['encoder'], len(params['encoder']) - 1)
    code = _make_linear(params['encoder']['code'])
    self.encoder = nn.Sequential(*_add_relus(hidden), code)

  def encode(self, images: torch.Tensor) -> Code:
    flat = self.encoder(images)
    return Code(flat[:, : self.num_factors], flat[:, self.num_factors :])

  def decode(self, code: Code) -> torch.Tensor:
    return self.decoder(torch.cat(code, 1))


class Faces(nn.Module):
  """A `FaceAutoencoder` with its variables, of `[B, 3, S, S]` images.

  `as_bias`: what the factors add to a layer is computed once for each kind of
  pixel, as `convolutions.up_constants` does.
  """

  def __init__(
    self, variables: codes.Variables, num_factors: int, as_bias: bool = False
  ):
    super().__init__()
    self.num_factors, self.as_bias = num_factors, as_bias

    def make_blocks(part, prefix, make_block):
      params = variables['params'][part]
      stats = variables['batch_stats'][part]
      names = [f'{prefix}_{i}' for i in range(len(params))]
      return nn.ModuleList(make_block(params[x], stats.get(x)) for x in names)

    self.encoder = make_blocks('encoder', 'down', _make_down_block)
    self.decoder = make_blocks('decoder', 'up', _make_up_block)

  def encode(self, images: torch.Tensor) -> Code:
    x = images
    for block in self.encoder:
      x = block(x)
    factors = x[:, -self.num_factors :].mean((2, 3))
    return Code(factors, x[:, : -self.num_factors])

  def decode(self, code: Code) -> torch.Tensor:
    x = code.nuisance
    for block in self.decoder:
      if self.as_bias:
        x = _convolve_apart(block[0].weight, x, code.factors)
        x = block[1:](x)
        continue
      channels = code.factors[:, :, None, None].expand(-1, -1, *x.shape[2:])
      x = block(torch.cat((x, channels), 1))
    return x


def make_program(
  problem,
  num_steps: int,
  rung: Rung = EAGER,
  device: str = 'cpu',
  as_bias: bool = False,
) -> Callable[[], None]:
  """Makes a function that takes steps, and returns when they are done."""
  torch.set_num_threads(timing.count_threads())
  train_step = make_train_step(problem, rung, device, as_bias)
  images, attributes = make_tensors(problem, device)
  if rung.is_mixed and images.ndim == 4:
    images = images.contiguous(memory_format=torch.channels_last)
  size = problem.step.batch_size
  torch.backends.cudnn.benchmark = rung.is_mixed
  if rung.is_graph:
    train_step = _capture(train_step, images[:size], attributes)

  def program():
    torch.backends.cudnn.benchmark = (
      rung.is_mixed
    )  # another may have changed it
    for i in range(num_steps):
      start = i * size % len(images)
      batch = images[start : start + size]
      train_step(batch, attributes, torch.randperm(size, device=device))
    if device != 'cpu':
      torch.cuda.synchronize()

  return program


def make_tensors(
  problem, device: str = 'cpu'
) -> tuple[torch.Tensor, torch.Tensor | None]:
  """Returns images as the modules take them, and attributes, as floats."""
  images = torch.from_numpy(problem.images).to(device).float()
  if problem.attributes is None:
    return images.flatten(1) / 255, None
  images = (2 * images.permute(0, 3, 1, 2).contiguous() - 255) / 255
  return images, torch.from_numpy(problem.attributes).to(device).float()


def make_train_step(
  problem, rung: Rung = EAGER, device: str = 'cpu', as_bias: bool = False
) -> Callable[..., Terms]:
  """Makes `(images, attributes, permutation) -> terms`, a step with Adam.

  The terms are those before each update, by the names of the metrics.
  """
  model, teacher = _make_models(problem, rung, device, as_bias)
  weights = problem.step.weights
  encoder_adam, decoder_adam = _make_optimizers(problem, rung, model)

  def objective(images, attributes, permutation):
    with torch.autocast(device, torch.bfloat16, enabled=rung.is_mixed):
      return compute_terms(
        model, teacher, images, attributes, permutation, weights
      )

  def cycle_objective(images, permutation):
    with torch.autocast(device, torch.bfloat16, enabled=rung.is_mixed):
      return compute_cycle_terms(model, images, permutation, weights)

  if rung.is_compiled:
    objective = torch.compile(objective)
    cycle_objective = torch.compile(cycle_objective)

  def update(terms, *adams):
    for each in adams:
      each.zero_grad()
    terms['loss'].backward()
    for each in adams:
      each.step()

  def train_step(images, attributes, permutation):
    terms = objective(images, attributes, permutation)
    update(terms, encoder_adam, decoder_adam)
    if not getattr(weights, 'needs_cycle', False):
      return terms
    model.encoder.requires_grad_(False)
    cycle_terms = cycle_objective(images, permutation)
    update(cycle_terms, decoder_adam)
    model.encoder.requires_grad_(True)
    loss = terms['loss'] + cycle_terms['loss']
    return {**terms, **cycle_terms, 'loss': loss}

  return train_step


def compute_terms(model, teacher, images, attributes, permutation, weights):
  """Computes the terms of the objectives of all updates but the cycle's."""
  code = model.encode(images)
  decoded = model.decode(code)
  flat, factors = code.nuisance.flatten(1), code.factors
  covariance = (flat - flat.mean(0)).t() @ (factors - factors.mean(0))
  xcov = (covariance / len(images)).square().sum()
  mse = nn.functional.mse_loss
  terms = {
    'reconstruction': mse(decoded, images),
    'cross_covariance': xcov if weights.xcov == 'squared' else xcov.sqrt(),
  }
  if attributes is not None:
    terms['attribute_hinge'] = (1 - factors * attributes).clamp(min=0).mean()
  if teacher is not None:
    with torch.no_grad():
      theirs = teacher.encode(images)
      change = teacher.decode(theirs.swap(permutation)) - teacher.decode(theirs)
    terms['factor_matching'] = mse(factors, theirs.factors)
    swapped = model.decode(code.swap(permutation))
    terms['jacobian'] = mse(swapped - decoded, change)
  return _add_loss(
    terms,
    reconstruction=getattr(weights, 'lambda_reconstruction', 1.0),
    cross_covariance=weights.lambda_xcov,
    attribute_hinge=getattr(weights, 'lambda_prediction', 0.0),
    factor_matching=weights.lambda_y,
    jacobian=weights.lambda_diff,
  )


def compute_cycle_terms(model, images, permutation, weights) -> Terms:
  """Computes the terms of `objectives.cycle_objective`."""
  with torch.no_grad():
    code = model.encode(images)
  swapped = code.swap(permutation)
  cycled = model.encode(model.decode(swapped))
  nuisance = (cycled.nuisance - code.nuisance).square().flatten(1).sum(1)
  hinge = (1 - cycled.factors * swapped.factors).clamp(min=0)
  terms = {'attribute_cycle': hinge.mean(), 'nuisance_cycle': nuisance.mean()}
  return _add_loss(
    terms,
    attribute_cycle=weights.lambda_attribute_cycle,
    nuisance_cycle=weights.lambda_nuisance_cycle,
  )


def _make_models(problem, rung, device, as_bias):
  """Makes the model and its teacher, which is frozen, or None."""
  num_factors = problem.step.module.num_factors

  def make(variables):
    if problem.attributes is None:
      return Mlp(variables, num_factors).to(device)
    model = Faces(variables, num_factors, as_bias).to(device)
    if rung.is_mixed:
      model.to(memory_format=torch.channels_last)
    return model

  teacher = problem.teacher and make(problem.teacher)
  if teacher is not None:
    teacher.eval().requires_grad_(False)
  return make(problem.variables), teacher


def _make_optimizers(problem, rung, model):
  """Makes Adam for the encoder and for the decoder."""
  optimization = problem.step.optimization
  options = {
    'lr': optimization.learning_rate,
    'betas': (optimization.adam_b1, 0.999),
    'weight_decay': optimization.weight_decay,
  }
  if rung.is_mixed:
    options['fused'] = True
  if rung.is_graph:
    options['capturable'] = True
  return [
    torch.optim.Adam(part.parameters(), **options)
    for part in (model.encoder, model.decoder)
  ]


def _capture(train_step, images, attributes):
  """Captures a step as a CUDA graph, which reads its batch from one place."""
  permutation = torch.randperm(len(images), device=images.device)
  own = images.clone(), attributes, permutation
  stream = torch.cuda.Stream()
  stream.wait_stream(torch.cuda.current_stream())
  # PyTorch wants some steps on another stream before.
  with torch.cuda.stream(stream):
    for _ in range(3):
      train_step(*own)
  torch.cuda.current_stream().wait_stream(stream)
  graph = torch.cuda.CUDAGraph()
  with torch.cuda.graph(graph):
    train_step(*own)

  def replay(images, unused_attributes, permutation):
    own[0].copy_(images)
    own[2].copy_(permutation)
    graph.replay()

  return replay


def _convolve_apart(weight, x, factors):
  """Convolves a map and constant channels apart, and adds the results."""
  count = x.shape[1]
  options = {'stride': 2, 'padding': 1}
  convolve = nn.functional.conv_transpose2d
  # Of 3x3 constant pixels, 6x6: the first row, two inner kinds twice, the last.
  constants = factors[:, :, None, None].expand(-1, -1, 3, 3)
  pattern = convolve(constants, weight[count:], **options)
  for axis in (2, 3):
    repeats = [1, 1, 1, 1]
    repeats[axis] = x.shape[axis] - 1
    kinds = pattern.split((1, 2, 2, 1), axis)
    inner = kinds[1].repeat(repeats)
    pattern = torch.cat((kinds[0], inner, kinds[3]), axis)
  return convolve(x, weight[:count], **options) + pattern


def _add_loss(terms, **weights):
  loss = sum(weights[name] * term for name, term in terms.items())
  return {**terms, 'loss': loss}


def _add_relus(layers):
  return [x for each in layers for x in (each, nn.ReLU(inplace=True))]


def _make_linear(params):
  linear = nn.Linear(*params['kernel'].shape)
  _copy(linear.weight, np.array(params['kernel']).T)
  _copy(linear.bias, params['bias'])
  return linear


def _make_down_block(params, stats):
  kernel = np.array(params['kernel']).transpose(3, 2, 0, 1)
  conv = nn.Conv2d(*kernel.shape[1::-1], 4, stride=2, padding=1)
  _copy(conv.weight, kernel)
  _copy(conv.bias, params['bias'])
  activation = nn.LeakyReLU(0.2, inplace=True)
  return nn.Sequential(conv, *_make_norm(params, stats), activation)


def _make_up_block(params, stats):
  # Flax's transposed kernel is PyTorch's reversed.
  kernel = np.array(params['kernel'])[::-1, ::-1].transpose(2, 3, 0, 1)
  options = {'stride': 2, 'padding': 1, 'bias': False}
  conv = nn.ConvTranspose2d(*kernel.shape[:2], 4, **options)
  _copy(conv.weight, kernel)
  norm = _make_norm(params, stats)
  activation = nn.ReLU(inplace=True) if norm else nn.Tanh()
  return nn.Sequential(conv, *norm, activation)


def _make_norm(params, stats):
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
