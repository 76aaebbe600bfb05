"""Runs side by side, their curves, and the page for somebody else."""

import base64
import json
import math
import os
import re
import shutil
import struct
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from gan_runner.inventory import curves, page
from gan_runner.inventory.tables import short_names
from gan_runner.storage import records, scalars
from write_runs import line, make, png

EVIL = """</script><img src=x onerror=alert(1)>"'&`|[x](http://evil.example)$\\frac{{7*7}}{%raw%}"""


@pytest.fixture
def two(tmp_path):
    """Two runs of one experiment that differ in their seed and length; a third with names of a stranger."""
    for number, name in enumerate(("some/first", "some/second")):
        lines = [line(step, cs__lenet=step / 10 + number, fid__x=100.0 - step, own=1.0) for step in (10, 20, 30)]
        make(
            tmp_path / name,
            lines=(*lines, line(40, cs__lenet=None, fid__x=70.0)),
            config={"seed": number, "trainer": {"steps": 40 + number}},
        )
    return tmp_path


def read(root, *names):
    return [records.read(root / name, root) for name in names]


class Page(HTMLParser):
    """Tags and attributes of a page, and whether every element was closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "br", "html"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


# --------------------------------------------------------------------------------------------------------------------------- comparison


def test_what_differs_is_shown_side_by_side(two, shown):
    code, out, _ = shown(two, "--compare", "some/first", "some/second")
    assert code == 0
    rows = [re.split(r"\s{2,}", row) for row in out.splitlines()]
    assert ["seed", "0", "1"] in rows
    assert ["trainer.steps", "40", "41"] in rows
    assert not any(row[0] == "batch_size" for row in rows)
    assert ["cs/lenet \N{UPWARDS ARROW} best", "3", "4"] in rows
    assert ["fid/x \N{DOWNWARDS ARROW} best", "70", "70"] in rows
    assert ["fid/x last", "70", "70"] in rows
    assert ["own last", "1", "1"] in rows
    assert "protocol of the figures: the same" in out


def test_a_comparison_says_where_figures_were_measured_otherwise(two, shown):
    (two / "some" / "second" / "metrics.jsonl").write_text(line(10, {"n_fake": 5}, cs__lenet=1.0))
    code, out, _ = shown(two, "--compare", "some/first", "some/second", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["runs"] == ["some/first", "some/second"]
    assert found["configuration"] == {"seed": [0, 1], "trainer.steps": [40, 41]}
    assert found["protocol of the figures"] == {"n_fake": [100, 5]}
    assert found["metrics"]["fid/x last"] == [70, None]


def test_short_names_leave_out_what_all_share():
    assert short_names(["out/a/1", "out/a/2"]) == ["1", "2"]
    assert short_names(["out/a/1", "out/b/1"]) == ["a/1", "b/1"]
    assert short_names(["out", "out/a"]) == ["out", "out/a"]
    assert short_names(["out/a"]) == ["a"]


# --------------------------------------------------------------------------------------------------------------------------------- plots


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_curves_are_plotted(two, shown, suffix):
    out = two / f"curves.{suffix}"
    code, _, err = shown(two, "--compare", "some/first", "some/second", "--plot", out)
    assert code == 0, err
    assert out.read_bytes()[:4] in (b"\x89PNG", b"%PDF", b"<?xm")
    if suffix == "svg":
        text = out.read_text()
        for word in ("cs/lenet", "fid/x", "own", "first", "second", "images (thousands)"):
            assert f">{word}" in text


def test_every_run_has_a_colour_of_its_own_in_every_panel(two):
    for number in range(3, 9):
        make(two / f"some/{number}", lines=tuple(line(step, cs__lenet=number + step / 100) for step in (10, 20, 30)))
    runs = read(two, *(f"some/{number}" for number in range(3, 9)))
    curves.draw(two / "c.png", runs, [run.name for run in runs], ["cs/lenet"])
    pixels = np.asarray(Image.open(two / "c.png").convert("RGB")).reshape(-1, 3)
    for colour in curves.COLOURS[:6]:
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (pixels == wanted).all(1).sum() > 100, colour


def test_only_metrics_that_all_runs_have_are_plotted(two):
    (two / "some" / "second" / "metrics.jsonl").write_text(line(10, cs__lenet=1.0, own=None))
    runs = read(two, "some/first", "some/second")
    assert curves.shared_keys(runs) == ["cs/lenet"]
    (two / "some" / "second" / "metrics.jsonl").write_text("")
    assert curves.shared_keys(read(two, "some/first", "some/second")) == []


def test_runs_that_share_no_metric_have_no_plot(two, shown):
    (two / "some" / "second" / "metrics.jsonl").write_text("")
    code, _, err = shown(two, "--compare", "some/first", "some/second", "--plot", two / "c.png")
    assert code == 2
    assert "share no metric" in err


def test_labels_of_strangers_are_no_formulas(two):
    make(two / "evil", lines=(line(10, **{"$\\frac": 1.0}), line(20, **{"$\\frac": 2.0})))
    (run,) = read(two, "evil")
    curves.draw(two / "c.svg", [run, run], ["$\\nothing{$", "_hidden <b>"], ["$\\frac"])
    text = (two / "c.svg").read_text()
    assert "$\\nothing{$" in text
    assert "_hidden &lt;b&gt;" in text


@pytest.mark.parametrize(
    "values",
    [[1.0], [0.0, 0.0], [1e149, -1e149], [5e-324, 0.0], [1e149, 1e149], [None, 3.0, None], [3.0, 3.0 + 1e-15], [-2e-9, 7e-9, 1e-9]],
)
def test_any_figures_can_be_drawn(tmp_path, values):
    make(tmp_path / "run", lines=tuple(line(10 * at, own=value) for at, value in enumerate(values)))
    (run,) = read(tmp_path, "run")
    drawn = curves.svg(run, "own", "max")
    assert "nan" not in drawn
    assert "inf" not in drawn
    for x, y in re.findall(r"([-\d.]+),([-\d.]+)", "".join(re.findall(r'points="([^"]*)"', drawn))):
        assert 0 <= float(x) <= curves.WIDTH
        assert 0 <= float(y) <= curves.HEIGHT
    curves.draw(tmp_path / "c.png", [run], ["run"], ["own"])
    assert Image.open(tmp_path / "c.png").size[0] > 300


def test_ticks_are_round_and_few():
    for low, high in ((0, 1), (0.022, 0.06), (-3, 400), (0, 1.984e6), (4.1, 4.2)):
        ticks = curves._ticks(low, high)
        assert 2 <= len(ticks) <= 6
        assert all(low - 1e-9 * high <= tick <= high * (1 + 1e-9) for tick in ticks)
        assert all(len(f"{tick:.4g}") <= 8 for tick in ticks)


def test_gaps_split_a_curve_and_marks_stand_at_best_and_last(tmp_path):
    make(tmp_path / "run", lines=tuple(line(step, own=value) for step, value in ((10, 1.0), (20, 3.0), (30, None), (40, 2.0))))
    (run,) = read(tmp_path, "run")
    drawn = curves.svg(run, "own", "max")
    pieces = [piece.split() for piece in re.findall(r'points="([^"]*)"', drawn)]
    assert [len(piece) for piece in pieces] == [2, 1]
    marks = dict(re.findall(r'class="(best|last)" (cx="[^"]*" cy="[^"]*")', drawn))
    for name, point in (("best", pieces[0][1]), ("last", pieces[1][0])):
        assert marks[name] == 'cx="{}" cy="{}"'.format(*point.split(","))


# ---------------------------------------------------------------------------------------------------------------------------------- pages


def test_the_page_is_one_file_with_every_run_picture_and_curve(two, shown):
    out = two / "page.html"
    code, _, err = shown(two, "--report", out)
    assert code == 0, err
    text = out.read_text()
    page = Page(text)
    assert not page.open
    assert page.tags.count("article") == 2
    assert page.tags.count("img") == 2 + 2  # each once by itself, and once beside the other
    assert page.tags.count("svg") == 6 + 3
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert all(value.startswith(("data:image/png;base64,", "#run-")) for value in sources)
    assert base64.b64encode(png()).decode() in text
    assert "default-src 'none'" in text
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", text)
    ids = [value for name, value in page.attributes if name == "id"]
    assert sorted(f"#{each}" for each in ids) == sorted(value for value in sources if value.startswith("#"))


def strange(root):
    """A run whose every text is hostile."""
    lines = (line(10, {EVIL: EVIL, "checkpoint": EVIL}, **{EVIL: 1.0}), line(20, **{EVIL: 2.0}))
    folder = make(root / EVIL.replace("/", "\u2215"), "failed", lines, {EVIL: EVIL}, error=EVIL)
    (folder / "overrides.yaml").write_text(json.dumps([EVIL, "# heading", "<b>"]))
    return folder


def test_nothing_of_a_stranger_becomes_html(two, shown):
    strange(two)
    code, _, err = shown(two, "--report", two / "page.html")
    assert code == 0, err
    page = Page((two / "page.html").read_text())
    assert not page.open
    assert "script" not in page.tags
    assert "b" in page.tags  # of the captions
    assert page.tags.count("img") == 3 + 3
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert EVIL in "".join(page.text)


def test_nothing_of_a_stranger_becomes_markdown(two, shown):
    strange(two)
    code, _, err = shown(two, "--report", two / "page.md", "--filter", "onerror")
    assert code == 0, err
    text = (two / "page.md").read_text()
    assert "onerror" in text
    outside = re.sub(r"```text\n.*?\n```", "", text, flags=re.DOTALL)
    outside = re.sub(r"`[^`\n]*`", "", outside)
    assert "onerror" not in outside
    assert "evil.example" not in outside
    rows = [row for row in text.splitlines() if row.startswith("|")]
    assert [row.count("|") for row in rows[:3]] == [10, 10, 10], "a bar in a name breaks no row"
    assert [row for row in outside.splitlines() if row.startswith("#")] == ["# ", "## "]


def test_markdown_has_its_pictures_beside_it(two, shown):
    out = two / "the page.md"
    assert shown(two, "--report", out)[0] == 0
    links = re.findall(r"!\[\w+\]\(([^)]*)\)", out.read_text())
    assert sorted(links) == [f"the%20page_files/{number}_{what}.png" for number in (0, 1) for what in ("curves", "samples")]
    for link in links:
        assert Image.open(two / link.replace("%20", " ")).format == "PNG"


@pytest.mark.parametrize("data", [b"<svg onload=alert(1)>", b"", b"\x89PNG\r\n\x1a\n"])
def test_a_picture_that_is_no_png_is_left_out(two, data):
    folder = two / "some" / "first"
    (folder / "samples" / "step_00000050.png").write_bytes(data)
    (run,) = read(two, "some/first")
    assert page.newest_picture(run) == (40, png())
    (folder / "samples" / "step_00000040.png").unlink()
    assert page.newest_picture(run) is None
    assert "No samples" in page.html("title", [run], None)


def events(folder, values, name="events.out.tfevents.1"):
    """Write an event file: values is {tag: [(round, value)]}."""
    folder.mkdir(exist_ok=True)
    with (folder / name).open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(file_version="brain.Event:2").SerializeToString())
        for tag, points in values.items():
            for step, value in points:
                writer.write(Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])).SerializeToString())
    return folder / name


def test_curves_of_the_game_are_read_from_event_files_and_the_last_word_counts(tmp_path):
    events(tmp_path, {"loss/g": [(1, 1.0), (2, 2.0), (3, 3.0)], "other": [(1, 1.0)]})
    events(tmp_path / "seed=1", {"loss/g": [(2, -2.0), (4, math.nan)], "d/real": [(2, 0.5)]}, "events.out.tfevents.2")
    events(tmp_path / "D", {"loss/g": [(9, 9.0)]})  # a folder of curves that have other names
    assert scalars.read(tmp_path) == {"loss/g": {1: 1.0, 2: -2.0, 3: 3.0, 4: None}, "d/real": {2: 0.5}}


@pytest.mark.parametrize("damage", ["cut", "length", "proto", "link", "pipe", "folder"])
def test_damaged_event_files_of_strangers_end_where_they_are_damaged(tmp_path, damage):
    path = events(tmp_path / "run", {"loss/g": [(1, 1.0), (2, 2.0)]})
    data = path.read_bytes()
    path.unlink()
    if damage in ("link", "pipe", "folder"):
        (tmp_path / "elsewhere").write_bytes(data)
        {"link": lambda: path.symlink_to(tmp_path / "elsewhere"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[damage]()
        assert scalars.read(tmp_path / "run") == {}
        return
    last = data.rindex(b"loss/g")
    path.write_bytes(
        {"cut": data[:last], "length": data + b"\xff" * 12, "proto": data + struct.pack("<QI", 3, 0) + b"\xff\xff\xff" * 2}[damage]
    )
    assert scalars.read(tmp_path / "run") == {"loss/g": {1: 1.0} if damage == "cut" else {1: 1.0, 2: 2.0}}


def test_several_runs_are_drawn_together(two, shown):
    for number, name in enumerate(("some/first", "some/second")):
        points = [(step, step / 10 + number) for step in range(1, 1001)]
        events(two / name, {"loss/g": points, "loss/d": points, "d/real": points})
        (two / name / "overrides.yaml").write_text(json.dumps(["+experiment=ring8", f"a.very.long.key={number}", EVIL]))
    (two / "some/second/samples/step_00000040.png").rename(two / "some/second/samples/step_00000050.png")
    shutil.copy(two / "some/first/samples/step_00000040.png", two / "some/first/samples/step_00000020.png")
    shutil.copy(two / "some/first/samples/step_00000040.png", two / "some/second/samples/step_00000020.png")
    code, _, err = shown(two, "--report", two / "page.html", "--sort", "name")
    assert code == 0, err
    text = (two / "page.html").read_text()
    together = re.search(r"<section>.*</section>", text, re.DOTALL)[0]
    assert Page(text).open == []
    assert re.findall(r'<li class="([^"]*)">([^<]*)</li>', together) == [("c0", "first: key=0"), ("c1", "second: key=1")]
    titles = re.findall(r"<figcaption><b>([^<]*)</b>", together)
    assert titles[-3:] == ["Loss of G", "Loss of D", "Logits on real"]
    for drawn in re.findall(r"<svg.*?</svg>", together):
        assert re.findall(r'<g class="(c\d)">', drawn) == ["c0", "c1"]
        assert all(len(points.split()) <= page.MOST_POINTS for points in re.findall(r'points="([^"]*)"', drawn))
    assert "Samples after 20 rounds" in together  # the last round that both have
    assert together.count("<img") == 2
    assert text.count(">Losses</b>") == 2


def test_a_report_of_many_runs_draws_the_first_of_them_together(tmp_path, shown):
    for number in range(page.MOST_TOGETHER + 2):
        make(tmp_path / f"{number:02}", lines=(line(10, own=float(number)), line(20, own=1.0)))
    assert shown(tmp_path, "--report", tmp_path / "page.html", "--sort", "name")[0] == 0
    together = re.search(r"<section>.*</section>", (tmp_path / "page.html").read_text(), re.DOTALL)[0]
    looks = re.findall(r'<g class="([^"]*)">', together)
    assert len(looks) == len(set(looks)) == page.MOST_TOGETHER
    assert "2 more are shown below only" in together


def test_thinned_points_are_the_means_of_neighbours():
    assert page.thinned([]) == []
    assert page.thinned([(1, 2.0), (2, None)]) == [(1, 2.0), (2, None)]
    many = [(n, float(n)) for n in range(1, 3 * page.MOST_POINTS + 1)]
    assert page.thinned(many)[:2] == [(3, 2.0), (6, 5.0)]
    assert len(page.thinned(many)) == page.MOST_POINTS


def test_a_picture_behind_a_link_is_not_shown(two, tmp_path):
    private = tmp_path / "private.png"
    private.write_bytes(png(9))
    (two / "some" / "first" / "samples" / "step_00000050.png").symlink_to(private)
    (run,) = read(two, "some/first")
    assert page.newest_picture(run) == (40, png())


@pytest.mark.slow
def test_a_run_without_anything_has_its_place_on_the_page(two, shown):
    folder = two / "empty"
    folder.mkdir()
    for name in ("config.yaml", "status.json"):
        (folder / name).touch()
    for name in ("page.html", "page.md"):
        assert shown(two, "--report", two / name)[0] == 0
        text = (two / name).read_text()
        assert "unreadable" in text
        assert "? of ? rounds" in text


def test_what_gan_eval_measured_stands_below_with_its_interval(two):
    later = {"checkpoint": "best.pt", "n_fake": 50000, "intervals_95": {"cs/lenet": [3.5, 4.5]}}
    with (two / "some" / "first" / "metrics.jsonl").open("a") as file:
        file.write(line(40, later, cs__lenet=4.0) + "\n")
    text = page.html("title", read(two, "some/first"), None)
    assert "best.pt: cs/lenet 4 [3.5, 4.5]\n  n_fake 50000, generator G" in text


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_one_message(two, shown):
    for words in (
        ["--report", two / "nowhere" / "page.html"],
        ["--compare", "some/first", "some/second", "--plot", two / "nowhere" / "c.png"],
    ):
        code, _, err = shown(two, *words)
        assert code == 1
        assert "could not be written: No such file or directory" in err
        assert len(err.splitlines()) == 1
