"""Label smoothing."""

from torch import nn

from gan_runner.game.trick import Part, Trick
from gan_runner.schedules import Schedule, schedule
from gan_runner.tricks.shown import innermost


class LabelSmoothing(Trick):
    """The targets of a logistic loss are `real` and `fake` instead of 1 and 0. One-sided by default: Salimans et al. 2016.

    With real=.9 and p_data = p_g the optimal sigmoid(D) is .45.
    """

    def __init__(self, real: float | Schedule = 0.9, fake: float | Schedule = 0.0):
        super().__init__()
        self.real, self.fake = schedule(real), schedule(fake)

    def wrap(self, part: Part, name: str) -> Part:
        if name == "loss":
            loss = innermost(part)
            if not hasattr(loss, "targets"):
                raise ValueError(
                    f"label_smoothing sets the targets of the loss, and {type(loss).__name__} has none: "
                    "choose loss=non_saturating or loss=minimax, or drop the trick"
                )
            loss.targets = nn.ModuleDict({"real": self.real, "fake": self.fake})
        return part
