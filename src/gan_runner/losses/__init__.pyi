from gan_runner.game.loss import Balanced as Balanced
from gan_runner.game.loss import Loss as Loss
from gan_runner.game.term import Term as Term
from gan_runner.losses.hinge import Hinge as Hinge
from gan_runner.losses.least_squares import LeastSquares as LeastSquares
from gan_runner.losses.logistic import Minimax as Minimax
from gan_runner.losses.logistic import NonSaturating as NonSaturating
from gan_runner.losses.wasserstein import Wasserstein as Wasserstein
