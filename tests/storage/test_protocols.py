"""Figures that were measured by different protocols do not share a name."""

import pytest

from gan_runner.inventory.tables import side_by_side, unlike
from gan_runner.jobs import table
from gan_runner.jobs.job import Outcome
from gan_runner.storage import records
from gan_runner.storage.protocols import Protocol
from gan_runner.storage.untrusted import flat
from write_runs import line, make

KEYS = {
    "modes": {"metric": "mode_coverage", "reads": "samples"},
    "fd/lenet": {"metric": "frechet_distance", "reads": "features, reference"},
}
SETTINGS = {"mode_coverage": {"radius_sigmas": 4.0}, "frechet_distance": {"_target_": "gan_runner.metrics.FrechetDistance"}}
REAL = {"real": "mnist:train", "n_real": 100, "real_sha256": "ab" * 32, "real_opacity": "laid on black", "classes": ["a", "b"]}
REAL |= {"real_resized": "64 x 64", "real_chosen": "100 of 60000 at random, the same for every seed"}
SEEN = {"extractor": "lenet", "extractor_sha256": "cd" * 32, "preprocessing": "as they are"}
WHOLE = {"n_fake": 100, "seed": 0, "generator": "average of G", "metrics": SETTINGS, "keys": KEYS} | REAL | SEEN


def differs(key, other, own=WHOLE):
    return Protocol.of(dict(flat(own))).described(key, Protocol.of(dict(flat(other))))


@pytest.mark.parametrize(
    ("key", "other", "said"),
    [
        ("fd/lenet", {}, ""),
        ("fd/lenet", {"checkpoint": "best.pt", "missing": {"a": "b"}, "notes": ["c"], "intervals_95": {"fd/lenet": [0, 1]}}, ""),
        ("fd/lenet", {"n_fake": 500}, "n=500"),
        ("fd/lenet", {"n_fake": 500, "seed": 3}, "n=500, seed=3"),
        ("fd/lenet", {"seeds": [0, 1, 2]}, "seeds=[0, 1, 2]"),
        ("fd/lenet", {"generator": "G"}, "G"),
        ("fd/lenet", {"real": "mnist:test", "n_real": 10000}, "mnist:test, n_real=10000"),
        ("fd/lenet", {"n_real": 500, "real_chosen": "500 of 60000 at random"}, "n_real=500"),
        ("modes/kl", {"n_real": 500, "real_chosen": "500 of 60000 at random", "real_opacity": "laid on white"}, ""),
        ("fd/lenet", {"real_sha256": "ef" * 32}, "real efefefef"),
        ("fd/lenet", {"extractor_sha256": "ef" * 32}, "extractor efefefef"),
        ("fd/lenet", {"preprocessing": "resized"}, "resized"),
        ("fd/lenet", {"samples": "pictures"}, "pictures"),
        ("modes/kl", {"real": "mnist:test", "extractor": "resnet20"}, ""),  # it looks at neither
        ("modes/kl", {"metrics": SETTINGS | {"mode_coverage": {"radius_sigmas": 3.0}}}, "radius_sigmas=3"),
        ("fd/lenet", {"metrics": SETTINGS | {"mode_coverage": {"radius_sigmas": 3.0}}}, ""),  # of another metric
        ("modes/kl", {"n_fake": 500}, "n=500"),
        ("fd/lenet", {"n_real": 50, "real_chosen": "50 of 60000 at random, the same for every seed"}, "n_real=50"),
        ("fd/lenet", {"real_opacity": "laid on white"}, "real_opacity=laid on white"),
        ("fd/lenet", {"real_resized": "32 x 32"}, "real_resized=32 x 32"),
        ("modes/kl", {"real_resized": "32 x 32"}, ""),
        ("modes/kl", {"n_real": 50, "real_chosen": "50 of 60000", "real_opacity": "laid on white", "classes": ["b", "a"]}, ""),
        ("modes/kl", {"n_fake": 50, "chosen": "50 of 1000 at random", "seed": 1}, "n=50, seed=1"),
    ],
)
def test_what_differs_is_in_the_name_and_what_a_figure_never_saw_is_not(key, other, said):
    assert differs(key, WHOLE | other) == said
    assert bool(differs(key, WHOLE, own=WHOLE | other)) == bool(said), "in both directions"


