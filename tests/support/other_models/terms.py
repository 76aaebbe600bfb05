"""Losses, penalties and tricks."""

import torch
import torch.nn.functional as F
from torch import nn

from gan_runner import Augmentation, Extractor, Penalty, Term, Trick, distributed, tree
from gan_runner.losses import NonSaturating


class Likelihood(Term):
    """G: minus the log probability of the data, in nats for each entry."""

    capturable = True

    def build(self, spec, nets):
        if not nets["generator"].overrides("log_prob"):
            raise ValueError(
                f"likelihood needs a generator that knows log_prob, and {type(nets['generator']).__name__} does not: "
                "choose a flow, an autoregressive model or a vae"
            )

    def generator(self, play):
        return -play.G.log_prob(play.x, play.y, play.draws).mean() / play.x[0].numel()


class Plain(Term):
    """The loss of a Wasserstein critic, without the weight that `gan_runner.losses.Loss` has."""

    capturable = True

    def discriminator(self, play):
        real, fake = play.on_both
        return fake.logits.mean() - real.logits.mean()

    def generator(self, play):
        return -play.on_fake.logits.mean()


class Bidirectional(NonSaturating):
    """G's encoder and decoder both answer D. Dumoulin et al. 2017."""

    capturable = True

    def generator(self, play):
        real, fake = play.on_both
        return F.softplus(real.logits).mean() + F.softplus(-fake.logits).mean()


class InfoCodes(Penalty):
    """A head on D's features guesses the codes. Chen et al. 2016."""

    capturable = True

    def __init__(self, weight: float = 0.1, every: int = 1):
        super().__init__(weight, every)

    def build(self, spec, nets):
        self.categories, self.continuous = nets["generator"].categories, nets["generator"].continuous
        self.head = nn.Linear(nets["discriminator"].features, self.categories + self.continuous)

    def guess(self, play):
        codes = play.z[:, -self.categories - self.continuous :]
        named, number = self.head(play.on_fake.features).split([self.categories, self.continuous], 1)
        missed = -(codes[:, : self.categories] * named.log_softmax(1)).sum(1).mean()
        return self.scaled(missed + (codes[:, self.categories :] - number).square().sum(1).mean() / 2)

    discriminator = generator = guess


class Supervised(Penalty):
    """D: cross entropy of its K class logits on the labelled rows; a label of -1 is none. Salimans et al. 2016."""

    capturable, labelled = True, True

    def discriminator(self, play):
        named = play.D.head(play.on_real.features)
        each = F.cross_entropy(named, play.y.clamp_min(0), reduction="none")
        return self.scaled(each.where(play.y >= 0, 0.0).mean())


class Cycle(Penalty):
    """G: what is mapped there and back is as it was. Zhu et al. 2017."""

    capturable = True

    def generator(self, play):
        to_a, to_b = play.fake.chunk(2, 1)
        back = torch.cat([play.G.to_a(to_b), play.G.to_b(to_a)], 1)
        return self.scaled((back - play.x).abs().sum(1).mean())


class MMD(Term):
    """D raises the MMD of its features, of any width, under a Gaussian kernel; G lowers it. Li et al. 2017."""

    capturable, coupled = True, True

    def mmd(self, play):
        a, b = (out.features for out in play.on_both)
        kernel = lambda p, q: torch.exp(-(p[:, None] - q[None]).square().sum(2) / (2 * p.shape[1]))  # noqa: E731
        return kernel(a, a).mean() + kernel(b, b).mean() - 2 * kernel(a, b).mean()

    def discriminator(self, play):
        return -self.mmd(play)

    def generator(self, play):
        return self.mmd(play)


class Dragan(Penalty):
    """D: a slope of 1 around the real samples, whose spread is that of the whole batch. Kodali et al. 2017."""

    capturable, coupled = True, True

    def discriminator(self, play):
        near = play.real + 0.5 * play.real.std() * play.draws.uniform(*play.real.shape[1:])
        near = near.detach().requires_grad_()
        (slope,) = torch.autograd.grad(play.judge(near, play.y).logits.sum(), near, create_graph=True)
        return self.scaled((slope.flatten(1).norm(dim=1) - 1).square().mean())


class ApproximateR1(Penalty):
    """D: the squared change of its logit by noise of deviation `sigma` on a real sample, under one augmentation."""

    capturable = True

    def __init__(self, weight: float = 0.1, every: int = 1, sigma: float = 0.01):
        super().__init__(weight, every)
        self.sigma = sigma

    def discriminator(self, play):
        moved = tree.map(lambda leaf: leaf + self.sigma * play.draws.normal(*leaf.shape[1:]), play.real)
        change = (play.judge(moved, play.y, like="real").logits - play.on_real.logits) / self.sigma
        return self.scaled(change.square().mean() / 2)


class Perceptual(Penalty):
    """G: the squared distance of the mean features of fakes to those of real samples. Salimans et al. 2016, through a frozen network."""

    capturable = True

    def __init__(self, through: Extractor, weight: float = 1.0, every: int = 1):
        super().__init__(weight, every)
        self.through = through

    def generator(self, play):
        fake, real = (self.through.extract(sample).features for sample in (play.fake, play.real))
        return self.scaled((fake - real).square().sum(1).mean())


class Consistency(Penalty):
    """D: the squared change of its logit of a real sample under an augmentation. Zhang et al. 2020."""

    capturable = True

    def __init__(self, augmentation: Augmentation, weight: float = 10.0, every: int = 1):
        super().__init__(weight, every)
        self.augmentation = augmentation

    def discriminator(self, play):
        changed = self.augmentation.augment(play.real, play.draws)
        return self.scaled((play.judge(changed, play.y, like="real").logits - play.on_real.logits).square().mean())


class ADA(Trick):
    """Mirrors samples with a probability that follows how often D is sure of real ones. Karras et al. 2020."""

    capturable = True

    def __init__(self, target: float = 0.6, step: float = 0.05):
        super().__init__()
        self.target, self.step = target, step
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("sure", torch.zeros(()))

    def augment(self, sample, draws):
        flips = (draws.uniform() < self.p).float()
        return tree.map(lambda leaf: leaf * (1 - 2 * flips).view(-1, *[1] * (leaf.dim() - 1)), sample)

    def watch(self, play, player):
        if player.name == "discriminator":
            self.sure += play.on_real.logits.sign().sum()

    def after_round(self, game):
        sure = distributed.mean({"sure": self.sure})["sure"] * distributed.size() / game.batch_size
        self.p.add_(self.step * (sure - self.target).sign()).clamp_(0, 1)
        self.sure.zero_()
        return {"ada/p": self.p.clone()}


class Freeze(Trick):
    """The weights of the named players do not move."""

    capturable = True

    def __init__(self, players: list[str]):
        super().__init__()
        self.players = players

    def wrap(self, part, name):
        return part.requires_grad_(False) if name in self.players else part
