"""The composer: what a line stands for, what of an experiment survives it, and what is said about a line that is wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gan_runner.commands.usage import catalogue, documented_keys
from gan_runner.config import command_line, groups, trust
from gan_runner.config.composed import Composed
from gan_runner.config.composer import Composer, compose
from gan_runner.config.groups import config_dir
from gan_runner.errors import UserError

R1, GP = {"_target_": "x.R1", "weight": 10, "every": 1}, {"_target_": "x.GP", "weight": 10}

FILES = {
    "train": """
defaults:
  - _self_
  - loss: hinge
  - penalty: []
  - trick: []
  - optimizer: adam
  - extractor: []
  - study: null
seed: 0 # of everything random
batch_size: 64 # samples a move
resume: null
packages: []
penalty: {}
trick: {}
extractor: {}
""",
    "loss/hinge": "# The hinge loss\n_target_: x.Hinge\n",
    "loss/wasserstein": "_target_: x.Wasserstein\nmargin: 1\n",
    "extractor/lenet": "_target_: x.LeNet\n",
    "penalty/r1": "r1: {_target_: x.R1, weight: 10, every: 1}\n",
    "penalty/gp": "gp: {_target_: x.GP, weight: 10}\n",
    "penalty/dragan": "dragan: {_target_: x.DRAGAN, weight: 10}\n",
    "trick/ema": "ema: {_target_: x.EMA, decay: 0.9}\n",
    "optimizer/adam": "generator: {_target_: x.Adam, lr: 2}\ndiscriminator: {_target_: x.Adam, lr: 2}\n",
    "optimizer/ttur": "generator: {_target_: x.Adam, lr: 1}\ndiscriminator: {_target_: x.Adam, lr: 4}\n",
    "study/rates": "# @package _global_\n# Which rate?\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n",
    "experiment/e": """# @package _global_
# WGAN with R1
defaults:
  - override /loss: wasserstein
  - override /penalty: [r1]
  - override /trick: [ema]
batch_size: 128
loss: {margin: 7}
penalty: {r1: {weight: 3}}
optimizer: {generator: {lr: 9}}
""",
    "experiment/child": """# @package _global_
defaults:
  - e
  - override /optimizer: ttur
  - override /penalty: [r1, gp]
  - _self_
seed: 7
optimizer: {discriminator: {lr: 8}}
""",
    "experiment/inline": """# @package _global_
defaults:
  - override /penalty: [r1]
