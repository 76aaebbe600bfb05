"""Generators that know probabilities or latents, and discriminators of several verdicts."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from gan_runner import Discriminator, DiscriminatorOutput, Generator, Spec
from gan_runner.architectures import MLPDiscriminator, MLPGenerator
from gan_runner.schedules import Schedule, on_host


def layers(*sizes):
    """Linear layers with a rectifier between any two."""
    made = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*[part for layer in made for part in (layer, nn.ReLU())][:-1])


class VAE(MLPGenerator):
    """A decoder N(G(z), sigma^2) with its encoder. Kingma & Welling 2014."""

    capturable, bound = True, True

    def __init__(self, spec: Spec, latent: int = 4, width: int = 32):
        super().__init__(spec, latent, width, 2)
        self.encoder = layers(math.prod(spec.shape), width, 2 * latent)
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def log_prob(self, x, y, draws):
        mean, log_variance = self.encoder(x.flatten(1)).chunk(2, 1)
        z = mean + (log_variance / 2).exp() * draws.normal(self.latent)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        each = -((x - self(z)) * (-self.log_sigma).exp()).square() / 2 - self.log_sigma - math.log(2 * math.pi) / 2
        return each.flatten(1).sum(1) - kl

    def encode(self, x, y, draws):
        return self.encoder(x.flatten(1)).chunk(2, 1)[0]


class ActNorm(nn.Module):
    """x -> (x - shift) exp(-log_scale) per axis. Kingma & Dhariwal 2018."""

    capturable = True

    def __init__(self, axes):
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.zeros(axes)), nn.Parameter(torch.zeros(axes))

    def initialise(self, x):
        self.shift.copy_(x.mean(0))
        self.log_scale.copy_(x.std(0).log())

    def forward(self, x):
        return (x - self.shift) * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(x))

    def inverse(self, z):
        return z * self.log_scale.exp() + self.shift


class Coupling(nn.Module):
    """Scales and shifts one half by what the other says; `flip` exchanges the halves. Dinh et al. 2017."""

    capturable = True

    def __init__(self, axes, width, flip):
        super().__init__()
        self.flip, self.net = flip, layers(axes // 2, width, 2 * (axes - axes // 2))

    def initialise(self, x):
        """Nothing depends on the data."""

    def halves(self, x):
        a, b = x.chunk(2, 1)
        return (b, a) if self.flip else (a, b)

    def forward(self, x):
        a, b = self.halves(x)
        log_scale, shift = self.net(a).chunk(2, 1)
        log_scale = log_scale.tanh()
        b = b * log_scale.exp() + shift
        return torch.cat([b, a] if self.flip else [a, b], 1), log_scale.sum(1)

    def inverse(self, z):
        a, b = self.halves(z)
        log_scale, shift = self.net(a).chunk(2, 1)
        b = (b - shift) * (-log_scale.tanh()).exp()
        return torch.cat([b, a] if self.flip else [a, b], 1)


class Flow(Generator):
    """RealNVP with ActNorm on vectors of even length."""

    capturable = True

    def __init__(self, spec: Spec, depth: int = 4, width: int = 16):
        super().__init__()
        self.latent, self.shape = math.prod(spec.shape), spec.shape
        self.parts = nn.ModuleList(
            part for i in range(depth) for part in (ActNorm(self.latent), Coupling(self.latent, width, flip=bool(i % 2)))
        )

    @torch.no_grad()
    def initialise(self, x, draws):
        x = x.flatten(1)
        for part in self.parts:
            part.initialise(x)
            x = part(x)[0]

    def through(self, x):
        z, log_det = x.flatten(1), 0.0
        for part in self.parts:
            z, more = part(z)
            log_det = log_det + more
        return z, log_det

    def encode(self, x, y, draws):
        return self.through(x)[0]

    def log_prob(self, x, y, draws):
        z, log_det = self.through(x)
        return (-z.square() / 2 - math.log(2 * math.pi) / 2).sum(1) + log_det

    def forward(self, z, y=None):
        for part in reversed(self.parts):
            z = part.inverse(z)
        return z.unflatten(1, self.shape)


class Masked(nn.Linear):
    """A linear layer some of whose weights are 0."""

    capturable = True

    def __init__(self, mask):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float())

    def forward(self, x):
        return F.linear(x, self.weight * self.mask, self.bias)


class MADE(Generator):
    """Every entry is normal given those before it. Germain et al. 2015."""

    capturable = True

    def __init__(self, spec: Spec, width: int = 32):
        super().__init__()
        self.latent, self.shape = math.prod(spec.shape), spec.shape
        self.passes = self.latent
        entry, unit = torch.arange(self.latent), torch.arange(width) % max(self.latent - 1, 1)
        self.net = nn.Sequential(Masked(unit[:, None] >= entry), nn.ReLU(), Masked(entry.repeat(2)[:, None] > unit))

    def law(self, x):
        mean, log_sigma = self.net(x.flatten(1)).chunk(2, 1)
        return mean, log_sigma.clamp(-5, 5)

    def log_prob(self, x, y, draws):
        mean, log_sigma = self.law(x)
        return (-((x.flatten(1) - mean) * (-log_sigma).exp()).square() / 2 - log_sigma - math.log(2 * math.pi) / 2).sum(1)

    def forward(self, z, y=None):
        x = torch.zeros_like(z)
        for i in range(self.latent):
            mean, log_sigma = self.law(x)
            x = torch.cat([x[:, :i], (mean + log_sigma.exp() * z)[:, i : i + 1], x[:, i + 1 :]], 1)
        return x.unflatten(1, self.shape)


class BiGenerator(MLPGenerator):
    """Emits (sample, latent); its encoder puts real data there. Donahue et al. 2017, Dumoulin et al. 2017."""

    capturable = True

    def __init__(self, spec: Spec, latent: int = 4, width: int = 32):
        super().__init__(spec, latent, width, 2)
        self.encoder = layers(math.prod(spec.shape), width, latent)

    def encode(self, x, y, draws):
        return self.encoder(x.flatten(1))

    def view(self, x, draws):
        return x, self.encode(x, None, draws)

    def show(self, sample):
        return sample[0]

    def forward(self, z, y=None):
        return super().forward(z, y), z


class PairCritic(Discriminator):
    """Sees a sample beside a latent."""

    capturable = True

    def __init__(self, spec: Spec, latent: int = 4, width: int = 32):
        super().__init__()
        self.features, self.body, self.head = width, layers(math.prod(spec.shape) + latent, width, width), nn.Linear(width, 1)

    def forward(self, sample, y=None):
        x, z = sample
        features = self.body(torch.cat([x.flatten(1), z], 1)).relu()
        return DiscriminatorOutput(self.head(features).squeeze(1), features)


class InfoGenerator(MLPGenerator):
    """The last entries of z are codes: a category and numbers in [-1, 1]. Chen et al. 2016."""

    capturable = True

    def __init__(self, spec: Spec, latent: int = 9, width: int = 32, categories: int = 4, continuous: int = 1):
        super().__init__(spec, latent, width, 2)
        self.categories, self.continuous = categories, continuous

    def prior(self, draws):
        noise = draws.normal(self.latent - self.categories - self.continuous)
        category = (draws.integers(self.categories)[:, None] == torch.arange(self.categories, device=noise.device)).float()
        return torch.cat([noise, category, 2 * draws.uniform(self.continuous) - 1], 1)


class KPlusOne(MLPDiscriminator):
    """The logit is the logsumexp of K class logits. Salimans et al. 2016."""

    capturable = True

    def __init__(self, spec: Spec, width: int = 32):
        super().__init__(spec, width, 2)
        self.head = nn.Linear(width, spec.classes)

    def forward(self, sample, y=None):
        features = self.body(sample.flatten(1))
        return DiscriminatorOutput(torch.logsumexp(self.head(features), 1), features)


class Inpainter(Generator):
    """Makes what is masked out, and keeps the rest. Goodfellow et al. 2014, section 7."""

    capturable = True

    def __init__(self, spec: Spec, latent: int = 4, width: int = 32, keep: float = 0.5):
        super().__init__()
        axes = math.prod(spec.shape)
        self.latent, self.shape, self.keep, self.body = latent, spec.shape, keep, layers(latent + 2 * axes, width, axes)

    def asked(self, batch, draws):
        mask = (draws.uniform(*self.shape) < self.keep).float()
        return batch.x * mask, mask

    given = asked

    def forward(self, z, y=None):
        seen, mask = y
        made = self.body(torch.cat([z, seen.flatten(1), mask.flatten(1)], 1)).tanh().unflatten(1, self.shape)
        return mask * seen + (1 - mask) * made


class HoleCritic(Discriminator):
    """Sees a sample beside what was given of it."""

    capturable = True

    def __init__(self, spec: Spec, width: int = 32):
        super().__init__()
        self.features, self.body, self.head = width, layers(3 * math.prod(spec.shape), width, width), nn.Linear(width, 1)

    def forward(self, sample, y=None):
        features = self.body(torch.cat([part.flatten(1) for part in (sample, *y)], 1)).relu()
        return DiscriminatorOutput(self.head(features).squeeze(1), features)


class TwoMaps(Generator):
    """Maps of one domain to the other: a sample is (a, b), side by side. Zhu et al. 2017."""

    capturable = True

    def __init__(self, spec: Spec, width: int = 16):
        super().__init__()
        self.latent, side = 1, spec.shape[0] // 2
        self.to_a, self.to_b = layers(side, width, side), layers(side, width, side)

    def asked(self, batch, draws):
        return batch.x

    def forward(self, z, y=None):
        a, b = y.chunk(2, 1)
        return torch.cat([self.to_a(b), self.to_b(a)], 1)


class TwoCritics(Discriminator):
    """One critic for each domain: logits N 2."""

    capturable = True

    def __init__(self, spec: Spec, width: int = 16):
        super().__init__()
        side, self.features = spec.shape[0] // 2, 2 * width
        self.bodies = nn.ModuleList(layers(side, width, width) for _ in "ab")
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in "ab")

    def forward(self, sample, y=None):
        features = [body(part).relu() for body, part in zip(self.bodies, sample.chunk(2, 1), strict=True)]
        logits = torch.cat([head(part) for head, part in zip(self.heads, features, strict=True)], 1)
        return DiscriminatorOutput(logits, torch.cat(features, 1))


class Stages(Schedule):
    """0, and one more every `rounds` rounds up to `last`."""

    capturable = True

    def __init__(self, rounds: int = 7, last: int = 2):
        super().__init__()
        self.rounds, self.last = rounds, last

    def at(self, step, run):
        return min(step // self.rounds, self.last)


class Growing(MLPGenerator):
    """Has as many more layers as a schedule says."""

    capturable = True

    def __init__(self, spec: Spec, latent: int = 4, width: int = 16, stage: float | Schedule = 2.0):
        super().__init__(spec, latent, width, 1)
        self.more, self.stage = nn.ModuleList(nn.Linear(width, width) for _ in range(2)), on_host(stage)

    def forward(self, z, y=None):
        h = self.body(z)
        for layer in self.more[: int(self.stage.now)]:
            h = layer(h).relu()
        return self.head(h).unflatten(1, self.shape)
