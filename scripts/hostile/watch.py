"""What a command must not do: execute, touch what is outside, send, show a secret, hang, fill the memory, say it badly, or say nothing."""

import hashlib
import json
import os
import re
import socket
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hostile.stage import FORGED, OWNED, SECRET, TOKEN, WITNESS, Answer

TURNS = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
MAY_CHANGE = {".lock", "train.log"}  # of a run that is refused
CODES = {0, 1, 2, 3}
LONGEST, MOST = 5_000, 500_000  # characters of a line on stderr, and of all that is said


@dataclass
class Ending:
    """How a command ended."""

    command: str
    code: int
    killed: str  # why it was killed; "" where it ended by itself
    out: bytes
    err: bytes
    sent: bytes  # what came to the server
    left: int  # processes that it left behind
    seconds: float

    @property
    def name(self) -> str:
        return f"gan-{'eval' if self.command == 'evaluate' else self.command}"


Tree = dict[str, str]


def content(folder: Path, times: bool) -> Tree:
    """path -> kind, mode and bytes of all that is in a folder; times: when it was last written, too. Links are not followed."""
    tree: Tree = {}

    def visit(at: str, below: str) -> None:
        with os.scandir(at) as entries:
            for entry in entries:
                name = f"{below}{os.fsencode(entry.name).decode('utf-8', 'backslashreplace')}"
                status = entry.stat(follow_symlinks=False)
                tree[name] = f"{status.st_mode:o} {described(entry.path, status)}{f' {status.st_mtime_ns}' if times else ''}"
                if stat.S_ISDIR(status.st_mode):
                    visit(entry.path, f"{name}/")

    if folder.is_dir():
        visit(str(folder), "")
    return tree


def described(path: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path).encode("utf-8", "backslashreplace").decode()
    if stat.S_ISREG(status.st_mode):
        return f"{status.st_size}" if status.st_size > 2**26 else hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return ""


def faults(ending: Ending, root: Path, answer: Answer) -> list[str]:
    """All that was not as promised, a line each."""
    before = json.loads((root / "before.json").read_text())
    outside, here = content(root / "outside", times=True), content(root / "here", times=False)
    found = [*harm(ending, root, differing(before["outside"], outside)), *badly_ended(ending)]
    if not ending.killed:
        found += badly_said(ending)
        if ending.code == 2:
            touched = [name for name in differing(before["here"], here) if Path(name).name not in MAY_CHANGE]
            found += [f"refused, but changed: {', '.join(touched[:3])}"] if touched else []
        said = (ending.out + ending.err).decode(errors="replace")
        if answer == "refuse" and ending.code != 2:
            found.append(f"wrong in silence: exit code {ending.code}")
        elif answer is not None and ending.code != 2 and not re.search(answer, said):
            found.append(f"wrong in silence: exit code {ending.code}, and nothing is named")
    return found


def differing(before: Tree, after: Tree) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def harm(ending: Ending, root: Path, outside: list[str]) -> Iterator[str]:
    if any(OWNED in names for _, _, names in os.walk(root)):
        yield "executed"
    if touched := [name for name in outside if name not in ("", OWNED)]:
        yield f"outside touched: {', '.join(touched[:3])}"
    if ending.sent:
        yield f"sent: {ending.sent[:60]!r}"
    written = {path.name: path.read_bytes() for path in written_files(root)}
    for what, text in ("the secret", SECRET.encode()), ("the token", TOKEN.encode()), ("a file outside", WITNESS.encode()):
        if text in ending.out + ending.err:
            yield f"shown: {what}"
        if text in ending.sent:
            yield f"sent: {what}"
        if name := next((name for name, data in written.items() if text in data), None):
            yield f"written: {what}, in {name}"
    if ending.left:
        yield "a process is left"


def written_files(root: Path) -> Iterator[Path]:
    """Regular files of the working folder and the home, up to 16 MB."""
    for below in ("here", "home"):
        for folder, _, names in os.walk(root / below):
            for name in names:
                status = (path := Path(folder) / name).lstat()
                if stat.S_ISREG(status.st_mode) and status.st_size < 2**24 and status.st_nlink == 1:
                    yield path


def badly_ended(ending: Ending) -> Iterator[str]:
    if ending.killed:
        yield ending.killed
    elif ending.code not in CODES:
        yield f"exit code {ending.code}"


def badly_said(ending: Ending) -> Iterator[str]:
    try:
        out, err = ending.out.decode(), ending.err.decode()
    except UnicodeDecodeError:
        yield "no UTF-8 on the terminal"
        out, err = ending.out.decode(errors="replace"), ending.err.decode(errors="replace")
    said = out + err
    if "Traceback" in said or "ESCAPED" in said:
        yield "a traceback"
    if unforeseen := re.search(r"(\w+: [^\n]*)\n  set GAN_RUNNER_DEBUG", said):
        yield f"an error that was not foreseen: {unforeseen[1][:80]}"
    if warning := re.search(r"^\S*\.py:\d+: (\w+Warning)", said, re.MULTILINE):
        yield f"a warning of Python: {warning[1]}"
    if odd := sorted({c for c in said if c != "\n" and (unicodedata.category(c) == "Cc" or c in TURNS)}):
        yield f"control characters: {''.join(odd[:5])!a}"
    if any(line.startswith(FORGED) for line in said.splitlines()):
        yield "a line that a stranger wrote"
    if len(said) > MOST or any(len(line) > LONGEST for line in err.splitlines()):
        yield f"floods the terminal: {len(said)} characters"
    if ending.command == "rate" and ending.code == 0 and re.search(r"\bnan\b", said):  # a refusal may name the value
        yield "nan for a figure"
    yield from badly_told(ending, err)


def badly_told(ending: Ending, err: str) -> Iterator[str]:
    """Whether there is one message, at the end, where something went wrong."""
    lines = err.splitlines()
    own = [i for i, line in enumerate(lines) if re.match(rf"{ending.name}: (?!note: |job \d+ of )", line)]
    if ending.code == 0:
        return
    if not own:
        yield "no message"
    elif ending.command != "runs" and ending.code == 2 and len(own) > 1:
        yield f"{len(own)} messages"
    elif any(line and not line.startswith(" ") for line in lines[own[-1] + 1 :]):
        yield "something is said after the message"
    elif lines[own[-1]].strip() == f"{ending.name}:":
        yield "an empty message"


def listen(log: Path) -> tuple[int, int]:
    """(process id, port) of a server of its own that writes down all that comes, and answers that there is nothing."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    log.touch()
    if pid := os.fork():
        server.close()
        return pid, port
    while True:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(0.5)
            try:
                data = connection.recv(2**16)
            except OSError:
                data = b"(a connection)"
            with log.open("ab") as file:
                file.write(data + b"\n")
            try:
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            except OSError:
                continue