penalty: {mine: {_target_: mypkg.Mine, weight: 2}}
""",
}


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("conf"), FILES)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.yaml").write_text(text, encoding="utf-8")
    return root


def composed(conf: Path, line: str) -> Composed:
    return Composer(main=conf).compose(line.split())


def refusal(conf: Path, line: str) -> str:
    with pytest.raises(UserError) as caught:
        composed(conf, line).plain()
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------- experiment against choice

R1_OF_E = {**R1, "weight": 3}
ADAM = {"generator": {"_target_": "x.Adam", "lr": 2}, "discriminator": {"_target_": "x.Adam", "lr": 2}}
TTUR = {"generator": {"_target_": "x.Adam", "lr": 1}, "discriminator": {"_target_": "x.Adam", "lr": 4}}


@pytest.mark.parametrize(
    ("line", "part", "expected", "notes"),
    [
        ("+experiment=e", "penalty", {"r1": R1_OF_E}, 0),
        ("+experiment=e penalty=[gp]", "penalty", {"gp": GP}, 1),
        ("penalty=[gp] +experiment=e", "penalty", {"gp": GP}, 1),
        ("+experiment=e penalty=gp", "penalty", {"gp": GP}, 1),
        ("+experiment=e penalty=[r1,gp]", "penalty", {"r1": R1_OF_E, "gp": GP}, 0),
        ("+experiment=e penalty=[]", "penalty", {}, 1),
        ("+experiment=e ~penalty", "penalty", {}, 1),
        ("+experiment=e ~penalty.r1", "penalty", {}, 0),
        ("+experiment=e +penalty=gp", "penalty", {"r1": R1_OF_E, "gp": GP}, 0),
        ("+penalty=gp +experiment=e", "penalty", {"r1": R1_OF_E, "gp": GP}, 0),
        ("+experiment=e +penalty=gp +penalty=dragan penalty.r1.weight=5", "penalty.r1", {**R1, "weight": 5}, 0),
        ("+experiment=e +penalty=[gp,dragan] ~penalty.r1 ~penalty.dragan", "penalty", {"gp": GP}, 0),
        ("+experiment=e penalty=[gp] penalty.gp.weight=1", "penalty", {"gp": {**GP, "weight": 1}}, 1),
        ("+experiment=e penalty=[gp]", "trick", {"ema": {"_target_": "x.EMA", "decay": 0.9}}, 1),
        ("+experiment=e", "optimizer.generator.lr", 9, 0),
        ("+experiment=e optimizer=ttur", "optimizer", TTUR, 1),
        ("+experiment=e optimizer=adam", "optimizer.generator.lr", 9, 0),
        ("+experiment=e optimizer=ttur optimizer.generator.lr=5", "optimizer.generator.lr", 5, 1),
        ("+experiment=e loss=hinge", "loss", {"_target_": "x.Hinge"}, 1),
        ("+experiment=e loss=hinge", "batch_size", 128, 1),
        ("+experiment=e loss=hinge penalty=[] optimizer=ttur", "loss", {"_target_": "x.Hinge"}, 3),
        ("+experiment=child", "optimizer", {**TTUR, "discriminator": {"_target_": "x.Adam", "lr": 8}}, 0),
        ("+experiment=child", "penalty", {"r1": R1_OF_E, "gp": GP}, 0),
        ("+experiment=child", "loss.margin", 7, 0),
        ("+experiment=child", "seed", 7, 0),
        ("+experiment=child optimizer=adam", "optimizer", {**ADAM, "generator": {"_target_": "x.Adam", "lr": 9}}, 1),
        ("+experiment=child penalty=[gp]", "penalty", {"gp": GP}, 1),
        ("+experiment=inline", "penalty.mine", {"_target_": "mypkg.Mine", "weight": 2}, 0),
        ("+experiment=inline +penalty=gp", "penalty.mine", {"_target_": "mypkg.Mine", "weight": 2}, 0),
        ("+experiment=inline penalty=[gp]", "penalty", {"gp": GP}, 1),
        ("+penalty.mine={_target_:mypkg.Mine}", "penalty", {"mine": {"_target_": "mypkg.Mine"}}, 0),
        ("extractor=lenet", "extractor", {"lenet": {"_target_": "x.LeNet"}}, 0),
        ("", "penalty", {}, 0),
    ],
)
def test_what_an_experiment_says_about_a_part_holds_only_while_it_is_chosen(conf: Path, line: str, part: str, expected, notes: int):
    result = composed(conf, line)
    value = result.plain()
    for key in part.split("."):
        value = value[key]
    assert value == expected
    assert len(result.notes) == notes, result.notes


def test_a_note_says_what_was_dropped_and_why(conf: Path):
    lists, single = composed(conf, "+experiment=e penalty=[gp] optimizer=ttur").notes
    assert lists == "'penalty=[gp]' is chosen; what experiment/e says about r1 is dropped: penalty.r1.weight=3"
    assert single == "optimizer=ttur is chosen; what experiment/e says about adam is dropped: optimizer.generator.lr=9"


def test_the_choices_are_the_names_that_are_left(conf: Path):
    choices = composed(conf, "+experiment=e +penalty=gp ~penalty.r1 loss=hinge").choices
    assert (choices["experiment"], choices["loss"], choices["penalty"], choices["trick"]) == ("e", "hinge", ["gp"], ["ema"])


def test_the_line_is_recorded_as_it_was_typed(conf: Path):
    line = ["+experiment=e", "+penalty=gp", "~penalty.r1", "seed=3"]
    assert list(Composer(main=conf).compose(line).hydra.overrides.task) == line


def test_a_composition_does_not_leak_into_the_next(conf: Path):
    composer = Composer(main=conf)
    first = composer.compose(["+experiment=e", "penalty=[gp]"])
    first.config.batch_size = 1
    assert composer.compose(["+experiment=e"]).plain()["penalty"] == {"r1": R1_OF_E}
    again = composer.compose(["+experiment=e", "penalty=[gp]"])
    assert again.plain()["batch_size"] == 128
    assert again.notes == first.notes != []


def test_an_experiment_and_a_loss_of_a_user(conf: Path, tmp_path: Path):
    mine = {"experiment/mine": "# @package _global_\ndefaults:\n  - e\n  - override /loss: own\n", "loss/own": "_target_: mypkg.Own\n"}
    result = Composer([write(tmp_path, mine)], main=conf).compose(["+experiment=mine", "penalty=[gp]"])
    assert result.plain()["loss"] == {"_target_": "mypkg.Own"}  # without e's margin, which is about another loss
    assert result.plain()["penalty"] == {"gp": GP}


# -------------------------------------------------------------------------------------------------------------------------- packages


def test_packages_come_from_the_line_and_the_environment_and_are_not_kept(conf: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GAN_RUNNER_PACKAGES", "other, mypkg")
    result = composed(conf, "packages=[mypkg,deep.er]")
    assert result.packages == ["mypkg", "deep.er", "other"]
    assert not {"packages", "resume", "hydra"} & set(result.plain())


@pytest.mark.parametrize("key", ["packages: [os]", "resume: outputs/x"])
def test_an_experiment_cannot_say_what_only_the_line_may(conf: Path, tmp_path: Path, key: str):
    write(tmp_path, {"experiment/bad": f"# @package _global_\n{key}\n"})
    with pytest.raises(UserError, match=rf"experiment/bad\.yaml sets {key.split(':')[0]}.*command line only"):
        Composer([tmp_path], main=conf).compose(["+experiment=bad"])


@pytest.mark.parametrize(
    "body",
    [
        "hydra: {callbacks: {x: {_target_: subprocess.Popen, args: [id]}}}",
        "hydra: {launcher: {_target_: os.system}}",
        "hydra: {job_logging: {handlers: {x: {class: subprocess.Popen, args: [id]}}}}",
        "hydra: {job_logging: {formatters: {x: {(): os.system}}}}",
    ],
)
def test_an_experiment_cannot_make_hydra_run_foreign_code(conf: Path, tmp_path: Path, body: str):
    write(tmp_path, {"experiment/bad": f"# @package _global_\n{body}\n"})
    with pytest.raises(UserError, match="is refused"):
        Composer([tmp_path], main=conf).compose(["+experiment=bad"])


# --------------------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("batch_sise=4", "unknown key batch_sise (did you mean batch_size?)"),
        ("+batch_sise=4", "unknown key batch_sise (did you mean batch_size?)"),
        ("+foo=1", "unknown key foo"),
        ("lr=1", "unknown key lr (did you mean optimizer.generator.lr or optimizer.discriminator.lr?)"),
        (
            "+experiment=e penalty.r1.wieght=5",
            "unknown key penalty.r1.wieght; penalty.r1 has weight, every (did you mean penalty.r1.weight?)",
        ),
        ("penalty.r1.weight=5", "penalty.r1.weight: r1 is not chosen (penalty: none); add it with +penalty=r1"),
        ("+experiment=e penalty=[gp] penalty.r1.weight=5", "penalty.r1.weight: r1 is not chosen (penalty: gp); add it with +penalty=r1"),
        ("+penalty.r1.weight=5", "penalty.r1: r1 is not chosen (penalty: none); add it with +penalty=r1"),
        ("penalty.r3.weight=5", "penalty.r3.weight: there is no penalty r3; chosen: none; available: dragan, gp, r1"),
        ("~penalty.r1", "~penalty.r1: nothing to remove; penalty has no entries"),
        ("extractor.size=1", "extractor.size: there is no extractor size; chosen: none; available: lenet"),
        ("seed.x=1", "unknown key seed.x"),
        ("+seed=1", "+seed=1: seed exists already; set it without the plus: seed=1"),
        ("+loss=hinge", "+loss=hinge: exactly one loss is chosen, so it is replaced, not added: loss=hinge"),
        ("loss=hing", "there is no loss hing (did you mean hinge?); available: hinge, wasserstein"),
        ("penalty=[r1,dragon]", "there is no penalty dragon (did you mean dragan?); available: dragan, gp, r1"),
        ("+penalty=dragon", "there is no penalty dragon (did you mean dragan?); available: dragan, gp, r1"),
        ("loss=5", "loss=5: expected the name of a loss; available: hinge, wasserstein"),
        ("+experiment=chidl", "there is no experiment chidl (did you mean child?); available: child, e, inline"),
        ("experiment=e", "an experiment is added, with a plus: +experiment=e"),
        ("e", "e: expected KEY=VALUE; an experiment is chosen with +experiment=e"),
        (
            "loss=hinge,wasserstein",
            "loss=hinge,wasserstein: several values; add -m to run each of them, or write 'loss=[hinge,wasserstein]'",
        ),
        ("seed=[1,2", "cannot read seed=[1,2: "),
        ("packages=[3]", "packages: expected names of Python packages, as in 'packages=[mypkg]'; got 3"),
        ("batch_size=???", "batch_size has no value yet: add batch_size=..."),
        ("batch_size=${nothing}", "batch_size: Interpolation key 'nothing' not found"),
        ("hydra.run.dri=x", "unknown key hydra.run.dri; hydra.run has dir (did you mean hydra.run.dir?)"),
    ],
)
def test_a_wrong_line_is_explained(conf: Path, line: str, said: str):
    assert refusal(conf, line).startswith(said)


def test_all_mistakes_of_a_line_are_told_at_once(conf: Path):
    assert len(refusal(conf, "a.b=1 seed=2 lr=3 penalty.r1.weight=4").splitlines()) == 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("# @package _global_\nbatch_sise: 4\n", "experiment/bad.yaml: unknown key batch_sise (did you mean batch_size?)"),
        ("# @package _global_\npenalty: [r1]\n", "experiment/bad.yaml: penalty has no keys below it; a part is chosen under defaults"),
        ("# @package _global_\npenalty: {r1: {weight: 3}}\n", "experiment/bad.yaml sets penalty.r1, but chooses penalty: []; add r1 to"),
        ("# @package _global_\ndefaults:\n  - override /penalty: [r9]\n", "there is no penalty r9 (asked for by experiment=bad)"),
        ("seed: 4\n", "experiment/ files must begin with the line `# @package _global_`"),
        ("# @package _global_\nseed: [1\n", "/experiment/bad.yaml, line "),
        ("# @package _global_\nseed: 1\nseed: 2\n", "/experiment/bad.yaml, line 3: found duplicate key seed"),
        ("# @package _global_\nhydra: {run: {dri: x}}\n", "experiment/bad.yaml: hydra.run.dri=x is refused"),
    ],
)
def test_a_wrong_experiment_file_is_named(conf: Path, tmp_path: Path, body: str, said: str):
    write(tmp_path, {"experiment/bad": body})
    with pytest.raises(UserError) as caught:
        Composer([tmp_path], main=conf).compose(["+experiment=bad"])
    assert said in str(caught.value)


def test_a_complaint_names_the_file_that_set_the_key(conf: Path):
    result = composed(conf, "+experiment=child penalty.r1.weight=4")
    assert result.sources("loss.margin=7: no such parameter") == "\n  loss.margin is set in experiment/e.yaml"
    assert result.sources("penalty.r1.weight=4 is too large") == ""  # the line set that one


def test_a_missing_config_dir_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="there is no folder"):
        Composer([tmp_path / "nowhere"])


# ------------------------------------------------------------------------------------------------------------------------ shipped files


def test_every_shipped_option_has_a_first_comment_line():
    silent = [f"{group}/{name}" for group, options in catalogue().items() for name, comment in options.items() if not comment]
    assert silent == []


def test_the_catalogue_holds_a_users_files_too(tmp_path: Path):
    write(tmp_path, {"experiment/mine": "# @package _global_\n# My own recipe\nseed: 1\n"})
    assert catalogue([tmp_path])["experiment"]["mine"] == "My own recipe"


def test_every_key_of_train_yaml_is_explained():
    text = (config_dir() / "train.yaml").read_text(encoding="utf-8")
    scalars = set(re.findall(r"^(\w+): (?!\{\})\S", text, flags=re.MULTILINE))
    assert {key for key, _, _ in documented_keys("train.yaml")} == scalars > {"seed", "batch_size"}


@pytest.mark.parametrize("name", sorted(catalogue().get("experiment", {})))
def test_every_shipped_experiment_composes(name: str):
    result = compose([f"+experiment={name}"])
    assert result.notes == []
    assert set(groups.SINGLE) <= set(result.config)
    assert result.hydra.run.dir.startswith(f"outputs/{name}/")


def test_the_entries_of_every_shipped_list_are_keyed_by_the_names_of_their_files():
    lists = {group: list(catalogue()[group]) for group in groups.LISTS if group in catalogue()}
    for group, names in lists.items():
        main = next(main for main in groups.MAIN if group in groups.composed_groups(main))
        result = compose([f"{group}=[{','.join(names)}]", *(["dataset=mnist"] if main == "train" else [])], config_name=main).plain()
        assert set(result[group]) == set(names)
        assert all("_target_" in part for part in result[group].values())


def test_every_other_shipped_part_composes_and_names_a_class():
    options = {group: list(catalogue()[group]) for group in groups.SINGLE}
    composer = Composer()
    for at in range(max(map(len, options.values()))):
        chosen = {group: names[at % len(names)] for group, names in options.items()}
        result = composer.compose([f"{group}={name}" for group, name in chosen.items()]).config
        for group in chosen:
            part = result[group]
            sides = ("generator",) if chosen[group] == "trained" else ("generator", "discriminator")  # D is that of a run
            assert "_target_" in part or all("_target_" in part[side] for side in sides), chosen[group]


def test_composing_imports_no_torch():
    code = "import sys; from gan_runner.config.composer import compose; compose([]); sys.exit('torch' in sys.modules)"
    source = str(Path(command_line.__file__).parents[2])
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, check=False).returncode == 0


def test_of_two_files_with_one_name_the_users_is_taken(tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "ring8.yaml").write_text("# @package _global_\n# My ring\nseed: 77\n")
    assert compose(["+experiment=ring8"], [tmp_path]).config.seed == 77
    assert compose(["+experiment=ring8"]).config.seed == 0


@pytest.mark.parametrize("name", ["hydra._internal.utils.os.system", "hydra.utils.sys.exit", "os.system", "hydra", "hydrant.x"])
def test_code_that_a_trusted_module_has_imported_is_not_trusted(name):
    settings = OmegaConf.create({"callbacks": {"x": {"_target_": name}}})
    with pytest.raises(UserError, match="is refused"):
        trust.refuse_foreign_code(settings, [])
