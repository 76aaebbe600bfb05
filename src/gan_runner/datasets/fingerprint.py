"""Fingerprints of data sets, without reading all samples, and the differences of two fingerprints."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gan_runner.errors import UserError, printable, some

if TYPE_CHECKING:
    from gan_runner.datasets.dataset import Items
    from gan_runner.datasets.pack import Encoded

CHOSEN = 1000  # items whose content is compared
VALUES = 2**16  # numbers that are kept of samples that are floats
AGAIN = 32  # items that are read twice
SHOWN = 3  # names in a message

Fingerprint = dict[str, Any]
"""samples: how many. kind: the type and shape of a sample, or files. listing: SHA-256 of the names and sizes of all files, or "".
items: name of each chosen item -> its label (- for none) and the SHA-256 of its bytes, cut to 64 bits (nothing where it is not compared).
values: the first chosen items, float32, where samples are floats, else None."""


def rank(name: str) -> bytes:
    """Return the sort key by which items are chosen: a hash of the name with a fixed key, equal in all data sets."""
    return hashlib.blake2b(b"gan-runner/" + name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def chosen(names: Sequence[str]) -> list[int]:
    """Return the indices of the CHOSEN names of the lowest rank, ascending."""
    return sorted(heapq.nsmallest(CHOSEN, range(len(names)), key=lambda i: rank(names[i])))


def of_items(items: Items) -> Fingerprint:
    """Compute the fingerprint of any samples: their number, and CHOSEN of them by index, with labels.

    Float samples are stored, to be compared up to rounding: processors differ in the last bit of a random number.
    Contents are omitted if a second reading differs, as in a data set with random augmentation.
    """
    names = [str(i) for i in range(len(items))]
    rows = torch.tensor(chosen(names))
    x, y = items.take(rows)
    x = x.detach().cpu().contiguous()
    again = items.take(rows[:AGAIN])[0].cpu()
    settled = torch.equal(x[:AGAIN], again) or bool(x[:AGAIN].isnan().any())
    labels = ["-"] * len(rows) if y is None else [str(label) for label in y.tolist()]
    if settled and not x.is_floating_point():
        contents = [short(row.numpy().tobytes()) for row in x]
    else:
        contents = [""] * len(rows)
    kept = max(1, min(len(x), VALUES // max(x[0].numel(), 1)))
    return {
        "samples": len(items),
        "kind": f"{str(x.dtype).removeprefix('torch.')} of shape {'x'.join(map(str, x.shape[1:])) or '1'}",
        "items": {names[row]: f"{label} {content}" for row, label, content in zip(rows.tolist(), labels, contents)},
        "listing": "",
        "values": x[:kept].flatten(1).float().clone() if settled and x.is_floating_point() else None,
    }


def of_files(folder: Path, files: Sequence[Encoded]) -> Fingerprint:
    """Compute the fingerprint of image files: number, names, sizes, and the bytes of CHOSEN of them. UserError if one cannot be read.

    Rows of a table have no sizes, and labels instead.
    """
    start = os.path.join(folder, "")
    names = [file.name if not isinstance(file, Path) else below(os.fspath(file), start) for file in files]
    marks = ["-" if isinstance(file, Path) else file.mark for file in files]
    picked = chosen(names)
    try:
        with ThreadPoolExecutor(8) as pool:
            contents = list(pool.map(lambda i: short(files[i].read_bytes()), picked))
        sizes = [os.stat(file).st_size if isinstance(file, Path) else file.size for file in files]
    except OSError as error:
        raise UserError(f"cannot read the image {error.filename} ({error.strerror}); replace or remove it") from error
    listing = hashlib.sha256()
    for name, size, mark in sorted(zip(names, sizes, marks)):
        said = f"{size}" if mark == "-" else f"{size}\0{mark}"
        listing.update(f"{name}\0{said}\0".encode("utf-8", "surrogatepass"))
    items = {names[i]: f"{marks[i]} {content}" for i, content in zip(picked, contents)}
    return {"samples": len(files), "kind": "files", "items": items, "listing": listing.hexdigest(), "values": None}


def below(text: str, start: str) -> str:
    """Return a path below the folder `start`, which ends with a separator."""
    return text.removeprefix(start) if text.startswith(start) else os.path.relpath(text, start)


def short(data: bytes) -> str:
    """Return the SHA-256, cut to 64 bits."""
    return hashlib.sha256(data).hexdigest()[:16]


def digest(mark: Fingerprint) -> str:
    """Return one line for a fingerprint: equal for equal fingerprints."""
    values = b"" if mark["values"] is None else mark["values"].numpy().tobytes()
    return short(repr([mark["samples"], mark["kind"], mark["listing"], sorted(mark["items"].items())]).encode() + values)


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Describe the differences; empty for equal data.

    With more than CHOSEN items, a name chosen in only one set is gone or new if its rank would have been chosen in the other.
    """
    found = [
        f"{before[key]}{unit} then, {now[key]}{unit} now"
        for key, unit in (("samples", " samples"), ("kind", ""))
        if before[key] != now[key]
    ]
    if before["kind"] != now["kind"]:
        return found
    old, new = before["items"], now["items"]
    for word, these, those in (("gone", old, new), ("new", new, old)):
        last = max(map(rank, those)) if len(those) >= CHOSEN else None
        if names := [name for name in these if name not in those and (last is None or rank(name) < last)]:
            found.append(f"{word}: {listed(names)}")
    both = [name for name in old if name in new]
    (label, content), (new_label, new_content) = (
        [{n: each[n].partition(" ")[part] for n in both} for part in (0, 2)] for each in (old, new)
    )
    far = strayed(before, now)
    others = [name for name in both if name in far or (content[name] and new_content[name] and content[name] != new_content[name])]
    if others:
        found.append(f"other contents in {len(others)} of {len(both)} that are compared: {listed(others)}")
    if names := [name for name in both if label[name] != new_label[name]]:
        found.append(f"other labels in {len(names)} of {len(both)} that are compared: {listed(names)}")
    if not found and before["listing"] != now["listing"]:
        found.append(f"other names or sizes of files, none of them among the {len(both)} whose contents are compared")
    return found


def strayed(before: Fingerprint, now: Fingerprint) -> set[str]:
    """Return the float items that differ by more than rounding."""
    if before["values"] is None or now["values"] is None:
        return set()
    rows = [dict(zip(mark["items"], mark["values"])) for mark in (before, now)]
    return {
        name for name in rows[0].keys() & rows[1].keys() if not torch.allclose(rows[0][name], rows[1][name], 1e-4, 1e-6, equal_nan=True)
    }


def listed(names: Iterable[str]) -> str:
    """Format the first few names, and the number of others."""
    return some((printable(name, 100) for name in names), SHOWN)
