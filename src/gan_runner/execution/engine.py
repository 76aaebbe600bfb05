"""Engines that execute a round operation by operation, or through compiled networks.

The results of all engines are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from gan_runner.datasets import Resident, Streamed
from gan_runner.errors import Failed, UserError
from gan_runner.execution import hardware
from gan_runner.execution.capturable import walk
from gan_runner.execution.comparison import Remembered
from gan_runner.game.game import Game, Phase
from gan_runner.game.play import Logs


class Engine:
    """Execute rounds operation by operation (eager execution)."""

    def __init__(self, game: Game, say: Callable[[str], None]):
        self.game, self.say = game, say

    def turn(self, batches: Resident | Streamed) -> Logs:
        """Execute the device's part of a round, which `game.prepare` has prepared on the host. Returns its losses."""
        return self.game.turn(batches)


class Fallible(Engine):
    """An engine that can fail on a given game. It then restores the state, falls back to eager execution, and reports the reason once."""

    name: str

    def __init__(self, game: Game, say: Callable[[str], None]):
        super().__init__(game, say)
        self.able = True
        self.proven: set[Phase] = set()  # whose rounds it has executed

    def turn(self, batches: Resident | Streamed) -> Logs:
        phase = self.game.phase
        if not self.able:
            return self.game.turn(batches)
        if phase in self.proven:
            return self.execute(phase, batches)
        device = self.game.generator.device
        before = Remembered(walk({"game": self.game})), batches.state_dict(), hardware.rng_state(device)
        try:
            return self.execute(phase, batches)
        except (UserError, Failed):
            raise
        except Exception as error:  # compilers and drivers have many ways of saying no
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        game, read, rng = before
        game.restore()
        self.stop()
        batches.load_state_dict(read)
        hardware.set_rng_state(rng, device)
        self.game.prepare(batches)
        logs = self.game.turn(batches)  # what a part raises is raised here, too, and is not the engine's
        self.tell(reason)
        return logs

    def execute(self, phase: Phase, batches: Resident | Streamed) -> Logs:
        """Execute one round. Add `phase` to `proven` once it is known to work; failures after that are not caught."""
        raise NotImplementedError

    def give_up(self, reason: str) -> None:
        """Fall back to eager execution, and report the reason."""
        self.stop()
        self.tell(reason)

    def stop(self) -> None:
        """Fall back to eager execution: free what the engine has captured or compiled."""
        self.able = False

    def tell(self, reason: str) -> None:
        self.say(f"trainer.engine={self.name} cannot execute this run, which goes on with eager: {reason[:400]}")


class Compiled(Fallible):
    """Compile the forward passes of the networks. Penalties, which differentiate twice, use the networks as they are."""

    name = "compile"

    def __init__(self, game: Game, say: Callable[[str], None], backend: str = "inductor"):
        super().__init__(game, say)
        self.plain = game.passes
        game.passes = {side: torch.compile(net, dynamic=False, backend=backend) for side, net in self.plain.items()}
        say("compiling the networks: the first round takes a while")

    def execute(self, phase: Phase, batches: Resident | Streamed) -> Logs:
        logs = self.game.turn(batches)
        self.proven.add(phase)
        return logs

    def stop(self) -> None:
        self.game.passes = self.plain
        super().stop()
