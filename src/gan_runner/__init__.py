"""gan-runner: a config-driven experiment runner for generative adversarial networks.

    run = gan_runner.load("outputs/gaussians25/...")
    x = run.sample(64)

The names below are imported when they are first asked for, so that the commands start without torch.
"""

import importlib
from typing import Any

_HOME = {
    "Batch": "game",
    "Callback": "callbacks",
    "Dataset": "datasets",
    "Discriminator": "architectures",
    "DiscriminatorOutput": "game",
    "Draws": "draws",
    "Exact": "datasets",
    "Extractor": "extractors",
    "Generator": "architectures",
    "Logger": "loggers",
    "Metric": "metrics",
    "Penalty": "penalties",
    "Play": "game",
    "Rule": "rules",
    "Samples": "datasets",
    "Schedule": "schedules",
    "Spec": "datasets",
    "Term": "losses",
    "Trick": "tricks",
    "load": "sampling",
    "load_generator": "sampling",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"gan_runner.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gan_runner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
