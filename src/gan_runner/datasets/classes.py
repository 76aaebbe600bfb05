"""Match classes by name. The meaning of a label is the name of its class, so names are compared, not numbers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gan_runner.errors import UserError, printable, some
from gan_runner.game.spec import Spec

SHOWN = 8  # names in a message


def listed(names: Iterable[str]) -> str:
    """Format names: cat, dog, ship and 4 more."""
    return some((printable(name, 60) for name in names), SHOWN)


def label_of(said: str | int, spec: Spec) -> int:
    """Return the label of a class, given by name or number; the name takes precedence. ValueError if there is no such class."""
    text, names, classes = str(said), spec.class_names or (), spec.classes or 0
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < classes:
        return int(text)
    named = f" or one of {listed(names)}" if names else ""
    raise ValueError(f"there is no class {printable(text, 60)}: it must be 0 to {classes - 1}{named}")


def refuse_labels(labels: Tensor | None, spec: Spec, whose: str) -> None:
    """Raise UserError if a label (N) is not a class of the spec, or the classes have no distinct names."""
    names = spec.class_names
    if names is not None and (len(names) != spec.classes or len({*names}) < len(names)):
        raise UserError(f"{whose} has {spec.classes} classes and {len({*names})} different names for them: {listed(names)}")
    if labels is None or not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (spec.classes is not None and high >= spec.classes):
        expected = "0 or more" if spec.classes is None else f"0 to {spec.classes - 1}, as there are {spec.classes} classes"
        raise UserError(f"{whose} has labels from {low} to {high}: expected {expected}")


def by_number(real: Spec, samples: Spec) -> bool:
    """Return whether labels can only be compared as numbers, because one side has no names."""
    return real.class_names is None or samples.class_names is None


def translated(labels: Tensor, real: Spec, samples: Spec) -> Tensor:
    """Translate labels (N) of real data to those of the samples by class name; unchanged if one side has no names.

    UserError if the classes differ; it names the classes without samples on each side.
    """
    if real.class_names is None or samples.class_names is None:
        if real.classes != samples.classes:
            raise UserError(
                f"the samples have {samples.classes} classes and the real ones {real.classes}, and not all of them have names by which to "
                "match them; a .npz file names its classes in an array class_names, in the order of the labels"
            )
        return labels
    if lacking := difference(samples.class_names, real.class_names):
        raise UserError(f"the classes of the samples and of the real ones are not the same: {lacking}")
    return torch.tensor([samples.class_names.index(name) for name in real.class_names])[labels]


def difference(fake: tuple[str, ...], real: tuple[str, ...]) -> str:
    """Describe the classes without samples on either side; empty for equal sets of names."""
    sides = (("samples", real, fake), ("real samples", fake, real))
    lacking = [(what, [name for name in wanted if name not in there]) for what, wanted, there in sides]
    return "; ".join(f"there are no {what} of {listed(names)}" for what, names in lacking if names)


def refuse_renamed(saved: Spec, now: Spec, whose: str) -> None:
    """Raise UserError if the class names of a run, or their order, differ from those of the data set now."""
    if saved.class_names is None or saved.class_names == now.class_names:
        return
    before, after = saved.class_names, now.class_names or ()
    gone, new = ([name for name in one if name not in other] for one, other in ((before, after), (after, before)))
    what = [f"{which} {listed(names)}" for which, names in (("no longer there:", gone), ("new:", new)) if names]
    raise UserError(
        f"the labels of this run belong to the classes {listed(before)}, and {whose} has other ones now "
        f"({'; '.join(what) or 'the same names in another order'}): a label would mean another class; restore the names, or begin a new run"
    )
