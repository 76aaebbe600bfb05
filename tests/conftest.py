"""What all tests share. Small tensors are fastest on one thread, and then as many tests as there are cores run side by side."""

import os
import signal
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GAN_RUNNER_CACHE", os.path.join(tempfile.gettempdir(), "gan-runner-tests"))  # not that of who runs them

from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a background job of a shell, and in all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # as below nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take minutes: at the end, one process would wait for the other."""
    items.sort(key=lambda item: item.get_closest_marker("minutes") is None)


@pytest.fixture(scope="session", autouse=True)
def _no_runs_of_tests_in_the_database_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Trackio's, which reads where it lies when it is imported."""
    os.environ["TRACKIO_DIR"] = str(tmp_path_factory.mktemp("trackio"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data."""
    folder = os.environ.get("GAN_RUNNER_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data in the folder that the environment variable GAN_RUNNER_DATA names")
    return Path(folder)
