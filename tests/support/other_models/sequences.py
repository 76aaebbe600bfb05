"""Text, sound and walks on a graph: data, their files, and networks for them."""

import io
import itertools
import math
import wave

import torch
from torch import nn

from gan_runner import Dataset, Discriminator, DiscriminatorOutput, Generator, Spec
from gan_runner.architectures import fitting
from gan_runner.datasets import Samples
from gan_runner.draws import seeded
from gan_runner.game import one_hot

LETTERS = " abcdefghijklmnopqrstuvwxyz"


def drawn(draw, size=(6, 6)):
    """A picture (uint8, 3 H W) of what `draw` puts on axes."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=100)
    canvas, axes = FigureCanvasAgg(figure), figure.add_axes((0.02, 0.02, 0.96, 0.96))
    axes.set_axis_off()
    draw(axes)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1).contiguous()


class Words(Dataset):
    """Syllables of a consonant and a vowel, as symbols."""

    capturable = True

    def __init__(self, n: int = 512, length: int = 8):
        self.n, self.length = n, length

    @property
    def spec(self):
        return Spec((self.length,), symbols=len(LETTERS))

    def load(self, split):
        generator = seeded("words", split)
        pick = lambda of: torch.tensor([LETTERS.index(c) for c in of])[  # noqa: E731
            torch.randint(len(of), (self.n, self.length // 2), generator=generator)
        ]
        return Samples(torch.stack([pick("bdfgklmnprst"), pick("aeiou")], 2).flatten(1).to(torch.int16))

    def lines(self, samples):
        return ["".join(LETTERS[i] for i in row) for row in samples.tolist()]

    def picture(self, samples, columns=8):
        text = "\n".join(self.lines(samples)[:32])
        return drawn(lambda axes: axes.text(0, 1, text, va="top", family="monospace", transform=axes.transAxes))

    def files(self, samples):
        return {"txt": "\n".join(self.lines(samples)).encode()}


class SymbolGenerator(Generator):
    """Emits the probability of every symbol at every place, N V L; the most probable one is shown."""

    capturable = True

    def __init__(self, spec: Spec, latent: int = 8, width: int = 16):
        super().__init__()
        self.symbols, self.latent, self.length = fitting.symbols(spec, "chars"), latent, spec.shape[0]
        self.first, self.body = nn.Linear(latent, width * self.length), nn.Conv1d(width, self.symbols, 3, padding=1)

    def view(self, x, draws):
        return one_hot(x.flatten().long(), self.symbols).view(len(x), self.length, -1).transpose(1, 2)

    def show(self, sample):
        return sample.argmax(1)

    def forward(self, z, y=None):
        return self.body(self.first(z).unflatten(1, (-1, self.length)).relu()).softmax(1)


class SymbolCritic(Discriminator):
    capturable = True

    def __init__(self, spec: Spec, width: int = 16):
        super().__init__()
        self.features = width * spec.shape[0]
        self.body, self.head = nn.Conv1d(fitting.symbols(spec, "chars"), width, 3, padding=1), nn.Linear(self.features, 1)

    def forward(self, sample, y=None):
        features = self.body(sample).relu().flatten(1)
        return DiscriminatorOutput(self.head(features).squeeze(1), features)


class Tones(Dataset):
    """Decaying sines of random pitch, 16 bits a value."""

    capturable = True
    rate = 8000

    def __init__(self, n: int = 256, length: int = 256):
        self.n, self.length = n, length

    @property
    def spec(self):
        return Spec((1, self.length))

    def to_float(self, x):
        return x / 32768

    def load(self, split):
        generator = seeded("tones", split)
        pitch, phase = torch.rand(2, self.n, 1, generator=generator)
        t = torch.arange(self.length) / self.rate
        x = 0.8 * (2 * math.pi * (200 + 400 * pitch) * t + 2 * math.pi * phase).sin() * (-20 * t).exp()
        return Samples((32767 * x[:, None]).round().to(torch.int16))

    def picture(self, samples, columns=8):
        return drawn(lambda axes: axes.specgram(samples[:, 0].flatten().clamp(-1, 1).numpy(), NFFT=64, noverlap=32, Fs=self.rate))

    def files(self, samples):
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setparams((1, 2, self.rate, 0, "NONE", ""))
            file.writeframes((32767 * samples.flatten().clamp(-1, 1)).short().numpy().tobytes())
        return {"wav": buffer.getvalue()}


class WaveGenerator(Generator):
    capturable = True

    def __init__(self, spec: Spec, latent: int = 8, width: int = 8):
        super().__init__()
        self.latent, self.short = latent, spec.shape[1] // 16
        self.first = nn.Linear(latent, width * self.short)
        self.body = nn.Sequential(nn.ConvTranspose1d(width, width, 8, 4, 2), nn.ReLU(), nn.ConvTranspose1d(width, 1, 8, 4, 2), nn.Tanh())

    def forward(self, z, y=None):
        return self.body(self.first(z).unflatten(1, (-1, self.short)).relu())


class WaveCritic(Discriminator):
    capturable = True

    def __init__(self, spec: Spec, width: int = 8):
        super().__init__()
        self.features = width * spec.shape[1] // 16
        self.body = nn.Sequential(nn.Conv1d(1, width, 8, 4, 2), nn.LeakyReLU(0.2), nn.Conv1d(width, width, 8, 4, 2), nn.LeakyReLU(0.2))
        self.head = nn.Linear(self.features, 1)

    def forward(self, sample, y=None):
        features = self.body(sample).flatten(1)
        return DiscriminatorOutput(self.head(features).squeeze(1), features)


class Walks(Dataset):
    """Random walks on Zachary's karate club (34 nodes, 78 edges, from networkx)."""

    capturable = True

    def __init__(self, n: int = 512, length: int = 6):
        self.n, self.length = n, length

    @property
    def graph(self):
        import networkx

        return networkx.karate_club_graph()

    @property
    def spec(self):
        return Spec((self.length,), symbols=34)

    def load(self, split):
        import networkx

        near = torch.tensor(networkx.to_numpy_array(self.graph) > 0, dtype=torch.float64)
        generator = seeded("walks", split)
        steps = [torch.multinomial(near.sum(1), self.n, replacement=True, generator=generator)]
        for _ in range(self.length - 1):
            steps.append(torch.multinomial(near[steps[-1]], 1, generator=generator).squeeze(1))
        return Samples(torch.stack(steps, 1).to(torch.int16))

    def edges(self, samples):
        return {tuple(sorted(pair)) for row in samples.tolist() for pair in itertools.pairwise(row)}

    def picture(self, samples, columns=8):
        import networkx

        made = networkx.Graph(list(self.edges(samples)))
        place = networkx.spring_layout(self.graph, seed=0)
        return drawn(lambda axes: networkx.draw_networkx(made, {node: place[node] for node in made}, ax=axes, node_size=60, font_size=6))

    def files(self, samples):
        return {"edges": "\n".join(f"{a} {b}" for a, b in sorted(self.edges(samples))).encode()}


