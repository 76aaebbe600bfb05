"""Draw random numbers that do not depend on batch size, device or number of processes."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from gan_runner.errors import UserError

TINY = 2.0**-26  # half of the step between the uniform numbers that are drawn: keeps Phi^-1 finite
FIXED = "this prior draws whole numbers, and latents can be moved only where all of them are continuous"


def seeded(*key: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Create a random generator that is seeded by the key.

    The key is hashed, because torch's CPU generator reads only the low 32 bits of a seed, and two uses of one seed must draw different
    numbers.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:4], "little"))


def chosen(n: int | None, total: int, *key: object) -> Tensor:
    """Choose n of `total` samples at random by the key; returns ascending indices. None, or n >= total: all.

    Use this to take a part of any samples: the first ones of a folder or an array may all be of one class.
    """
    if n is None or n >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=seeded(*key))[:n].sort().values


def falls_on(one_in: int, *key: object) -> bool:
    """Return True for a pseudo-random 1 / one_in of all keys."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "little") % one_in == 0


class Draws:
    """Random rows for a batch, drawn without knowing the size of the batch.

    They are drawn once for the global batch of `size` samples. A process or a micro-batch has a view (`of(rows)`) and reads its own rows,
    by the same sequence of calls. So the numbers of a sample do not depend on the number of processes or micro-batches.
    """

    def __init__(self, generator: torch.Generator, size: int, rows: slice = slice(None), made: list[Tensor] | None = None):
        self.generator, self.size, self.rows = generator, size, rows
        self.made: list[Tensor] = [] if made is None else made
        self.read = 0

    def of(self, rows: slice) -> Draws:
        """Return a view of the same numbers for the samples `rows` of the global batch."""
        return Draws(self.generator, self.size, rows, self.made)

    def again(self) -> Draws:
        """Return the same numbers, to be read once more from the next one on."""
        same = Draws(self.generator, self.size, self.rows, self.made)
        same.read = self.read
        return same

    @property
    def whole(self) -> Draws:
        """The rows of all processes and micro-batches. What is read here counts as read there."""
        return _WholeDraws(self)

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers, N x shape."""
        return self._draw(lambda n, **where: torch.randn(n, *shape, **where))

    def uniform(self, *shape: int) -> Tensor:
        """Draw uniform numbers in [0, 1), N x shape."""
        return self._draw(lambda n, **where: torch.rand(n, *shape, **where))

    def integers(self, high: int) -> Tensor:
        """Draw uniform integers in 0 ... high - 1, N."""
        return self._draw(lambda n, **where: torch.randint(high, (n,), **where))

    def number(self) -> Tensor:
        """Return the number of each sample, N: its row in the global batch, or its place in an endless sequence."""
        return torch.arange(self.size, device=self.generator.device)[self.rows]

    def _draw(self, make: Callable[..., Tensor]) -> Tensor:
        if self.read == len(self.made):
            self.made.append(make(self.size, generator=self.generator, device=self.generator.device))
        self.read += 1
        return self.made[self.read - 1][self.rows]


class _WholeDraws(Draws):
    """All rows of some draws."""

    def __init__(self, part: Draws):
        super().__init__(part.generator, part.size, slice(None), part.made)
        self.part = part

    def again(self) -> Draws:
        return self.part.again().whole

    def _draw(self, make: Callable[..., Tensor]) -> Tensor:
        self.part._draw(make)
        return self.made[self.part.read - 1]


class NumberedDraws(Draws):
    """Rows of an infinite sequence: row i depends only on the key and i.

    The numbers are drawn on the CPU, in blocks of a fixed size. So sample i is the same for any number of samples, batch size, number of
    processes and device.
    """

    block = 256

    def __init__(self, *key: object, indices: Tensor, device: torch.device | str = "cpu"):
        self.device, self.indices, self.within = device, indices, indices.cpu() % self.block
        numbers, self.block_of = (indices.cpu() // self.block).unique(return_inverse=True)
        self.blocks = [seeded(*key, number) for number in numbers.tolist()]

    def again(self) -> NumberedDraws:
        same = copy.copy(self)
        same.blocks = [generator.clone_state() for generator in self.blocks]
        return same

    @property
    def whole(self) -> NumberedDraws:
        return self

    def number(self) -> Tensor:
        return self.indices.to(self.device)

    def _draw(self, make: Callable[..., Tensor]) -> Tensor:
        drawn = torch.stack([make(self.block, generator=generator) for generator in self.blocks])
        return drawn[self.block_of, self.within].to(self.device)


class CountedDraws(Draws):
    """Rows of an infinite sequence that are computed on the device: row i depends only on the key and i.

    Each number is a hash of (key, i, how many calls there were, its place in the row): SplitMix64 (Steele, Lea & Flood 2014) in whole
    numbers, so that all devices have the same bits. Nothing is drawn on the host. The state of the rows is one tensor that a call changes
    in place, so that a captured call gives the next numbers whenever it is replayed.
    """

    def __init__(self, *key: object, indices: Tensor, device: torch.device | str = "cpu"):
        start = int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:8], "little")
        self.indices = indices.to(device)
        self.state = _mixed(self.indices * _GAMMA + _signed(start))

    def of(self, rows: slice) -> CountedDraws:
        same = self.again()
        same.indices, same.state = self.indices[rows], same.state[rows]
        return same

    def again(self) -> CountedDraws:
        same = copy.copy(self)
        same.state = self.state.clone()
        return same

    @property
    def whole(self) -> CountedDraws:
        return self

    def normal(self, *shape: int) -> Tensor:
        n = math.prod(shape)
        words = self._words(-(-n // 2))
        radius = _high(words).add_(0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()  # Box & Muller 1958: two numbers of each word
        angle = _low(words).mul_(2 * math.pi * 2.0**-32)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :n].reshape(len(self.state), *shape)

    def uniform(self, *shape: int) -> Tensor:
        words = self._words(math.prod(shape))
        return ((words >> 40) & 0xFFFFFF).float().mul_(2.0**-24).reshape(len(self.state), *shape)

    def integers(self, high: int) -> Tensor:
        if not 0 < high <= 1 << 31:
            raise ValueError(f"integers below {high}: expected 1 to 2^31")
        return (((self._words(1)[:, 0] >> 32) & 0xFFFFFFFF) * high) >> 32

    def number(self) -> Tensor:
        return self.indices

    def _words(self, n: int) -> Tensor:
        """Return the next n whole numbers of 64 random bits for each row, N n."""
        self.state.add_(_GAMMA)
        return _mixed(_mixed(self.state.clone())[:, None] + torch.arange(1, n + 1, device=self.state.device) * _GAMMA)


def _signed(x: int) -> int:
    """Return the number of int64 that has these 64 bits."""
    return x - (1 << 64) if x >= 1 << 63 else x


_GAMMA, _FIRST, _SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))  # of SplitMix64


def _mixed(x: Tensor) -> Tensor:
    """Mix the bits of whole numbers (int64), in place: the finaliser of SplitMix64."""
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        x ^= (x >> shift) & ((1 << (64 - shift)) - 1)  # >> of signed numbers repeats the sign
        x *= factor
    return x


def _high(words: Tensor) -> Tensor:
    return ((words >> 32) & 0xFFFFFFFF).float()


def _low(words: Tensor) -> Tensor:
    return (words & 0xFFFFFFFF).float()


def to_normal(u: Tensor) -> Tensor:
    """Map uniform numbers on [0, 1) to standard normal ones, Phi^-1(u), float64 and finite."""
    return torch.special.ndtri(u.double().clamp(TINY, 1 - TINY))


def to_uniform(e: Tensor, dtype: torch.dtype) -> Tensor:
    """Map standard normal numbers to uniform ones, Phi(e), below 1 as those that are drawn. Differentiable."""
    return torch.special.ndtr(e).to(dtype).clamp_max(1 - torch.finfo(dtype).eps / 2)


class _Movable(Draws):
    """Numbers that can be moved, as whole numbers cannot. UserError for a prior that draws those."""

    def integers(self, high: int) -> Tensor:
        raise UserError(FIXED)

    def number(self) -> Tensor:
        raise UserError(FIXED)


class Noise(_Movable):
    """Standard normal noise e (N E) in the place of random numbers: uniform ones on [0, 1) become Phi(e), differentiably.

    So a prior, whatever its law, is a function of noise that is standard normal: code that moves a latent moves this noise, whose log
    density is -|e|^2 / 2. UserError for a prior that draws whole numbers.
    """

    def __init__(self, e: Tensor):
        self.e, self.read = e, 0

    def normal(self, *shape: int) -> Tensor:
        start, self.read = self.read, self.read + math.prod(shape)
        return self.e[:, start : self.read].unflatten(1, shape) if shape else self.e[:, start]

    def uniform(self, *shape: int) -> Tensor:
        e = self.normal(*shape)
        return to_uniform(e, e.dtype)


class _Noted(_Movable):
    """Some draws, and the standard normal noise of which they are a function."""

    def __init__(self, draws: Draws):
        self.draws, self.noise = draws, list[Tensor]()

    def normal(self, *shape: int) -> Tensor:
        drawn = self.draws.normal(*shape)
        self.noise.append(drawn.reshape(len(drawn), -1))
        return drawn

    def uniform(self, *shape: int) -> Tensor:
        drawn = self.draws.uniform(*shape)
        self.noise.append(to_normal(drawn).to(drawn.dtype).reshape(len(drawn), -1))
        return drawn


def noise_behind(draws: Draws, prior: Callable[[Draws], Tensor]) -> Tensor:
    """Return the noise e (N E) with prior(Noise(e)) = prior(draws) up to rounding: the inverse of `Noise`. UserError as there."""
    noted = _Noted(draws)
    prior(noted)
    return torch.cat(noted.noise, 1)
