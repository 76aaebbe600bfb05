"""Labels of the jobs of a sweep: what differs between their lines."""

import pytest
import yaml

from gan_runner.storage.labels import differing, label, short, varied


def test_keys_differ_where_their_words_do():
    lines = [["+experiment=a", "loss=hinge", "seed=0", "x=1"], ["+experiment=a", "loss=minimax", "seed=1", "x=1"], ["+experiment=a", "x=1"]]
    assert differing(lines) == ["loss", "seed"]
    assert differing([["+experiment=a"], ["+experiment=b"]]) == ["experiment"]
    assert differing([["a=1"]]) == differing([]) == []


def test_a_key_is_shortened_to_what_tells_it_from_the_others():
    keys = ["loss", "penalty.r1.weight", "optimizer.generator.lr", "optimizer.discriminator.lr"]
    assert list(short(keys).values()) == ["loss", "weight", "generator.lr", "discriminator.lr"]
    assert short(["lr", "a.lr"]) == {"lr": "lr", "a.lr": "a.lr"}
    assert short(["a.b", "b"]) == {"a.b": "a.b", "b": "b"}


def test_a_label_names_the_values_of_the_keys_that_the_line_has():
    line = ["+experiment=ring8", "penalty.r1.weight=0.1", "trainer.steps=5", "penalty=[r1]"]
    assert label(line, ["experiment", "penalty.r1.weight", "seed"]) == "experiment=ring8 weight=0.1"
    assert label(line, ["penalty"]) == "penalty=[r1]"
    assert label(line, []) == ""


@pytest.mark.parametrize(
    ("said", "keys"), [({"varied": ["seed", 3]}, ["seed"]), ({"varied": "seed"}, []), ({}, []), (["varied"], []), (None, [])]
)
def test_what_a_sweep_varies_is_read_beside_the_job(said, keys, tmp_path):
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(said))
    assert varied(tmp_path / "0") == keys
    assert varied(tmp_path / "0" / "deeper") == []
