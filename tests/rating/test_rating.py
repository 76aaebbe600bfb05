"""What people make of the samples: the page, its key, and the score of simulated raters."""

import base64
import html
import io
import itertools
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from command_settings import settings_of
from gan_runner.commands.settings import Rate
from gan_runner.config import composer
from gan_runner.errors import UserError
from gan_runner.lifecycle import runs
from gan_runner.rating import make, page, score
from gan_runner.rating.raters import chances, expected, fit, simulated, uncertainty
from gan_runner.rating.scorer import interval, scored, session, shares, threshold, weights

SHORT = {"questions": 10, "pool": 16, "practice": 4, "repeats": 3, "accelerator": "cpu"}  # a page of few pairs
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def a_key(seed, pool=240, questions=60, order="unsure", practice=12, repeats=0, **more):
    """The key of a page whose pairs have one covariate, standard normal."""
    rng, n = np.random.default_rng(seed), pool + practice
    key = {"version": 1, "page": "a", "order": order, "epsilon": 0.2, "questions": questions, "repeats": repeats, "staircase": None}
    key |= {"practice": list(range(pool, n)), "real": rng.integers(2, size=n).tolist(), "covariates": rng.normal(size=(n, 1)).tolist()}
    return key | {"source": {}, **more}


def steady(x):
    return np.full(len(x), 0.3)


def steep(x):
    """A rater who errs in half of all answers: hardly ever where the covariate is low, nearly always where it is high."""
    return 1 / (1 + np.exp(-4 * x[:, 0]))


def of(key, answers, path="answers.json"):
    return session(answers, key, path)


# -------------------------------------------------------------------------------------------------------------------------- the estimate


def test_weighted_answers_have_the_mean_of_the_pool_whatever_the_order():
    """Every way to draw 1, 2, 3 or 4 of 4 pairs with very unequal chances, weighted by its probability."""
    values, scores = np.array([0.0, 1.0, 1.0, 5.0]), np.array([1.0, 2.0, 10.0, 0.5])
    for m in (1, 2, 3, 4):
        mean = 0.0
        for asked in itertools.permutations(range(4), m):
            left, q = np.ones(4), []
            for pair in asked:
                q.append(chances(scores, left, 0.1)[pair])
                left[pair] = 0
            mean += np.prod(q) * (weights(np.array(q), 4) * values[list(asked)]).mean()
        assert mean == pytest.approx(values.mean(), abs=1e-12)


def test_answers_in_random_order_weigh_the_same():
    key = a_key(0, order="random")
    given = of(key, simulated(key, steady, 0))
    assert np.allclose(weights(given.q, 240), 1)


def test_the_rater_model_finds_the_rater():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20000, 2))
    b, covariance = fit(x, (rng.random(20000) < expected(x, np.array([-0.5, 1.0, 0.0]))).astype(float))
    assert np.abs(b - [-0.5, 1.0, 0.0]).max() < 4 * np.sqrt(np.diag(covariance)).max() < 0.1


def test_a_rater_is_asked_where_the_model_is_unsure():
    x = np.array([[-3.0], [0.0], [3.0]])
    sure = uncertainty(x, np.array([0.0, 2.0]), 1e-9 * np.eye(2))
    assert np.allclose(sure, np.sqrt(expected(x, np.array([0.0, 2.0])) * (1 - expected(x, np.array([0.0, 2.0])))))
    assert uncertainty(x, np.array([0.0, 2.0]), 10 * np.eye(2)).min() > 0.4  # nothing is known: as good as even
    q = chances(sure, np.array([1.0, 1.0, 0.0]), 0.2)
    assert q.sum() == pytest.approx(1)
    assert q[1] > 0.8
    assert q[0] > 0.1  # half of epsilon
    assert q[2] == 0


@pytest.mark.slow
@pytest.mark.parametrize("order", ["random", "unsure"])
@pytest.mark.parametrize(("wrong", "truth"), [(steady, 0.3), (steep, 0.5)])
def test_the_interval_holds_the_truth_19_times_in_20_in_any_order(wrong, truth, order):
    """Of 200 raters and pages: the share of intervals that hold the truth is within 3.3 standard deviations of .95."""
    rates, held = [], 0
    for seed in range(200):
        key = a_key(seed, order=order)
        rate, low, high = interval(shares(of(key, simulated(key, wrong, seed)), np.array(key["covariates"])[:240])[None], 60, 400, 0, 2)
        rates.append(rate)
        held += low <= truth <= high
    assert abs(np.mean(rates) - truth) < 3.3 * np.std(rates) / math.sqrt(200)
    assert 0.90 <= held / 200 <= 0.995


