"""Compare the protocols of figures: only figures of the same protocol share a name. Imports no torch.

A figure is identified by its key and by the protocol of its line in metrics.jsonl. In a run, the plain key belongs to the protocol of
training (callback.evaluate). A figure of another protocol is named by its key and by the difference: `fd/lenet (n=500)`.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from gan_runner.storage.untrusted import Value

RESULTS = ("checkpoint", "missing", "intervals_95", "notes")  # what a protocol says besides how the figures were measured
CHOSEN = {"chosen": ("n_fake", "samples"), "real_chosen": ("n_real", "real")}  # a choice by chance -> (how many, of what)
SEEN = dict.fromkeys(("extractor", "preprocessing"), ("features", "logits", "extractor")) | dict.fromkeys(
    ("real", "n_real", "real_chosen", "real_opacity", "real_resized", "classes", "labels"), ("reference",)
)
NETWORK = ("extractor", "extractor_sha256", "preprocessing")
ALONE = ("generator", "real", "extractor", "preprocessing", "samples", "images", "lossy")  # values that need no name beside them
MOST = 100  # entries that are compared: a protocol may come from a stranger


class Measured(NamedTuple):
    """How the figures of one prefix were measured."""

    metric: str
    reads: str
    network: dict[str, Value]  # what the protocol says of its network, where several were looked through


class Protocol(NamedTuple):
    """The protocol of a line, sorted."""

    trained: bool  # measured during training, not by gan-eval
    said: dict[str, Value]  # of all figures
    settings: dict[str, dict[str, Value]]  # of each metric
    measured: dict[str, Measured]  # by prefix of keys; empty in lines of older versions

    @classmethod
    def of(cls, flat: Mapping[str, Value]) -> "Protocol":
        """Build from a protocol by dotted key, as returned by untrusted.flat."""
        said: dict[str, Value] = {}
        settings: dict[str, dict[str, Value]] = {}
        for name, value in flat.items():
            group, _, rest = name.partition(".")
            if group == "metrics":
                metric, _, setting = rest.partition(".")
                settings.setdefault(metric, {})[f"{group}.{metric}.{setting}"] = value
            elif group != "keys" and group not in RESULTS and len(said) < MOST:
                said[name] = value
        prefixes = [name[len("keys.") : -len(".metric")] for name in flat if name.startswith("keys.") and name.endswith(".metric")]
        measured = {each: Measured(str(flat[f"keys.{each}.metric"]), str(flat.get(f"keys.{each}.reads")), {}) for each in prefixes}
        for each, own in measured.items():
            own.network.update({key: flat[name] for key in NETWORK if (name := f"keys.{each}.{key}") in flat})
        return cls(not {"checkpoint", "samples"} & flat.keys(), said, settings, measured)

    def source(self, key: str) -> Measured | None:
        """Return how a figure was measured; None in lines of older versions, which do not say it."""
        parts = key.split("/")
        prefixes = ("/".join(parts[:n]) for n in range(len(parts), 0, -1))
        return next((self.measured[each] for each in prefixes if each in self.measured), None)

    def relevant(self, key: str) -> dict[str, Value]:
        """Return the entries that affect a figure: no settings of other metrics, no real samples or extractor that it does not use."""
        source = self.source(key)
        if source is None:
            return self.said | dict(islice((pair for each in self.settings.values() for pair in each.items()), MOST))
        seen = {name: SEEN.get(name.removesuffix("_sha256")) for name in self.said}
        said = {name: value for name, value in self.said.items() if not (by := seen[name]) or any(each in source.reads for each in by)}
        return said | source.network | dict(islice(self.settings.get(source.metric, {}).items(), MOST))

    def differing(self, key: str, other: "Protocol") -> dict[str, tuple[Value, Value]]:
        """Compare how two protocols measure a figure: dotted key -> (value here, value in `other`) where they differ.

        Entries of only one protocol are not compared, since it may be of another version. But a mean over seeds is never a single figure.
        """
        if self == other:
            return {}
        a, b = self.relevant(key), other.relevant(key)
        found = {name: (a[name], b[name]) for name in a if name in b and repr(a[name]) != repr(b[name]) and name not in CHOSEN}
        for name, alike in CHOSEN.items():
            if all(each in a and a[each] == b.get(each) for each in alike) and (name in a) != (name in b):
                found[name] = a.get(name), b.get(name)  # older versions took the first ones
        return found | {name: (a.get(name), b.get(name)) for name in ("seeds", "samples") if (name in a) != (name in b)}

    def described(self, key: str, other: "Protocol") -> str:
        """Describe how another protocol differs from this one, as `n=500, seed=3`; empty if they measure the figure alike."""
        return ", ".join(dict.fromkeys(_words(self.differing(key, other), other)))


def _words(found: Mapping[str, tuple[Value, Value]], other: Protocol) -> Iterator[str]:
    for name, (_, value) in found.items():
        shown = f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)[:40]
        if name == "seeds" and value is None:
            yield f"seed={other.said.get('seed')}"
        elif name == "samples" and value is None:
            yield "of a generator"
        elif name in CHOSEN:
            what = "real ones" if name == "real_chosen" else "samples"
            yield f"the first {what}" if value is None else f"{what} at random"
        elif name.endswith("_sha256"):
            yield f"{name.removesuffix('_sha256')} {shown[:8]}"
        elif name in ALONE:
            yield shown
        else:
            yield f"{'n' if name == 'n_fake' else name.rpartition('.')[2]}={shown}"
