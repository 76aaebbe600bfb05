"""What a refiner is fitted to beforehand: held-out real samples and fresh fakes of a run."""

import pytest
import torch

import gan_runner
from gan_runner.config import composer
from gan_runner.evaluation.reference import Reference
from gan_runner.lifecycle import runs
from gan_runner.refinement import Diagnosis, Ratio, Refinement
from gan_runner.refinement.calibration import Logistic
from gan_runner.refiners import MHGAN, OBRS, DGflow

SMALL = [
    "+experiment=ring8", "trainer.steps=30", "batch_size=64", "callback.grid.n=4", "callback.evaluate.n=50", "dataset.n=1000",
    "architecture.generator.width=16", "architecture.discriminator.width=16", "trainer.accelerator=cpu",
]  # fmt: skip


@pytest.fixture(scope="module", params=["plain", "conditional"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out") / request.param
    words = ["architecture.conditional=true"] if request.param == "conditional" else []
    runs.train(composer.compose([*SMALL, *words]).config, folder)
    return gan_runner.load(folder)


def logits(run, split):
    """Logits of all samples of a split, as D is asked in training."""
    reference = Reference(run.dataset, split)
    y = reference.labels if run.generator.classes else None
    return Ratio(run.generator, run.discriminator).logits(reference.samples(), y).detach()


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_split_that_is_not_compared_with_is_looked_at(run, split):
    other = {"train": "test", "test": "train"}[split]
    made = Refinement(OBRS(), Ratio(run.generator, run.discriminator), reference=Reference(run.dataset, split))
    fakes = made.start(torch.arange(2000), "calibration")
    plain = Ratio(run.generator, run.discriminator)
    fake = plain.logits(plain.generated(fakes.e, fakes.y), fakes.y).detach()
    real = logits(run, other)
    assert len(real) < 2000, "else not all of them are looked at"
    assert made.diagnosis == pytest.approx(Diagnosis.of(real, fake), rel=1e-4)
    assert isinstance(made.ratio.calibration, Logistic)
    assert float(made.ratio.calibration.slope) == pytest.approx(made.diagnosis.steepness, rel=1e-6)


@pytest.mark.parametrize("refiner", [OBRS, MHGAN, lambda: DGflow(until="real"), lambda: DGflow(calibration="isotonic")])
def test_refiners_that_look_at_real_samples_refine(run, refiner):
    made = Refinement(refiner(), Ratio(run.generator, run.discriminator), reference=Reference(run.dataset))
    whole = torch.cat([batch.x[3] for batch in made.batches(20, [3], batch_size=20)])
    torch.testing.assert_close(torch.cat([batch.x[3] for batch in made.batches(20, [3], batch_size=7)]), whole, rtol=0, atol=1e-4)
    assert whole.isfinite().all()


def test_a_critic_is_centred_where_its_zero_matters(run):
    ratio = Ratio(run.generator, run.discriminator)
    made = Refinement(DGflow("js"), ratio, reference=Reference(run.dataset), centre=True)
    assert ratio.centre != 0
    assert "the logit is defined up to a constant" in made.notes[0]
    shifted = Ratio(run.generator, Shifted(run.discriminator))
    Refinement(DGflow("js"), shifted, reference=Reference(run.dataset), centre=True)
    start = made.start(torch.arange(50))
    torch.testing.assert_close(shifted.at(start.e, start.y, "latent"), ratio.at(start.e, start.y, "latent"), rtol=0, atol=1e-4)
    Refinement(DGflow("kl"), untouched := Ratio(run.generator, run.discriminator), centre=True)
    assert untouched.centre == 0


class Shifted(gan_runner.Discriminator):
    """A discriminator whose logits are larger by 7."""

    def __init__(self, of):
        super().__init__()
        self.of = of

    def forward(self, sample, y=None):
        said = self.of(sample, y)
        return said._replace(logits=said.logits + 7)