@pytest.mark.parametrize("order", ["random", "unsure"])
def test_a_rater_who_errs_in_3_of_10_is_found_out(order):
    key = a_key(0, pool=400, questions=200, order=order)
    one = scored(key, [of(key, simulated(key, steady, 3))])["by_rater"][0]
    assert one["interval"][0] < 0.3 < one["interval"][1]
    assert one["interval"][1] - one["interval"][0] < 0.15


@pytest.mark.slow
def test_the_rater_model_and_its_order_need_fewer_answers_than_counting():
    """For the same width: variance of the estimate at 60 answers, against that of the plain error rate in random order."""
    plain, unsure = [], []
    for seed in range(150):
        key = a_key(seed, pool=600, order="random")
        plain.append(of(key, simulated(key, steep, seed)).wrong.mean())
        key["order"] = "unsure"
        unsure.append(shares(of(key, simulated(key, steep, seed)), np.array(key["covariates"])[:600]).sum())
    assert np.var(unsure) / np.var(plain) < 0.7  # .45 in the long run; the standard error of this ratio is .08
    assert abs(np.mean(unsure) - 0.5) < 3.3 * np.std(unsure) / math.sqrt(150)


def test_a_rater_who_never_errs_has_the_interval_of_wilson():
    rate, low, high = interval(np.zeros((1, 100)), 60, 100, 0)
    assert (rate, low) == (0, 0)
    assert high == pytest.approx(1.959964**2 / (60 + 1.959964**2))


def test_the_interval_over_raters_holds_how_much_they_differ():
    """Raters of .1 and .5, each known exactly: the mean is .3, and what another such rater would say is far from certain."""
    parts = np.tile(np.array([[0.1], [0.5]] * 5) / 400, (1, 400))
    rate, low, high = interval(parts, 4000, 2000, 0)
    assert rate == pytest.approx(0.3)
    error = 0.2 * math.sqrt(10 / 9) / math.sqrt(10)
    assert (high - low) / 2 == pytest.approx(2.262 * error, rel=0.1)  # Student's t of 9 degrees of freedom


@pytest.mark.slow
@pytest.mark.parametrize("raters", [3, 5])
def test_the_interval_over_raters_and_pairs_holds_the_truth(raters):
    """Raters and pairs both vary in the logit, with deviation 1/2 each; the truth is a mean over many of both."""
    draw = np.random.default_rng(1)
    truth, held = (1 / (1 + np.exp(1 - math.sqrt(0.5) * draw.normal(size=400_000)))).mean(), 0
    for seed in range(100):
        key, rng = a_key(seed, practice=4), np.random.default_rng(10_000 + seed)
        hard, x = 0.5 * rng.normal(size=244), np.array(key["covariates"])[:240]
        parts = []
        for rater in range(raters):
            own = 0.5 * rng.normal()
            answers = simulated(key, lambda x, own=own, hard=hard: 1 / (1 + np.exp(1 - own - hard)), 100 * seed + rater)
            parts.append(shares(of(key, answers), x))
        _, low, high = interval(np.array(parts), 60 * raters, 400, 0, 2)
        held += low <= truth <= high
    assert held >= 88  # .95 less 3.3 standard deviations


def test_the_score_names_every_rater_and_is_the_same_again():
    key = a_key(0, repeats=6)
    sessions = [of(key, simulated(key, steady, seed, rater=name)) for seed, name in enumerate(("Anna", "Ben"))]
    found = scored(key, sessions)
    assert found == scored(key, sessions)
    assert [one["rater"] for one in found["by_rater"]] == ["Anna", "Ben"]
    assert found["overall"]["error"] == pytest.approx(np.mean([one["error"] for one in found["by_rater"]]))
    assert found["by_rater"][0]["consistent"][1] == 6
    assert found["by_rater"][0]["practice"][1] == 12


