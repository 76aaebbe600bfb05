"""What a command says while it works."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from gan_runner import reporting
from gan_runner.errors import say, verdict
from gan_runner.inventory.tables import print_table
from gan_runner.reporting import Countdown, Reporter, duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (3660, "1 h 01 min"), (90000, "1 d 01 h")],
)
def test_durations_read_well(seconds, said):
    assert duration(seconds) == said


def test_without_a_terminal_states_are_plain_lines_now_and_then():
    out = io.StringIO()
    reporter = Reporter(console=Console(file=out, width=200))
    reporter.plain_seconds = 0.0
    reporter.show("round 1/10")
    reporter.plain_seconds = 60.0
    reporter.show("round 2/10")
    reporter.say("done")
    reporter.close()
    assert out.getvalue() == "round 1/10\ndone\n"


def test_on_a_terminal_the_state_is_one_line_that_goes_away():
    out = io.StringIO()
    with Reporter(console=Console(file=out, width=80, force_terminal=True)) as reporter:
        for i in range(3):
            reporter.show(f"round {i}/10 [0]")
        reporter.say("a line that stays")
    text = out.getvalue()
    assert "\n" not in text[: text.index("a line that stays")]
    assert text.rindex("\x1b[2K") > text.rindex("round 2/10 [0]")  # erased at the end


def test_what_is_said_is_logged(tmp_path):
    with Reporter(tmp_path / "train.log", Console(file=io.StringIO())) as reporter:
        reporter.say("round 10: [bold] is no markup")
    assert "INFO round 10: [bold] is no markup" in (tmp_path / "train.log").read_text()


def test_a_countdown_counts_each_piece_of_work_by_itself(monkeypatch):
    shown, now = [], iter([0.0, 0.0, 10.0, 50.0, 50.0, 51.0])
    monkeypatch.setattr(reporting.time, "monotonic", lambda: next(now))
    countdown = Countdown(SimpleNamespace(show=shown.append), "judging x: ")
    countdown.at("samples", 100, 300)
    countdown.at("samples", 200, 300)
    countdown.at("ais", 1, 5)
    countdown.at("ais", 2, 5)
    assert shown == [
        "judging x: samples: 100/300",  # how long that took is not known
        "judging x: samples: 200/300, 10 s left",
        "judging x: ais: 1/5",
        "judging x: ais: 2/5, 3 s left",
    ]


NASTY = "\x1b[31mred\x07\rover\u202egnp\u2028x\x9b2J\udcff"
SHOWN = "?[31mred? over?gnp x?2J?".replace("?", "\N{REPLACEMENT CHARACTER}")


def test_no_message_moves_a_cursor_and_lines_stay_lines(tmp_path, capsys):
    out = io.StringIO()
    with Reporter(tmp_path / "train.log", Console(file=out, width=200)) as reporter:
        reporter.plain_seconds = 0.0
        reporter.say(f"first {NASTY}\n  second")
        reporter.show(f"state {NASTY}")
        reporting.log.warning("%s is odd", NASTY)
    assert out.getvalue() == f"first {SHOWN}\n  second\nstate {SHOWN}\n"
    say("gan-x", f"{NASTY}\n{NASTY}")
    assert capsys.readouterr().err == f"gan-x: 2 mistakes\n  {SHOWN}\n  {SHOWN}\n"
    print_table(["name"], [[f"{NASTY}\nsecond"]])
    assert capsys.readouterr().out.splitlines()[1:] == [f"{SHOWN} second"]
    log = (tmp_path / "train.log").read_text(encoding="utf-8").splitlines()
    assert [line.partition(" INFO ")[2] or line.partition(" WARNING ")[2] or line for line in log] == [
        f"first {SHOWN}",
        "      second",
        f"{SHOWN} is odd",
    ]


def test_no_line_of_a_message_is_taken_for_an_entry_of_the_log(tmp_path):
    with Reporter(tmp_path / "train.log", Console(file=io.StringIO())) as reporter:
        reporter.say("step_1\nrm -rf ~\n2026-01-01 00:00:00,000 INFO finished")
    _, *rest = (tmp_path / "train.log").read_text().splitlines()
    assert rest == ["    rm -rf ~", "    2026-01-01 00:00:00,000 INFO finished"]


def test_a_trace_that_was_asked_for_moves_no_cursor(monkeypatch, capsys):
    monkeypatch.setenv("GAN_RUNNER_DEBUG", "1")
    verdict(RuntimeError(NASTY))
    said = capsys.readouterr().err
    assert "RuntimeError" in said
    assert all(c.isprintable() or c == "\n" for c in said)
