"""Words as they are typed: a tilde is a home, and what the grammar refuses is printed as it has to be typed."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gan_runner import cli
from gan_runner.config.command_line import as_typed, parsed
from gan_runner.config.composer import compose
from gan_runner.config.home import at_home
from gan_runner.errors import UserError
from tiny_runs import NARROW

HARD = [  # values that the grammar refuses, reads as something else than one text, or gives a meaning of their own
    "my photos#1", "it's", 'a "b"', "a,b", "photos (1)", "(1)", "Bücher", "写真", "a&b", "a;b", "a!b", "a<b>c", "a=b", "a`b`", "a~b",
    "a{b}", "back\\slash 'and' \"both\", ü", "ü's\\",
]  # fmt: skip
KEYS = [
    "dataset.path",
    "dataset.root",
    "out",
    "run",
    "samples",
    "reference",
    "resume",
    "init_from",
    "extractor.dinov2.weights",
    "hydra.run.dir",
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("key", KEYS)
def test_a_value_that_begins_with_a_tilde_is_below_a_home(home: Path, key: str):
    values = [f"{key}=~", f"{key}=~/photos", f"+{key}=~/photos", f"{key}='~/my photos'", f'{key}="~/a,b"', f"{key}=~root/x"]
    root = Path("~root").expanduser()
    expected = [home, home / "photos", home / "photos", home / "my photos", home / "a,b", root / "x"]
    assert [parsed([at_home(word)])[0].value() for word in values] == list(map(str, expected))


def test_items_of_a_list_a_mapping_and_a_sweep_are_below_a_home(home: Path):
    assert at_home("run=[~/a, ~/b]") == f"run=[{home}/a, {home}/b]"
    assert at_home("run=['~/a b',\"~/b\"]") == f"run=['{home}/a b',\"{home}/b\"]"
    assert at_home("init_from={run: ~/a}") == f"init_from={{run: {home}/a}}"
    assert at_home("dataset.path=~/a,~/b") == f"dataset.path={home}/a,{home}/b"
    assert at_home("dataset.path=choice(~/a,~/b)") == f"dataset.path=choice({home}/a,{home}/b)"
    assert at_home("init_from=~/a:best") == f"init_from={home}/a:best"


@pytest.mark.parametrize(
    "word", ["~penalty.r1", "~penalty", "a=b~", "a=b/~/c", "a='b,~/c'", "title='~5 of them'", "a=~nobody-of-this-name/x", "-m"]
)
def test_other_tildes_are_left_alone(home: Path, word: str):
    assert at_home(word) == word


def test_a_tilde_in_a_file_is_a_home(home: Path, tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [{override /dataset: image_folder}]\ndataset: {path: ~/photos}\ninit_from: ~root/run\n"
    )
    config = compose(["+experiment=mine"], [tmp_path]).config
    assert (config.dataset.path, config.init_from) == (f"{home}/photos", str(Path("~root/run").expanduser()))


def test_a_file_places_no_run_in_a_home(home: Path, tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nhydra: {run: {dir: ~/runs}}\n")
    with pytest.raises(UserError, match=r"hydra\.run\.dir=.*home/runs is refused"):
        compose(["+experiment=mine"], [tmp_path])


@pytest.mark.slow
def test_the_commands_find_what_is_below_a_home(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)

    def typed(command: str, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", [f"gan-{command}", *words])
        assert getattr(cli, {"eval": "evaluate"}.get(command, command))() == 0, capfd.readouterr().err

    typed("train", *NARROW, "trainer.steps=2", "hydra.run.dir=~/runs/a")
    typed("train", "resume=~/runs/a", "trainer.steps=3")
    typed("train", *NARROW, "trainer.steps=2", "init_from=~/runs/a:last", "hydra.run.dir=~/runs/b")
    typed("sample", "run=~/runs/a", "n=8", "format=npz", "out=~/made.npz")
    typed("eval", "run=[~/runs/a,~/runs/b]", "n=100")
    typed("eval", "samples=~/made.npz", "reference=~/made.npz", "metric=[frechet_distance]", "extractor=identity", "n=8", "out=~/judged")
    assert json.loads((home / "runs" / "a" / "status.json").read_text())["step"] == 3
    assert (home / "made.npz").is_file()
    assert (home / "judged" / "metrics.jsonl").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


# --------------------------------------------------------------------------------------------------------------- what has to be quoted


@pytest.mark.parametrize("value", HARD)
def test_what_the_grammar_refuses_is_printed_as_it_is_typed(value: str):
    word = as_typed(f"dataset.path={value}")
    assert word is not None
    (said,) = shlex.split(word)
    assert parsed([said])[0].value() == value
    if "," not in value:
        assert refusal(f"dataset.path={value}").endswith(f"type {word}")


@pytest.mark.parametrize("shell", [["bash", "-c"], ["zsh", "-fc"]], ids=["bash", "zsh"])
def test_shells_read_the_printed_words_alike(shell: list[str]):
    words = [as_typed(f"dataset.path={value}") for value in HARD] + [as_typed("run=[a b,c#d,ü]")]
    try:
        said = subprocess.run([*shell, f"printf '%s\\0' {' '.join(map(str, words))}"], capture_output=True, check=True).stdout.decode()
    except FileNotFoundError:
        pytest.skip(f"{shell[0]} is not installed")
    values = [parsed([word])[0].value() for word in said.split("\0")[:-1]]
    assert values == [*HARD, ["a b", "c#d", "ü"]]


def refusal(*line: str) -> str:
    with pytest.raises(UserError) as refused:
        parsed(line)
    return str(refused.value)


def test_every_word_that_cannot_be_read_is_named():
    first, second, third = refusal("seed=1", "dataset.path=Bücher", "seed=[1,2", "dataset.root=a#b").splitlines()
    why = "special characters need quotes, for Hydra inside those for the shell"
    assert first == f"cannot read dataset.path=Bücher: {why}; type 'dataset.path=\"Bücher\"'"
    assert second.startswith("cannot read seed=[1,2: no viable alternative at input '[1,2'; quote what has special characters")
    assert third == f"cannot read dataset.root=a#b: {why}; type 'dataset.root=\"a#b\"'"


def test_words_that_a_space_has_parted_are_put_together_again():
    assert refusal("dataset.path=my", "photos").endswith("; a value with spaces is typed 'dataset.path=\"my photos\"'")
    assert refusal("photos") == "photos: expected KEY=VALUE; an experiment is chosen with +experiment=photos"


def test_a_home_of_nobody_is_named():
    assert refusal("run=~nobody-of-this-name/x").startswith("run=~nobody-of-this-name/x: there is no user nobody-of-this-name")


def test_a_comma_may_belong_to_a_text():
    with pytest.raises(UserError, match=r"seed=1,2: several values; add -m to run each of them, or write 'seed=\[1,2\]' for one list"):
        compose(["seed=1,2"])
    with pytest.raises(UserError, match=r"several values; write 'run=\[a,b\]' for one list, or 'run=\"a,b\"' for one text with a comma"):
        compose(["run=a,b"], config_name="evaluate")
