"""All mistakes of a line are in one message, each with what was probably meant, whatever kinds they are of."""

import itertools
import sys

import pytest

from gan_runner import cli

# kind -> (word, what is said of it)
TRAIN = {
    "option": ("loss=hinge2", "there is no loss hinge2 (did you mean hinge?)"),
    "option of a list": ("trick=[foo,emma]", "there is no trick emma (did you mean ema?)"),
    "network": ("architecture=mlp_tyo", "there is no architecture mlp_tyo (did you mean mlp_toy?)"),
    "added, and there is one": ("+rule=alternate", "exactly one rule is chosen, so it is replaced, not added: rule=alternate"),
    "key": ("trainer.stepz=3", "unknown key trainer.stepz; "),
    "key at the top": ("+sed=3", "unknown key sed (did you mean seed?)"),
    "part that is not chosen": ("penalty.r1.weight=5", "penalty.r1.weight: r1 is not chosen"),
    "removed, and there is none": ("~logger.wandb", "~logger.wandb: nothing to remove"),
    "type": ("seed=x", "seed='x': expected a whole number"),
    "value": ("trainer.accumulate=0", "trainer.accumulate=0: expected a whole number, 1 or more"),
    "option of a literal": ("trainer.precision=fp99", "trainer.precision='fp99': expected "),
    "setting of Hydra": ("hydra.run.dri=x", "unknown key hydra.run.dri"),
    "launcher": ("hydra/launcher=gan_loc", "there is no hydra/launcher gan_loc (did you mean gan_local?)"),
    "packages": ("packages=[3]", "packages: expected names of Python packages"),
    "accept": ("accept=all", "accept: what may differ when a run is resumed"),
}
SAMPLE = {
    "key": ("sed=1", "unknown key sed (did you mean seed?)"),
    "value": ("n=0", "n=0: expected a number of samples, 1 or more"),
    "type": ("columns=q", "columns='q': expected a number of columns"),
    "literal": ("format=gif", "format='gif': expected grid"),
    "several": ("accelerator=cpu,cuda", "accelerator=cpu,cuda: several values"),
}
EVALUATE = SAMPLE | {
    "value": ("n=1", "n=1: expected a number of samples, 2 or more"),
    "type": ("resize=q", "resize='q': expected a number of pixels"),
    "literal": ("format=gif", "format='gif': expected auto, json"),
    "option of a list": ("metric=[presision_recall]", "there is no metric presision_recall (did you mean precision_recall?)"),
    "value of a part": ("metric.precision_recall.k=q", "metric.precision_recall.k='q': expected a whole number"),
}


def refusal(monkeypatch, capsys, command, words):
    monkeypatch.setattr(sys, "argv", ["", *words])
    assert getattr(cli, command)() == 2
    return capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "kinds", "front"),
    [("train", TRAIN, []), ("train", TRAIN, ["-m"]), ("sample", SAMPLE, ["run=x"]), ("evaluate", EVALUATE, ["run=x"])],
)
def test_all_of_them_are_in_one_message(monkeypatch, capsys, tmp_path, command, kinds, front):
    monkeypatch.chdir(tmp_path)
    # of a sweep, the words for Hydra itself are wrong before there are jobs
    words = {kind: each for kind, each in kinds.items() if "-m" not in front or "hydra" not in each[0]}
    err = refusal(monkeypatch, capsys, command, [*front, *(word for word, _ in words.values()), *(["seed=0,1"] if "-m" in front else [])])
    if "-m" in front:  # the second word for a key counts
        words.pop("type")
    assert [said for _, said in words.values() if said not in err] == []
    assert err.count("mistakes") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_two_of_them_are(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for one, other in itertools.combinations(TRAIN.values(), 2):
        err = refusal(monkeypatch, capsys, "train", [one[0], other[0]])
        assert one[1] in err, (one, other, err)
        assert other[1] in err, (one, other, err)


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["+experiment=gausians25", "trick.ema.halflife_kimg=2"], 1),  # judged by the experiment that is meant
        (["+experiment=qqq", "trick.ema.halflife_kimg=2"], 1),  # nobody knows what it chooses
        (["loss=qqq", "loss.margin=2"], 1),  # nobody knows what it takes
        (["+loss=hinge", "loss.generator_weight=2.0"], 1),
    ],
)
def test_a_mistake_makes_no_mistakes_of_other_words(monkeypatch, capsys, words, count):
    err = refusal(monkeypatch, capsys, "train", words)
    assert len(err.splitlines()) == count, err