class WalkGenerator(Generator):
    """Chooses every node by a Gumbel softmax, straight through; its uniform numbers are part of z. Bojchevski et al. 2018."""

    capturable = True

    def __init__(self, spec: Spec, noise: int = 8, width: int = 16):
        super().__init__()
        self.symbols, self.length, self.noise = fitting.symbols(spec, "netgan"), spec.shape[0], noise
        self.latent = noise + self.length * self.symbols
        self.first, self.cell, self.up = nn.Linear(noise, width), nn.GRUCell(self.symbols, width), nn.Linear(width, self.symbols)

    def view(self, x, draws):
        return one_hot(x.flatten().long(), self.symbols).view(len(x), self.length, -1)

    def show(self, sample):
        return sample.argmax(2)

    def forward(self, z, y=None):
        h, x = self.first(z[:, : self.noise]).tanh(), z.new_zeros(len(z), self.symbols)
        uniform = torch.special.ndtr(z[:, self.noise :]).clamp(1e-6, 1 - 1e-6).unflatten(1, (self.length, self.symbols))
        steps = []
        for gumbel in (-(-uniform.log()).log()).unbind(1):
            h = self.cell(x, h)
            soft = (self.up(h) + gumbel).softmax(1)
            x = (soft == soft.amax(1, keepdim=True)).float() + soft - soft.detach()
            steps.append(x)
        return torch.stack(steps, 1)


class WalkCritic(Discriminator):
    capturable = True

    def __init__(self, spec: Spec, width: int = 16):
        super().__init__()
        self.features, self.cell, self.head = width, nn.GRUCell(fitting.symbols(spec, "netgan"), width), nn.Linear(width, 1)

    def forward(self, sample, y=None):
        h = sample.new_zeros(len(sample), self.features)
        for x in sample.unbind(1):
            h = self.cell(x, h)
        return DiscriminatorOutput(self.head(h).squeeze(1), h)