def test_lines_of_older_versions_are_compared_by_what_they_say():
    old = {"n_fake": 100, "generator": "G", "metrics": {"mode_coverage": {"radius_sigmas": 4.0}}}
    assert differs("modes/kl", WHOLE | {"generator": "G"}, own=old) == ""
    assert differs("modes/kl", WHOLE | {"generator": "G", "n_fake": 500}, own=old) == "n=500"
    assert differs("modes/kl", old | {"metrics": {"mode_coverage": {"radius_sigmas": 3.0}}}, own=old) == "radius_sigmas=3"
    assert differs("modes/kl", {}, own=old) == ""


def test_the_first_samples_of_older_versions_are_not_those_that_are_chosen_by_chance():
    first = {name: value for name, value in WHOLE.items() if name != "real_chosen"}
    assert differs("fd/lenet", first) == "the first real ones"
    assert differs("fd/lenet", WHOLE, own=first) == "real ones at random"
    assert differs("modes/kl", first) == ""
    assert differs("fd/lenet", first | {"n_real": 700}) == "n_real=700"
    first = WHOLE | {"samples": "pictures"}
    chosen = first | {"chosen": "100 of 1000 at random"}
    assert differs("modes/kl", first, own=chosen) == "the first samples"
    assert differs("modes/kl", chosen, own=first) == "samples at random"
    assert differs("modes/kl", chosen | {"n_fake": 700}, own=first) == "n=700"


def read(folder, *lines, **options):
    return records.read(make(folder, lines=lines, **options), folder)


LATER = {"checkpoint": "last.pt", "n_fake": 500}


def test_gan_eval_by_another_protocol_has_a_name_of_its_own(tmp_path):
    run = read(tmp_path / "a", line(10, cs__lenet=2.0), line(20, cs__lenet=3.0), line(20, LATER, cs__lenet=9.0, fd__lenet=4.0))
    assert run.curve("cs/lenet") == [(100, 2.0), (200, 3.0)]
    assert run.curve("cs/lenet (n=500)") == [(200, 9.0)]
    assert run.objective("cs/lenet", "max") == 3.0
    assert run.curve("fd/lenet") == [(200, 4.0)], "what training does not measure has no other owner"
    assert run.objective("fd/lenet", "min") is None, "but training has not measured it"
    assert run.keys[0] == "cs/lenet"
    assert run.followed("cs/lenet (n=500)") == ("cs/lenet (n=500)", "max")
    assert run.best("cs/lenet (n=500)", "max") == (200, 9.0)


def test_gan_eval_by_the_same_protocol_adds_nothing(tmp_path):
    run = read(tmp_path / "a", line(10, cs__lenet=2.0), line(5, {"checkpoint": "step_00000005.pt"}, cs__lenet=9.0))
    assert run.curves == {"cs/lenet": {100: 2.0}}


def test_of_two_protocols_of_gan_eval_the_first_has_the_plain_key(tmp_path):
    lines = [line(10, LATER | {"n_fake": n}, fd__lenet=float(n)) for n in (500, 10000, 500)]
    run = read(tmp_path / "a", line(10, cs__lenet=2.0), *lines)
    assert run.curve("fd/lenet") == [(100, 500.0)]
    assert run.curve("fd/lenet (n=10000)") == [(100, 10000.0)]


def test_figures_of_other_samples_are_not_those_of_training(tmp_path):
    """gan-eval samples=FOLDER out=RUN_DIR."""
    run = read(tmp_path / "a", line(10, cs__lenet=2.0), line(0, {"samples": "pictures"}, cs__lenet=9.0))
    assert run.objective("cs/lenet", "max") == 2.0
    assert run.curve("cs/lenet") == [(100, 2.0)]
    assert run.curve("cs/lenet (pictures)") == [(0, 9.0)]


