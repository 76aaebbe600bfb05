"""What files of older versions lack, or name differently. Imports no torch."""

import re

ADDED = {"dataset.background": "white"}  # keys that older configurations lack -> the value that is used then, where no constructor has it
RENAMED: dict[str, str] = {}  # keys of older configurations -> their names today; in config.yaml, in states and in overrides.yaml
BETTER = {
    "min": r"(intra_)?(fid|fd)(_infinity)?/[^/]+|(kid|mmd|geometry)/[^/]+|modes/kl",
    "max": r"(cs|is)/[^/]+|(pr|dc|prd)/[^/]+/(precision|recall|coverage|f8|f1_8)|support/(precision|recall|f1)"
    r"|modes/(covered|covered_well|high_quality)|(ais|parzen)/log_likelihood",
}
"""Which way is better, by key, for lines of metrics.jsonl that do not say it. Frozen: since then a metric says it (`Metric.better`), and
what is new does not belong here."""


def better(key: str) -> str | None:
    """Say "min" or "max" for a figure of a line that does not say it itself; None where its key does not tell either."""
    return next((mode for mode, keys in BETTER.items() if re.fullmatch(keys, key)), None)
