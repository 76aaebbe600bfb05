"""Standard output and error to which writing never fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gan_runner.storage import streams

SAYS = """
import os, sys
from gan_runner.storage.streams import courteous
with courteous() as made:
    for i in range({lines}):
        print("figure", i)
        print("message", i, file=sys.stderr)
    print({text!a}, flush=True)
    print({text!a}, file=sys.stderr)
    sys.stdout.flush()
    lost = {{name: stream.lost and stream.lost.strerror for name, stream in made.items()}}
with open(sys.argv[1], "w") as file:  # whose number must not be that of a closed descriptor
    file.write(f"{{file.fileno() > 2}} {{lost}}")
"""


def say(tmp_path: Path, lines: int = 3000, text: str = "end", closed: str = "", **more) -> tuple[int, str]:
    """(exit code, what a program that has said this much found)"""
    env = {"PYTHONPATH": str(Path(streams.__file__).parents[2])} | os.environ | more.pop("env", {})
    program = SAYS.format(lines=lines, text=text)
    line = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program, str(tmp_path / "found")]
    done = subprocess.run(line, env=env, timeout=120, **more)
    return done.returncode, (tmp_path / "found").read_text()


@pytest.fixture
def unread():
    """The end of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def test_a_pipe_that_nobody_reads_takes_everything(tmp_path, unread):
    assert say(tmp_path, stdout=unread, stderr=unread) == (0, "True {'stdout': None, 'stderr': None}")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_takes_everything_and_is_told(tmp_path):
    with open("/dev/full", "w") as full:
        code, found = say(tmp_path, stdout=full, stderr=full)
    assert (code, found) == (0, "True {'stdout': 'No space left on device', 'stderr': 'No space left on device'}")


def test_a_closed_stream_leads_nowhere_and_its_number_is_taken(tmp_path):
    assert say(tmp_path, closed=">&- 2>&-") == (0, "True {'stdout': None, 'stderr': None}")


def test_an_encoding_without_a_character_shows_its_code(tmp_path):
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
        assert say(tmp_path, 1, "caf\u00e9 \u2026", stdout=out, stderr=err, env=env)[0] == 0
    assert (tmp_path / "out").read_text() == "figure 0\ncaf\\xe9 \\u2026\n"
    assert (tmp_path / "err").read_text() == "message 0\ncaf\\xe9 \\u2026\n"


def test_the_streams_of_before_are_put_back_and_those_of_others_left_alone(capsys):
    before = sys.stdout, sys.stderr
    with streams.courteous() as made:
        assert (sys.stdout, sys.stderr) == before
        print("heard")
    assert made == {}
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "heard\n"