def test_a_staircase_settles_where_three_of_four_answers_are_right():
    """A rater of accuracy 1 - exp(-(t / 250)^2 log 2) / 2: three quarters at 250 ms."""
    rng, ms, shown = np.random.default_rng(0), float(page.STAIRCASE["start"]), []
    for _ in range(600):
        shown.append(ms)
        right = rng.random() < 1 - math.exp(-((ms / 250) ** 2) * math.log(2)) / 2
        ms = min(max(ms + (-page.STAIRCASE["down"] if right else page.STAIRCASE["up"]), page.STAIRCASE["least"]), page.STAIRCASE["most"])
    assert threshold(np.array(shown)) == pytest.approx(250, abs=25)


# ------------------------------------------------------------------------------------------------------------------- answers that are not


def written(folder, key, *answers):
    (folder / "key.json").write_text(json.dumps(key))
    paths = [folder / f"answers{i}.json" for i in range(len(answers))]
    for path, one in zip(paths, answers, strict=True):
        path.write_text(one if isinstance(one, str) else json.dumps(one))
    return settings_of(Rate, key=str(folder / "key.json"), answers=[str(path) for path in paths])


def test_an_interrupted_session_is_scored_and_said_to_be_short(tmp_path):
    key, lines = a_key(0), []
    score(written(tmp_path, key, simulated(key, steady, 0, questions=25)), lines.append)
    assert any("25 of 60" in line for line in lines)
    assert json.loads((tmp_path / "score.json").read_text())["overall"]["answers"] == 25


def test_who_contradicts_their_own_answers_is_named(tmp_path):
    key, lines = a_key(0, repeats=4), []
    answers = simulated(key, steady, 0)
    first = {a["pair"]: a["chose"] for a in answers["answers"] if a["kind"] == "question"}
    for a in answers["answers"]:
        if a["kind"] == "repeat":
            a["chose"] = 1 - first[a["pair"]]
    score(written(tmp_path, key, answers), lines.append)
    assert any("contradicts most of their own" in line for line in lines)


def damage(change):
    def wrong(key):
        answers = simulated(key, steady, 0)
        change(answers)
        return answers

    return wrong


BAD = {
    "is not JSON": lambda key: json.dumps(simulated(key, steady, 0))[:-9],
    "answers page other": damage(lambda a: a.update(page="other")),
    "no question yet": lambda key: simulated(key, steady, 0, questions=0),
    "was asked twice": damage(lambda a: a["answers"].append(a["answers"][-1])),
    "is damaged": damage(lambda a: a["answers"][-1].update(pair=10**6)),
    "has no answer": damage(lambda a: a["answers"][-1].update(chose=None)),
    "does not hold the answers": damage(lambda a: a["answers"][-1].pop("q")),
    "does not hold": lambda key: [1, 2],
}


HUGE = 10**400
ODD = [None, True, "1", [], {}, -1, 2, 0.5, math.nan, math.inf, HUGE, 10**6]


def altered(name, value, kind="question"):
    """The answers of a rater, one of which has another value."""

    def change(answers):
        next(a for a in answers["answers"] if a["kind"] == kind)[name] = value

    return damage(change)


def changed(name, value):
    return damage(lambda answers: answers.update({name: value}))


MALFORMED = {
    **{f"{name} {value!r:.20}": altered(name, value) for name in ("pair", "chose", "q", "ms") for value in ODD},
    **{f"{kind} {value!r:.20}": altered("pair", value, kind) for kind in ("practice", "repeat") for value in ODD},
    **{f"no {name}": damage(lambda a, name=name: a.pop(name)) for name in ("page", "rater", "session", "answers")},
    **{f"{name} {value!r:.20}": changed(name, value) for name in ("rater", "session", "answers") for value in ODD},
    "a kind of its own": damage(lambda a: a["answers"].append({"kind": "other"})),
    "an answer that is none": damage(lambda a: a["answers"].append(3)),
    "no answer": damage(lambda a: a.update(answers=[])),
    "a repeat of what was not asked": damage(lambda a: a["answers"].pop(4)),
    "deep": lambda key: "[" * 100_000,
    "not UTF-8": lambda key: "\udcff",
    "nothing": lambda key: "",
    "null": lambda key: None,
}  # fmt: skip
FINE = {
    "ms 2",
    "ms 0.5",
    "ms 1000000",
    "q 0.5",
    "a kind of its own",
    "chose True",
    "pair 2",
    "practice 2",
    "repeat 2",
    "rater '1'",
    "session '1'",
}


