"""The process of a command: it lays out its case, and becomes what a user would have started."""

import atexit
import json
import os
import random
import resource
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from hostile import stage, watch
from hostile.stage import SECRET, TOKEN, Attack, Stage

NOT_BUILT = 99  # exit code


@dataclass
class Case:
    """An attack, with the chance that decides its details."""

    number: int
    attack: Attack
    seed: int

    def __str__(self) -> str:
        return f"case {self.number}, {self.attack.kind}: {self.attack.name}"


def become(case: Case, command: str, root: Path, stock: Path, port: int) -> None:
    """Be the command: lay out the case, remember what there is, and run. Does not return."""
    os.setsid()
    for number, handler in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        signal.signal(number, handler)
    code = NOT_BUILT
    try:
        scene = Stage(root, f"http://127.0.0.1:{port}", random.Random(f"{case.seed}/{case.number}"))
        stage.set_up(scene, stock, case.attack.subject)
        case.attack.spoil(scene)
        environment(scene, port)
        os.chdir(scene.here)
        sys.path.insert(0, str(scene.here))
        before = {"outside": watch.content(scene.outside, times=True), "here": watch.content(scene.here, times=False)}
        (root / "before.json").write_text(json.dumps(before))
        (root / "line").write_text(" ".join(scene.lines[command]), errors="backslashreplace")
        for limit, most in ((resource.RLIMIT_FSIZE, 2**30), (resource.RLIMIT_CORE, 0)):
            resource.setrlimit(limit, (most, most))
        redirect(root)
        code = run(command, scene.lines[command])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def environment(scene: Stage, port: int) -> None:
    """A home of its own, secrets to find, and every way to the network through the server that listens."""
    home, proxy = scene.root / "home", f"http://127.0.0.1:{port}"
    for folder in (home, home / "tmp"):
        folder.mkdir()
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "OMP_NUM_THREADS")}
    os.environ.clear()
    os.environ |= kept | {
        "PATH": f"{scene.root / 'bin'}:{kept['PATH']}",
        "HOME": str(home), "TMPDIR": str(home / "tmp"), "XDG_CACHE_HOME": str(home / "cache"), "MPLCONFIGDIR": str(home / "matplotlib"),
        "GAN_RUNNER_CACHE": str(home / "gan-runner"), "TRACKIO_DIR": str(home / "trackio"), "OMP_NUM_THREADS": "1",
        "SECRET": SECRET, "MLFLOW_TRACKING_TOKEN": TOKEN, "WANDB_API_KEY": "0" * 40, "HF_TOKEN": "hf_0",
        "WANDB_BASE_URL": proxy, "HF_ENDPOINT": proxy, "http_proxy": proxy, "https_proxy": proxy, "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy,
    }  # fmt: skip
    tempfile.tempdir = None


def redirect(root: Path) -> None:
    """What is said goes to files, and nobody types."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(root / name, os.O_WRONLY | os.O_CREAT), number)


def run(command: str, words: list[str]) -> int:
    """The exit code of a command, and all that Python does after it."""
    try:
        code = stage.call(command, words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        print(f"ESCAPED {type(error).__name__}: {error}", file=sys.stderr)
        code = 70
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    return code
