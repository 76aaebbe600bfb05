"""What samples= and reference= of gan-eval take, and how its figures are printed; through the command itself."""

import csv
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_runner import cli
from gan_runner.config import composer
from gan_runner.config.groups import config_dir
from gan_runner.datasets import CIFAR10, MNIST, FashionMNIST, Samples
from gan_runner.lifecycle import runs

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(256, size=(40, 8, 8, 3), dtype=np.uint8)
MIXED = [RNG.integers(256, size=(8 + i % 5, 8 + i % 3, 3), dtype=np.uint8) for i in range(40)]
DATASETS = sorted(file.stem for file in (config_dir() / "dataset").glob("*.yaml"))
FD = ["metric=[frechet_distance]", "extractor=random_conv", "accelerator=cpu"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def gan_eval(monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["gan-eval", *map(str, words)])
        code = cli.evaluate()
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def encoded(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def in_folder(path, images=MIXED):
    for i, image in enumerate(images):
        (path / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (path / "ab"[i % 2] / f"{i:02d}.png").write_bytes(encoded(image))
    return path


def in_zip(path, folder):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, f"top/{file.relative_to(folder)}")
    return path


def in_table(path, folder, columns=("image",)):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files = sorted(folder.rglob("*.png"))
    images = [file.read_bytes() for file in files]
    made = pa.table({**dict.fromkeys(columns, images), "label": [file.parent.name for file in files]})
    if path.suffix == ".parquet":
        parquet.write_table(made, path, row_group_size=7)
    else:
        with pa.ipc.new_file(path, made.schema) as writer:
            writer.write_table(made)
    return path


# ---- data sets by name --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged") / "run"
    words = ["+experiment=ring8", "trainer.steps=2", "batch_size=16", "callback.grid.n=4", "callback.evaluate.n=50", "dataset.n=400"]
    runs.train(composer.compose([*words, "trainer.accelerator=cpu"]).config, folder)
    return folder


@pytest.fixture
def published(monkeypatch):
    """Noise in the place of the files of public data sets."""
    for cls in (CIFAR10, MNIST, FashionMNIST):

        def load(self, split):
            x = torch.randint(256, (40, *self.spec.shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
            return Samples(x, torch.arange(40) % 10)

        monkeypatch.setattr(cls, "prepare", lambda self: None)
        monkeypatch.setattr(cls, "load", load)


def needed(name, tmp_path, run):
    """The words that a data set needs beside its name."""
    if name == "sampled":
        return [f"dataset.run={run}", "dataset.n=300"]
    if name in ("image_folder", "packed"):
        folder = in_folder(tmp_path / "images")
        place = folder if name == "image_folder" else in_zip(tmp_path / "images.zip", folder)
        return [f"dataset.path={place}", "dataset.resolution=8"]
    if name == "triangles":
        return ["dataset.n_train=50", "dataset.n_test=50"]
    return [] if name in ("cifar10", "mnist", "fashion_mnist", *SMALL_GAMES) else ["dataset.n=300"]


SMALL_GAMES = ("dirac", "bilinear", "lgq")  # of one number


def shape_of(name):
    return {"cifar10": (3, 32, 32), "mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "triangles": (1, 28, 28)}.get(
        name, (3, 8, 8) if name in ("image_folder", "packed") else None
    )


def test_every_data_set_is_listed(gan_eval):
    code, out, _ = gan_eval("--help")
    assert code == 0
    listed = out.split("Data sets")[1].split("\n\n")[0]
    assert all(f"\n    {name} " in listed for name in DATASETS)


@pytest.mark.slow
@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("where", ["reference", "samples"])
@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_taken_by_its_name(gan_eval, tmp_path, run, name, where):
    """None of them takes all keys that gan-eval has for the others, such as dataset.root."""
    shape = shape_of(name)
    if shape is None:
        np.save(tmp_path / "x.npy", RNG.normal(size=(300, 1 if name in SMALL_GAMES else 2)))
    else:
        np.save(tmp_path / "x.npy", RNG.integers(256, size=(40, *shape), dtype=np.uint8))
    other = {"reference": "samples", "samples": "reference"}[where]
    words = [f"{where}={name}", f"{other}=x.npy", *needed(name, tmp_path, run), "metric=[frechet_distance]", "accelerator=cpu"]
    code, out, said = gan_eval(*words, "extractor=identity" if shape is None else "extractor=random_conv")
    assert code == 0, said
    line = json.loads(out)
    assert {*line["metrics"].values()} - {None}
    protocol = {"samples": "x"} if where == "reference" else {"real": "x:train"}
    assert protocol.items() <= line["protocol"].items()


@pytest.mark.parametrize("metric", ["mode_coverage", "kernel_density"])
@pytest.mark.parametrize("name", ["ring8", "gaussians25"])
def test_points_are_judged_against_known_modes(gan_eval, tmp_path, name, metric):
    np.savez(tmp_path / "pts.npz", samples=RNG.normal(size=(300, 2)))
    code, out, said = gan_eval("samples=pts.npz", f"reference={name}", f"metric=[{metric}]", "dataset.n=300", "accelerator=cpu")
    assert code == 0, said
    assert json.loads(out)["protocol"]["n_fake"] == 300


def test_two_data_sets_are_compared(gan_eval):
    words = ["metric=[frechet_distance]", "extractor=identity", "accelerator=cpu"]
    code, out, said = gan_eval("samples=ring8", "reference=swiss_roll", "dataset.n=300", *words)
    assert code == 0, said
    assert {"samples": "ring8:train", "real": "swissroll:train", "n_real": 300, "n_fake": 25000}.items() <= json.loads(out)[
        "protocol"
    ].items()


def test_a_data_set_of_ones_own_is_taken_by_its_name(gan_eval, tmp_path):
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    text = "# Mine.\n_target_: gan_runner.datasets.Ring8\nn: 123\nseed: 3\n"
    (tmp_path / "mine" / "dataset" / "my_ring.yaml").write_text(text)
    words = ["--config-dir", "mine", "metric=[frechet_distance]", "extractor=identity", "accelerator=cpu"]
    for side in (["samples=my_ring", "reference=ring8"], ["samples=ring8", "reference=my_ring"]):
        code, out, said = gan_eval(*side, *words)
        assert code == 0, said
        assert 123 in [json.loads(out)["protocol"][n] for n in ("n_fake", "n_real")]


# ---- files --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_set_of_images_has_one_figure_however_it_is_packed(gan_eval, tmp_path):
    folder = in_folder(tmp_path / "folder")
    sources = [folder, in_zip(tmp_path / "x.zip", folder)]
    sources += [in_table(tmp_path / f"x.{kind}", folder) for kind in ("parquet", "arrow")]
    np.savez(tmp_path / "real.npz", images=PIXELS, labels=np.arange(40) % 2, class_names=np.array(["a", "b"]))
    words = ["metric=[frechet_distance,kernel_distance,intra_class_frechet]", "metric.kernel_distance.subset_size=20", *FD[1:]]
    lines = []
    for source in sources:
        for sides in ([f"samples={source}", "reference=real.npz"], ["samples=real.npz", f"reference={source}"]):
            code, out, said = gan_eval(*sides, "resize=8", *words)
            assert code == 0, said
            lines.append(json.loads(out))
    assert len(lines[0]["metrics"]) > 3
    for i, line in enumerate(lines):
        assert line["metrics"] == lines[i % 2]["metrics"]
        assert line["protocol"].get("real_sha256") == lines[i % 2]["protocol"].get("real_sha256")
    assert [lines[i]["protocol"].get(key) for i in (0, 1) for key in ("resized", "real_resized")] == ["8 x 8"] * 4


def test_arrays_of_either_order_and_of_wider_numbers_have_one_figure(gan_eval, tmp_path):
    np.savez(tmp_path / "real.npz", images=255 - PIXELS)
    figures = []
    for x in (PIXELS, PIXELS.transpose(0, 3, 1, 2), PIXELS.astype(np.int64), np.asfortranarray(PIXELS).astype(">u2")):
        np.save(tmp_path / "x.npy", x)
        code, out, said = gan_eval("samples=x.npy", "reference=real.npz", *FD)
        assert code == 0, said
        figures.append(json.loads(out)["metrics"])
    assert figures[0] == figures[1] == figures[2] == figures[3]


def test_grey_and_colour_are_made_one_kind_by_resizing(gan_eval, tmp_path):
    folder = in_folder(tmp_path / "folder")
    (folder / "a" / "00.png").write_bytes(encoded(PIXELS[0, ..., 0]))
    np.save(tmp_path / "x.npy", PIXELS)
    assert gan_eval(f"samples={folder}", "reference=x.npy", "resize=8", *FD)[0] == 0


def unsafe(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../x.png", encoded(PIXELS[0]))


BAD = {
    "several sizes": (["samples=folder"], "all images that are judged must have one size and kind; resize=SIDE makes them so"),
    "several sizes in a zip": (["samples=folder.zip"], "all images that are judged must have one size and kind; resize=SIDE makes them so"),
    "another size": (["samples=small.npy"], "they cannot be compared; resize=SIDE makes images of files one size"),
    "points resized": (["samples=points.npy", "resize=8"], "resize=8: points.npy has points, not images; say resize=null"),
    "resize=0": (["samples=folder", "resize=0"], "resize=0: expected a number of pixels, 1 or more, or null"),
    "several columns": (["samples=two.parquet", "resize=8"], "has several columns of images: image, mask; choose one: column=image"),
    "no such column": (
        ["samples=two.parquet", "resize=8", "column=imgae"],
        "two.parquet has no such column (did you mean image?)",
    ),
    "an unsafe zip": (["samples=unsafe.zip", "resize=8"], "unsafe.zip is refused: ../../x.png is a name that leads out of the zip"),
    "both axes": (["samples=cubes.npy"], "has an array of shape (5, 3, 3, 3): the second axis may be the channels (N C H W), and the last"),
    "an image": (["samples=image.npy"], "write N C H W or N H W C"),
    "floats": (["samples=floats.npy"], "has an array float64 of shape (40, 8, 8, 3): expected images as uint8"),
    "wide numbers": (["samples=wide.npy"], "has an array int64 of 0 to 510: expected images of whole numbers 0 ... 255"),
    "objects": (["samples=objects.npy"], "objects.npy cannot be read as arrays: it holds objects, not numbers"),
    "cut": (["samples=cut.npy"], "cut.npy cannot be read as arrays: it is said to have"),
    "nothing": (["samples=nowhere.zip"], "nowhere.zip is neither a folder of images nor a .npz, .npy, .zip, .arrow or .parquet file"),
    "no path": (["samples=points.npy", "reference=packed"], "dataset.path has no value: that data set needs one"),
    "no path of samples": (["samples=packed"], "samples=packed: dataset.path has no value: that data set needs one"),
    "a key of another": (["samples=points.npy", "reference=ring8", "dataset.root=x"], "unknown key dataset.root"),
    "no format": (["samples=points.npy", "format=xml"], "format='xml': expected auto, json, csv, markdown or table"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_samples_is_refused_in_one_line(gan_eval, tmp_path, name):
    words, message = BAD[name]
    folder = in_folder(tmp_path / "folder")
    in_zip(tmp_path / "folder.zip", folder)
    if any(".parquet" in word for word in words):
        in_table(tmp_path / "two.parquet", folder, ("image", "mask"))
    unsafe(tmp_path / "unsafe.zip")
    arrays = {"points": PIXELS[:, 0, 0] / 255, "cubes": PIXELS[:5, :3, :3], "image": PIXELS[0], "floats": PIXELS / 255}
    for array, x in (arrays | {"wide": PIXELS.astype(np.int64) * 2, "small": PIXELS[:, :4]}).items():
        np.save(tmp_path / f"{array}.npy", x)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "wide.npy").read_bytes()[:-5])
    np.save(tmp_path / "real.npy", PIXELS)
    before = sorted(path for path in tmp_path.rglob("*"))
    reference = [] if any(word.startswith("reference=") for word in words) else ["reference=real.npy"]
    code, out, said = gan_eval(*words, *reference, *FD, "out=out")
    assert (code, out) == (2, ""), said
    assert message in said
    assert "Traceback" not in said
    assert sum(line.startswith("gan-eval:") for line in said.splitlines()) == 1
    assert sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts) == before


def test_without_pyarrow_the_remedy_is_named(gan_eval, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    code, _, said = gan_eval("samples=x.parquet", *FD)
    assert code == 2
    assert said == "gan-eval: x.parquet needs pyarrow, which is not installed: pip install pyarrow\n"


# ---- how figures are printed --------------------------------------------------------------------------------------------------------


@pytest.fixture
def printed(gan_eval):
    words = ["samples=ring8", "reference=ring8", "split=test", "n=200", "metric=[frechet_distance,mode_coverage]", "extractor=identity"]

    def command(form, *more):
        code, out, said = gan_eval(*words, "accelerator=cpu", f"format={form}", *more)
        assert code == 0, said
        return out

    return command


@pytest.mark.slow
def test_all_formats_have_the_figures_of_the_line_of_json(printed):
    line = json.loads(printed("json", "seeds=3"))
    assert printed("auto", "seeds=3") == json.dumps(line) + "\n"  # no terminal
    low, high = line["protocol"]["intervals_95"]["fd/identity"]
    value = line["metrics"]["fd/identity"]
    rows = {row["figure"]: row for row in csv.DictReader(io.StringIO(printed("csv", "seeds=3")))}
    assert rows.keys() == line["metrics"].keys()
    assert [float(rows["fd/identity"][key]) for key in ("value", "low", "high")] == [value, low, high]
    assert {"judged": "ring8", "n": "200", "n_real": "25000", "better": "min"}.items() <= rows["fd/identity"].items()
    said = f"{value:.5g}", f"[{low:.5g}, {high:.5g}]", "200", "25,000", "min"
    [row] = [row for row in printed("markdown", "seeds=3").splitlines() if "fd/identity" in row]
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["ring8", "fd/identity", *said]
    [title, _, *rows] = printed("table", "seeds=3").splitlines()
    assert title == "ring8, compared with ring8:test"
    assert [row.split() for row in rows if "fd/identity" in row] == [["fd/identity", *" ".join(said).split()]]


def test_what_is_undefined_or_has_no_interval_is_a_dash(printed):
    line = json.loads(printed("json"))
    assert "intervals_95" not in line["protocol"]
    [row] = [row for row in printed("table").splitlines() if "fd/identity" in row]
    assert row.split()[2] == "-"
    [row] = [row for row in printed("csv").splitlines() if "fd/identity" in row]
    assert row.split(",")[4:6] == ["", ""]


def test_several_checkpoints_have_one_heading(gan_eval, run):
    words = [f"run={run}", "checkpoint=all", "n=50", "accelerator=cpu"]
    if not list(Path(run, "checkpoints").glob("step_*.pt")):
        words[1] = "checkpoint=last"
    code, out, said = gan_eval(*words, "format=csv")
    assert code == 0, said
    assert [row.startswith("judged,") for row in out.splitlines()].count(True) == 1


def test_a_terminal_gets_a_table(monkeypatch):
    from gan_runner.commands.printed import Printed

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert Printed("auto", Terminal()).kind == "table"
    assert Printed("auto", io.StringIO()).kind == "json"
    assert Printed("csv", Terminal()).kind == "csv"


@pytest.mark.parametrize("form", ["table", "json"])
def test_figures_and_progress_do_not_mix_on_a_terminal(gan_eval, monkeypatch, form):
    """The progress line is gone before the figures are printed, and these go to standard output."""
    from rich.console import Console

    from gan_runner import reporting

    seen = io.StringIO()
    console = Console(file=seen, force_terminal=True, width=100)
    monkeypatch.setattr(reporting, "Console", lambda *args, **more: console)
    words = ["samples=ring8", "reference=ring8", "n=200", "metric=[frechet_distance]", "extractor=identity", "accelerator=cpu"]
    code, out, _ = gan_eval(*words, f"format={form}")
    assert code == 0
    assert "through identity" in seen.getvalue()
    assert "fd/identity" in out
    assert "\x1b" not in out
    assert ("n_fake" if form == "json" else "95 % interval") not in seen.getvalue()
