"""What older versions wrote, in today's words. The one place for it; docs/compatibility.md says what is promised. Imports no torch."""

from __future__ import annotations

import copy
import math
import re
from functools import reduce
from typing import Any

ADDED = {"dataset.background": "white"}  # keys that older configurations lack -> the value that is used then, where no constructor has it
RENAMED: dict[str, str] = {}  # keys of older configurations -> their names today; in config.yaml, in states and in overrides.yaml
HALF_WIDTHS = {  # generators that had prior: normal or uniform until version 0.1 -> what uniform was: from -this to this
    "gan_runner.architectures.DCGANGenerator": 1.0,
    "gan_runner.architectures.MLPGenerator": math.sqrt(3),
}

EXTRACTORS = {  # until version 0.1 there was one feature network, without a name; its class -> the name of its file
    "gan_runner.extractors.CifarResNet": "cifar_resnet",
    "gan_runner.extractors.Identity": "identity",
    "gan_runner.extractors.InceptionV3TF": "inception_v3_tf",
    "gan_runner.extractors.LeNet": "lenet",
    "gan_runner.extractors.RandomConv": "random_conv",
    "gan_runner.extractors.TorchvisionClassifier": "torchvision",
}

BETTER = {
    "min": r"(intra_)?(fid|fd)(_infinity)?/[^/]+|(kid|mmd|geometry)/[^/]+|modes/kl",
    "max": r"(cs|is)/[^/]+|(pr|dc|prd)/[^/]+/(precision|recall|coverage|f8|f1_8)|support/(precision|recall|f1)"
    r"|modes/(covered|covered_well|high_quality)|(ais|parzen)/log_likelihood",
}
"""Which way is better, by key, for lines of metrics.jsonl that do not say it. Frozen: since then a metric says it (`Metric.better`), and
what is new does not belong here."""


def translated(config: Any) -> Any:
    """Translate keys and values of older versions in a plain configuration to today's (RENAMED, HALF_WIDTHS, EXTRACTORS)."""
    config = copy.deepcopy(config)
    for old, new in RENAMED.items():
        *parents, last = old.split(".")
        node = reduce(lambda node, key: node.get(key) if isinstance(node, dict) else None, parents, config)
        if isinstance(node, dict) and last in node:
            value = node.pop(last)
            *parents, last = new.split(".")
            reduce(lambda node, key: node.setdefault(key, {}), parents, config)[last] = value
    architecture = config.get("architecture") if isinstance(config, dict) else None
    if isinstance(architecture, dict) and isinstance(architecture.get("generator"), dict):
        architecture["generator"] = with_law(architecture["generator"])
    if isinstance(config, dict) and "extractor" in config:
        config["extractor"] = named(config["extractor"])
    return config


def named(extractor: Any) -> Any:
    """Return the feature networks by name, where there was one without a name, or null."""
    if isinstance(extractor, dict) and "_target_" in extractor:
        return {EXTRACTORS.get(str(extractor["_target_"]), "extractor"): extractor}
    return {} if extractor is None else extractor


def with_law(generator: dict[str, Any]) -> dict[str, Any]:
    """Translate `prior: normal` and `prior: uniform` of a generator to the part that draws the same bits."""
    half = HALF_WIDTHS.get(str(generator.get("_target_")))
    if half is None or generator.get("prior") not in ("normal", "uniform"):
        return generator
    uniform = {"_target_": "gan_runner.priors.Uniform", "low": -half, "high": half}
    return generator | {"prior": uniform if generator["prior"] == "uniform" else None}


def better(key: str) -> str | None:
    """Say "min" or "max" for a figure of a line that does not say it itself; None where its key does not tell either."""
    return next((mode for mode, keys in BETTER.items() if re.fullmatch(keys, key)), None)
