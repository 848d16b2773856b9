"""Progress as it is seen: on a terminal of some width, and where there is none."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from hpc import progress

LONG = "a note that is much longer than what is left of the line on any terminal that people use"


def screen_of(program: str, columns: int, folder: Path) -> list[str]:
    """The lines that stand on a terminal of so many columns when a program has ended."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color"}
    environ.pop("COLUMNS", None)
    with subprocess.Popen([sys.executable, "-c", program], stderr=theirs, cwd=folder, env=environ) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # its last writer has closed it
                break
            if not chunk:
                break
            text += chunk
    os.close(ours)
    assert process.returncode == 0, text
    return drawn(text.decode(), columns)


def drawn(text: str, columns: int) -> list[str]:
    """What a terminal shows of this: as much of one as is needed here. Lines that are too long go on below."""
    rows, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[^\x1b]", text):
        if token == "\n":
            row += 1
            rows += [""] * (row - len(rows) + 1)
        elif token == "\r":
            column = 0
        elif not token.startswith("\x1b"):
            if column == columns:
                row, column = row + 1, 0
                rows += [""] * (row - len(rows) + 1)
            rows[row] = rows[row][:column].ljust(column) + token + rows[row][column + 1 :]
            column += 1
        elif token.endswith("A"):
            row -= int(token[2:-1] or 1)
        elif token == "\x1b[2K":
            rows[row] = ""
        else:
            assert token[-1] in "mhl", token  # colours, and the cursor shown or hidden
    while rows and not rows[-1].strip():
        rows.pop()
    return [line.rstrip() for line in rows]


PROGRAM = f"""
import itertools, logging
from hpc import log, progress
log.setup()
clock = itertools.count(0.0, 0.25)
progress.time.monotonic = lambda: next(clock)
with progress.Progress("outer", 3, "parts") as outer:
    for part in range(3):
        with progress.Progress("reading", 40, "files") as inner:
            for _ in range(40):
                inner.advance(note={LONG!r})
        logging.getLogger("hpc").info("part %d is done", part)
        outer.advance()
"""


@pytest.mark.parametrize("columns", [80, 50])
def test_bars_keep_to_one_line_and_log_lines_stand_above_them(columns, tmp_path):
    lines = screen_of(PROGRAM, columns, tmp_path)
    kinds = [re.sub(r"^\d\d:\d\d:\d\d I ", "", line).split()[0] for line in lines]
    assert kinds == ["reading", "part"] * 3 + ["outer"]  # each bar once, where it ended
    assert max(map(len, lines)) <= columns
    assert all("40/40 files" in line and line.endswith("…") for line in lines if line.startswith("reading"))
    assert "3/3 parts" in lines[-1]


def test_a_log_line_is_broken_by_the_terminal_alone(tmp_path):
    program = PROGRAM.replace('"part %d is done"', repr(f"part %d: /data/{'x' * 60} is not there"))
    lines = screen_of(program, 80, tmp_path)
    assert "".join(lines).count("x" * 60) == 3


def test_a_bar_that_never_moved_leaves_nothing(tmp_path):
    assert screen_of("from hpc.progress import Progress\nwith Progress('x', 3): pass", 80, tmp_path) == []


def test_a_failure_leaves_the_bar_where_it_was(tmp_path):
    program = PROGRAM.replace("outer.advance()", "raise SystemExit(0)")
    lines = screen_of(program, 80, tmp_path)
    assert [line.split()[0] for line in lines if "I part" not in line] == ["reading"]


def test_a_forked_process_leaves_the_bars_to_the_first(tmp_path):
    program = f"import os\n{PROGRAM}".replace(
        "outer.advance()",
        "outer.advance()\n        if part == 1 and os.fork() == 0:\n"
        "            logging.getLogger('hpc').warning('child')\n            os._exit(0)\n"
        "        elif part == 1:\n            os.wait()",
    )
    lines = screen_of(program, 80, tmp_path)
    assert sum("child" in line for line in lines) == 1


@pytest.mark.parametrize("seconds", [0.25, 0.5, 1.0])
def test_without_a_terminal_there_are_plain_lines_and_the_last_is_said_once(seconds, tmp_path):
    program = PROGRAM.replace("0.25", str(seconds))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "\x1b" not in done.stderr
    lines = done.stderr.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d I outer: 3/3 parts \(0.0\d+/s\)", lines[-1])
    assert sum("outer: 3/3" in line for line in lines) == 1
    assert sum("reading: 40/40" in line for line in lines) == (0 if seconds < 0.3 else 3)  # 15 s are a word worth


def test_time_left_forgets_a_slow_start(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = progress.Progress("scan", total=1000, unit="parts")
    now[0] = 120.0  # two minutes of compiling, then a part a second
    bar.advance()
    lefts = []
    for _ in range(300):
        now[0] += 1.0
        bar.advance()
        lefts.append((bar.total - bar.done) / bar.rate)
    honest = [bar.total - done for done in range(2, 302)]
    assert lefts[0] > 20 * honest[0]
    assert lefts[60:] == pytest.approx(honest[60:], rel=0.02)


def test_bursts_do_not_make_the_rate_jump(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = progress.Progress("scan", total=10_000, unit="variants")
    rates = []
    for part in range(20):  # two workers: parts of 100 come in pairs, each pair after 100 s
        now[0] += 100.0 if part % 2 == 0 else 0.5
        bar.advance(100)
        rates.append(bar.rate)
    assert min(rates[8:]) > 1.5 and max(rates[8:]) < 2.6  # 200 in 100.5 s
