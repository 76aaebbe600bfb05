"""The layout: who may import whom (docs/design.md, Layout)."""

import ast
from functools import cache
from pathlib import Path

import pytest

import gan_runner

PACKAGE = Path(gan_runner.__file__).parent
CATALOGUE = {
    "losses", "penalties", "tricks", "rules", "architectures", "metrics", "extractors", "callbacks", "loggers", "priors", "refiners",
    "optimizers",
}  # fmt: skip
ALLOWED = {("commands", "loggers")}  # gan-eval adds to the curves of TensorBoard


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def arrows(package: Path = PACKAGE) -> set[tuple[str, str]]:
    """(room that imports, room that is imported), for types and inside functions as well; an __init__ only hands names on."""
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())) if path.name != "__init__.py" else ():
            names = [f"{node.module}.{each.name}" for each in node.names] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            here = path.relative_to(package).with_suffix("").parts[0]
            found |= {(here, name.split(".")[1]) for name in names if name.startswith("gan_runner.")}
    return {(one, other) for one, other in found if one != other and other in ROOMS}


ROOMS = {room(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}


def circles(found: set[tuple[str, str]]) -> set[str]:
    """The rooms in a circle, or on a way into one: remove rooms that import no other, until there are none."""
    left = {one for arrow in found for one in arrow}
    while free := {one for one in left if not any((one, other) in found for other in left)}:
        left -= free
    return left


def test_nobody_imports_the_catalogue():
    assert {(one, other) for one, other in arrows() if other in CATALOGUE and one not in CATALOGUE} == ALLOWED


def test_no_rooms_import_each_other_in_a_circle():
    assert circles(arrows()) == set()


def test_what_measures_in_training_reads_no_clock():
    """So that metrics.jsonl is the same after a resume: a metric asks its subject, which has a clock in gan-eval alone."""
    measuring = [path for name in ("metrics", "extractors", "evaluation", "sampling") for path in (PACKAGE / name).glob("*.py")]
    measuring += [PACKAGE / "callbacks" / "evaluate.py", PACKAGE / "training" / "callback.py"]
    assert len(measuring) > 30
    for path in measuring:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            assert not {"time", "timeit", "datetime"} & set(names), path
            assert getattr(node, "attr", "") not in ("Event", "elapsed_time"), f"{path}: a clock of CUDA"


@pytest.mark.parametrize(("found", "left"), [("ab ba", "ab"), ("ab bc cb", "abc"), ("ab ac bc", "")])
def test_circles_are_seen(found, left):
    assert circles({(arrow[0], arrow[1]) for arrow in found.split()}) == set(left)


def test_an_import_is_seen_wherever_it_is(tmp_path):
    (tmp_path / "game").mkdir()
    (tmp_path / "game" / "step.py").write_text("def f():\n    from gan_runner import losses, tree\n    import gan_runner.metrics.prd\n")
    assert arrows(tmp_path) == {("game", "losses"), ("game", "tree"), ("game", "metrics")}


def test_at_the_top_are_few_files():
    assert len(list(PACKAGE.glob("*.py"))) <= 10
