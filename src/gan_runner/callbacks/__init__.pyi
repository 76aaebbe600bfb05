from gan_runner.callbacks.checkpoint import Checkpoint as Checkpoint
from gan_runner.callbacks.evaluate import Evaluate as Evaluate
from gan_runner.callbacks.grid import Grid as Grid
from gan_runner.callbacks.log import Log as Log
from gan_runner.callbacks.progress import Progress as Progress
from gan_runner.callbacks.refine import Refine as Refine
from gan_runner.training.callback import Callback as Callback
