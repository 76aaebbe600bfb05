from gan_runner.optimizers.optimistic import OptimisticAdam as OptimisticAdam
from gan_runner.optimizers.optimistic import OptimisticSGD as OptimisticSGD
