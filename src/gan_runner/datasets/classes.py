"""Classes by name. A label is a number, and what it means is the name of a class: names are compared, numbers are not."""

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
    """Return the label of a class that is given by its name or by its number; a name wins where both fit. ValueError where there is
    none."""
    text, names, classes = str(said), spec.class_names or (), spec.classes or 0
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < classes:
        return int(text)
    named = f" or one of {listed(names)}" if names else ""
    raise ValueError(f"there is no class {printable(text, 60)}: it must be 0 to {classes - 1}{named}")


def refuse_labels(labels: Tensor | None, spec: Spec, whose: str) -> None:
    """Raise UserError where a label (N) is no class of the spec, or its classes have not one name each."""
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
    """Translate labels (N) of real data to those of the samples: to the class of the same name, or the same number where a side has no
    names.

    UserError where the classes are not the same ones: says which class lacks samples on which side.
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
    """Return which classes have no samples on which side; empty where the names are the same, in whatever order."""
    sides = (("samples", real, fake), ("real samples", fake, real))
    lacking = [(what, [name for name in wanted if name not in there]) for what, wanted, there in sides]
    return "; ".join(f"there are no {what} of {listed(names)}" for what, names in lacking if names)


def refuse_renamed(saved: Spec, now: Spec, whose: str) -> None:
    """Raise UserError where a run was trained with other class names, or with the same ones in another order, than the data set has now."""
    if saved.class_names is None or saved.class_names == now.class_names:
        return
    before, after = saved.class_names, now.class_names or ()
    gone, new = ([name for name in one if name not in other] for one, other in ((before, after), (after, before)))
    what = [f"{which} {listed(names)}" for which, names in (("no longer there:", gone), ("new:", new)) if names]
    raise UserError(
        f"the labels of this run belong to the classes {listed(before)}, and {whose} has other ones now "
        f"({'; '.join(what) or 'the same names in another order'}): a label would mean another class; restore the names, or begin a new run"
    )
