"""The pages: what they print can be typed, what they point to is there, and what they say of the code is in the code."""

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.types import RunMode

import gan_runner
from gan_runner import cli
from gan_runner.config.command_line import parsed
from gan_runner.config.composer import Composer, compose
from gan_runner.draws import NumberedDraws
from gan_runner.jobs.search import OptunaSweeper
from gan_runner.refinement import Ratio, Refinement
from gan_runner.refiners import DGflow

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
DESIGN, EXTENDING = ROOT / "docs" / "design.md", ROOT / "docs" / "extending.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str, programs: str = "train|sample") -> list[list[str]]:
    """The words of every gan-train and gan-sample that a text prints, in blocks and in lines of text."""
    lines = [line for kind, block in BLOCK.findall(text) if kind in ("sh", "") for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(gan-[^`]+)`", BLOCK.sub("", text))
    found = []
    for line in lines:
        words = line.strip().removeprefix("$ ")
        if re.match(rf"(\S+/)?gan-({programs}) ", words):
            name, *rest = shlex.split(words, comments=True)
            found.append([Path(name).name, *rest])
    return found


# ------------------------------------------------------------------------------------------------------------------- docs/extending.md


OF_OTHERS = re.search(r"^## Networks of another project\n.*?(?=^## )", EXTENDING.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[0]  # type: ignore[index]
RECIPES = commands(EXTENDING.read_text(encoding="utf-8").replace(OF_OTHERS, ""))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that docs/extending.md prints."""
    folder = tmp_path_factory.mktemp("project")
    text = EXTENDING.read_text(encoding="utf-8")
    for name, content in re.findall(r"^`(\w+/[\w/.]+)`\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert not (folder / name).exists(), f"{name} is printed twice"
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "mygan" / "__init__.py").touch()
    return folder


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same folder as the place where commands are typed, with the package in it to be imported."""
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    yield project
    for name in [name for name in sys.modules if name.split(".")[0] in ("mygan", "their_gan")]:
        del sys.modules[name]


def typed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command line."""
    monkeypatch.setattr(sys, "argv", words)
    programs = {"gan-train": cli.train, "gan-sample": cli.sample, "gan-eval": cli.evaluate, "gan-rate": cli.rate}
    return programs[words[0]]()


@pytest.mark.slow
def test_the_loss_of_the_page_trains_in_a_process_of_its_own(project: Path):
    """As a user types it: the package is found by what the page exports, and not by where Python was started."""
    exported = dict(re.findall(r"^export (\w+)=(\S+)", EXTENDING.read_text(encoding="utf-8"), re.MULTILINE))
    environment = {**os.environ, **exported, "PYTHONPATH": os.pathsep.join([str(SOURCE), exported["PYTHONPATH"]]), "OMP_NUM_THREADS": "1"}
    words = next(words for words in RECIPES if "loss=lsgan" in words)[1:]
    code = "import sys; from gan_runner.cli import train; sys.exit(train())"
    line = [sys.executable, "-P", "-c", code, *words, "trainer.steps=2", "hydra.run.dir=first", "callback.grid.n=8"]
    done = subprocess.run(line, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mygan.losses.LeastSquares" in (project / "first" / "config.yaml").read_text(encoding="utf-8")


TRAINED = [words for words in RECIPES if "RUN_DIR" not in " ".join(words)]
MARKS = {True: [], False: [pytest.mark.slow]}  # one of them in every run of the tests


@pytest.mark.slow
@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words), marks=MARKS["loss=lsgan" in words]) for words in TRAINED])
def test_every_command_of_the_page_trains(here: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], capfd: pytest.CaptureFixture[str]):
    assert typed([*words, "trainer.steps=2", "callback.grid.n=8"], monkeypatch) == 0, capfd.readouterr().err


@pytest.mark.slow
def test_a_run_of_one_s_own_is_read_again_as_the_page_says(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    start = next(words for words in RECIPES if "+experiment=moons" in words)
    assert typed([*start, "trainer.steps=2", "callback.grid.n=8", "hydra.run.dir=again"], monkeypatch) == 0, capfd.readouterr().err
    for words in (words for words in RECIPES if "RUN_DIR" in " ".join(words)):
        line = [word.replace("RUN_DIR", "again") for word in words]
        tiny = {"gan-train": "trainer.steps=3", "gan-sample": "n=8"}[words[0]]
        assert typed([*line, tiny], monkeypatch) == 0, capfd.readouterr().err
        without = [word for word in line if not word.startswith("packages=")]
        assert typed([*without, tiny], monkeypatch) == 2
        assert "packages=[...]" in capfd.readouterr().err
    script = next(block for kind, block in BLOCK.findall(EXTENDING.read_text(encoding="utf-8")) if "gan_runner.load(" in block)
    exec(compile(script.replace("RUN_DIR", "again"), str(EXTENDING), "exec"), {})
    assert "tensor(" in capfd.readouterr().out


@pytest.mark.slow
def test_networks_of_another_project_become_a_run_of_no_rounds(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Every line of the section works, and the run makes and refines the samples of those networks, as torch alone does."""
    written = re.findall(r"^`\w+/[\w/.]+`\n\n```\w+\n.*?^```$", OF_OTHERS, re.MULTILINE | re.DOTALL)
    script = next(code for kind, code in BLOCK.findall(OF_OTHERS) if kind == "python" and not any(code in file for file in written))
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(script, str(EXTENDING), "exec"), names)
    like = {"memory_format": torch.channels_last}  # as runs hold networks of images, which decides the order of sums
    G, D = (names[name]().eval().to(**like) for name in ("Decoder", "Judge"))
    G.load_state_dict(torch.load("G.pt", weights_only=True))
    D.load_state_dict(torch.load("D.pt", weights_only=True))

    first, *lines = commands(OF_OTHERS, "train|sample|eval|rate")
    assert [words[0] for words in lines] == ["gan-sample", "gan-eval", "gan-rate", "gan-train", "gan-train"]
    few = ["dataset.n_train=200", "dataset.n_test=200", "callback.grid.n=8", "callback.evaluate.n=20"]
    assert typed([*first, *few], monkeypatch) == 0, capfd.readouterr().err
    assert "trainer.steps=1000" in capfd.readouterr().err, "the line that goes on plays rounds"

    run = gan_runner.load("outputs/theirs", packages=["mygan"])
    z = NumberedDraws("evaluation", 5, indices=torch.arange(7)).normal(32)
    with torch.no_grad():
        assert torch.equal(run.sample(7, seed=5), G(z[:, :, None, None]))
    before = G(z[:, :, None, None])
    for _ in range(3):
        z.requires_grad_()
        p = D(G(z[:, :, None, None]))
        z = z.detach() + 1000.0 * torch.autograd.grad((p.log() - (1 - p).log()).sum(), z)[0]
    refiner = DGflow(steps=3, eta=1000.0, gamma=0.0)
    [made] = Refinement(refiner, Ratio(run.generator, run.discriminator), seed=5).batches(7, [3])
    after = G(z[:, :, None, None])
    assert (after - before).abs().max() > 0.01, "they have not moved"
    torch.testing.assert_close(made.x[3], after.detach(), rtol=0, atol=1e-5)

    tiny = {"gan-sample": ["n=8"], "gan-eval": ["n=50"], "gan-rate": ["pool=6", "questions=6", "practice=2", "repeats=1"]}
    for words in lines:
        short = [*(few if "architecture=theirs" in words else []), "trainer.steps=2"] if words[0] == "gan-train" else tiny[words[0]]
        assert typed([*words, *short], monkeypatch) == 0, capfd.readouterr().err
    for folder in ("outputs/theirs", "outputs/tuned"):
        tuned = gan_runner.load(folder, packages=["mygan"])
        assert tuned.step == 2
        assert not torch.equal(tuned.sample(7), run.sample(7))


def test_every_file_of_the_page_belongs_to_a_command(project: Path):
    """Of every printed YAML file, the choice is on a command line of the page or in its experiment."""
    said = " ".join(" ".join(words) for words in [*RECIPES, *commands(OF_OTHERS)]) + (
        project / "my_configs/experiment/moons.yaml"
    ).read_text(encoding="utf-8")
    files = [file.relative_to(project / "my_configs") for file in (project / "my_configs").rglob("*.yaml")]
    assert len(files) >= 9
    for file in files:
        assert re.search(rf"{file.parts[0]}(=|: )\[?[\w, ]*\b{file.stem}\b", said), file


# -------------------------------------------------------------------------------------------------------------------------- every page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path):
    links = re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8")))
    for link in links:
        if not link.startswith(("http://", "https://", "mailto:", "#")):
            assert (page.parent / link.partition("#")[0]).exists(), f"{page.name}: {link}"


PRINTED = {" ".join(words): words for page in PAGES if page != EXTENDING for words in commands(page.read_text(encoding="utf-8"))}
SHOWN_ONLY = ("--help", "--version", "-h")
STANDS_FOR = re.compile(r"\b(KEY|NAME|GROUP|OPTION|VALUE)\b|\.\.\.")  # a form, rather than a command


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in PRINTED if not STANDS_FOR.search(line) and not set(PRINTED[line]) & {*SHOWN_ONLY}])
def test_every_printed_command_composes(line: str, here: Path):
    name, *words = PRINTED[line]
    arguments = get_args_parser().parse_intermixed_args(words)
    config_name = {"gan-train": "train", "gan-sample": "sample"}[name]
    jobs = [arguments.overrides]
    if any(word.startswith("resume=") for word in words):  # it is laid over the configuration of a run, which has the loggers that it names
        jobs = [[*arguments.overrides, *(f"+logger={found}" for found in re.findall(r"\blogger\.(\w+)\.", line))]]
    if "hydra/sweeper=gan_optuna" in words:
        pytest.importorskip("optuna")
        jobs = list(OptunaSweeper.of(Composer().load_configuration(config_name, arguments.overrides, RunMode.MULTIRUN)).ends().values())
    elif arguments.multirun:
        jobs = [list(job) for job in BasicSweeper.split_arguments(parsed(arguments.overrides), max_batch_size=None)[0]]
        assert len(jobs) > 1
    for job in (jobs[0], jobs[-1]):
        composed = compose(job, [arguments.config_dir] if arguments.config_dir else [], config_name)
        assert composed.config


# ---------------------------------------------------------------------------------------------------------------------- docs/design.md


def test_every_file_that_the_design_names_is_there():
    left_behind = {"config.yaml", "overrides.yaml", "sweep.yaml"}  # by runs and sweeps
    named = set(re.findall(r"[\w/.]*\w+\.(?:py|yaml)\b", DESIGN.read_text(encoding="utf-8"))) - left_behind
    present = [
        path.relative_to(ROOT).as_posix() for folder in ("src", "tests", "configs", "scripts") for path in (ROOT / folder).rglob("*")
    ]
    missing = [name for name in named if not any(path == name or path.endswith(f"/{name}") for path in present)]
    assert len(named) > 30
    assert not missing


def test_the_design_names_every_module_of_the_core():
    text = DESIGN.read_text(encoding="utf-8")
    core = [path.name for path in (SOURCE / "gan_runner").glob("*.py") if not path.name.startswith("__")]
    assert [name for name in core if not re.search(rf"(?<!\w){name}\b", text)] == []


def declared(cls: ast.ClassDef) -> dict[str, str]:
    """What a class body promises: name -> signature, or the type of an attribute; a property is an attribute."""
    found = {}
    for node in cls.body:
        if isinstance(node, ast.AnnAssign):
            found[ast.unparse(node.target)] = ast.unparse(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            arguments, returned = ast.unparse(node.args), ast.unparse(node.returns) if node.returns else ""
            attribute = any(ast.unparse(decorator) in ("property", "cached_property", "of_samples") for decorator in node.decorator_list)
            found[node.name] = returned if attribute else f"({arguments}) -> {returned}"
    return found


def test_the_interfaces_of_the_design_are_those_of_the_code():
    code = {
        node.name: declared(node)
        for path in SOURCE.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    blocks = [block for kind, block in BLOCK.findall(DESIGN.read_text(encoding="utf-8")) if kind == "python"]
    told = {node.name: declared(node) for block in blocks for node in ast.parse(block).body if isinstance(node, ast.ClassDef)}
    bases = {name for name in gan_runner.__all__ if name[0].isupper()} - {"Logger", "Extractor"}
    assert told.keys() >= bases
    for cls, members in told.items():
        wrong = {name: (said, code[cls].get(name)) for name, said in members.items() if code[cls].get(name) != said}
        assert not wrong, f"{cls}: {wrong}"


# ------------------------------------------------------------------------------------------------------- what is counted and listed


def files(folder: str) -> set[str]:
    return {path.stem for path in (ROOT / "configs" / folder).glob("*.yaml")}


WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
COUNTS = {  # what a page counts -> how many there are
    r"(?:measures|metrics)": len(files("metric")), "feature networks": len(files("extractor")), "experiments": len(files("experiment")),
    "loggers": len(files("logger")),
}  # fmt: skip


def test_what_the_pages_count_is_as_many():
    counted = []
    for page in PAGES:
        for what, n in COUNTS.items():
            for said in re.findall(rf"\b(\d+|{'|'.join(WORDS[3:])}) {what}\b", page.read_text(encoding="utf-8"), re.IGNORECASE):
                counted.append(said)
                assert said.lower() in (str(n), (WORDS + [""] * 100)[n]), f"{page.name}: {said} {what}, and there are {n}"
    assert len(counted) >= 4


def rows(page: str, first: str) -> dict[str, list[str]]:
    """The rows of the table whose header begins with `first`, by the names in their first cells."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (table,) = re.findall(rf"^\| {first} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {name: row[1:] for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


def test_every_experiment_is_in_both_tables_as_it_is_composed():
    table = rows("docs/experiments.md", "experiment")
    assert table.keys() == rows("README.md", "experiment").keys() == files("experiment")
    for name, (_, rounds, d_steps, batch, images, _) in table.items():
        config = compose([f"+experiment={name}"]).config
        moves = config.rule.get("d_steps", 1)
        seen = config.trainer.steps * config.batch_size * moves
        assert (rounds, d_steps, batch) == (f"{config.trainer.steps:,}", str(moves), str(config.batch_size)), name
        assert float(images.removesuffix("M")) == pytest.approx(seen / 1e6, rel=0.1), name


def test_times_that_are_computed_are_those_of_the_benchmarks():
    """docs/experiments.md, (b): rounds times the ms of (a) in the two tables of docs/benchmarks.md."""
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    measured = re.findall(r"^\*\*(\w+)\*\*: .*?(float32|bfloat16), .*?\n\n\|.*\n\|.*\n\| \(a\) gan-train \| ([\d.]+) ", text, re.MULTILINE)
    hours = {"s": 1 / 3600, "h": 1.0, "days": 24.0}
    compared = 0
    for name, (*_, time) in rows("docs/experiments.md", "experiment").items():
        for said, unit, bf16 in re.findall(r"([\d.]+) (s|h|days)( in bf16)? \(b\)", time):
            ms = [float(ms) for each, precision, ms in measured if each == name and (precision == "bfloat16") == bool(bf16)]
            steps = compose([f"+experiment={name}"]).config.trainer.steps
            assert float(said) * hours[unit] == pytest.approx(steps * ms[0] / 3.6e6, rel=0.05), name
            compared += 1
    assert compared == 6


@pytest.fixture(scope="module")
def catalogue() -> Any:
    """The module of scripts/catalogue.py."""
    spec = importlib.util.spec_from_file_location("catalogue", ROOT / "scripts" / "catalogue.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_catalogue_is_that_of_the_classes_and_files(catalogue: Any):
    page = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    assert page == catalogue.page(), "it is not current: python scripts/catalogue.py docs/catalogue.md"
    for group in ("loss", "penalty", "trick", "rule", "optimizer", "prior", "refiner", "architecture", "dataset"):
        for name in files(group):
            assert page.count(f"(../configs/{group}/{name}.yaml)") == 1


def test_the_catalogue_takes_formula_and_source_out_of_a_docstring(catalogue: Any):
    text = """D: E max(0, 1 - d); G: -E d. Lim & Ye 2017, eq. 3.

    Nothing of this has a formula. mean <- decay mean + (1 - decay) loss, as Popov 1980 has it. ValueError for 1, 2, ... of them."""
    assert catalogue.formula(text) == "D: E max(0, 1 - d); G: -E d. mean <- decay mean + (1 - decay) loss, as Popov 1980 has it."
    assert catalogue.sources(text, "van der Maaten et al. 2008; Lim & Ye 2017") == "Lim & Ye 2017; Popov 1980; Maaten et al. 2008"


def test_every_extra_is_in_the_readme():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert rows("README.md", "extra").keys() == extras.keys()
    for page in PAGES:
        for named in re.findall(r"pip install -e '\.\[([\w,]+)\]'", page.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= extras.keys(), page


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (str(citation["version"]), citation["license"]) == (project["version"], project["license"])
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_nothing_names_an_index_that_has_no_gan_runner():
    for folder in ("docs", "configs", "src", "scripts"):
        for path in (path for kind in ("md", "yaml", "py") for path in (ROOT / folder).rglob(f"*.{kind}")):
            assert not re.search(r"pip install '?gan-runner", path.read_text(encoding="utf-8")), path