def test_where_training_changed_its_protocol_the_newest_counts(tmp_path):
    run = read(tmp_path / "a", line(10, cs__lenet=9.0), *(line(step, {"n_fake": 500}, cs__lenet=2.0) for step in (20, 30)))
    assert run.curves == {"cs/lenet (n=100)": {100: 9.0}, "cs/lenet": {200: 2.0, 300: 2.0}}
    assert run.objective("cs/lenet", "max") == 2.0


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"n_fake": 5}, "n_fake"),
        ({"generator": "average of G"}, "generator"),
        ({"metrics": {"classifier_score": {"splits": 1}}}, "metrics.classifier_score.splits"),
    ],
)
def test_runs_that_were_measured_otherwise_are_not_compared_without_a_word(tmp_path, other, name):
    own = {"metrics": {"classifier_score": {"splits": 10}}}
    runs = [read(tmp_path / "a", line(10, own, cs__lenet=2.0)), read(tmp_path / "b", line(10, own | other, cs__lenet=3.0))]
    assert unlike(runs, None) == [name]
    assert unlike(runs[:1] * 2, None) == []
    metrics = side_by_side(runs, None)["metrics"]
    assert metrics == {f"cs/lenet \N{UPWARDS ARROW} best (not alike: {name})": [2, 3], f"cs/lenet last (not alike: {name})": [2, 3]}


def test_a_comparison_marks_what_gan_eval_measured_otherwise(tmp_path):
    lines = [[line(10, cs__lenet=2.0), line(10, LATER | {"n_fake": n}, fd__lenet=3.0)] for n in (500, 600)]
    runs = [read(tmp_path / name, *each) for name, each in zip("ab", lines)]
    assert "fd/lenet last (not alike: n_fake)" in side_by_side(runs, None)["metrics"]
    assert "cs/lenet last" in side_by_side(runs, None)["metrics"]


def test_the_table_of_a_sweep_compares_what_was_measured_alike(tmp_path, capsys):
    ns = (100, 500, 100, 500)
    for number, (n, value) in enumerate(zip(ns, (2.0, 9.0, 3.0, 8.0))):
        make(tmp_path / str(number), lines=(line(10, {"n_fake": n}, cs__lenet=value),))
    outcomes = [Outcome(number, [f"callback.evaluate.n={n}"], tmp_path / str(number), "finished") for number, n in enumerate(ns)]
    table.report(tmp_path, outcomes, None)
    said = capsys.readouterr().out.splitlines()
    assert "best cs/lenet: 3, of n=100 (job 2)" in said
    assert "best cs/lenet (n=500): 9, of n=500 (job 1)" in said


# -------------------------------------------------------------------------------------------------------------------------- what is drawn


def test_names_of_curves_that_gan_eval_draws(tmp_path):
    folder = make(tmp_path / "a", lines=(line(10, WHOLE, modes__kl=1.0),))
    names = ["modes/kl", "fd/lenet", "fd/lenet/fit"]
    same, other = (WHOLE | {"checkpoint": "last.pt", "n_fake": n} for n in (100, 500))
    assert list(records.drawn(folder, names, same).values()) == ["modes/kl (gan-eval)", "fd/lenet", "fd/lenet/fit"]
    assert list(records.drawn(folder, names, other).values()) == ["modes/kl (n=500)", "fd/lenet", "fd/lenet/fit"]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line(10, same, fd__lenet=1.0) + "\n")
    assert list(records.drawn(folder, names, same).values()) == ["modes/kl (gan-eval)", "fd/lenet", "fd/lenet/fit"]
    assert list(records.drawn(folder, names, other).values()) == ["modes/kl (n=500)", "fd/lenet (n=500)", "fd/lenet/fit (n=500)"]


def test_what_training_will_measure_keeps_its_name(tmp_path):
    """gan-eval before the first evaluation of a run."""
    config = {"metric": {"mode_coverage": {"_target_": "gan_runner.metrics.ModeCoverage"}}, "callback": {"evaluate": {"n": 100, "seed": 0}}}
    folder = make(tmp_path / "a", config=config)
    later = WHOLE | {"checkpoint": "last.pt"}
    assert records.drawn(folder, ["modes/kl", "fd/lenet"], later) == {"modes/kl": "modes/kl (gan-eval)", "fd/lenet": "fd/lenet"}
    assert records.drawn(folder, ["modes/kl"], later | {"n_fake": 500}) == {"modes/kl": "modes/kl (n=500)"}
