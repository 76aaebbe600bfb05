"""Summaries of sweeps: means over seeds, what is never averaged or dropped, and that the same runs make the same files."""

import json
import math
import os
import re
import shutil
import statistics
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_runner.inventory import summary
from gan_runner.inventory.page import escaped
from gan_runner.storage import records
from gan_runner.studies import Figure, Row, Summary, Table
from write_runs import line, make


class Counting(Summary):
    """How many runs there are: a summary of a user's own."""

    def rows(self, runs):
        return [Row({"what": "all"}, list(runs), {"runs": Figure.of([float(len(runs))])})]

    def reading(self, rows):
        return "1. *counted*"


def job(folder: Path, loss: str, seed: int, *lines: str, state: str = "finished", more: tuple[str, ...] = (), **given) -> Path:
    """A job of a sweep over loss and seed."""
    config = {"seed": seed, "loss": {"_target_": f"gan_runner.losses.{loss.title()}"}} | given.pop("config", {})
    made = make(folder, state, lines, config, **given)
    (made / "overrides.yaml").write_text(json.dumps(["+experiment=some", f"loss={loss}", f"seed={seed}", *more]))
    (made / "env.json").write_text(json.dumps({"device": "NVIDIA H100", "threads": 4}))
    return made


VALUES = {"hinge": (2.5, 3.25, 7.125), "minimax": (1.0, 1.5, 0.25)}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two losses, three seeds each; a figure that only rises, so that the last value is the best."""
    for number, (loss, seed) in enumerate((loss, seed) for loss in VALUES for seed in range(3)):
        value = VALUES[loss][seed]
        job(tmp_path / "sweep" / str(number), loss, seed, line(20, cs__lenet=value - 1), line(40, cs__lenet=value))
    return tmp_path / "sweep"


def runs_in(folder: Path) -> list[records.Run]:
    return summary.read(folder).runs


def rows_in(folder: Path, **given) -> dict[str, Row]:
    return {row.name: row for row in Table("?", **given).rows(runs_in(folder))}


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# ---------------------------------------------------------------------------------------------------------------------------- statistics


def test_means_and_deviations_are_those_of_numpy(sweep):
    rows = rows_in(sweep)
    assert list(rows) == ["hinge", "minimax"]
    for loss, row in rows.items():
        mean, deviation, n = row.figures["cs/lenet, highest"]
        assert mean == pytest.approx(np.mean(VALUES[loss]), rel=1e-15)
        assert deviation == pytest.approx(np.std(VALUES[loss], ddof=1), rel=1e-15)
        assert deviation == statistics.stdev(VALUES[loss])
        assert (n, len(row.runs)) == (3, 3)


def test_one_value_has_no_deviation_and_none_has_no_mean():
    assert Figure.of([2.0]) == (2.0, None, 1)
    assert str(Figure.of([2.0])) == "2"
    assert math.isnan(Figure.of([]).mean)
    assert Figure.of([])[1:] == (None, 0)
    assert str(Figure.of([])) == "-"
    assert str(Figure.of([1.0, 2.0])) == "1.5 \u00b1 0.71"


def test_a_column_is_the_last_value_or_the_best(tmp_path):
    job(tmp_path / "s/0", "hinge", 0, line(10, cs__lenet=3.0), line(20, cs__lenet=9.0), line(30, cs__lenet=1.0), line(40, cs__lenet=5.0))
    (row,) = rows_in(tmp_path / "s", columns=["cs/lenet", "cs/lenet:max", "cs/lenet:min"]).values()
    assert {key: figure.mean for key, figure in row.figures.items()} == {
        "cs/lenet, last": 5.0,
        "cs/lenet, highest": 9.0,
        "cs/lenet, lowest": 1.0,
    }


def test_a_figure_that_a_run_lacks_or_could_not_compute_is_counted_as_missing(sweep):
    job(sweep / "6", "hinge", 3, line(40, modes__kl=1.0))  # measured something else
    job(sweep / "7", "hinge", 4, line(20, cs__lenet=4.0), line(40, cs__lenet=None))  # nan when it ended
    with (sweep / "8.jsonl").open("w") as file:
        file.write(line(40, cs__lenet=math.nan))  # as an older version, or somebody else, may have written it
    os.rename(sweep / "8.jsonl", job(sweep / "8", "hinge", 5) / "metrics.jsonl")
    figure = rows_in(sweep, columns=["cs/lenet"])["hinge"].figures["cs/lenet, last"]
    assert figure == (np.mean(VALUES["hinge"]), statistics.stdev(VALUES["hinge"]), 3)
    summary.write(sweep)
    (sweep / "sweep.yaml").write_text(json.dumps({"summary": summary.DEFAULT | {"columns": ["cs/lenet"]}}))
    summary.write(sweep)
    assert "| `6 of 6` | `4.292 \u00b1 2.5 (n=3 of 6)` |" in (sweep / "table.md").read_text()


def test_a_column_that_nobody_measured_stays_in_the_table(sweep):
    (sweep / "sweep.yaml").write_text(json.dumps({"summary": summary.DEFAULT | {"columns": ["fd/lenet"]}}))
    summary.write(sweep)
    assert "| `hinge` | `3 of 3` | `- (n=0 of 3)` |" in (sweep / "table.md").read_text()
    assert "`fd/lenet, last`" in (sweep / "table.md").read_text()


def test_only_finished_runs_are_averaged_and_all_are_counted_and_named(sweep):
    lines = [line(20, cs__lenet=1000.0)]
    job(sweep / "6", "hinge", 3, *lines, state="failed", error="disk | full `rm`\x1b[2J", step=20)
    job(sweep / "7", "hinge", 4, *lines, state="interrupted", step=20)
    job(sweep / "8", "wasserstein", 0, *lines, state="diverged", step=20)
    job(sweep / "9", "wasserstein", 1, *lines, state="running", step=20, ended=None)  # and nobody holds its lock
    job(sweep / "0.attempt_1", "hinge", 0, *lines, state="failed", step=20)
    (sweep / "sweep.yaml").write_text(json.dumps({"line": [], "jobs": [str(n) for n in range(12)]}))
    rows = rows_in(sweep)
    assert rows["hinge"].figures["cs/lenet, highest"].mean == np.mean(VALUES["hinge"])
    assert [len(row.runs) for row in rows.values()] == [5, 3, 2]
    assert rows["wasserstein"].figures["cs/lenet, highest"].n == 0
    said, _ = summary.write(sweep)
    assert said == ("10 runs: 6 finished, 1 interrupted, 1 diverged, 1 failed, 1 dead; 2 jobs have not begun; 1 earlier attempt of them")
    page = (sweep / "page.md").read_text()
    assert said in page
    assert "| `wasserstein` | `0 of 2` | `- (n=0)` |" in page
    assert "\n| `9` | `dead` | `40 of 40` |" in page  # up to its newest checkpoint
    for name, state in {"6": "failed", "7": "interrupted", "8": "diverged", "0.attempt_1": "failed"}.items():
        assert f"\n| `{name}` | `{state}` | `20 of 40` |" in page
    assert "`disk \u00a6 full 'rm'\N{REPLACEMENT CHARACTER}[2J`" in page
    assert "Not begun: `10`, `11`" in page


def test_runs_are_averaged_over_nothing_but_their_seeds(tmp_path):
    for number, (seed, batch) in enumerate([(0, 10), (1, 10), (0, 20), (1, 20)]):
        config = {"batch_size": batch}
        job(tmp_path / str(number), "hinge", seed, line(40, cs__lenet=float(batch + seed)), more=(f"batch_size={batch}",), config=config)
    rows = rows_in(tmp_path, rows=["loss"])
    assert list(rows) == ["loss=hinge, batch_size=10", "loss=hinge, batch_size=20"]
    assert [row.figures["cs/lenet, highest"].mean for row in rows.values()] == [10.5, 20.5]


def test_experiments_are_rows(tmp_path):
    for number, name in enumerate(["one", "two"]):
        run = job(tmp_path / str(number), "hinge", 0, line(40, cs__lenet=1.0))
        (run / "overrides.yaml").write_text(json.dumps([f"+experiment={name}", "seed=0"]))
    assert list(rows_in(tmp_path)) == ["one", "two"]


def test_figures_of_two_protocols_are_never_averaged(sweep):
    job(sweep / "6", "hinge", 3, line(40, {"n_fake": 500}, cs__lenet=1000.0))
    figures = rows_in(sweep)["hinge"].figures
    assert figures["cs/lenet, highest"] == Figure.of(VALUES["hinge"])
    assert figures["cs/lenet (n=500), highest"] == (1000.0, None, 1)
    assert "cs/lenet (n=500)" in summary.write(sweep)[1][0][-1]


def test_protocols_whose_words_are_the_same_are_not_averaged_either(tmp_path):
    for seed in range(3):  # words are cut after 40 characters
        job(tmp_path / str(seed), "hinge", seed, line(40, {"weights": f"{'x' * 50}{seed}"}, cs__lenet=float(seed)))
    (row,) = rows_in(tmp_path).values()
    assert [figure.mean for figure in row.figures.values()] == [0.0, 1.0, 2.0]


def test_figures_of_gan_eval_share_a_column_only_where_they_were_measured_alike(tmp_path):
    for seed in range(3):
        later = {"n_fake": 5000, "seed": 0 if seed < 2 else 7, "checkpoint": "last"}
        own = {"seed": 0 if seed < 2 else 7}  # so that both runs of seed 7 name it `(n=5000)`
        job(tmp_path / str(seed), "hinge", seed, line(40, own, fd__lenet=1.0), line(40, later, fd__lenet=float(seed)))
    (row,) = rows_in(tmp_path, columns=["fd/lenet (n=5000)"]).values()
    assert {key: (figure.mean, figure.n) for key, figure in row.figures.items()} == {
        "fd/lenet (n=5000), last": (0.5, 2),
        "fd/lenet (n=5000) (seed=7), last": (2.0, 1),
    }


def test_rows_come_in_the_order_of_the_jobs(tmp_path):
    for number in range(12):
        job(tmp_path / str(number), f"loss{number}", 0, line(40, cs__lenet=1.0))
    assert list(rows_in(tmp_path)) == [f"loss{number}" for number in range(12)]


def test_runs_that_are_no_repetitions_are_named(sweep):
    job(sweep / "6", "hinge", 2, line(40, cs__lenet=1.0), config={"batch_size": 11, "noise": 2})
    summary.write(sweep)
    page = (sweep / "page.md").read_text()
    assert "**Caution:** the runs of hinge differ in more than their seed: batch\\_size, noise." in page
    assert "**Caution:** several runs of hinge have the same seed (2), and n counts each of them." in page
    assert page.count("Caution") == 2


# ------------------------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("hinge", "minimax", "said"),
    [
        (
            (1.0, 1.1, 0.9),
            (5.0, 5.1, 4.9),
            "is that of minimax: 5 \u00b1 0.1 (n=3). Next is hinge: 1 \u00b1 0.1 (n=3). They are 4 apart, more than",
        ),
        ((1.0, 3.0, 5.0), (1.5, 3.5, 5.5), "They are 0.5 apart, and the standard error of this difference is 1.6: these runs do not tell"),
        ((1.0,), (5.0, 5.1), "Without a second seed of both"),
        ((1.0,), (), ""),
    ],
)
def test_the_reading_says_what_the_runs_tell_apart(tmp_path, hinge, minimax, said):
    for loss, figures in {"hinge": hinge, "minimax": minimax}.items():
        for seed, figure in enumerate(figures):
            job(tmp_path / f"{loss}{seed}", loss, seed, line(40, cs__lenet=figure))
    table = Table("?", rows=["loss"])
    reading = table.reading(table.rows(runs_in(tmp_path)))
    assert said in reading
    assert bool(said) == bool(reading)


# ---------------------------------------------------------------------------------------------------------------------------------- files


def test_the_same_runs_make_the_same_files_wherever_they_are(sweep, tmp_path, shown):
    summary.record(sweep, ["-m", "loss=hinge,minimax", "penalty=[r1]", "seed=0,1,2"], list("012345"), summary.DEFAULT)
    summary.write(sweep)
    before = files_in(sweep)
    assert sorted(before) == ["events.out.tfevents.summary", "page.md", "plot.png", "sweep.yaml", "table.md"]
    sweep.rename(tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").rglob("*"):
        os.utime(path, (1, 1))
    code, out, err = shown(tmp_path / "elsewhere", "--summary")
    assert (code, err) == (0, f"gan-runs: {tmp_path}/elsewhere/page.md: 6 runs: 6 finished\n")
    assert out.splitlines()[1].split() == ["hinge", "3", "of", "3", "4.292", "\u00b1", "2.5", "(n=3)"]
    assert files_in(tmp_path / "elsewhere") == before


def test_the_page_says_what_was_asked_what_it_cost_and_what_came_of_it(sweep):
    asks = summary.DEFAULT | {"question": "Does it | matter? <b>*", "budget": "6 runs"}
    summary.record(sweep, ["-m", "loss=hinge,minimax", "penalty=[r1]", "seed=0,1,2"], list("012345"), asks)
    summary.write(sweep)
    page, table = (sweep / "page.md").read_text(), (sweep / "table.md").read_text()
    assert page.startswith("# Does it \\| matter? \\<b\\>\\*\n\n```sh\ngan-train -m loss=hinge,minimax 'penalty=[r1]' seed=0,1,2\n```\n")
    assert "Stated: 6 runs\n" in page
    assert (
        "Used: 240 rounds, 2.4k images, 9 min 00 s from start to end of each run, added up. 6 runs on 1 x NVIDIA H100, threads: 4." in page
    )
    assert table in page
    assert table.splitlines()[0] == "| `loss` | `finished` | `cs/lenet, highest` |"
    assert "6 runs: 6 finished." in page


WORDS = [
    "-m",
    "penalty=[r1,drift]",
    "loss=glob(*)",
    "a={b: 1}",
    "x='y z'",
    "dataset.root=~/d",
    "seed=range(0,3)",
    "k=$HOME",
    "!b",
    "=c",
    "#d",
]


@pytest.mark.parametrize("shell", [name for name in ("bash", "zsh") if shutil.which(name)])
def test_the_line_of_the_page_can_be_typed(sweep, shell):
    summary.record(sweep, WORDS, list("012345"), summary.DEFAULT)
    summary.write(sweep)
    (typed,) = re.findall(r"```sh\n(.*)\n```", (sweep / "page.md").read_text())
    said = subprocess.run([shell, "-c", f"gan-train() {{ printf '%s\n' \"$@\"; }}\n{typed}"], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == WORDS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("12. a", "12\\. a"),
        ("0.5 of 2", "0.5 of 2"),
        (" - a", "\\- a"),
        ("    code", "code"),
        ("# a_b *c* `d` [e](f)", "\\# a\\_b \\*c\\* \\`d\\` \\[e\\](f)"),
        ("http://a www.b @c\n\x1b", "http\\://a www\\.b \\@c \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_text_is_shown_as_it_is(text, said):
    assert escaped(text) == said


def test_tensorboard_reads_the_page_and_the_plot(sweep):
    for _ in range(2):  # a file that is written again does not grow
        summary.write(sweep)
        events = EventAccumulator(str(sweep)).Reload()
        assert events.Tags()["images"] == ["summary/plot"]
        (image,), (text,) = events.Images("summary/plot"), events.Tensors("summary/page")
        assert image.encoded_image_string == (sweep / "plot.png").read_bytes()
        assert (image.width, image.height) == (1200, 672)
        (said,) = text.tensor_proto.string_val
        assert (sweep / "table.md").read_text() in said.decode()
        assert "plot.png" not in said.decode()


@pytest.mark.parametrize("given", [{}, {"rows": ["loss"], "x": "loss"}, {"rows": ["seed", "loss"], "x": "seed"}, {"y": "no/such"}])
def test_the_plot_has_a_line_for_each_row(sweep, given):
    from gan_runner.inventory.curves import blank

    table = Table("?", **given)
    rows = table.rows(runs_in(sweep))
    with blank(4, 3) as figure:
        axes = figure.subplots()
        table.plot(axes, rows)
        labels = axes.get_legend_handles_labels()[1]
    assert labels == {"loss": ["all runs"], "seed": ["hinge", "minimax"]}.get(
        given.get("x"), [] if given.get("y") else ["hinge", "minimax"]
    )
    assert summary.drawn(table, rows).startswith(b"\x89PNG")


def test_a_curve_is_the_mean_of_the_seeds(sweep):
    from gan_runner.inventory.curves import blank

    table = Table("?")
    with blank(4, 3) as figure:
        axes = figure.subplots()
        table.plot(axes, table.rows(runs_in(sweep)))
        mean, *seeds = axes.get_lines()[:4]
    assert list(mean.get_ydata()) == pytest.approx([np.mean(VALUES["hinge"]) - 1, np.mean(VALUES["hinge"])], rel=1e-15)
    assert [list(each.get_ydata()) for each in seeds] == [[value - 1, value] for value in VALUES["hinge"]]
    assert list(mean.get_xdata()) == [0.2, 0.4]


# ------------------------------------------------------------------------------------------------------------------------------ strangers

NASTY = "a|b`c\x1b[2J\n# d\u202e![x](http://evil) <script> @someone"


def test_a_hostile_folder_changes_no_line_of_the_table(tmp_path):
    root = tmp_path / NASTY.replace("/", "")
    job(root / NASTY.replace("/", "") / "0", NASTY, 0, line(40, {NASTY: NASTY}, **{NASTY: 1.0}), state="failed", error=NASTY)
    job(root / "1", NASTY + "2", 0, line(40, **{NASTY: 1.0}))
    (root / "1" / "env.json").write_text(json.dumps({"device": NASTY, "threads": NASTY}))
    asked = {"line": ["a b", NASTY], "jobs": [NASTY], "summary": summary.DEFAULT | {"question": NASTY, "budget": NASTY, "columns": [NASTY]}}
    with pytest.raises(summary.UserError, match="there is a line break"):
        summary.write(root)
    root = root.rename(tmp_path / "plain")
    (root / "sweep.yaml").write_text(json.dumps(asked))
    summary.write(root)
    page = (root / "page.md").read_text()
    assert [c for c in page if not (c.isprintable() or c == "\n")] == []
    assert "\n# " not in page.replace("\n## ", "")
    outside = re.sub(r"`[^`\n]*`", "", re.sub(r"^```sh\n.*\n```$", "", page, flags=re.MULTILINE)).replace(summary.LINK, "")
    assert not re.search(r"(?<!\\)[<`@]|!\[|(?<!\\):(?=//)", outside), outside
    lines = [text for text in page.splitlines() if text.startswith("|")]
    assert {text.count("|") for text in lines[:4]} == {4}
    assert {text.count("|") for text in lines[4:]} == {6}


def test_code_that_a_stranger_names_is_not_imported(sweep, shown, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for target, said in {
        "evil.Summary": "summary._target_=evil.Summary is not allowed",
        "gan_runner.losses.Hinge": "is not a Summary",
        None: "summary._target_=None is not allowed",
    }.items():
        (sweep / "sweep.yaml").write_text(json.dumps({"summary": {"_target_": target, "question": "?"}}))
        code, _, err = shown(sweep, "--summary")
        assert (code, said in err) == (2, True), err
    assert not (sweep / "table.md").exists()


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"rows": "loss"}, "summary.rows='loss': expected a list"),
        ({"x": "loss"}, "summary: x is loss: expected images, or one of the keys in rows"),
        ({"colums": []}, "unknown key summary.colums; Table takes question, rows, columns, x, y, budget (did you mean summary.columns?)"),
        ({"columns": ["a"] * 51}, "at most 50 items"),
    ],
)
def test_what_is_wrong_with_a_summary_is_said(sweep, shown, node, said):
    (sweep / "sweep.yaml").write_text(json.dumps({"summary": summary.DEFAULT | node}))
    code, _, err = shown(sweep, "--summary")
    assert (code, said.replace("summary.columns?", "columns?") in err) == (2, True), err


@pytest.mark.parametrize("name", ["sweep.yaml", "table.md", "plot.png", "page.md", "events.out.tfevents.summary"])
def test_a_link_in_the_folder_is_not_followed(sweep, shown, tmp_path, name):
    (tmp_path / "precious").write_text("precious")
    (sweep / name).symlink_to(tmp_path / "precious")
    code, _, err = shown(sweep, "--summary")
    assert (code, f"sweep/{name} is a link" in err) == (2, True), err
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"", b"[1, 2", b"summary: [1]", b"line: 3\njobs: {a: 1}\n", b"\xff", b"a: &a [*a]"])
def test_a_record_that_cannot_be_read_is_no_traceback(sweep, shown, data):
    (sweep / "sweep.yaml").write_bytes(data)
    code, _, err = shown(sweep, "--summary")
    assert code == (2 if b"summary" in data else 0), err
    assert "Error" not in err


# ----------------------------------------------------------------------------------------------------------------------------- gan-runs


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--summary", "--json"], "--summary is of all runs in a folder"),
        (["--summary", "--filter", "a"], "--summary is of all runs in a folder"),
        (["--packages", "a"], "--packages belongs to --summary"),
        (["--summary", "--prune"], "not allowed with argument"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(sweep, shown, words, said):
    code, _, err = shown(sweep, *words)
    assert (code, said in err) == (2, True), err


def test_a_summary_is_of_a_folder_with_runs(sweep, shown, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, said in {
        "empty": "there are no runs in",
        "sweep/0": "is a run; a summary is of the folder",
        "none": "there is no folder",
    }.items():
        code, _, err = shown(tmp_path / folder, "--summary")
        assert (code, said in err) == (2, True), err


def test_a_summary_of_the_users_own(sweep, shown):
    own = {"_target_": f"{__name__}.Counting", "question": "How many?"}
    (sweep / "sweep.yaml").write_text(json.dumps({"summary": own}))
    assert shown(sweep, "--summary")[0] == 2
    code, out, _ = shown(sweep, "--summary", "--packages", __name__.partition(".")[0])
    assert (code, out.splitlines()[1].split()) == (0, ["all", "6", "of", "6", "6", "(n=1", "of", "6)"])
    assert "\n1\\. \\*counted\\*\n" in (sweep / "page.md").read_text()
    assert (sweep / "plot.png").stat().st_size > 1000
