"""Fixtures."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data."""
    folder = os.environ.get("GAN_RUNNER_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data in the folder that the environment variable GAN_RUNNER_DATA names")
    return Path(folder)
