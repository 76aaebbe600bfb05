"""The keys of gan-sample, gan-eval and gan-rate: their YAML files and the fields that check them."""

from dataclasses import fields
from pathlib import Path

import pytest

from command_settings import defaults, settings_of
from gan_runner.commands.settings import Evaluate, Rate, Sample, read
from gan_runner.errors import UserError

LONG = 300 * "a"  # no file system of Linux or macOS takes such a name
NEEDED = {Sample: {"run": "x"}, Evaluate: {}, Rate: {}}


@pytest.mark.parametrize("kind", NEEDED)
def test_a_yaml_file_and_its_fields_have_the_same_keys_and_the_defaults_fit(kind):
    keys = defaults(kind)
    assert {field.name.removesuffix("_") for field in fields(kind)} == set(keys)
    settings = settings_of(kind, **NEEDED[kind])
    for field in fields(kind):
        key = field.name.removesuffix("_")
        default = NEEDED[kind].get(key, keys[key])
        assert getattr(settings, field.name) == (tuple(default) if isinstance(default, list) else default)


@pytest.mark.parametrize(
    ("kind", "keys", "said"),
    [
        (Sample, {"n": "5"}, "n='5': expected a number of samples, 1 or more, or null"),
        (Sample, {"n": True}, "n=True: expected a number of samples, 1 or more, or null"),
        (Sample, {"columns": 0}, "columns=0: expected a number of columns, 1 or more, or null"),
        (Sample, {"class": -1}, "class=-1: expected the name or the number of a class or null"),
        (Sample, {"run": 3}, "run=3: expected the folder of a run (./3 where its name is a number)"),
        (Sample, {"export": " "}, "export=' ': expected the path of a file or null; it has to be one line, and not empty"),
        (Sample, {"out": "a\nb"}, "out='a\\nb': expected a path or null; it has to be one line, and not empty"),
        (Sample, {"out": "file/x.png"}, "out='file/x.png': expected a path or null; file is a file, not a folder"),
        (Sample, {"out": "file", "format": "png"}, "out='file': file is a file, not a folder"),
        (Sample, {"export": "."}, "export='.': expected the path of a file or null; . is a folder"),
        (Evaluate, {"out": "file"}, "out='file': expected a folder or null; file is a file, not a folder"),
        (Sample, {"out": LONG + "/x"}, f"out='{LONG}/x': expected a path or null; file name too long"),
        (Sample, {"out": LONG, "format": "png"}, f"out='{LONG}': file name too long"),
        (Rate, {"out": LONG}, f"out='{LONG}': expected a folder; file name too long"),
        (Sample, {"scale": 0}, "scale=0: expected a whole number, 1 or more, at most 64, or auto"),
        (Evaluate, {"n_real": 1}, "n_real=1: expected a number of samples, 2 or more, or null"),
        (Evaluate, {"threads": 0}, "threads=0: expected a number of threads, 1 or more, at most 1024, or null"),
        (Rate, {"epsilon": 0}, "epsilon=0: expected a share, above 0, at most 1"),
        (Rate, {"epsilon": float("nan")}, "epsilon=nan: expected a share, above 0, at most 1"),
        (Rate, {"answers": "a.json"}, "answers='a.json': expected the paths of files, [A,B]"),
        (Rate, {"answers": [1]}, "answers=[1]: expected the paths of files, [A,B]"),
        (
            Rate,
            {"out": "file", "questions": 0},
            "out='file': expected a folder; file is a file, not a folder\nquestions=0: expected a number of pairs, 1 or more",
        ),
    ],
)  # fmt: skip
def test_a_wrong_value_is_reported_with_what_is_expected(kind, keys, said, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        settings_of(kind, **NEEDED[kind] | keys)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("kind", "keys"), [(Sample, {"class": "cat"}), (Sample, {"class": 3}), (Sample, {"out": "file"}), (Rate, {"epsilon": 1})]
)
def test_a_right_value_is_taken_as_it_is(kind, keys, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    [(key, value)] = keys.items()
    assert getattr(settings_of(kind, **NEEDED[kind] | keys), {"class": "class_"}.get(key, key)) == value


def test_keys_that_the_line_took_away_are_reported():
    with pytest.raises(
        UserError, match=r"^run has no value: say run=outputs/\S+\nn has no value: say n=\.\.\.\nclass has no value: say class=\.\.\.$"
    ):
        read(Sample, {key: value for key, value in defaults(Sample).items() if key not in ("n", "class")})
