"""Choose a refiner by what held-out samples say about the discriminator."""

from __future__ import annotations

import math

from gan_runner.errors import UserError
from gan_runner.refinement.calibration import Diagnosis
from gan_runner.refinement.refiner import Refiner, Steps
from gan_runner.refiners.flow import DGflow
from gan_runner.refiners.rejection import OBRS

FLAT = 2.0  # Platt slope from which a logit is flatter than the log ratio, as that of a critic with bounded slopes is
STEEP = 0.5  # below which it is steeper: slopes of an overfitted D lead samples astray, and its weights are wrong
INFORMATION = 0.005  # nats by which a calibrated logit must be better than saying nothing
RELATIVE_STEP = 0.01  # .02 overshoots on 25 normal laws, whose critic is steep


class Auto(Refiner):
    """Choose DGflow for a smooth discriminator, and OBRS for one whose logit is a log ratio.

    Steepness is the Platt slope on held-out samples: above 2 the logit is flatter than the log ratio, as under a gradient penalty, and its
    slopes are used; between .5 and 2 its values are. UserError where it is neither. steps: None: those of the chosen one.
    """

    wants_real = True

    def __init__(self, steps: Steps | None = None):
        self.asked = steps

    def chosen(self, diagnosis: Diagnosis | None) -> tuple[Refiner, str]:
        assert diagnosis is not None
        made: Refiner
        steepness, left = diagnosis.steepness, math.log(2) - diagnosis.calibrated
        if left < INFORMATION or steepness < STEEP:
            why = "tells held-out real samples and fakes hardly apart" if left < INFORMATION else "is too steep for a log ratio"
            raise UserError(
                f"refiner=auto: this discriminator {why} ({diagnosis.said}), so that no refiner can use it: train a density ratio, "
                "gan-train +experiment=ratio architecture.generator.run=RUN_DIR, and say discriminator=ITS_RUN_DIR"
            )
        if steepness > FLAT:
            made, why = DGflow(relative_step=RELATIVE_STEP), "dgflow is chosen: the logit is smooth, flatter than a log ratio"
        else:
            made, why = OBRS(), "obrs is chosen: the logit is a log ratio"
        made.steps = self.asked or made.steps
        return made, f"{why} ({diagnosis.said})"
