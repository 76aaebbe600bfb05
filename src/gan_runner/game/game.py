"""The training step.

A game has players (a network, the terms it owns, an optimiser) and a rule that says in which order they move. A move is one optimiser step
of one player on the sum of the terms that are due, while the weights of the others stay as they are. A round is one pass through the rule:
every player moves once, or several times. `Game.gradients` is the step, and there is no other in the project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gan_runner import distributed
from gan_runner.draws import Draws, seeded
from gan_runner.errors import UserError
from gan_runner.game.hyperparameters import Hyperparameters
from gan_runner.game.play import Batch, Batches, BatchLike, Logs, NoDiscriminator, Play
from gan_runner.game.term import takes_discriminator
from gan_runner.game.trick import wrapped
from gan_runner.schedules import Schedule
from gan_runner.tree import Sample

if TYPE_CHECKING:
    from functools import partial

    from gan_runner.game.network import Discriminator, Generator
    from gan_runner.game.rule import Rule
    from gan_runner.game.spec import Spec
    from gan_runner.game.term import Term
    from gan_runner.game.trick import Trick


# the due terms of a round and the numbers on the host that it depends on: in a phase, every round has the same operations
Phase = tuple[str | float, ...]


class Objective(nn.Module):
    """All that a player trains: its network and the terms it owns.

    One forward of it is the whole objective of a move, so that this is what DistributedDataParallel wraps; the play is lazy, and is
    computed in here.
    """

    def __init__(self, side: str, net: nn.Module, owned: dict[str, Term]):
        super().__init__()
        self.side, self.net, self.owned = side, net, nn.ModuleDict(owned)

    def forward(self, play: Play, due: Mapping[str, Term]) -> tuple[Tensor, Logs]:
        """Return the sum of the terms that are due, and each of them by name."""
        found = {name: self.summand(name, term, play) for name, term in due.items()}
        summands = {name: value for name, value in found.items() if value is not None}
        values = {f"{name}/{self.side[0]}": due[name].weighed(self.side, value, summands, self.net) for name, value in summands.items()}
        balanced = {name: term.balanced for name, term in due.items() if self.side == "generator" and term.balanced is not None}
        logs = values | {f"{name}/weight": each.value.clone() for name, each in balanced.items()}
        logs |= {f"{name}/{key}": value for name in summands for key, value in due[name].logs().items()}
        logs |= {f"{self.side[0]}/{name}": value for name, value in play.verdicts().items()}
        return reduce(add, values.values()), {name: value.detach() for name, value in logs.items()}

    def summand(self, name: str, term: Term, play: Play) -> Tensor | None:
        """Compute what a term adds to the objective. UserError where it reads a D that is not there."""
        try:
            return getattr(term, self.side)(play.whole if term.coupled else play)
        except NoDiscriminator:
            raise UserError(f"{name} ({type(term).__name__}) needs a discriminator, and the architecture has none") from None


class Player(nn.Module):
    """An objective and the optimiser that lowers it; the optimiser's hyper-parameters may be schedules.

    A network without trainable weights is allowed: such a player cannot move.
    """

    def __init__(
        self, name: str, net: nn.Module, owned: dict[str, Term], optimizer: partial[torch.optim.Optimizer], scaler: torch.amp.GradScaler
    ):
        super().__init__()
        self.name, self.objective, self.scaler = name, Objective(name, net, owned), scaler
        self.hyperparameters = Hyperparameters(optimizer.keywords)
        weights = [p for p in self.objective.parameters() if p.requires_grad]
        self.can_move = bool(weights)
        self.optimizer = optimizer(
            weights or [nn.Parameter(torch.zeros(()))], **self.hyperparameters.scheduled(0, 1)
        )  # it refuses an empty list
        self.evaluate, self.no_sync = distributed.parallel(self.objective)

    @property
    def net(self) -> Any:
        return self.objective.net

    def weights(self) -> Iterator[nn.Parameter]:
        """Yield the weights that its optimiser moves."""
        return (p for group in self.optimizer.param_groups for p in group["params"])

    def scale_rate(self, factor: float) -> None:
        """Multiply the learning rate by `factor` from the next round on, for the rest of the run, under a schedule as well."""
        self.hyperparameters.scale_rate(self.optimizer, factor)

    def get_extra_state(self) -> dict[str, Any]:
        factor = self.hyperparameters.rate_factor
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "rate_factor": factor}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        saved = state["optimizer"]  # the groups say where the optimiser counts its steps: on this device, not on that of the file
        groups = [group | self.hyperparameters.capturing(group) for group in saved["param_groups"]]
        self.optimizer.load_state_dict(saved | {"param_groups": groups})
        for p, of_p in self.optimizer.state.items():  # fused kernels need weight and state in the same memory layout
            of_p.update({key: torch.empty_like(p, dtype=t.dtype).copy_(t) for key, t in of_p.items() if t.shape == p.shape != ()})
        self.scaler.load_state_dict(state["scaler"])
        self.hyperparameters.restore(state.get("rate_factor", 1.0))  # older states have none


class Game(nn.Module):
    """Players, the terms between them, the rule they follow and the tricks that change how they play.

    nets: {"generator": G, "discriminator": D}, or one of them; optimizers: the same names, each a functools.partial of an optimiser.
    terms: {"loss": the objective, name: penalty, ...}. batch_size counts all processes; steps is the length of the run in rounds.
    scaler: a factory of the gradient scaler of a player (float16); precision: the context in which objectives are computed.
    again: builds this game with other first weights, given a number from 1, for a trick that restarts it; None: they are given.
    """

    def __init__(
        self,
        nets: dict[str, nn.Module],
        optimizers: Mapping[str, partial[torch.optim.Optimizer]],
        terms: dict[str, Term],
        rule: Rule,
        tricks: dict[str, Trick] | None = None,
        *,
        spec: Spec,
        batch_size: int,
        steps: int,
        accumulate: int = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
        precision: Callable[[], AbstractContextManager] = nullcontext,
        scaler: Callable[[], torch.amp.GradScaler] = lambda: torch.amp.GradScaler(enabled=False),
        again: Callable[[int], Game] | None = None,
    ):
        super().__init__()
        tricks = tricks or {}
        if coupled := [name for name, term in terms.items() if (term.coupled or term.balanced is not None) and accumulate > 1]:
            raise ValueError(f"trainer.accumulate={accumulate} cuts the batch, and {', '.join(coupled)} needs all of it: use accumulate=1")
        self.rule, self.precision, self.spec, self.again = rule, precision, spec, again
        self.tricks: Mapping[str, Trick] = nn.ModuleDict(tricks)  # type: ignore[assignment]
        self.batch_size, self.steps, self.accumulate, self.step = batch_size, steps, accumulate, 0
        self.micro_batch_size = distributed.share(batch_size, accumulate)
        self.seed, self.generator = seed, seeded("draws", seed, device=device)
        for term in terms.values():
            term.check(batch_size)
            term.build(spec, nets.get("discriminator") if takes_discriminator(term) else nets)  # type: ignore[arg-type]
        nets, terms = wrapped(tricks, nets, terms)  # wrap, then optimise, then copy
        self.to(device)
        for part in (*nets.values(), *terms.values()):
            part.to(device)
        owned: dict[str, dict[str, Term]] = {side: {} for side in nets}
        for name, term in terms.items():
            owned.get(term.owner, owned.get("generator", {}))[name] = term
        self.terms = terms  # a dict: each term is registered once, with its owner
        players = {side: Player(side, net, owned[side], optimizers[side], scaler()).to(device) for side, net in nets.items()}
        self.players: Mapping[str, Player] = nn.ModuleDict(players)  # type: ignore[assignment]
        self.passes: dict[str, Callable[..., Any]] = {side: player.net for side, player in players.items()}  # an engine may compile them
        rule.build(self)
        sampler = self.G
        for trick in tricks.values():
            sampler = trick.sampler(sampler)
        self._sampler = (sampler,)  # a tuple: registered where it lives, not here
        if self.average is None and (averaged := [name for name, term in terms.items() if term.averaged]):
            raise ValueError(f"{', '.join(averaged)} needs the average of G that the trick ema keeps: add +trick=ema")
        self.paired = any(term.paired for term in terms.values()) and self.G.classes is not None and not self.G.overrides("asked")
        self.schedules = [module for module in self.modules() if isinstance(module, Schedule)]
        self.phase: Phase = ()
        for trick in tricks.values():
            trick.build(self)

    @property
    def G(self) -> Generator:
        return self.players["generator"].net

    @property
    def D(self) -> Discriminator | None:
        return self.players["discriminator"].net if "discriminator" in self.players else None

    @property
    def sampler(self) -> Generator:
        """The generator whose samples are judged: G, or the copy of it that a trick keeps."""
        return self._sampler[0]

    @property
    def average(self) -> Generator | None:
        """The average of G that a trick keeps, the one that is judged; None without one."""
        [weights] = getattr(self.sampler, "stands_for", self._sampler)
        return None if weights is self.G else weights

    def get_extra_state(self) -> dict[str, Any]:
        return {"step": self.step, "generator": self.generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.generator.set_state(state["generator"].cpu())
        self.fill_schedules(max(self.step - 1, 0))  # as the round before left them

    def initialise(self, x: Tensor) -> None:
        """Let G initialise itself from the first batch of all processes, x (N ...), before the first round."""
        self.G.initialise(x, Draws(seeded("initialise", self.seed, device=self.generator.device), len(x)))
        kept = (module for trick in self.tricks.values() for module in trick.modules() if type(module) is type(self.G))
        for copy in (self.sampler, *kept):
            copy.load_state_dict(self.G.state_dict())

    # ---- the training step ----------------------------------------------------------------------------------------------------------

    def round(self, batches: Batches, turn: Callable[[Any], Logs] | None = None) -> Logs:
        """Return one round: what the host decides, then what the device does. The second is the same operations in every round of a phase.

        turn: how an engine executes it.
        """
        self.prepare(batches)
        logs = (turn or self.turn)(batches)
        self.step += 1
        return logs

    def prepare(self, batches: Batches) -> None:
        for trick in self.tricks.values():
            trick.prepare(self)
        self.fill_schedules(self.step)
        for player in self.players.values():
            player.hyperparameters.apply(player.optimizer, self.step, self.steps)
        self.due = {name: term for name, term in self.terms.items() if term.due(self.step)}
        on_host = (schedule.now for schedule in self.schedules if schedule.on_host)
        self.phase = (*self.due, *on_host, *(player.hyperparameters.rate_factor for player in self.players.values()))
        batches.prepare()

    def fill_schedules(self, step: int) -> None:
        for schedule in self.schedules:
            schedule.fill(step, self.steps)

    def turn(self, batches: Batches) -> Logs:
        logs = self.rule(self, batches)
        for trick in self.tricks.values():
            logs |= trick.after_round(self)
        return logs

    def move(self, name: str, batch: BatchLike) -> Logs:
        """Let player `name` take one step on one batch."""
        logs = self.gradients(name, batch)
        self.descend(name)
        return logs

    def gradients(self, name: str, batch: BatchLike) -> Logs:
        """Fill the gradients of player `name`, averaged over micro-batches and processes, while the others hold still."""
        player, draws = self.players[name], Draws(self.generator, self.batch_size)
        seen: list[Logs] = []
        player.optimizer.zero_grad(set_to_none=True)
        with self.only(player):
            for micro, rows, last in self.micro_batches(batch):
                play = Play(self.G, self.D, micro, draws.of(rows), self.augment, self.passes, self.paired)
                play.average = self.average
                with nullcontext() if last else player.no_sync():
                    with self.precision():
                        value, parts = player.evaluate(play, self.due)
                    player.scaler.scale(value / self.accumulate).backward()
                self.watch(play, player)
                seen.append(parts)
        player.scaler.unscale_(player.optimizer)
        return seen[0] if len(seen) == 1 else {key: torch.stack([parts[key] for parts in seen]).mean() for key in seen[0]}

    @torch.no_grad()
    def watch(self, play: Play, player: Player) -> None:
        for trick in self.tricks.values():
            trick.watch(play, player)

    def descend(self, name: str) -> None:
        """Apply the gradients of player `name`: one step of its optimiser."""
        player = self.players[name]
        for trick in self.tricks.values():
            trick.before_step(player)
        player.scaler.step(player.optimizer)
        player.scaler.update()
        for trick in self.tricks.values():
            trick.after_step(player)

    @contextmanager
    def only(self, player: Player) -> Iterator[None]:
        """Return the others are frozen: no graph is built through them, and none of their weights gets a gradient."""
        others = [p for other in self.players.values() if other is not player for p in other.weights() if p.requires_grad]
        for p in others:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in others:
                p.requires_grad_(True)

    def micro_batches(self, batch: BatchLike) -> Iterator[tuple[BatchLike, slice, bool]]:
        """Yield (part of this process's batch, its rows in the global batch, whether it is the last)."""
        n = self.micro_batch_size
        first = distributed.rank() * self.accumulate * n
        for i in range(self.accumulate):
            cut = slice(i * n, (i + 1) * n)
            whole = self.accumulate == 1  # then it may not have been read yet, and may never be
            part = batch if whole else Batch(batch.x[cut], None if batch.y is None else batch.y[cut])
            yield part, slice(first + i * n, first + (i + 1) * n), i == self.accumulate - 1

    def augment(self, sample: Sample, draws: Draws) -> Sample:
        for trick in self.tricks.values():
            sample = trick.augment(sample, draws)
        return sample
