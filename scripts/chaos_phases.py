"""What a run is doing, written down for scripts/chaos.py, which kills it; and a trick that no engine may replay."""

import os

import torch

from gan_runner import Callback, Trick

WIDTH = 16  # bytes of a word in the file that $CHAOS_PHASE names


def note(path: str, word: str) -> None:
    """Let the file say this word, in one write."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    os.pwrite(file, word.ljust(WIDTH).encode(), 0)
    os.close(file)


class Phase(Callback):
    """Says `word` whenever its turn among the callbacks comes, in every `every_steps`-th round: the callbacks after it are at work then.

    It watches and changes nothing.
    """

    def __init__(self, word: str, order: float, every_steps: int = 1, ends: bool = False):
        self.word, self.order, self.every_steps, self.ends = word, order, every_steps, ends  # type: ignore[assignment]

    def begin(self, run):
        self.path = os.environ["CHAOS_PHASE"]
        if self.every_steps == 1:
            note(self.path, self.word)

    def after_round(self, run, logs):
        if run.step % self.every_steps == 0:
            note(self.path, self.word)

    def end(self, run):
        if self.ends:
            note(self.path, "end")


class Nudge(Trick):
    """Scales the weights of G in every tenth round. It does not say capturable = True, so that its rounds are not replayed."""

    @torch.no_grad()
    def after_round(self, game):
        if game.step % 10 == 0:
            for weight in game.G.parameters():
                weight.mul_(0.99)
        return {}
