"""Build the page on which a person distinguishes real from generated images, and the key, which raters do not get.

The page is one file that needs no server and no network. All images, real and generated, are in the same sheets, written by the same
encoder, in a shuffled order. Only key.json contains which image of a pair is real, with two exceptions. The page contains the truth of the
practice pairs, which are never scored: it shows it to the rater and fits the rater model to the answers. With a staircase, which depends
on right and wrong, it contains the truth of all pairs. Any page that checks answers of scored pairs would have to contain their truth.

A pair has covariates, which belong to both images: the difference of D's logits, and how much farther the fake is from its nearest real
image than the real one. With order=unsure, pairs are drawn in proportion to the uncertainty of the rater model.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from gan_runner import trained
from gan_runner.commands.settings import Rate
from gan_runner.datasets import Stored, to_float, to_uint8
from gan_runner.datasets.classes import refuse_labels, translated
from gan_runner.draws import Draws, seeded
from gan_runner.errors import UserError, printable
from gan_runner.execution import hardware
from gan_runner.game.kind import GAP, grid
from gan_runner.rating.raters import INTERCEPT, PRECISION
from gan_runner.reporting import log
from gan_runner.storage import contents, files

SIDE = 2048  # pixels of a sheet: what a phone can decode
STAIRCASE = {"start": 500, "least": 100, "most": 1000, "down": 10, "up": 30}  # ms; three of four right where it settles (Kaernbach 1991)


class Pairs(NamedTuple):
    """n pairs of images, uint8 n C H W, and covariates that may predict their difficulty, n K."""

    fake: Tensor
    real: Tensor
    covariates: np.ndarray[Any, Any]
    names: list[str]


def build(pairs: Pairs, settings: Rate, source: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Build the page as HTML, and its key. The last `practice` pairs are for practice; the others are the pool."""
    n, timed = len(pairs.fake), settings.time == "staircase"
    secret = hashlib.sha256(pairs.fake.numpy().tobytes()).hexdigest()  # else a rater who guesses the seed could draw the sides again
    pool, draw = n - settings.practice, seeded("rating", settings.seed, secret)
    real = (torch.randperm(n, generator=draw) % 2).tolist()  # as often the one as the other
    first, second = (torch.where(torch.tensor(real)[:, None, None, None] == i, pairs.real, pairs.fake) for i in (0, 1))
    tiles = torch.stack([first, second], 1).flatten(0, 1)
    columns, rows = (max(SIDE // (side + GAP), 1) for side in (tiles.shape[3], tiles.shape[2]))
    sheets = [png(grid(part, columns)) for part in tiles.split(columns * rows)]
    practice = (pool + torch.randperm(settings.practice, generator=draw)).tolist()
    covariates = normal_scores(pairs.covariates).tolist()
    order = "random" if timed else settings.order
    shared = {
        "questions": settings.questions,
        "repeats": settings.repeats,
        "epsilon": settings.epsilon,
        "order": order,
        "practice": practice,
    }
    data: dict[str, Any] = shared | {
        "title": settings.title,
        "pool": pool,
        "open": {str(pair): real[pair] for pair in (range(n) if timed else practice)},
        "covariates": covariates if order == "unsure" else [[]] * n,
        "prior": {"intercept": INTERCEPT, "precision": PRECISION},
        "staircase": STAIRCASE if timed else None,
        "width": tiles.shape[3],
        "height": tiles.shape[2],
        "grey": tiles.shape[1] == 1,
        "gap": GAP,
        "columns": columns,
        "per_sheet": columns * rows,
        "sheets": ["data:image/png;base64," + base64.b64encode(sheet).decode() for sheet in sheets],
    }
    page = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:12]
    text = json.dumps({"page": page} | data).replace("<", "\\u003c")  # nothing in it may end the script
    html = resources.files("gan_runner.rating").joinpath("page.html").read_text(encoding="utf-8").replace("{{DATA}}", text)
    key = {"version": 1, "page": page, **shared, "staircase": data["staircase"]}
    return html, key | {"covariate_names": pairs.names, "covariates": covariates, "real": real, "source": source}


def png(picture: Tensor) -> bytes:
    """Encode uint8 3 H W as PNG without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def normal_scores(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Replace each column by normal scores of its ranks, to two decimals, so that outliers do not dominate the rater model."""
    ranks = x.argsort(0, kind="stable").argsort(0, kind="stable")
    quantile = np.vectorize(lambda rank: round(NormalDist().inv_cdf((rank + 0.5) / len(x)), 2), otypes=[float])
    return quantile(ranks) if x.size else x


def gathered(settings: Rate, say: Callable[[str], None] = log.info) -> tuple[Pairs, dict[str, Any]]:
    """Collect the pairs for these settings, and a description of their source."""
    n, seed = settings.pool + settings.practice, settings.seed
    paths = {"run": settings.run, "fake": settings.fake, "real": settings.real}
    source: dict[str, Any] = {name: path for name, path in paths.items() if path is not None} | {"seed": seed}
    run, y = None, None
    if settings.run is not None:
        device = hardware.device_of(settings.accelerator)
        run = trained.TrainedRun(Path(settings.run), settings.checkpoint, settings.packages, device)
        source["step"] = run.step
        if not run.spec.kind.bounded:
            raise UserError(f"{settings.run} makes no images; there is nothing to look at")
    elif settings.fake is None or settings.real is None:
        raise UserError("say what is rated: a run, or fake=FOLDER_OR_NPZ with real=FOLDER_OR_NPZ")
    if settings.fake is not None:
        fake = read(settings.fake, n, seed, None if run is None else run.spec.shape, say)
    else:
        assert run is not None
        if run.generator.classes is not None:
            y = torch.randint(run.generator.classes, (n,), generator=seeded("rating classes", seed))
        fake = to_uint8(trained.finite(run, run.sample(n, y=y, seed=seed)))
    if settings.real is not None:
        real = read(settings.real, n, seed + 1, tuple(fake.shape[1:]), say)
        y = None
    else:
        assert run is not None
        source["split"] = settings.split
        if found := run.dataset.summary():
            say(f"real: {found}")
        items = run.dataset.open(settings.split)
        refuse_labels(items.labels, run.dataset.spec, f"the {settings.split} split of {run.dataset.name}")
        labels = None if y is None or items.labels is None else translated(items.labels, run.dataset.spec, run.spec)
        y = None if labels is None else y
        real = items.take(chosen(labels, len(items), y, n, seed, run.spec.class_names))[0]
    if fake.shape != real.shape:
        raise UserError(
            f"a fake is {tuple(fake.shape[1:])} and a real image {tuple(real.shape[1:])} (channels, height, width); make them alike"
        )
    return Pairs(fake, real, *judged(fake, real, run, y, seed)), source


def chosen(labels: Tensor | None, size: int, y: Tensor | None, n: int, seed: int, class_names: tuple[str, ...] | None = None) -> Tensor:
    """Choose n different real images: any, or of the classes y of the fakes."""
    order = torch.randperm(size, generator=seeded("rating real", seed))
    if y is None or labels is None:
        if size < n:
            raise UserError(f"pool and practice ask for {n} real images, and there are {size}; ask for fewer")
        return order[:n]
    rows = torch.empty(n, dtype=torch.int64)
    for label in y.unique():
        mine, where = order[labels[order] == label], (y == label).nonzero()[:, 0]
        if len(mine) < len(where):
            name = int(label) if class_names is None else printable(class_names[int(label)])
            raise UserError(f"{len(where)} real images of class {name} are needed, and there are {len(mine)}; make the pool smaller")
        rows[where] = mine[: len(where)]
    return rows


def read(path: str, n: int, seed: int, shape: tuple[int, ...] | None, say: Callable[[str], None]) -> Tensor:
    """Read n images of a folder or .npz file, uint8 n C H W. UserError if there are fewer, or the shape differs."""
    stored = Stored(path)
    if found := stored.summary():
        say(f"read: {found}")
    items = stored.open("train")
    if len(items) < n:
        raise UserError(f"{path} holds {len(items)} images, and pool and practice ask for {n}")
    x, _ = items.take(torch.randperm(len(items), generator=seeded("rating files", seed))[:n])
    if x.dtype != torch.uint8 or (shape is not None and x.shape[1:] != torch.Size(shape)):
        raise UserError(f"{path} holds {x.dtype} {tuple(x.shape[1:])}; expected images as uint8{f' of {tuple(shape)}' if shape else ''}")
    return x


@torch.no_grad()
def judged(
    fake: Tensor, real: Tensor, run: trained.TrainedRun | None, y: Tensor | None, seed: int
) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Compute the covariates of each pair, n K, and their names. Without a D, distances use images averaged to at most 16 pixels a side."""
    sides: list[tuple[Tensor | None, Tensor]] = []
    for name, x in (("fake", fake), ("real", real)):
        if run is None or run.discriminator is None or (run.discriminator.classes is not None and y is None):
            sides.append((None, adaptive_avg_pool2d(to_float(x), (min(x.shape[2], 16), min(x.shape[3], 16))).flatten(1)))
            continue
        said = []
        for rows in torch.arange(len(x)).split(100):
            draws = Draws(seeded("rating", name, seed, int(rows[0]), device=run.device), len(rows))
            sample = run.generator.view(to_float(x[rows]).to(run.device), draws)
            said.append(run.discriminator(sample, None if y is None else y[rows].to(run.device)))
        sides.append((torch.cat([out.per_sample.cpu() for out in said]), torch.cat([out.features.cpu() for out in said]).flatten(1)))
    (logit_fake, f), (logit_real, r) = sides
    columns, names = [], []
    if logit_fake is not None and logit_real is not None:
        columns.append(logit_real - logit_fake)
        names.append("margin of D")
    among = torch.cdist(r.double(), r.double()).fill_diagonal_(torch.inf)
    columns.append(torch.cdist(f.double(), r.double()).amin(1) - among.amin(1))
    names.append("distance to the nearest real image")
    covariates = torch.stack([column.double().flatten() for column in columns], 1).numpy()
    return np.nan_to_num(covariates, posinf=0.0, neginf=0.0), names


def make(settings: Rate, say: Callable[[str], None]) -> None:
    """Write OUT/page/index.html for raters, and OUT/key.json, which stays secret. UserError if there is a key already."""
    out = Path(settings.out)
    contents.refuse_foreign(out, contents.RATING)
    if (out / "key.json").exists():
        raise UserError(f"{out} holds a page and its key already, and answers may be on their way; choose another folder")
    if settings.questions > settings.pool or settings.repeats > settings.questions:
        raise UserError("questions can be at most as many as the pool has pairs, and repeats at most as many as questions")
    pairs, source = gathered(settings, say)
    html, key = build(pairs, settings, source)
    (out / "page").mkdir(parents=True, exist_ok=True)
    files.write_bytes(out / "page" / "index.html", html.encode(), out)
    files.write_bytes(out / "key.json", json.dumps(key).encode(), out)
    total = settings.practice + settings.questions + settings.repeats
    say(f"page: {out / 'page' / 'index.html'} ({len(html) / 1e6:.1f} MB, {total} answers a rater); send this one file")
    say(f"key: {out / 'key.json'}; keep it to yourself, it says which images are real")
    if key["staircase"]:
        say("note: a staircase goes by right and wrong, so this page holds the truth: for raters who would not look into the file")
