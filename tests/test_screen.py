"""`screen.py`: lines that harm no terminal, and bars where somebody watches."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from upernet.screen import print_line, printable, progress, transfer_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watch(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal in the place of stderr; no fixture, since pytest replaces stderr between fixtures and test."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    return stream


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert printable("été \x1b[31m\nred\u202e") == r"été \x1b[31m\nred\u202e"


@pytest.mark.parametrize(("encoding", "line"), [("ascii", rb"\xe9\udcff\n"), ("utf-8", "é\\udcff\\n".encode())])
def test_a_line_fits_any_encoding(encoding: str, line: bytes) -> None:
    stream = io.TextIOWrapper(buffer := io.BytesIO(), encoding=encoding, newline="\n")
    print_line("é\udcff\n", stream)
    assert buffer.getvalue() == line + b"\n"  # flushed, and on one line


def test_a_bar_counts_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = watch(monkeypatch)
    with progress("parsing", 3) as advance:
        for number in range(3):
            print(f"image {number}")
            print_line(f"warning {number}", sys.stderr)
            advance()
    shown = terminal.getvalue()
    assert "parsing" in shown and "3/3" in shown
    assert all(f"warning {number}" in shown and f"image {number}" not in shown for number in range(3))
    # Lines to a pipe stay in the pipe.
    assert capsys.readouterr().out == "image 0\nimage 1\nimage 2\n"


def test_lines_to_the_same_terminal_appear_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch)
    monkeypatch.setattr(sys, "stdout", out := Terminal())
    with progress("parsing", 2) as advance:
        print("image 0")
        advance()
    assert "image 0" in terminal.getvalue() and out.getvalue() == ""


def test_nothing_is_drawn_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch)
    with progress("parsing", 1, shown=False) as advance:
        advance()
    assert terminal.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", piped := io.StringIO())
    with progress("parsing", 1) as advance, transfer_progress("model.pth") as show:
        advance()
        show(1, 2)
    assert piped.getvalue() == ""


def test_a_transfer_shows_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch)
    with transfer_progress("a-model-of-{braces}-[red]-and-a-very-long-name-indeed.pth") as show:
        show(500_000, None)
        show(1_000_000, 2_000_000)
        show(2_000_000, 2_000_000)
    shown = terminal.getvalue()
    assert "a-model-of-{braces}-[red…name-indeed.pth" in shown and "2.0/2.0 MB" in shown


def test_the_module_is_quick_to_import() -> None:
    code = "import sys, upernet.screen; print({'torch', 'numpy', 'rich'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
