"""List the images of a folder: each file once, in alphabetical order; with the files left out, and the reasons."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from gan_runner import errors
from gan_runner.errors import UserError, printable

if TYPE_CHECKING:
    from gan_runner.datasets.pack import Encoded

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
UNREAD = {  # suffixes of images that are not read
    ".apng", ".arw", ".avif", ".cr2", ".cr3", ".dds", ".dng", ".exr", ".hdr", ".heic", ".heif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe",
    ".jpeg2000", ".jpf", ".jpx", ".jxl", ".nef", ".pbm", ".pcx", ".pfm", ".pnm", ".psd", ".qoi", ".raw", ".svg", ".tga",
}  # fmt: skip
PLACES = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}  # folders of a split, the first counts
SHOWN = 8  # names that a message spells out
NAMED = 1000  # images that cannot be read which a message names, so that they can be removed at once
LISTED = 10  # classes that a line counts one by one
LARGEST = 2**31  # bytes of an image file: more than the largest that Pillow decodes

Parts = tuple[str, ...]  # names from the folder down to a file
Images = list[tuple["Encoded", str]]  # file and class of each, sorted by path; "" where there are no classes


@dataclass
class Walk:
    """The content of a folder, at any depth."""

    found: list[Parts] = field(default_factory=list)
    others: dict[Parts, Counter[str]] = field(default_factory=dict)  # by folder: other files, by their suffix
    reasons: Counter[str] = field(default_factory=Counter)  # why something else was left out
    broken: dict[Parts, str] = field(default_factory=dict)  # images that cannot be read, and why


@dataclass(frozen=True)
class Listing:
    """The images of a folder.

    splits: images of `train` and `test`; of "" if there are no folders of splits. places: the folder of each split, by name.
    left_out: number of files and folders, by reason. bare: folders on the level of classes without an image. order: the classes in the
    order of their labels, where it is not the alphabet. numbered: classes are numbers without names. split_by: what a split by hash reads.
    """

    folder: Path
    splits: dict[str, Images]
    places: dict[str, str]
    left_out: Counter[str]
    bare: list[str]
    order: tuple[str, ...] | None = None
    numbered: bool = False
    split_by: str = "paths"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels, which is the alphabet unless the file has another; empty without labels."""
        if self.order is not None:
            return self.order if len(self.order) > 1 else ()
        names = sorted({name for files in self.splits.values() for _, name in files})
        return tuple(names) if len(names) > 1 else ()

    def summary(self, splits: Mapping[str, Images], chosen: str = "") -> str:
        """Summarise in one line: images, classes, splits (chosen: how), and what was left out and why."""
        files = [file for part in splits.values() for file in part]
        said = counted(len(files), "image") + f" in {shown(self.folder)}"
        if names := self.class_names:
            said += f", {classes(Counter(name for _, name in files))}"
        if len(splits) > 1:
            places = {split: f" ({shown(place)}/)" for split, place in self.places.items()}
            said += f"; {len(splits['train']):,} for training{places.get('train', '')}"
            said += f" and {len(splits['test']):,} for testing{places.get('test', '')}{chosen}"
            if untested := sorted(set(names) - {name for _, name in splits["test"]}):
                said += f"; classes without a test image: {some(untested)}"
        if self.bare:
            said += f"; folders without an image: {some(self.bare)}"
        return said + (f"; left out: {reasons(self.left_out)}" if self.left_out else "")


def listed(folder: Path) -> Listing:
    """List the images below a folder; splits and classes are the names of its folders.

    A folder is entered once, also with several links to it. A file counts once, under the name that is not a link, else under its first
    name. Raises UserError if images cannot be read, a class has only unsupported images, or the classes are ambiguous.
    """
    return arranged(folder, walked(folder), lambda parts: folder.joinpath(*parts))


def arranged(folder: Path, walk: Walk, file: Callable[[Parts], Encoded]) -> Listing:
    """Arrange the images of a walk by splits and classes. file: the image of a name. UserError as in `listed`."""
    if walk.broken:
        named = errors.some((f"{shown('/'.join(parts))} ({why})" for parts, why in sorted(walk.broken.items())), NAMED)
        raise UserError(f"{shown(folder)} has images that cannot be read: {named}; replace or remove them")
    suffixes = sum(walk.others.values(), Counter())
    left_out = walk.reasons + Counter({suffix or "without a suffix": n for suffix, n in suffixes.items()})
    if not walk.found:
        there = f"; left out: {reasons(left_out)}" if left_out else ""
        raise UserError(f"there is no image in {shown(folder)} ({', '.join(sorted(SUFFIXES))}){there}")
    places = split_folders(folder, {parts[0] for parts in walk.others if parts})
    splits: dict[str, Images] = {split: [] for split in places} or {"": []}
    roots: dict[Parts, str] = {(place,): split for split, place in places.items()} or {(): ""}
    depth = 1 if places else 0
    for parts in walk.found:
        if (root := parts[:depth]) in roots and len(parts) > depth:
            splits[roots[root]].append((file(parts), parts[depth] if len(parts) > depth + 1 else ""))
        else:
            left_out[f"beside {' and '.join(f'{shown(place)}/' for place in sorted(places.values()))}"] += 1
    names = {name for files in splits.values() for _, name in files}
    if "" in names and len(names) > 1:
        raise UserError(
            f"{shown(folder)} holds both images and folders of images; keep one or the other, so that it is clear what a class is"
        )
    bare = {parts: others for parts, others in of_folders(walk, depth).items() if parts[:depth] in roots}
    lost = [f"{'/'.join(parts)}/ ({', '.join(sorted(others))})" for parts, others in bare.items() if UNREAD & others.keys()]
    if lost and "" not in names:
        raise UserError(
            f"{shown(folder)} has folders whose images are of a kind that is not read: {some(lost)}; convert them (to "
            f"{', '.join(sorted(SUFFIXES))}), or remove the folders"
        )
    return Listing(folder, splits, places, left_out, ["/".join(parts) + "/" for parts in bare])