def outcome(settings):
    """The lines of the score, or the message that refuses it."""
    lines = []
    try:
        score(settings, lines.append)
    except UserError as error:
        return str(error)
    return lines


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_answers_are_scored_or_refused_in_one_message(tmp_path, name):
    """Whatever is scored is a number; only what a page could have saved is scored."""
    key = a_key(0, pool=60, questions=30, practice=4, repeats=3)
    settings = written(tmp_path, key, "{}")
    text = MALFORMED[name](key)
    data = text if isinstance(text, str) else json.dumps(text)
    (tmp_path / "answers0.json").write_bytes(data.encode(errors="surrogateescape"))
    found = outcome(settings)
    if isinstance(found, str):
        assert found.isprintable()
        assert not (tmp_path / "score.json").exists()
        return
    assert name in FINE
    assert not re.search(r"\b(nan|inf)\b", "".join(found))
    overall = json.loads((tmp_path / "score.json").read_text())["overall"]
    assert all(math.isfinite(x) for x in (overall["error"], *overall["interval"]))


KEYS = {
    name: [*ODD, [None] * 64, [math.nan] * 64, [[math.nan]] * 64, [[HUGE]] * 64, [[1.0]] * 3, [[0.0]] * 63 + [[]], [list(range(99))] * 64]
    for name in ("real", "practice", "covariates", "questions", "staircase", "page", "source")
}


@pytest.mark.parametrize(("name", "at"), [(name, at) for name, values in KEYS.items() for at in range(-1, len(values))])
def test_a_malformed_key_is_refused_or_scores_a_number(tmp_path, name, at):
    """-1: it is missing."""
    key = a_key(0, pool=60, questions=30, practice=4, repeats=3)
    answers = simulated(key, steady, 0)
    bad = {each: value for each, value in key.items() if each != name} | ({name: KEYS[name][at]} if at >= 0 else {})
    found = outcome(written(tmp_path, bad, answers))
    if isinstance(found, str):
        assert found.isprintable()
    else:
        assert name in ("questions", "source", "staircase") or bad[name] == []  # a page may have no practice
        assert not re.search(r"\b(nan|inf)\b", "".join(found))


def test_a_rater_s_name_stays_on_its_line(tmp_path):
    key, lines = a_key(0), []
    score(written(tmp_path, key, simulated(key, steady, 0, rater="Eve\n  0.0 % (0 to 0)  Adam\x1b[2J\u202e" + 900 * "x")), lines.append)
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 300


@pytest.mark.parametrize("message", BAD)
def test_answers_that_cannot_be_scored_say_why(tmp_path, message):
    key = a_key(0)
    with pytest.raises(UserError, match=message):
        score(written(tmp_path, key, BAD[message](key)), print)


def test_a_session_counts_once(tmp_path):
    key = a_key(0)
    answers = simulated(key, steady, 0, rater="Anna")
    with pytest.raises(UserError, match="Anna are there twice"):
        score(written(tmp_path, key, answers, answers), print)


def test_the_score_asks_for_answers_and_a_key(tmp_path):
    with pytest.raises(UserError, match="no answers"):
        score(written(tmp_path, a_key(0)), print)
    with pytest.raises(UserError, match="is not the key"):
        score(written(tmp_path, {"version": 1}, {}), print)


# -------------------------------------------------------------------------------------------------------------------------- the page


@pytest.fixture
def pixels(tmp_path):
    """Two npz files of random pixels: darker fakes."""
    for name, high, seed in (("fake", 128, 0), ("real", 256, 1)):
        np.savez(tmp_path / f"{name}.npz", samples=np.random.default_rng(seed).integers(high, size=(24, 3, 12, 10), dtype=np.uint8))
    return {name: str(tmp_path / f"{name}.npz") for name in ("fake", "real")}


