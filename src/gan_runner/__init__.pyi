from collections.abc import Callable
from typing import Any

from gan_runner.datasets.dataset import Dataset as Dataset
from gan_runner.datasets.dataset import Samples as Samples
from gan_runner.draws import Draws as Draws
from gan_runner.evaluation.extractor import Extractor as Extractor
from gan_runner.evaluation.metric import Metric as Metric
from gan_runner.game.network import Discriminator as Discriminator
from gan_runner.game.network import Generator as Generator
from gan_runner.game.penalty import Penalty as Penalty
from gan_runner.game.play import Batch as Batch
from gan_runner.game.play import DiscriminatorOutput as DiscriminatorOutput
from gan_runner.game.play import Play as Play
from gan_runner.game.prior import Prior as Prior
from gan_runner.game.rule import Rule as Rule
from gan_runner.game.spec import Exact as Exact
from gan_runner.game.spec import Spec as Spec
from gan_runner.game.term import Term as Term
from gan_runner.game.trick import Augmentation as Augmentation
from gan_runner.game.trick import Trick as Trick
from gan_runner.schedules import Schedule as Schedule
from gan_runner.trained import load as load
from gan_runner.trained import load_generator as load_generator
from gan_runner.training.callback import Callback as Callback
from gan_runner.training.logger import Logger as Logger

def lazy(init: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]: ...