def of_folders(walk: Walk, depth: int) -> dict[Parts, Counter[str]]:
    """Return the other files of the folders on this level without an image at any depth; sorted."""
    holding = {parts[: depth + 1] for parts in walk.found if len(parts) > depth + 1}
    bare: dict[Parts, Counter[str]] = {}
    for parts, others in sorted(walk.others.items()):
        if len(parts) > depth and parts[: depth + 1] not in holding:
            bare.setdefault(parts[: depth + 1], Counter()).update(others)
    return bare


def walked(root: Path) -> Walk:
    """Walk all files below a folder: first its own, then the targets of links. UserError if a folder cannot be read.

    Names that begin with a dot are ignored. Only folders are opened.
    """
    walk, entered, taken = Walk(), set[tuple[int, int]](), set[tuple[int, int]]()
    folders: list[tuple[Parts, str]] = [((), os.fspath(root))]
    while folders:
        files: list[tuple[Parts, os.stat_result]] = []
        links: list[tuple[Parts, str]] = []
        while folders:
            parts, path = folders.pop()
            try:
                status = os.stat(path)
                if (status.st_dev, status.st_ino) in entered:
                    walk.reasons["linked to a folder that is counted already"] += 1
                    continue
                entered.add((status.st_dev, status.st_ino))
                walk.others[parts] = Counter()
                with os.scandir(path) as entries:
                    for entry in entries:
                        here = (*parts, entry.name)
                        if entry.name.startswith("."):
                            walk.reasons["hidden"] += 1
                        elif entry.is_symlink():
                            links.append((here, entry.path))
                        elif entry.is_dir(follow_symlinks=False):
                            folders.append((here, entry.path))
                        else:
                            files.append((here, entry.stat(follow_symlinks=False)))
            except OSError as error:
                raise UserError(f"cannot read the folder {shown(path)}: {error.strerror}; change that, or remove it") from error
        for here, status in sorted(files, key=itemgetter(0)):
            take(walk, taken, here, status)
        for here, path in sorted(links):
            try:
                status = os.stat(path)
            except OSError:
                if suffix_of(here[-1]) in SUFFIXES:
                    walk.broken[here] = "a link to a file that is not there"
                else:
                    walk.reasons["linked to nothing"] += 1
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.insert(0, (here, path))  # the first in the alphabet is taken first
            else:
                take(walk, taken, here, status)
    walk.found.sort()
    return walk


def take(walk: Walk, taken: set[tuple[int, int]], parts: Parts, status: os.stat_result) -> None:
    """Add a file to the walk. taken: device and inode of the images so far."""
    suffix = suffix_of(parts[-1])
    if not stat.S_ISREG(status.st_mode):
        walk.reasons["no regular file"] += 1
    elif suffix not in SUFFIXES:
        walk.others[parts[:-1]][suffix] += 1
    elif status.st_size == 0:
        walk.broken[parts] = "empty"
    elif status.st_size > LARGEST:
        walk.broken[parts] = f"{status.st_size / 2**30:.0f} GiB"
    elif (status.st_dev, status.st_ino) in taken:
        walk.reasons["second name of an image"] += 1
    else:
        taken.add((status.st_dev, status.st_ino))
        walk.found.append(parts)


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def split_folders(folder: Path, tops: set[str]) -> dict[str, str]:
    """Return the folder of each split by name, from the folders `tops` on the first level; empty if they are not splits.

    A class may be named train: a folder of a training split without one for testing is a class, unless it is the only folder.
    """
    by_name = {name.lower(): name for name in sorted(tops)}
    places = {
        split: next(by_name[name] for name in names if name in by_name) for split, names in PLACES.items() if by_name.keys() & set(names)
    }
    if len(places) == len(PLACES):
        return places
    if places and not by_name.keys() - {name for names in PLACES.values() for name in names}:
        [there] = places.values()
        [lacking] = PLACES.keys() - places.keys()
        raise UserError(
            f"{shown(folder)} holds {shown(there)}/ and no folder {lacking}/: give {shown(folder / there)} itself (gan-train "
            f"keeps a share of it for testing), or add {lacking}/"
        )
    return {}


def classes(images: Counter[str]) -> str:
    """Format the number of classes, and of images in each."""
    if len(images) <= LISTED:
        return f"{len(images)} classes ({', '.join(f'{shown(name)} {n:,}' for name, n in sorted(images.items()))})"
    return f"{len(images)} classes of {min(images.values()):,} to {max(images.values()):,} images"


def reasons(left_out: Counter[str]) -> str:
    """Format the number of files and folders left out for each reason, the most frequent first."""
    return some([f"{n:,} {reason}" for reason, n in sorted(left_out.items(), key=lambda item: (-item[1], item[0]))])


def counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def some(names: Iterable[str]) -> str:
    """Format the first names, and the number of others."""
    return errors.some(map(shown, names), SHOWN)


def shown(name: str | Encoded) -> str:
    """Make a name of any bytes safe for a terminal."""
    return printable(str(name))
