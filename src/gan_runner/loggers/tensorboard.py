"""TensorBoard event files."""

from __future__ import annotations

import io
import re
import threading
import wave
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gan_runner.errors import Failed
from gan_runner.evaluation.findings import aim
from gan_runner.loggers.hyperparameters import hyperparameters, said_first
from gan_runner.storage.labels import key_of, label, line_of, varied
from gan_runner.storage.records import is_held
from gan_runner.storage.untrusted import read_bounded
from gan_runner.training.logger import Logger

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

    from gan_runner.training.run import Run


APART = {"loss/d": "D/loss", "d/real": "D/real", "grad_norm/d": "D/grad_norm"}  # the names of these curves in the folder D
CHARTS = {
    "loss of G and D": ("loss/g", "loss/d"),
    "logits on real and fake": ("d/fake", "d/real"),
    "gradient norms": ("grad_norm/g", "grad_norm/d"),
}


def layout(names: Mapping[str, str]) -> dict[str, dict[str, list[Any]]]:
    """Return the charts of the CUSTOM SCALARS tab. names: which curves are drawn under another name.

    The tab of a folder with single runs and sweeps has the charts of both, below a title each.
    """
    charts = {title: ["Multiline", [f"^{names.get(tag, tag)}$" for tag in tags]] for title, tags in CHARTS.items()}
    return {"game" if names else "game, in sweeps": charts}


def place(folder: Path) -> Path:
    """Return where the event files of a run are.

    TensorBoard names a run by this folder. So for a job of a sweep it is a folder in that of the job, named by what differs between the
    jobs; else, and where older versions wrote, the folder of the run.
    """
    said = label(line_of(folder), varied(folder))
    below = sorted(path.parent for path in folder.glob("*=*/events.out.tfevents.*"))
    if any(folder.glob("events.out.tfevents.*")) or not (said or below):
        return folder
    return below[0] if below else folder / re.sub(r"[^\w.=,+-]+", "_", said.replace(" ", ","), flags=re.ASCII)[:LONGEST]


LONGEST = 100  # characters of the name of a folder


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


def put_first(experiment: Summary, names: Collection[str]) -> None:
    """Mark hyperparameters as differing, which TensorBoard shows before the others."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    plugin = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin.content)
    for each in content.experiment.hparam_infos:
        each.differs = each.name in names
    plugin.content = content.SerializeToString()


@contextmanager
def disk_of(folder: str) -> Iterator[None]:
    """Turn an OSError into Failed. TensorBoard writes in a thread, whose error is raised by the next call."""
    try:
        yield
    except OSError as error:
        raise Failed(f"the curves in {folder} could not be written: {error.strerror or error}") from error


def add_to_curves(folder: Path, step: int, values: dict[str, float], pictures: dict[str, Tensor]) -> None:
    """Add numbers and pictures to the event files of a run outside training; while it trains, to evaluations/ (as `Curves` says why).

    Failed if they cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    where = folder / "evaluations" if is_held(folder) else place(folder)
    with disk_of(str(folder)), SummaryWriter(str(where)) as writer:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        for name, picture in pictures.items():
            writer.add_image(name, picture, step)


class TensorBoard(Logger):
    """Write event files in the run directory; hyper-parameters are a row of the HPARAMS tab, without a sub-run.

    TensorBoard has one colour for each run. So that G and D differ in a chart, curves of D are also written as a run of its own, in the
    folder D; not in a sweep, where colours tell its jobs apart. A resumed run purges the rounds that it repeats, from round 0
    on where it was interrupted before its first.
    """

    writer: SummaryWriter
    apart: SummaryWriter | None = None

    def shown_by(self, folder: Path) -> list[str]:
        return ["tensorboard", "--logdir", str(folder.parent)]

    def begin(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a fifth of a second that gan-sample does not need
        from torch.utils.tensorboard.summary import hparams

        threading.excepthook = report_unless_written_by_tensorboard
        with disk_of(str(run.folder)):
            folder, settings = place(run.folder), {"purge_step": run.step + 1 if run.step else 0, "max_queue": 1000, "flush_secs": 30}
            self.writer = SummaryWriter(str(folder), **settings)
            swept = varied(run.folder)
            if not swept:
                self.apart = SummaryWriter(str(folder / "D"), **settings)
            if run.step == 0:
                names = [name for callback in run.callbacks.values() for name in callback.follows()]
                followed = [(aim(name, run.metrics) or (name, None))[0] for name in names]
                shown = hyperparameters(run.config)
                first = said_first(shown, swept or map(key_of, line_of(run.folder)))
                experiment, start, _ = hparams(shown, dict.fromkeys([*followed, "loss/d", "loss/g"], 0))
                put_first(experiment, first)
                self.writer._get_file_writer().add_summary(experiment)
                self.writer._get_file_writer().add_summary(start)
                self.writer.add_custom_scalars(layout(APART if self.apart else {}))
                self.writer.add_text("config", "```yaml\n" + (read_bounded(run.folder / "config.yaml", 2**22) or b"").decode() + "```", 0)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        with disk_of(self.writer.log_dir):
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
                if self.apart and name in APART:
                    self.apart.add_scalar(APART[name], value, step)

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
            for writer in self.writers:
                writer.flush()

    def close(self, state: str) -> None:
        from torch.utils.tensorboard.summary import hparams

        with disk_of(self.writer.log_dir):
            if state == "finished":
                self.writer._get_file_writer().add_summary(hparams({}, {})[2])
            for writer in self.writers:
                writer.close()

    @property
    def writers(self) -> list[SummaryWriter]:
        return [self.writer, *([self.apart] if self.apart else [])]
