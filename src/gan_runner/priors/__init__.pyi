from gan_runner.game.prior import Prior as Prior
from gan_runner.priors.continuous import Mixture as Mixture
from gan_runner.priors.continuous import Normal as Normal
from gan_runner.priors.continuous import Truncated as Truncated
from gan_runner.priors.continuous import Uniform as Uniform
from gan_runner.priors.discrete import Codes as Codes
from gan_runner.priors.discrete import Signs as Signs
