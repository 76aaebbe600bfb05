"""TensorBoard event files."""

from __future__ import annotations

import io
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from gan_runner.errors import Failed
from gan_runner.evaluation.findings import aim
from gan_runner.loggers.hyperparameters import hyperparameters
from gan_runner.storage.untrusted import read_bounded
from gan_runner.training.logger import Logger

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
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
    """Print the error of a thread, except TensorBoard's writer thread: its error is raised by the next call."""
    from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread

    if not isinstance(args.thread, _AsyncWriterThread):
        threading.__excepthook__(args)


def sound(name: str, content: bytes) -> Summary:
    """Convert a wav file to a summary that TensorBoard plays. Its tag ends in /audio: one that has pictures would hide the sound."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    with wave.open(io.BytesIO(content)) as file:
        audio = Summary.Audio(
            sample_rate=file.getframerate(),
            num_channels=file.getnchannels(),
            length_frames=file.getnframes(),
            encoded_audio_string=content,
            content_type="audio/wav",
        )
    return Summary(value=[Summary.Value(tag=f"{name}/audio", audio=audio)])


@contextmanager
def disk_of(folder: str) -> Iterator[None]:
    """Turn an OSError into Failed. TensorBoard writes in a thread, whose error is raised by the next call."""
    try:
        yield
    except OSError as error:
        raise Failed(f"the curves in {folder} could not be written: {error.strerror or error}") from error


def add_to_curves(folder: Path, step: int, values: dict[str, float], pictures: dict[str, Tensor]) -> None:
    """Add numbers and pictures to the event files of a run outside training. Failed if they cannot be written."""
    from torch.utils.tensorboard import SummaryWriter

    with disk_of(str(folder)), SummaryWriter(str(folder)) as writer:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        for name, picture in pictures.items():
            writer.add_image(name, picture, step)


class TensorBoard(Logger):
    """Write event files in the run directory; hyper-parameters are a row of the HPARAMS tab, without a sub-run.

    A resumed run purges the rounds that it repeats, from round 0 on where it was interrupted before its first.
    """

    writer: SummaryWriter

    def begin(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a fifth of a second that gan-sample does not need
        from torch.utils.tensorboard.summary import hparams

        threading.excepthook = report_unless_written_by_tensorboard
        with disk_of(str(run.folder)):
            self.writer = SummaryWriter(str(run.folder), purge_step=run.step + 1 if run.step else 0, max_queue=1000, flush_secs=30)
            if run.step == 0:
                names = [name for callback in run.callbacks.values() for name in callback.follows()]
                followed = [(aim(name, run.metrics) or (name, None))[0] for name in names]
                experiment, start, _ = hparams(hyperparameters(run.config), dict.fromkeys([*followed, "loss/d", "loss/g"], 0))
                self.writer._get_file_writer().add_summary(experiment)
                self.writer._get_file_writer().add_summary(start)
                self.writer.add_custom_scalars(LAYOUT)
                self.writer.add_text("config", "```yaml\n" + (read_bounded(run.folder / "config.yaml", 2**22) or b"").decode() + "```", 0)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        with disk_of(self.writer.log_dir):
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: Tensor) -> None:
        with disk_of(self.writer.log_dir):
            self.writer.add_image(name, picture, step)

    def write_file(self, step: int, name: str, suffix: str, content: bytes) -> None:
        with disk_of(self.writer.log_dir):
            if suffix == "txt":
                self.writer.add_text(name, "\n".join(f"    {line}" for line in content.decode(errors="replace").splitlines()), step)
            elif suffix == "wav":
                self.writer._get_file_writer().add_summary(sound(name, content), step)

    def flush(self) -> None:
        with disk_of(self.writer.log_dir):
            self.writer.flush()

    def close(self, state: str) -> None:
        from torch.utils.tensorboard.summary import hparams

        with disk_of(self.writer.log_dir):
            if state == "finished":
                self.writer._get_file_writer().add_summary(hparams({}, {})[2])
            self.writer.close()
