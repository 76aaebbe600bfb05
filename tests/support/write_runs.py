"""Small run directories, written by hand."""

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image


def png(width: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, width), (200, 30, 30)).save(buffer, "png")
    return buffer.getvalue()


def line(step: int, protocol: dict[str, Any] | None = None, better: dict[str, str] | None = None, **metrics: float | None) -> str:
    """A line of metrics.jsonl at a batch size of 10; `__` stands for a slash. better: None makes a line of an older version."""
    figures = {key.replace("__", "/"): value for key, value in metrics.items()}
    protocol = {"n_fake": 100, "generator": "G"} | (protocol or {})
    said = {} if better is None else {"better": better}
    return json.dumps({"step": step, "images": 10 * step, "metrics": figures, **said, "protocol": protocol})


def make(folder: Path, state: str = "finished", lines: tuple[str, ...] = (), config: dict[str, Any] | None = None, **status: Any) -> Path:
    """A run that follows cs/lenet, with a grid of samples and a checkpoint of its last step."""
    (folder / "samples").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    best = {"metric": "cs/lenet", "mode": "max"}
    tree = {"seed": 0, "batch_size": 10, "loss": {"_target_": "gan_runner.losses.NonSaturating"}, "trainer": {"steps": 40}}
    tree |= {"callback": {"evaluate": {"n": 100, "best": best}}} | (config or {})
    status = {
        "state": state,
        "step": 40,
        "images": 400,
        "started": "2026-01-31T10:00:00+0000",
        "ended": "2026-01-31T10:01:30+0000",
    } | status
    (folder / "config.yaml").write_text(json.dumps(tree))
    (folder / "overrides.yaml").write_text(json.dumps(["+experiment=some", f"seed={tree['seed']}"]))
    (folder / "status.json").write_text(json.dumps({key: value for key, value in status.items() if value is not None}))
    (folder / "metrics.jsonl").write_text("".join(f"{each}\n" for each in lines))
    (folder / "samples" / "step_00000040.png").write_bytes(png())
    (folder / "checkpoints" / "step_00000040.pt").write_bytes(b"x" * 1000)
    (folder / "train.log").write_text("played\n")
    (folder / ".lock").touch()
    return folder