def made(out, **settings):
    """(the page, what it holds, its key)"""
    make(settings_of(Rate, **{**SHORT, "out": str(out), **settings}), lambda line: None)
    text = (out / "page" / "index.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return text, json.loads(data[1]), json.loads((out / "key.json").read_text())


def sheet(data):
    raw = base64.b64decode(data["sheets"][0].removeprefix("data:image/png;base64,"))
    return raw, np.array(Image.open(io.BytesIO(raw)))


def test_the_page_stands_alone(tmp_path, pixels):
    text, data, key = made(tmp_path / "out", **pixels)
    assert [file.name for file in (tmp_path / "out" / "page").iterdir()] == ["index.html"]
    assert not re.findall(r"""(?:src|href)=["']?(?!data:)\w""", text)
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in text
    assert data["page"] == key["page"]
    assert text.count('aria-label="Left picture"') == text.count('aria-label="Right picture"') == 1


def test_the_page_does_not_hold_the_truth(tmp_path, pixels):
    """Nothing in it belongs to a single image but its pixels; of the truth it holds that of the practice pairs, which are not scored."""
    text, data, key = made(tmp_path / "out", **pixels)
    assert set(data["open"]) == {str(pair) for pair in key["practice"]} == {str(pair) for pair in range(16, 20)}
    single = {
        name for name, value in data.items() if isinstance(value, list | dict) and name not in ("open", "practice", "prior", "sheets")
    }
    assert single == {"covariates"}
    assert all(isinstance(x, float) for pair in data["covariates"] for x in pair)
    assert "real" not in data
    assert not any(path in text for path in (*pixels.values(), "fake.npz", "real.npz", "key.json"))
    assert json.dumps(key["real"])[1:-1] not in text


def test_all_images_are_written_alike_and_the_key_says_which_are_real(tmp_path, pixels):
    _, data, key = made(tmp_path / "out", **pixels)
    raw, picture = sheet(data)
    kinds = [raw[at + 4 : at + 8] for at in chunks(raw)]
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}  # no text, no time
    assert sum(key["real"]) == len(key["real"]) / 2
    real = {image.tobytes() for image in np.load(pixels["real"])["samples"].transpose(0, 2, 3, 1)}
    for tile in range(40):
        x, y = (data["gap"] + at * (side + data["gap"]) for at, side in ((tile % data["columns"], 10), (tile // data["columns"], 12)))
        assert (picture[y : y + 12, x : x + 10].tobytes() in real) == (key["real"][tile // 2] == tile % 2)


def chunks(raw):
    at = 8
    while at < len(raw):
        yield at
        at += 12 + int.from_bytes(raw[at : at + 4], "big")


def test_the_sides_cannot_be_drawn_again_without_the_images(tmp_path, pixels):
    keys = [made(tmp_path / "a", **pixels)[2], made(tmp_path / "b", **pixels)[2]]
    assert keys[0] == keys[1]
    np.savez(pixels["fake"], samples=np.load(pixels["fake"])["samples"] + np.uint8(1))
    assert made(tmp_path / "c", **pixels)[2]["real"] != keys[0]["real"]


def test_a_title_cannot_end_the_script(tmp_path, pixels):
    text, data, _ = made(tmp_path / "out", title="</script><b>", **pixels)
    assert data["title"] == "</script><b>"
    assert text.count("</script>") == 2


def test_a_key_is_not_overwritten(tmp_path, pixels):
    made(tmp_path / "out", **pixels)
    with pytest.raises(UserError, match="holds a page and its key already"):
        made(tmp_path / "out", **pixels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fake": None}, "say what is rated"),
        ({"pool": 30}, "pool and practice ask for 34"),
        ({"questions": 17}, "at most as many"),
        ({"real": "absent.npz"}, "neither a folder"),
    ],
)
def test_what_cannot_be_made_says_why(tmp_path, pixels, change, message):
    with pytest.raises(UserError, match=message):
        made(tmp_path / "out", **{**pixels, **change})
    assert not (tmp_path / "out").exists()


def test_images_of_two_sizes_are_refused(tmp_path, pixels):
    np.savez(tmp_path / "small.npz", samples=np.zeros((24, 3, 8, 8), np.uint8))
    with pytest.raises(UserError, match="expected images as uint8 of"):
        made(tmp_path / "out", fake=pixels["fake"], real=str(tmp_path / "small.npz"))


def test_outliers_do_not_rule_the_covariates():
    x = page.normal_scores(np.array([[3.0], [-1e9], [7.0], [1e30]]))
    assert x[:, 0].tolist() == [-0.32, -1.15, 0.32, 1.15]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A conditional run of two rounds on a folder of pictures of two classes."""
    data, folder = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("run") / "run"
    for i, image in enumerate(np.random.default_rng(0).integers(256, size=(60, 16, 16, 3), dtype=np.uint8)):
        (data / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(image).save(data / "ab"[i % 2] / f"{i}.png")
    words = ["+experiment=dcgan_image_folder", f"dataset.path={data}", "dataset.resolution=16", "trainer.steps=2", "batch_size=4"]
    words += ["architecture.generator.width=4", "architecture.discriminator.width=4", "callback.grid.n=4", "trainer.accelerator=cpu"]
    runs.train(composer.compose([*words, "architecture.conditional=true"]).config, folder)
    return folder


def test_a_run_on_a_folder_says_what_it_reads(run):
    assert re.search(
        r" files     60 images in .*, 2 classes \(a 30, b 30\); \d+ for training and \d+ for testing, ", (run / "train.log").read_text()
    )


def test_a_run_is_rated_against_real_images_of_the_same_class(run, tmp_path):
    pairs, source = page.gathered(settings_of(Rate, run=str(run), **SHORT))
    assert pairs.names == ["margin of D", "distance to the nearest real image"]
    assert pairs.covariates.shape == (20, 2)
    assert np.isfinite(pairs.covariates).all()
    assert pairs.fake.shape == pairs.real.shape == (20, 3, 16, 16)
    assert len(pairs.real.flatten(1).unique(dim=0)) == 20
    assert source == {"run": str(run), "seed": 0, "step": 2, "split": "train"}
    labels, y = torch.tensor([0, 1] * 30), torch.tensor([1, 1, 0, 1])
    rows = page.chosen(labels, 60, y, 4, 0)
    assert torch.equal(labels[rows], y)
    assert len(rows.unique()) == 4


def test_folders_are_decoded_as_in_training_and_counted(tmp_path):
    lines, turned = [], Image.Exif()
    turned[0x0112] = 6
    for name in ("fake", "real"):
        (tmp_path / name).mkdir()
        for i, image in enumerate(np.random.default_rng(0).integers(256, size=(24, 12, 10, 3), dtype=np.uint8)):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png", exif=turned)
        (tmp_path / name / "loop").symlink_to(".")
    fake = page.gathered(settings_of(Rate, **{name: str(tmp_path / name) for name in ("fake", "real")}, **SHORT), lines.append)[0].fake
    assert fake.shape == (20, 3, 10, 12)
    assert [line.partition(" in ")[0] for line in lines] == ["read: 24 images", "read: 24 images"]


def test_from_a_run_to_a_score(run, tmp_path):
    _, _, key = made(tmp_path / "out", run=str(run))
    (tmp_path / "a.json").write_text(json.dumps(simulated(key, steady, 0)))
    lines = []
    score(settings_of(Rate, out=str(tmp_path / "out"), answers=[str(tmp_path / "a.json")]), lines.append)
    assert re.search(r"\d+\.\d% \(.*wrong; 50 %", lines[0])


def test_a_staircase_holds_the_truth_and_says_so(tmp_path, pixels):
    lines = []
    make(settings_of(Rate, **SHORT, **pixels, out=str(tmp_path / "out"), time="staircase"), lines.append)
    assert "holds the truth" in lines[-1]
    key = json.loads((tmp_path / "out" / "key.json").read_text())
    assert key["order"] == "random"
    assert key["staircase"]["start"] == 500


# ------------------------------------------------------------------------------------------------------------------- in a browser

DRIVER = """<!doctype html><body><pre id="out"></pre><iframe id="frame" src="page/index.html"></iframe><script>
const frame = document.getElementById("frame"), sleep = ms => new Promise(done => setTimeout(done, ms));
const part = id => frame.contentDocument.getElementById(id), seen = [];
const opened = async () => { while (!part("welcome") || part("welcome").hidden) await sleep(20); };
const press = key => frame.contentDocument.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
async function answers(n) {
  for (let i = 0; i < n; i++) {
    while (part("left").getAttribute("aria-disabled") === "true") await sleep(20);
    seen.push(part("count").textContent);
    if (i % 4 === 0) press("ArrowLeft"); else if (i % 4 === 1) press("2"); else part(i % 4 === 2 ? "left" : "right").click();
    press("1");  // a second press is not an answer to the next pair
    await sleep(250);
    if (!part("next").hidden) { part("next").click(); await sleep(20); }
  }
}
frame.onload = async () => {
  frame.onload = null;
  await opened();
  part("name").value = "Anna";
  part("start").click();
  await answers(HALF);
  const again = new Promise(done => { frame.onload = done; });
  frame.contentWindow.location.reload();
  await again; await opened();
  const offer = part("start").textContent;
  part("start").click();
  await answers(ALL - HALF);
  document.getElementById("out").textContent = JSON.stringify({
    offer, seen, done: !part("done").hidden, saved: part("text").value,
    loaded: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
  });
};
</script>"""


def answered(folder, answers, half):
    """What the page says after a person has answered everything, with the page closed and opened again after `half` of the answers."""
    (folder / "drive.html").write_text(DRIVER.replace("HALF", str(half)).replace("ALL", str(answers)))
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--virtual-time-budget=200000"]
    words += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "drive.html").as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="out">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-500:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome on the PATH")
def test_a_session_in_a_browser_is_interrupted_goes_on_and_is_scored(tmp_path, pixels):
    _, _, key = made(tmp_path / "out", **pixels)
    found = answered(tmp_path / "out", 17, 9)
    assert found["done"]
    assert found["offer"] == "Go on as Anna (9 of 17 done)"
    assert found["seen"] == [f"{i + 1} of 17" for i in range(17)]
    assert not [name for name in found["loaded"] if not name.startswith("data:")]
    saved = json.loads(found["saved"])
    given = {kind: [a for a in saved["answers"] if a["kind"] == kind] for kind in ("practice", "question", "repeat")}
    assert [len(given[kind]) for kind in ("practice", "question", "repeat")] == [4, 10, 3]
    before = {a["pair"]: a["flip"] for a in given["question"]}
    assert all(a["flip"] != before[a["pair"]] for a in given["repeat"])
    assert len({a["pair"] for a in given["repeat"]}) == 3
    x, real = np.array(key["covariates"]), key["real"]
    missed = np.array([float(a["chose"] != real[a["pair"]]) for a in given["practice"]])
    scores, left = uncertainty(x[:16], *fit(x[key["practice"]], missed)), np.ones(16)
    assert np.ptp(scores) > 1e-6  # far above the tolerance below; sides are dealt by chance, and four answers of one kind teach little
    for a in given["question"]:  # the model of the page is the one of this package
        assert a["q"] == pytest.approx(chances(scores, left, 0.2)[a["pair"]], rel=1e-9)
        left[a["pair"]] = 0
    sides = [a["chose"] ^ a["flip"] for a in saved["answers"]]
    assert sides == [(0, 1, 0, 1)[i % 4] for i in (*range(9), *range(8))]
    (tmp_path / "anna.json").write_text(found["saved"])
    lines = []
    score(settings_of(Rate, out=str(tmp_path / "out"), answers=[str(tmp_path / "anna.json")]), lines.append)
    assert any("Anna: 10 answers" in line for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome on the PATH")
def test_a_staircase_in_a_browser_goes_by_right_and_wrong(tmp_path, pixels):
    _, _, key = made(tmp_path / "out", **pixels, time="staircase", repeats=0)
    found = answered(tmp_path / "out", 14, 6)
    asked, ms = [a for a in json.loads(found["saved"])["answers"] if a["kind"] == "question"], 500
    for a in asked:
        assert a["exposure"] == ms
        assert a["shown"] == pytest.approx(ms, abs=40)  # a frame or two
        ms += -10 if a["chose"] == key["real"][a["pair"]] else 30
    assert len(asked) == 10
    assert scored(key, [of(key, json.loads(found["saved"]))])["overall"]["threshold_ms"] > 300
