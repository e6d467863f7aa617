"""Graphs on disk: made once, checked on every use, and the oldest deleted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from upernet.runtimes import kept
from upernet.runtimes.kept import CHECKS, find_graph, graphs_folder, keep_graph


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))


def writing(content: bytes = b"graph") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "graph.onnx").write_bytes(content)
        (folder / "engine").mkdir()
        (folder / "engine" / "compiled").write_bytes(b"of the engine")

    return write


def refuse(folder: Path) -> None:
    raise AssertionError("it is there already")


def test_written_once(tmp_path: Path) -> None:
    assert find_graph("one") is None
    folder = keep_graph("one", writing())
    assert folder == tmp_path / "home/upernet/graphs/one" == graphs_folder() / "one"
    assert keep_graph("one", refuse) == find_graph("one") == folder
    assert [path.name for path in folder.parent.iterdir()] == ["one"]
    (folder / "part.onnx").write_bytes(b"what an engine adds later")
    assert find_graph("one") == folder


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "graph.onnx").write_bytes(b"grap"),
        lambda folder: (folder / "graph.onnx").write_bytes(b"grapH"),
        lambda folder: (folder / "graph.onnx").unlink(),
        lambda folder: (folder / "engine" / "compiled").write_bytes(b"of another one"),
        lambda folder: (folder / CHECKS).write_text("{"),
        lambda folder: (folder / CHECKS).write_text("[1]"),
        lambda folder: (folder / CHECKS).write_text("1"),
        lambda folder: (folder / CHECKS).unlink(),
    ],
)
def test_a_damaged_one_is_written_again(damage: Callable[[Path], object]) -> None:
    folder = keep_graph("one", writing())
    (folder / "left over").write_bytes(b"")
    damage(folder)
    assert find_graph("one") is None
    assert keep_graph("one", writing()) == find_graph("one") == folder
    assert (folder / "graph.onnx").read_bytes() == b"graph" and not (folder / "left over").exists()


def test_nothing_is_left_of_one_that_could_not_be_written() -> None:
    def fail(folder: Path) -> None:
        writing()(folder)
        raise ValueError("no translation")

    with pytest.raises(ValueError, match="no translation"):
        keep_graph("one", fail)
    assert list(graphs_folder().iterdir()) == []


def test_what_a_killed_process_left_is_deleted() -> None:
    graphs_folder().mkdir(parents=True)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    unfinished = {pid: graphs_folder() / f".upernet-{pid}-0.tmp" for pid in (int(ended.stdout), os.getpid())}
    for folder in unfinished.values():
        folder.mkdir()
        writing()(folder)
    keep_graph("one", writing())
    assert [folder.exists() for folder in unfinished.values()] == [False, True]


def test_of_two_at_once_one_writes_and_the_other_waits(capsys: pytest.CaptureFixture[str]) -> None:
    writes, found = threading.Event(), []

    def write(folder: Path) -> None:
        writes.set()
        while not told():  # the other one is waiting
            pass
        writing()(folder)

    said: list[str] = []

    def told() -> bool:
        said.append(capsys.readouterr().err)
        return any("waiting for another process" in line for line in said)

    first = threading.Thread(target=lambda: found.append(keep_graph("one", write)))
    first.start()
    writes.wait()
    second = threading.Thread(target=lambda: found.append(keep_graph("one", refuse)))
    second.start()
    first.join()
    second.join()
    assert found == [graphs_folder() / "one"] * 2


IN_A_PROCESS = """
import sys, time
from pathlib import Path
from upernet.runtimes.kept import keep_graph

number, place = sys.argv[1], Path(sys.argv[2])

def write(folder):
    (place / f"{number} writes").touch()
    while not (place / "go on").exists():
        time.sleep(0.01)
    (folder / "graph.onnx").write_text(number)

print(keep_graph("one", write))
"""


def test_of_two_processes_one_writes_and_the_other_waits(tmp_path: Path) -> None:
    def start(number: int) -> subprocess.Popen[str]:
        with open(tmp_path / f"{number} says", "w") as errors:
            words = [sys.executable, "-c", IN_A_PROCESS, str(number), str(tmp_path)]
            return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True)

    def until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        while not reached():
            assert process.poll() is None and not (tmp_path / "2 writes").exists()
            time.sleep(0.01)

    with start(1) as first:
        try:
            until((tmp_path / "1 writes").exists, first)
            with start(2) as second:
                try:
                    until(lambda: "waiting for another process" in (tmp_path / "2 says").read_text(), second)
                    assert find_graph("one") is None
                    (tmp_path / "go on").touch()
                    found = [process.communicate(timeout=120)[0].strip() for process in (first, second)]
                finally:
                    second.kill()
        finally:
            first.kill()
    assert found == [str(graphs_folder() / "one")] * 2
    assert (graphs_folder() / "one" / "graph.onnx").read_text() == "1" and not (tmp_path / "2 writes").exists()
    assert [path.name for path in graphs_folder().iterdir()] == ["one"]


def test_the_ones_used_longest_ago_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(10_000)  # beside which the list of checks is small
    monkeypatch.setattr(kept, "MOST_BYTES", 25_000)
    for day, key in enumerate(("a", "b", "c")):
        os.utime(keep_graph(key, writing(content)), (day, day))
    assert find_graph("a") is not None  # it is now the newest
    keep_graph("d", writing(content))
    assert sorted(path.name for path in graphs_folder().iterdir()) == ["a", "c", "d"]
    # One that is larger than all that may be kept is kept all the same.
    monkeypatch.setattr(kept, "MOST_BYTES", 0)
    keep_graph("e", writing(content))
    assert [path.name for path in graphs_folder().iterdir()] == ["e"]
