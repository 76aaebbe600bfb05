"""What is printed can be typed: zsh refuses a word with an unquoted bracket, `?`, `*` or `{` that names no file."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from gan_runner.commands import usage
from gan_runner.inventory import overview

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*\"""")
COMMENT = re.compile(r"(?:^|\s)#.*$")
OPTIONAL = re.compile(r"(?<=\s)\[((?:'[^']*'|[^\[\]'])*)\](?=\s|$)")  # [KEY=VALUE ...] in the forms of --help
FIGURE = re.compile(r"\w/\w+ \([^)]*\)")  # fd/lenet (n=500)
SETTING = re.compile(r"(?<![\w./$+~{}'\"-])[+~]?[\w./{}]+=\[")  # KEY=[ without a quote before it
COMMAND = re.compile(r"gan-(?:train|sample|eval|runs|rate) |(?:\S+/)?(?:python|pip|make|sbatch|tensorboard) ")


def helped() -> dict[str, str]:
    others = {name: text() for name, text in usage.HELP.items()}
    return {"gan-train": usage.train_help([]), **others, "gan-runs": overview.parser().format_help()}


def literals(path: Path) -> Iterator[str]:
    """The sentences of a module: texts with a space, values in f-strings as X."""
    source = path.read_text(encoding="utf-8")
    if "=[" not in source and not COMMAND.search(source):
        return
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            text = node.value
        if " " in text.strip():
            yield text


def comments(path: Path) -> str:
    """The comments of a YAML file, a line each."""
    return "\n".join(found[0].lstrip(" #") for line in path.read_text(encoding="utf-8").splitlines() if (found := COMMENT.search(line)))


@cache
def texts() -> dict[str, str]:
    """Whatever a person reads, by where it is."""
    found = {str(page.relative_to(ROOT)): BLOCK.sub("", page.read_text(encoding="utf-8")) for page in PAGES}
    for page in PAGES:
        blocks = [block for kind, block in BLOCK.findall(page.read_text(encoding="utf-8")) if kind in ("sh", "")]
        found[f"{page.relative_to(ROOT)}, commands"] = "\n".join(blocks)
    found |= {f"configs/{path.relative_to(ROOT / 'configs')}": comments(path) for path in (ROOT / "configs").rglob("*.yaml")}
    found |= {f"{name} --help": text for name, text in helped().items()}
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        found[str(path.relative_to(ROOT))] = "\n".join(literals(path))
    return found | {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "scripts").rglob("*.sbatch")}


@cache
def commands() -> dict[str, str]:
    """Every printed command without the comment behind it -> where it is printed."""
    found: dict[str, str] = {}
    for place, text in texts().items():
        lines = text.replace("\\\n", " ").splitlines()
        if place.endswith(".md"):
            lines = re.findall(r"`([^`\n]+)`", text)
        elif place.endswith(".yaml"):
            lines = [line[line.find("gan-") :].split(";")[0] for line in lines if "gan-" in line]
        for line in lines:
            said = line.strip().lstrip("# ").removeprefix("$ ")
            if COMMAND.match(said):
                bare = OPTIONAL.sub(r"\1", re.split(r"\s{2,}(?!\\)|\s#\s", said)[0] if "--help" in place else COMMENT.sub("", said))
                found.setdefault(bare.strip(), place)
    return found


def unquoted(command: str) -> str:
    """What a shell would read as a pattern or a bracket of its own."""
    return "".join(re.findall(r"[\[\]?*(){}]", re.sub(r"\$\{\w+\}|\$\([^)]*\)", "", QUOTED.sub("", command))))


def test_the_check_finds_what_a_shell_would_refuse():
    assert unquoted("gan-train loss=hinge penalty=[r1]") == "[]"
    assert unquoted("gan-train 'penalty=[r1]' x=glob(*) \"a={b}\"") == "(*)"
    assert all(map(SETTING.search, ("say metric=[fid]", "`metric=[...]`", "(GROUP=[A,B])", "+penalty=[r1]", "say X=[A,B]")))
    assert not SETTING.search("say 'metric=[fid]', or \"run=[a,b]\"")
    assert OPTIONAL.sub(r"\1", "gan-eval run=A ['metric=[A,B]'] [KEY=VALUE ...]") == "gan-eval run=A 'metric=[A,B]' KEY=VALUE ..."
    assert len(commands()) > 100
    assert len({place.split(" ")[0].split("/")[0] for place in commands().values()}) > 8


def test_lists_are_in_quotes_wherever_they_are_mentioned():
    found = {place: [line for line in FIGURE.sub("", text).splitlines() if SETTING.search(line)] for place, text in texts().items()}
    assert {place: lines for place, lines in found.items() if lines} == {}


def test_printed_commands_have_no_unquoted_patterns():
    assert {command: place for command, place in commands().items() if unquoted(command)} == {}


def test_zsh_and_bash_read_printed_commands_alike(tmp_path: Path):
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    plain = [command for command in commands() if not re.search(r"[|<>&;$`]", QUOTED.sub("", command))]
    assert len(plain) > 100
    script = "\n".join(f"printf '%s\\0' {command}; printf '\\n\\0'" for command in plain)
    read = {}
    for name, line in {"zsh": ["zsh", "-fc", f"setopt nomatch\n{script}"], "bash": ["bash", "-c", script]}.items():
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
        read[name] = [words.split("\0")[:-1] for words in done.stdout.split("\n\0")[:-1]]
    assert read["zsh"] == read["bash"] == [shlex.split(command) for command in plain]


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_installed_as_the_help_says(tmp_path: Path, shell: str):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    code = "import sys; sys.argv[0] = 'gan-train'; from gan_runner.cli import train; sys.exit(train())"
    (tmp_path / "gan-train").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    (tmp_path / "gan-train").chmod(0o755)
    install = re.findall(r"eval .*\)\"", usage.train_help([]))
    before = re.findall(r"autoload .*", usage.train_help([])) if shell == "zsh" else []
    shown = {"bash": "complete -p gan-train", "zsh": "print -r -- ${_comps[gan-train]}"}[shell]
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    line = [shell, "-f" if shell == "zsh" else "--norc", "-c", "\n".join([*before, *install, shown])]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hydra_bash_completion" in done.stdout


def test_git_ignores_what_printed_commands_write():
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no checkout of git")
    written = {
        place: None for command in commands() for place in re.findall(r"(?:\bout=|\bexport=|--report |--plot |\.dir=)([\w./]+)", command)
    }
    places = [place for place in written if not place.startswith("/") and not re.fullmatch(r"[A-Z_.]+", place)]
    assert len(places) > 6
    ignored = subprocess.run(["git", "check-ignore", *places], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    assert [place for place in places if place not in ignored] == []
