"""Interpolate between latents."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_runner.draws import Draws, NumberedDraws, to_normal, to_uniform
from gan_runner.errors import UserError
from gan_runner.game.network import Generator
from gan_runner.sampling.subjects import evaluating, labels_for


def interpolation(
    generator: Generator, rows: int, columns: int, *, seed: int, y: int | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Interpolate between pairs of latents: rows x columns samples, row by row. A row has one label: y, or a random one.

    The prior of the generator is applied to interpolated random numbers (`Walk`), so that no latent leaves its support.
    """
    if generator.overrides("asked"):
        raise UserError("format=interpolation: this generator works on data, and has no walk between latents alone; use format=grid")
    if columns < 2:
        raise UserError(f"an interpolation needs at least 2 columns, not {columns}")
    with torch.no_grad(), evaluating(generator):
        walk = Walk(NumberedDraws("evaluation", seed, indices=torch.arange(2 * rows)), columns, device)
        z, labels = generator.prior(walk), generator.labels(walk)
        if y is not None:
            labels = labels_for(generator, len(z), y).to(device)
        return generator.show(generator(z, labels)).float()


class Walk(Draws):
    """Random numbers interpolated from those of one sample to those of another: rows x columns of them, row by row.

    ends: draws of 2 * rows samples; row i goes from sample i to sample rows + i. Normal numbers follow the arc between the two (`slerp`),
    on which they keep a typical norm (White 2016). Uniform ones are Phi(e) of normal numbers e on such an arc: they stay in [0, 1), and
    are as uniform in the middle as at the ends. Integers, such as a label or a mixture component, are those of the first sample.
    """

    def __init__(self, ends: Draws, columns: int, device: torch.device | str = "cpu"):
        self.ends, self.columns, self.device = ends, columns, device

    def normal(self, *shape: int) -> Tensor:
        return self._arc(self.ends.normal(*shape)).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        u = self.ends.uniform(*shape)
        return to_uniform(self._arc(to_normal(u)), u.dtype).to(self.device)

    def integers(self, high: int) -> Tensor:
        return self._first(self.ends.integers(high))

    def number(self) -> Tensor:
        return self._first(self.ends.number())

    def _first(self, ends: Tensor) -> Tensor:
        first, _ = ends.chunk(2)
        return first.repeat_interleave(self.columns, 0).to(self.device)

    def _arc(self, ends: Tensor) -> Tensor:
        a, b = ends.flatten(1).chunk(2) if ends.ndim > 1 else ends[:, None].chunk(2)
        steps = torch.linspace(0, 1, self.columns, dtype=ends.dtype)
        return torch.stack([slerp(a, b, share) for share in steps], 1).reshape(len(a) * self.columns, *ends.shape[1:])


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return the point at fraction t of the arc from a to b, N Z; of the straight line if they are (anti)parallel."""
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1)[:, None]
    angle = cosine.acos()
    sine = angle.sin()
    arc = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / sine.clamp_min(1e-6)
    return torch.where(sine < 1e-4, torch.lerp(a, b, t), arc)
