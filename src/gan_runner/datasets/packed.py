"""The user's images, packed in one file."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from gan_runner.datasets.dataset import Workers
from gan_runner.datasets.decoding import BACKGROUND, colour
from gan_runner.datasets.folder import ImageFiles
from gan_runner.datasets.listing import Listing, shown
from gan_runner.datasets.packs import PACKED, is_packed, unpacked
from gan_runner.errors import UserError


class Packed(ImageFiles):
    """Images of any size in one file: a .zip, or a column of a .parquet or .arrow file. The file is read where it is; nothing is unpacked.

    A zip is read as a folder is (see ImageFolder): class folders, or folders of splits; where all images are in folders below one folder,
    that one counts as the zip. column: of a table, the encoded images; None: the only such column. label: of a table, the classes, text or
    whole numbers; auto: label, labels or class, where there is one; None: no labels. Rows are split by a hash of the paths of their images
    where each has one of its own, else of their numbers.

    All other parameters are those of ImageFolder. Where decoded images are not kept, reading rows of a .parquet file at random unpacks the
    rows that are stored with each. ValueError if `background` is not a colour name of Pillow.
    """

    def __init__(
        self,
        path: str,
        resolution: Annotated[int, Gt(0)],
        channels: Literal[1, 3, 4] = 3,
        column: str | None = None,
        label: str | None = "auto",
        background: str = BACKGROUND,
        flip: bool = False,
        test_fraction: Annotated[float, Ge(0), Lt(1)] = 0.1,
        split_seed: Annotated[int, Ge(0)] = 0,
        resident_mb: Annotated[int, Ge(0)] = 4096,
        workers: Workers = 2,
        keep_decoded: bool = True,
    ):
        colour(background)
        self.path, self.resolution, self.channels, self.flip = Path(path).expanduser(), resolution, channels, flip
        self.column, self.label = column, label
        self.background, self.test_fraction, self.split_seed = background, test_fraction, split_seed
        self.resident_mb, self.workers, self.keep_decoded = resident_mb, workers, keep_decoded

    @cached_property
    def _images(self) -> Listing:
        if not is_packed(self.path):
            way_out = "; dataset=image_folder reads a folder" if self.path.is_dir() else ""
            raise UserError(f"dataset.path={shown(self.path)} is not a file of packed images ({', '.join(PACKED)}){way_out}")
        return unpacked(self.path, self.column, self.label, "dataset.")
