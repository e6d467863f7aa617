"""The command `discover`: what it writes, and that it writes the same however the work is shared and interrupted."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from drawn import CLASSES, PARTS, VOCABULARY, at_random, seen, tasks
from fake_data import image_mask_folder
from PIL import Image
from processes import by_srun, by_torchrun, in_two_processes, running

from upernet.cli import main
from upernet.config import InferenceConfig, ModelConfig
from upernet.engine.knowledge import discovery
from upernet.engine.knowledge.chunks import chunk_file
from upernet.engine.knowledge.tally import Tally
from upernet.engine.knowledge.thresholds import Thresholds
from upernet.model.build import build_model
from upernet.plain import to_plain
from upernet.runtimes import choice
from upernet.store.native import save_model

RESULTS = [
    *("concepts.csv", "concepts.parquet", "images.csv", "images.parquet", "knowledge.json"),
    *("relations.csv", "relations.parquet", "tables.md"),
]
PAGES = ["index.html", "scene-object.html"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, photographs, a gate that is closed when its file exists, and training files."""
    folder = tmp_path_factory.mktemp("discover")
    torch.manual_seed(0)
    own = tasks()
    network = build_model(ModelConfig(backbone="test_resnet", width=8), own)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if "running_var" not in name and value.is_floating_point():
                value.add_(torch.rand_like(value) - 0.5)
    save_model(folder / "model", network, own, InferenceConfig(short_side=32, max_side=64))
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(3):
        pixels = np.kron(rng.integers(0, 256, (4, 5, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        Image.fromarray(pixels).save(folder / "photos" / f"{i}, höhe.png")
    write_config(folder / "drawn.yaml", gate=str(folder / "gate"), count=8, unknown=0.4)
    return folder


def write_config(path: Path, **fields: Any) -> Path:
    targets = {task: {"annotation": task} for task in CLASSES}
    source = {"dataset": {"class_path": "drawn.Drawn", "init_args": fields}, "targets": targets}
    content = {"tasks": to_plain(tasks()), "data": {"sources": {"drawn": source}}, "model": {"backbone": "resnet18"}}
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    return path


def discover(*words: str | Path) -> int:
    return main(["discover", *map(str, words)])


def mixed(place: Path, out: Path, *more: str | Path) -> list[str]:
    """Words for images by path, and for annotated ones of which some have no annotation of some tasks."""
    words = [place / "photos", "--config", place / "drawn.yaml", "--model", place / "model", "--out", out]
    fixed = ["--device", "cpu", "--chunk", "1", "--min_images", "1", "--replicates", "50", "--examples", "2"]
    return ["discover", *map(str, [*words, *fixed, *more])]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def alone(place: Path) -> dict[str, bytes]:
    """What one process writes without being interrupted."""
    out = place / "alone"
    assert main(mixed(place, out, "--workers", "1")) == 0
    return content(out)


def test_annotations_alone_give_the_relations_of_their_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ['a "quoted", name', "höhe|Straße", "two\nlines", "車"]
    config = write_config(tmp_path / "c.yaml", names=names)
    out = tmp_path / "out"
    options = ["--min_area", "0.1", "--replicates", "30", "--min_images", "2", "--split", "test", "--workers", "1"]
    assert discover("--config", config, "--model", "none", "--out", out, *options) == 0
    tally = Tally(VOCABULARY, Thresholds(min_area=0.1, min_images=2), 30)
    tally.add([f"drawn/test/{name}" for name in names], [seen(at_random(f"test/{name}")) for name in names])
    expected = json.loads(json.dumps(to_plain(tally.knowledge("", {"examples": 6}))))
    found = json.loads((out / "knowledge.json").read_text(encoding="utf-8"))
    del found["version"]
    assert found == expected
    assert len(expected["relations"]) > 5
    rows = table(out / "relations.csv")
    assert [(r["kind"], int(r["source_id"]), float(r["low"])) for r in rows] == [
        (r["kind"], r["source"], r["low"]) for r in expected["relations"]
    ]
    assert {row["image"] for row in table(out / "images.csv")} <= {f"drawn/test/{name}" for name in names}
    assert [p for p in content(out) if p not in PAGES] == sorted(RESULTS, key=list(content(out)).index)
    out_text, err = capsys.readouterr()
    assert "4 images; scene" in out_text
    assert err == ""


def test_the_table_of_images_tells_where_each_answer_comes_from(place: Path, alone: dict[str, bytes]) -> None:
    rows = table(place / "alone" / "images.csv")
    assert [(r["image"], r["task"]) for r in rows] == sorted(
        ((r["image"], r["task"]) for r in rows),
        key=lambda key: (key[0].startswith("drawn/"), key[0], VOCABULARY.tasks.index(key[1])),
    )
    for row in rows:
        by_path = not row["image"].startswith("drawn/")
        maps = {} if by_path else at_random(row["image"].removeprefix("drawn/"), unknown=0.4)
        assert row["origin"] == ("annotated" if row["task"] in maps else "predicted")
        if row["task"] in maps and row["task"] != "scene":
            class_id = CLASSES[row["task"]].index(row["concept"])
            assert int(row["pixels"]) == (maps[row["task"]] == class_id).sum()
            assert float(row["share"]) == int(row["pixels"]) / 192
    assert {row["origin"] for row in rows} == {"annotated", "predicted"}
    parquet = pq.read_table(place / "alone" / "images.parquet")
    assert parquet.num_rows == len(rows)
    assert parquet.column("image").to_pylist() == [row["image"] for row in rows]
    knowledge = json.loads(alone["knowledge.json"])
    assert knowledge["images"] == 11
    assert knowledge["model"] == str(place / "model")
    for task, origins in knowledge["answers"].items():
        images = {o: {r["image"] for r in rows if (r["task"], r["origin"]) == (task, o)} for o in origins}
        if task != "part":  # of "no part", an answer too, there is no row
            assert {o: len(names) for o, names in images.items()} == origins


def test_predictions_are_those_of_predict(place: Path, alone: dict[str, bytes]) -> None:
    photo = place / "photos" / "0, höhe.png"
    words = ["predict", str(photo), "--model", str(place / "model"), "--out", str(place / "predicted")]
    assert main([*words, "--device", "cpu"]) == 0
    report = json.loads((place / "predicted" / "0, höhe.json").read_text())
    rows = [row for row in table(place / "alone" / "images.csv") if row["image"] == str(photo)]
    for task in ("object", "material", "texture"):
        found = {row["concept"]: float(row["share"]) for row in rows if row["task"] == task}
        assert found == pytest.approx({c["name"]: c["share"] for c in report["tasks"][task]["classes"]}, abs=1e-6)
    (scene,) = [row["concept"] for row in rows if row["task"] == "scene"]
    assert scene == report["tasks"]["scene"]["top"][0]["name"]


def test_two_workers_write_the_same(place: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    assert main(mixed(place, tmp_path / "out", "--workers", "2")) == 0
    assert content(tmp_path / "out") == alone


def test_other_chunks_write_the_same(place: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    assert main(mixed(place, tmp_path / "out", "--workers", "1", "--chunk", "4")) == 0
    assert content(tmp_path / "out") == alone


@pytest.mark.parametrize("start", [by_torchrun, by_srun])
def test_two_processes_write_the_same(place: Path, alone: dict[str, bytes], tmp_path: Path, start: Any) -> None:
    codes, errors = in_two_processes(mixed(place, tmp_path / "out", "--workers", "1"), start)
    assert codes == [0, 0], errors
    assert content(tmp_path / "out") == alone


@pytest.mark.parametrize("after", ["killed", "torn"])
def test_a_killed_call_goes_on(place: Path, alone: dict[str, bytes], tmp_path: Path, after: str) -> None:
    """Killed after six chunks: three photographs and three images before the gate."""
    out = tmp_path / "out"
    gate = place / "gate"
    gate.touch()
    try:
        with running(mixed(place, out, "--workers", "1")) as call:
            ends = time.monotonic() + 120
            while not chunk_file(out / ".chunks", 5).exists():
                assert call.process.is_alive(), call.errors.read_text()
                assert time.monotonic() < ends
                time.sleep(0.02)
            call.process.kill()
            call.finish()
    finally:
        gate.unlink()
    assert [path.name for path in out.iterdir()] == [".chunks"]
    before = {path: path.stat().st_mtime_ns for path in (out / ".chunks").glob("chunk-*.npz")}
    assert len(before) == 6
    if after == "torn":  # what a kill leaves of a file that was being written
        (out / ".chunks" / ".upernet-1-00.tmp").write_bytes(b"half")
        (out / ".upernet-1-00.tmp").unlink(missing_ok=True)
    assert main(mixed(place, out, "--workers", "1", "--keep")) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert main(mixed(place, out, "--workers", "1")) == 0
    assert content(out) == alone


def test_work_goes_on_with_the_engine_it_was_begun_with(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where `auto` would choose another one by now. PyTorch stands in for all engines."""
    asked: list[str] = []
    auto = "torch"
    start = choice.on_engine

    def on_engine(network: Any, engine: str, device: torch.device, **more: Any) -> Any:
        asked.append(engine)
        return start(network, "torch", device, **more)

    monkeypatch.setattr(choice, "on_engine", on_engine)
    monkeypatch.setattr(choice, "engine_of", lambda network: auto if asked[-1] == "auto" else asked[-1])
    photo, model, out = (str(path) for path in (place / "photos" / "0, höhe.png", place / "model", tmp_path / "out"))
    call = ["discover", photo, "--model", model, "--out", out, "--device", "cpu", "--workers", "1", "--keep"]
    assert main(call) == 0
    before = content(tmp_path / "out")
    auto = "openvino"
    assert main(call) == 0
    assert asked == ["auto", "torch"] and content(tmp_path / "out") == before
    for others in (["--engine", "openvino"], ["--reference", "true"]):
        capsys.readouterr()
        assert main([*call, *others]) == 2
        assert "other settings (engine differs)" in capsys.readouterr().err
    assert discovery.engine_before(tmp_path / "out", "another model") is None
    (tmp_path / "out" / ".chunks" / "settings.json").unlink()
    assert main(call) == 0 and asked[-1] == "auto"


def test_kept_work_is_counted_again_with_other_thresholds(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, out = tmp_path / "first.yaml", tmp_path / "second.yaml", tmp_path / "out"
    for config in (first, second):
        write_config(config, gate=str(place / "gate"), count=3 if config == first else 4)
    words = ["--model", "none", "--out", out, "--workers", "1", "--keep"]
    assert discover("--config", first, *words, "--min_area", "0") == 0
    many = len(table(out / "relations.csv"))
    (place / "gate").touch()  # nothing is read again
    try:
        assert discover("--config", first, *words, "--min_area", "0.9") == 0
    finally:
        (place / "gate").unlink()
    assert len(table(out / "relations.csv")) < many
    capsys.readouterr()
    assert discover("--config", second, *words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"upernet: {out / '.chunks'}: holds the unfinished work of a call with other settings (")
    assert err.count("\n") == 1


def test_an_image_that_cannot_be_read_is_told_and_skipped(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a", "b", "c", "d"]
    whole = write_config(tmp_path / "whole.yaml", names=names)
    fewer = write_config(tmp_path / "fewer.yaml", names=names, broken=["b"])
    without = write_config(tmp_path / "without.yaml", names=["a", "c", "d"])
    words = ["--model", "none", "--workers", "1", "--out"]
    assert discover("--config", whole, *words, tmp_path / "whole") == 0
    capsys.readouterr()
    assert discover("--config", fewer, *words, tmp_path / "fewer") == 1
    out, err = capsys.readouterr()
    assert err == "source 'drawn': val/b.png: cannot be read\n"
    assert "3 images (1 skipped)" in out
    assert discover("--config", without, *words, tmp_path / "without") == 0
    one, other = content(tmp_path / "fewer"), content(tmp_path / "without")
    assert {n for n in one if one[n] != other[n]} - set(PAGES) == {"knowledge.json", "tables.md"}
    found, expected = json.loads(one["knowledge.json"]), json.loads(other["knowledge.json"])
    assert found.pop("skipped") == 1
    assert expected.pop("skipped") == 0
    assert found == expected


def test_an_image_that_a_source_leaves_out_is_told_and_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its label map is missing, and the source has `faults: skip`; without that, the call ends."""
    image_mask_folder(tmp_path / "rooms", ["wall"], counts={"val": 2})
    missing = sorted((tmp_path / "rooms").rglob("*.png"))[-1]
    missing.unlink()
    own = {"root": str(tmp_path / "rooms"), "labels": ["wall"]}
    dataset = {"class_path": "upernet.data.ImageMaskFolder", "init_args": own}
    source = {"dataset": dataset, "targets": {"object": {}}, "faults": "skip"}
    tasks = {"object": {"class_path": "upernet.tasks.Object", "init_args": {"labels": ["wall"]}}}
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"tasks": tasks, "data": {"sources": {"rooms": source}}}))
    words = ["--config", config, "--model", "none", "--workers", "1", "--out", tmp_path / "out"]
    assert discover(*words) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"source 'rooms': {missing.stem} is left out: {missing}: no such file")
    assert err.count("\n") == 1
    assert "1 image (1 skipped)" in out
    assert json.loads((tmp_path / "out" / "knowledge.json").read_text())["skipped"] == 1
    config.write_text(config.read_text().replace("faults: skip", "faults: stop"))
    assert discover(*words) == 2


def test_files_of_another_program_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config", write_config(tmp_path / "c.yaml", count=2), "--model", "none", "--workers", "1", "--out"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("mine")
    assert discover(*words, tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith(
        f"upernet: --out {tmp_path / 'out'}: holds a file index.html that another "
    )
    assert content(tmp_path / "out") == {"index.html": b"mine"}


def test_work_of_which_a_part_was_deleted_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is killed while it deletes finished work leaves some of it."""
    words = ["--model", "none", "--workers", "1", "--out"]
    two, five = (write_config(tmp_path / f"{count}.yaml", count=count) for count in (2, 5))
    assert discover("--config", five, *words, tmp_path / "expected") == 0
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", delete_settings)
        assert discover("--config", two, *words, tmp_path / "out") == 0
    assert len([path for path in content(tmp_path / "out") if "chunk-" in path]) == 1
    assert discover("--config", five, *words, tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(tmp_path / "expected")


def delete_settings(folder: Path, ignore_errors: bool) -> None:
    (folder / "settings.json").unlink(missing_ok=ignore_errors)


def test_a_later_call_replaces_all_results(tmp_path: Path) -> None:
    """Also the figure, if there is none any more, and what a killed process left; other files stay."""
    out = tmp_path / "out"
    words = ["--model", "none", "--workers", "1", "--out", out, "--config"]
    assert discover(*words, write_config(tmp_path / "c.yaml", count=2, unknown=0)) == 0
    assert sorted(content(out)) == sorted([*RESULTS, *PAGES])
    (out / ".upernet-999999999-00.tmp").write_bytes(b"half")
    (out / "notes.txt").write_text("mine")
    nothing_known = write_config(tmp_path / "d.yaml", count=1, unknown=1)
    assert discover(*words, nothing_known) == 0
    assert sorted(content(out)) == sorted([*RESULTS, "index.html", "notes.txt"])


def test_a_folder_without_images_is_told(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    words = [tmp_path / "empty", "--model", place / "model", "--device", "cpu", "--out", tmp_path / "out"]
    assert discover(*words) == 1
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'empty'}: no image in this folder; ")
    assert not (tmp_path / "out").exists()


def test_images_that_are_all_damaged_give_empty_tables(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    words = [tmp_path / "bad.png", "--model", place / "model", "--device", "cpu", "--out", tmp_path / "out"]
    assert discover(*words, "--workers", "1") == 1
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'bad.png'}: ")
    assert pq.read_table(tmp_path / "out" / "relations.parquet").num_rows == 0
    assert json.loads((tmp_path / "out" / "knowledge.json").read_text())["skipped"] == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "discover: needs images: files, folders or globs, or --config mine.yaml with sources"),
        (["a.png", "--model", "none"], "--model none: a.png has no annotations; name a model, or leave the images out"),
        (["--config", "CONFIG"], "model: the file describes a network without weights; name a model, for example"),
        (["--config", "CONFIG", "--model", "none", "--sources", "town"], "sources: 'town' is not one of drawn"),
        (["--config", "CONFIG", "--model", "none", "--ignore", "metall"], "--ignore metall: no task has this class; "),
        (["--config", "BARE", "--model", "none"], "--model none needs the tasks of a training file; add tasks"),
        (["a.png", "--out", __file__], f"--out {__file__} is a file; valid: a folder, such as knowledge"),
        (["a.png", "--split", "train"], "--split train needs the sources of a training file; add --config mine.yaml"),
        (["a.png", "--sources", "town"], "--sources town needs the sources of a training file; add --config"),
        (["a.png", "--model", "[encoder.pth,decoder.pth]"], "encoder.pth: no such model; "),
        (["a.png", "--min_area", "2"], "--min_area: 2.0 is not from 0 to 1; for example 0.001"),
        (["a.png", "--top", "0"], "--top: 0 is not at least 1; for example 3"),
        (["a.png", "--chunk", "0"], "--chunk: 0 is not at least 1; for example 32"),
        (["a.png", "--workers", "-1"], "--workers: -1 is not at least 0; for example 4"),
    ],
)
def test_wrong_options_are_told(
    words: list[str], line: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.yaml"
    bare.write_text(yaml.safe_dump({"data": yaml.safe_load((place / "drawn.yaml").read_text())["data"]}))
    files = {"CONFIG": str(place / "drawn.yaml"), "BARE": str(bare)}
    assert discover(*(files.get(word, word) for word in words)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"upernet: {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("package", ["plotly", "pyarrow", "scipy"])
def test_a_missing_package_is_told_before_any_work(
    package: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(mixed(place, tmp_path / "out")) == 2
    err = capsys.readouterr().err
    assert err == f"upernet: discover needs {package}; pip install 'upernet[discover]'\n"
    assert not (tmp_path / "out").exists()


def test_the_shipped_model_is_taken_unless_another_is_named(place: Path, tmp_path: Path) -> None:
    photo = place / "photos" / "0, höhe.png"
    words = ["--out", tmp_path / "out", "--device", "cpu", "--workers", "1", "--ignore", "other"]
    assert discover(photo, *words) == 0
    found = json.loads((tmp_path / "out" / "knowledge.json").read_text())
    assert found["model"] == "upp-mini"
    assert found["concepts"]
    assert "other" not in {concept["name"] for concept in found["concepts"]}


def test_parts_of_the_drawn_tasks_are_those_of_the_part_task() -> None:
    assert CLASSES["part"] == [f"{name}/{part}" for name, parts in PARTS.items() for part in ("-", *parts)]


def test_a_target_for_training_alone_is_no_annotation(place: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((place / "drawn.yaml").read_text())
    for task in ("material", "scene"):
        config["data"]["sources"]["drawn"]["targets"][task]["evaluate"] = False
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    words = ["--model", place / "model", "--out", tmp_path / "out", "--device", "cpu", "--workers", "1"]
    assert discover("--config", tmp_path / "c.yaml", *words) == 0
    answers = json.loads((tmp_path / "out" / "knowledge.json").read_text())["answers"]
    assert {task: row["annotated"] > 0 for task, row in answers.items()} == {
        "scene": False, "object": True, "part": True, "material": False, "texture": True,
    }  # fmt: skip


@pytest.mark.parametrize("ignore", [[], ["--ignore", "other"]])
def test_a_class_for_everything_else_is_told_of(
    ignore: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "grey.png"
    Image.fromarray(np.full((48, 64, 3), 128, np.uint8)).save(photo)
    assert discover(photo, "--out", tmp_path / "out", "--device", "cpu", "--workers", "1", *ignore) == 0
    told = "class 'other' counts as an answer; --ignore other makes it unknown" in capsys.readouterr().out
    assert told == (not ignore)
