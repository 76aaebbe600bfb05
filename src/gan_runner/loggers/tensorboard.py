"""TensorBoard event files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from gan_runner.errors import Failed
from gan_runner.evaluation.findings import aim
from gan_runner.loggers.hyperparameters import hyperparameters
from gan_runner.storage.untrusted import content
from gan_runner.training.logger import Logger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from gan_runner.training.run import Run


LAYOUT = {
    "game": {
        "loss of G and D": ["Multiline", ["^loss/g$", "^loss/d$"]],
        "logits on real and fake": ["Multiline", ["^d/real$", "^d/fake$"]],
        "gradient norms": ["Multiline", ["^grad_norm/g$", "^grad_norm/d$"]],
    }
}


def report_unless_written_by_tensorboard(args: threading.ExceptHookArgs) -> None:
    """What an error in a thread prints; none of the one that writes event files, whose error is raised by the next call, too."""
    from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread

    if not isinstance(args.thread, _AsyncWriterThread):
        threading.__excepthook__(args)


@contextmanager
def disk_of(folder: str) -> Iterator[None]:
    """TensorBoard writes in a thread of its own, whose error is raised by whatever is called next: Failed."""
    try:
        yield
    except OSError as error:
        raise Failed(f"the curves in {folder} could not be written: {error.strerror or error}") from error


def add_to_curves(folder: Path, step: int, values: dict[str, float], pictures: dict[str, Tensor]) -> None:
    """Numbers and pictures of a run that is not being played, as TensorBoard reads them. Failed where the disk does not take them."""
    from torch.utils.tensorboard import SummaryWriter

    with disk_of(str(folder)), SummaryWriter(str(folder)) as writer:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        for name, picture in pictures.items():
            writer.add_image(name, picture, step)


class TensorBoard(Logger):
    """Event files in the run directory itself; hyper-parameters are a row of the HPARAMS tab, without a sub-run.

    A resumed run purges what it is about to write again.
    """

    writer: SummaryWriter

    def begin(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a fifth of a second that gan-sample does not need
        from torch.utils.tensorboard.summary import hparams

        threading.excepthook = report_unless_written_by_tensorboard
        with disk_of(str(run.folder)):
            self.writer = SummaryWriter(str(run.folder), purge_step=run.step + 1 if run.step else None, max_queue=1000, flush_secs=30)
            if run.step == 0:
                names = [name for callback in run.callbacks.values() for name in callback.follows()]
                followed = [(aim(name, run.metrics, run.extractor) or (name, None))[0] for name in names]
                experiment, start, _ = hparams(hyperparameters(run.config), dict.fromkeys([*followed, "loss/d", "loss/g"], 0))
                self.writer._get_file_writer().add_summary(experiment)
                self.writer._get_file_writer().add_summary(start)
                self.writer.add_custom_scalars(LAYOUT)
                self.writer.add_text("config", "```yaml\n" + (content(run.folder / "config.yaml", 2**22) or b"").decode() + "```", 0)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        with disk_of(self.writer.log_dir):
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: Tensor) -> None:
        with disk_of(self.writer.log_dir):
            self.writer.add_image(name, picture, step)

    def flush(self) -> None:
        with disk_of(self.writer.log_dir):
            self.writer.flush()

    def close(self, state: str) -> None:
        from torch.utils.tensorboard.summary import hparams

        with disk_of(self.writer.log_dir):
            if state == "finished":
                self.writer._get_file_writer().add_summary(hparams({}, {})[2])
            self.writer.close()
