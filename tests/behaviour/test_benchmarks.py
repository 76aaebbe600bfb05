"""What the benchmark compares with: the bare round is the project's round, and the counted operations are those of the formula."""

import sys
from pathlib import Path

import pytest
import torch

from games import flat, images
from gan_runner.assembly.build import build_game
from gan_runner.config.composed import plain
from gan_runner.config.composer import compose
from gan_runner.datasets import Gaussians25, Resident, Samples, Spec
from gan_runner.refinement import Refinement
from gan_runner.trainer import Trainer

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from benchmarks import refinement, tables
from benchmarks.clock import Summary, ratios
from benchmarks.limit import flops
from benchmarks.rounds import Bare
from benchmarks.textbook import loop_of

CPU, ROUNDS = torch.device("cpu"), 3
SMALL = ["architecture.generator.width=8", "architecture.discriminator.width=8", "batch_size=16"]


def data(experiment: str) -> tuple[Spec, Samples]:
    points = Gaussians25(n=100)
    return (points.spec, points.load("train")) if experiment == "gaussians25" else images(side=32, channels=3)


def what_d_sees(batches: Resident, moves: list[str]):
    """The batches of D alone: the rule hands G one, too, which its loss does not look at."""
    while True:
        batches.prepare()
        for name in moves:
            batch = next(batches).x
            if name == "discriminator":
                yield batch


def weights(net: torch.nn.Module) -> torch.Tensor:
    """Every parameter, as one vector: unlike `flat`, without counts of batches."""
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def descent(rate: str) -> list[str]:
    """Words for SGD. Adam makes steps of rounding errors where a gradient is 0 in theory, as that of a bias before a norm."""
    return [
        word
        for side, value in (("generator", 0.01), ("discriminator", 0.001))
        for word in (f"optimizer.{side}._target_=torch.optim.SGD", f"~optimizer.{side}.betas", f"optimizer.{side}.{rate}={value}")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        ("dcgan_cifar10", descent("lr")),
        ("sngan_cifar10", descent("lr.start")),
        ("wgan_gp_cifar10", descent("lr.start")),
        ("gaussians25", []),  # with its Adam: no gradient is 0 there
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])  # the project's are channels last
def test_the_bare_round_is_the_round_of_the_project(experiment, words, channels_last):
    """After rounds from the same weights on the same draws, G, D and the average of G are equal up to the order of sums."""
    quick_average = "trick.ema.halflife_kimg=0.05"  # that of an experiment would hardly move within a few rounds
    config = plain(compose([f"+experiment={experiment}", *SMALL, "trainer.steps=10", quick_average, *words]).config)
    spec, samples = data(experiment)
    game = build_game(config, (), Trainer(steps=10), spec, CPU)
    generator = torch.Generator()
    generator.set_state(game.generator.get_state())
    batches = [Resident(samples, 16, seed=1, flip=spec.kind.bounded) for _ in range(2)]
    bare = Bare(config, spec, what_d_sees(batches[1], game.rule.moves), generator, channels_last=channels_last)
    torch.testing.assert_close(flat(bare.G, bare.D), flat(game.G, game.D), rtol=0, atol=0)
    before = [weights(net) for net in (game.G, game.D)]
    for _ in range(ROUNDS):
        game.round(batches[0])
        bare.round()
    torch.testing.assert_close(flat(bare.G, bare.D), flat(game.G, game.D), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(flat(bare.average), flat(game.sampler), rtol=1e-4, atol=1e-5)
    for net, each in zip((game.G, game.D), before):  # they have moved further than they may differ
        assert (weights(net) - each).abs().max() > 1e-3


def test_counted_operations_are_those_of_the_formula():
    """A linear layer, forward and backward twice: 2 n i o for each product of matrices."""
    n, i, o = 3, 5, 7
    layer, x = torch.nn.Linear(i, o, bias=False), torch.randn(n, i, requires_grad=True)

    def play() -> None:
        slope = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)[0]  # x W', g W
        slope.square().sum().backward(inputs=[layer.weight])

    # forward 1, slope 1; backward: to W through both (2), to g (1), which leads through x W' to W: that is one of the two
    assert flops(play) == 2 * n * i * o * 5


@pytest.mark.parametrize("experiment", ["dcgan_cifar10", "wgan_gp_cifar10", "gaussians25"])
def test_a_textbook_loop_moves_both_players(experiment):
    config = plain(compose([f"+experiment={experiment}", *SMALL]).config)
    spec, samples = data(experiment)
    batches = Resident(samples, 16)
    loop = loop_of(config)(config, spec, (batch.x for batch in batches), CPU)
    before = [flat(net) for net in (loop.G, loop.D)]
    batches.prepare()
    loop.round()
    assert all((flat(net) - each).abs().max() > 1e-5 for net, each in zip((loop.G, loop.D), before))
    assert all(map(torch.isfinite, map(torch.tensor, loop.log.values())))


@pytest.mark.parametrize("name", refinement.REFINERS)
def test_the_bare_loop_beside_a_refiner_has_its_passes(name):
    """As many evaluations and slopes as the refiner counts, in passes of the same sizes."""
    G, D = refinement.networks(width=4)
    ratio = refinement.Noted(G, D)
    made = Refinement(refinement.REFINERS[name](), ratio)
    ratio.passes.clear()
    sizes: list[int] = []
    D.register_forward_hook(lambda module, args, out: sizes.append(len(out.logits)))
    [batch] = made.batches(6, [refinement.STEPS])
    cost, theirs = batch.costs[refinement.STEPS], list(sizes)
    assert sum(each.n for each in ratio.passes) == pytest.approx(6 * cost.evaluations)
    assert sum(each.n for each in ratio.passes if each.slopes) == pytest.approx(6 * cost.gradients)
    sizes.clear()
    refinement.bare(G, D, ratio.passes, 6)
    assert sizes == theirs


def test_ratios_are_of_the_same_turn():
    """Twice as slow a turn for both leaves the ratio of the turn as it is."""
    assert ratios([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == (2.0, Summary(2.0, 2.0, 2.0))


def test_a_part_replaces_its_own_block_of_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n<!-- benchmark one: begin -->\nold\n<!-- benchmark one: end -->\n\nrest\n")
    tables.write("one", r"new \1", page)
    tables.write("two", "second", page)
    assert page.read_text() == (
        "# Page\n\n<!-- benchmark one: begin -->\nnew \\1\n<!-- benchmark one: end -->\n\nrest\n\n"
        "<!-- benchmark two: begin -->\nsecond\n<!-- benchmark two: end -->\n"
    )
