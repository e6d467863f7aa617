from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_knowledge import SMALL, example, examples_of, relation, renamed, without

from upernet.engine.knowledge.findings import Example, Knowledge
from upernet.engine.knowledge.page import PICTURE_SIDE, write_page

ODD_NAMES = (
    "</script><script>document.title = 'caught'</script>",
    "<!-- <script>",
    "\"double\" 'single' `back` \\ {{data}} ${x}",
    "窓 é 🚗 \u2028",
    "a&amp;b <img src=x onerror=alert(1)>",
    "50%/of#it?",
    "__proto__",
    "]]>\x00\x1f",
)


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts by id."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.styles = ""
        self._open: str | None = None
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.data = json.loads(self.scripts["data"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._open = dict(attrs).get("id") or "script"
        if tag == "style":
            self._open = "style"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open == "style":
            self.styles += data
        elif self._open:
            self.scripts[self._open] = self.scripts.get(self._open, "") + data

    def examples(self, concept: int) -> list[list[Any]]:
        return json.loads(self.scripts.get(f"examples-{concept}", "[]"))

    def pictures(self, concept: int) -> int:
        return sum(bool(picture) for _, _, picture in self.examples(concept))


def written(
    folder: Path,
    knowledge: Knowledge = SMALL,
    examples: Mapping[int, Sequence[Example]] | None = None,
    largest_mb: float = 40,
) -> Page:
    path = folder / "page.html"
    write_page(path, knowledge, examples_of(knowledge) if examples is None else examples, largest_mb)
    return Page(path)


def picture(uri: str) -> Image.Image:
    head, content = uri.split(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_the_data_can_be_read_back(tmp_path: Path) -> None:
    data = written(tmp_path).data
    assert (data["images"], data["skipped"], data["model"]) == (100, 2, "a model")
    assert data["answers"]["part"] == {"annotated": 60, "predicted": 40}
    assert data["settings"] == {"min_images": 5, "confidence": 0.95, "split": None}
    concepts = data["concepts"]
    assert concepts["name"] == [concept.name for concept in SMALL.concepts]
    assert concepts["colour"][:2] == ["#c82828", "#28c828"]
    assert concepts["share"][2] == 0.3
    kinds = {f"{table['source']}-{table['target']}": table["columns"] for table in data["relations"]}
    assert list(kinds) == ["scene-object", "object-part", "object-material", "part-material", "material-texture"]
    columns = kinds["scene-object"]
    assert (columns["source"], columns["target"]) == ([0, 0, 1, 1], [2, 3, 3, 2])
    assert (columns["images"], columns["source_images"]) == ([32, 24, 36, 8], [40, 40, 40, 40])
    assert (columns["share"], columns["lift"]) == ([0.8, 0.6, 0.9, 0.2], [1.6, 0.75, 1.5, 1.5])
    columns = kinds["object-material"]
    assert (columns["pixels"], columns["low"], columns["high"]) == ([7000, 3000], [0.6, 0.2], [0.8, 0.4])


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page = written(tmp_path)
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "action", "data", "poster", "background"), (tag, name)
            if name == "href":
                assert value and value.startswith(("#", "data:")), (tag, value)
    assert not re.search(r"url\(|@import|https?:", page.styles)
    assert not re.search(
        r"https?:(?!//www\.w3\.org/2000/svg\")|fetch\(|XMLHttpRequest|import\(", page.scripts["script"]
    )
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    plain = written(tmp_path)
    odd_knowledge = renamed(replace(SMALL, model=ODD_NAMES[0], settings={ODD_NAMES[1]: ODD_NAMES[0]}), ODD_NAMES)
    images = {id: [replace(e, image=ODD_NAMES[0]) for e in listed] for id, listed in examples_of(SMALL).items()}
    odd = written(tmp_path, odd_knowledge, images)
    assert Counter(tag for tag, _ in odd.elements) == Counter(tag for tag, _ in plain.elements)
    assert odd.data["concepts"]["name"] == list(ODD_NAMES)
    assert odd.data["model"] == ODD_NAMES[0] and odd.data["settings"] == {ODD_NAMES[1]: ODD_NAMES[0]}
    assert odd.examples(3)[0][0] == ODD_NAMES[0]
    assert odd.scripts["script"] == plain.scripts["script"]


def test_a_file_name_that_is_no_text_is_no_obstacle(tmp_path: Path) -> None:
    page = written(tmp_path, examples={2: [example(SMALL.concepts[2], "bad-\udcff.jpg")]})
    assert page.examples(2)[0][0] == "bad-\udcff.jpg"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path).text
    assert written(tmp_path, examples=dict(reversed(examples_of(SMALL).items()))).text == first


def test_the_region_keeps_its_colours_inside_an_outline(tmp_path: Path) -> None:
    red = np.full((60, 80, 3), (200, 30, 30), np.uint8)
    region = np.zeros((60, 80), bool)
    region[20:40, 20:50] = True
    page = written(
        tmp_path, examples={2: [Example(2, "a.jpg", 0.125, red, region)], 0: [Example(0, "a.jpg", 1, red, None)]}
    )
    pixels = np.asarray(picture(page.examples(2)[0][2]).convert("RGB")).astype(int)
    assert pixels.shape == (60, 80, 3)
    assert np.abs(pixels[30, 35] - (200, 30, 30)).max() < 25
    outside = pixels[5, 5]
    assert outside.max() - outside.min() < 25 and outside.max() < 60
    assert pixels[19, 25:45].min() > 120  # white, as far as so narrow a line keeps it
    everywhere = np.asarray(picture(page.examples(0)[0][2]).convert("RGB")).astype(int)
    assert np.abs(everywhere - (200, 30, 30)).max() < 25


def test_a_large_thumbnail_is_made_smaller_and_a_thin_region_stays(tmp_path: Path) -> None:
    grey = np.full((900, 1200, 3), 100, np.uint8)
    region = np.zeros((900, 1200), bool)
    region[450] = True
    small = picture(written(tmp_path, examples={2: [Example(2, "a.jpg", 0, grey, region)]}).examples(2)[0][2])
    assert small.size == (PICTURE_SIDE, PICTURE_SIDE * 3 // 4)
    rows = np.asarray(small.convert("L")).mean(1)
    assert rows.max() > rows[0] + 80


def test_pictures_that_exceed_the_size_are_left_out_fairly_and_stay_listed(tmp_path: Path) -> None:
    examples = examples_of(SMALL, count=5, size=(150, 200))
    bare = len(written(tmp_path, examples=examples, largest_mb=0).text.encode())
    whole = written(tmp_path, examples=examples)
    assert [whole.pictures(id) for id in range(8)] == [5] * 8
    needed = len(whole.text.encode()) - bare
    for part in (0.99, 0.5, 0.25):
        limit = bare + int(part * needed)
        page = written(tmp_path, examples=examples, largest_mb=limit / 1e6)
        assert len(page.text.encode()) <= limit
        kept = {page.pictures(id) for id in range(8)}
        assert kept == {int(5 * part)}
        assert [name for name, _, _ in page.examples(6)] == [f"photos/6-{i}.jpg" for i in range(5)]
    limit = bare + needed // 10  # half of the first ones fit
    page = written(tmp_path, examples=examples, largest_mb=limit / 1e6)
    assert len(page.text.encode()) <= limit
    frequent = sorted(range(8), key=lambda id: -SMALL.concepts[id].images)
    kept_of = [page.pictures(id) for id in frequent]
    assert kept_of == sorted(kept_of, reverse=True) and 2 <= sum(kept_of) <= 5 and max(kept_of) == 1


def test_a_task_without_its_kin_gets_all_the_pictures_there_is_room_for(tmp_path: Path) -> None:
    few = {2: examples_of(SMALL)[2], 3: examples_of(SMALL)[3][:1], 4: []}
    page = written(tmp_path, examples=few)
    assert [page.pictures(id) for id in (2, 3, 4, 5)] == [3, 1, 0, 0]


@pytest.mark.parametrize(
    "tasks", [("scene",), ("part",), ("texture",), ("scene", "part", "texture"), ("object", "part")]
)
def test_a_task_may_be_missing(tmp_path: Path, tasks: tuple[str, ...]) -> None:
    page = written(tmp_path, without(SMALL, *tasks))
    assert not set(tasks) & set(page.data["concepts"]["task"])
    drawn = not {"scene", "object"} & set(tasks)
    assert bool(page.data["figure"]) == drawn
    assert ("Plotly" in page.scripts.get("plotly", "")) == drawn  # 4.8 MB only where they are needed


def test_one_image_or_none_is_enough(tmp_path: Path) -> None:
    one = replace(SMALL, images=1, concepts=SMALL.concepts[:3], relations=(relation("scene-object", 0, 2, 1.0),))
    page = written(tmp_path, one, {})
    assert page.data["figure"]["scenes"] == [0] and page.data["figure"]["objects"] == [2]
    page = written(tmp_path, Knowledge(0, 5, "", {}, {}, (), ()), {})
    assert page.data["concepts"]["name"] == [] and page.data["figure"] is None


@pytest.mark.parametrize("lift", [float("nan"), float("inf")])
def test_what_is_no_number_is_null(tmp_path: Path, lift: float) -> None:
    page = written(tmp_path, replace(SMALL, relations=(relation("scene-object", 0, 2, 0.5, lift=lift),)))
    assert page.data["relations"][0]["columns"]["lift"] == [None]


# ---- In a browser, where there is one

PROBE = """<script>
const told = { asked: [], refused: [], wrong: [] };
addEventListener("error", (event) => told.wrong.push(event.message));
addEventListener("securitypolicyviolation", (event) => told.refused.push(event.blockedURI));
addEventListener("load", async () => {
  const wait = (time) => new Promise((done) => setTimeout(done, time));
  // The browser's clock leaps over waiting, but not over work: this gives its other processes time to answer.
  const until = async (ready) => {
    for (let i = 0, sum = 0; i < 1000 && !ready(); i++) {
      for (let n = 0; n < 2e6; n++) sum += n;
      await wait(5);
    }
  };
  const press = (key) => {
    const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
    document.activeElement.dispatchEvent(event);
  };
  const set = (field, value, event = "input") => {
    field.value = value;
    field.dispatchEvent(new Event(event));
  };
  const type = (text) => set(document.activeElement, text);
  const where = () => decodeURIComponent(location.hash);
  const one = (selector) => document.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const rows = (table) => all("tbody tr", table).map((row) => row.innerText.replace(/\\s+/g, " ").trim());
  const tables = () => all("table.relation").map(rows);
  try {
    told.steps = await (async () => { STEPS })();
  } catch (error) {
    told.wrong.push(String(error));
  }
  const asked = performance.getEntriesByType("resource").map((entry) => entry.name);
  told.asked = asked.filter((name) => !/^(data|blob):/.test(name));
  const element = document.createElement("script");
  element.type = "application/json";
  element.id = "told";
  element.textContent = JSON.stringify(told).replaceAll("<", "\\u003c");
  document.body.append(element);
});
</script>
"""


@pytest.fixture(scope="module")
def browser() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for path in map(shutil.which, names) if path), None)
    if not found:
        pytest.skip(f"no browser; one of {', '.join(names)} runs this test")
    return found


def look(browser: str, path: Path, view: str = "", steps: str = "", extra: str = "") -> dict[str, Any]:
    """Open the page at a view, run JavaScript in it, and return what that returned and what the page asked for."""
    text = path.read_text(encoding="utf-8").replace("</head>", PROBE.replace("STEPS", steps) + extra + "</head>", 1)
    copy = path.with_name("probed.html")
    copy.write_text(text, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    folder = path.with_name("profile")
    result = subprocess.run(
        [
            browser,
            *flags,
            f"--user-data-dir={folder}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            copy.as_uri() + view,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<script type="application/json" id="told">(.*?)</script>', result.stdout, flags=re.S)
    assert found, result.stderr[-2000:]
    told: dict[str, Any] = json.loads(found[1])
    assert told["wrong"] == []
    return told


def test_a_concept_is_shown_with_its_neighbours_in_both_directions(tmp_path: Path, browser: str) -> None:
    written(tmp_path)
    steps = """
      const heading = one("h1").innerText, title = document.title, first = tables();
      const pictures = all(".examples img").length, text = one("main").innerText;
      const [images, share] = all("main input");
      set(images, 10);
      const filtered = tables();
      set(share, 75);
      return { heading, title, first, pictures, text, filtered, few: tables() };
    """
    told = look(browser, tmp_path / "page.html", "#object/car", steps)
    assert told["asked"] == [] and told["refused"] == []
    seen = told["steps"]
    assert seen["heading"] == "car" and seen["title"].startswith("car")
    scenes, parts, materials = seen["first"]
    assert scenes == ["street 80 % 70–90 32 of 40 images ×1.6", "garage/indoor 20 % 10–30 8 of 40 images ×1.5"]
    assert parts == ["car/wheel 50 % 40–60 20 of 40 images ×1.5"]
    assert materials[0] == "metal 70 % 60–80 7K of 10K px in 28 images ×1.5"
    assert seen["pictures"] == 3
    assert "photos/2-0.jpg" in seen["text"] and "images.parquet" in seen["text"]
    assert [len(rows) for rows in seen["filtered"]] == [1, 1, 2]
    assert seen["few"] == [["street 80 % 70–90 32 of 40 images ×1.6"]]


def test_rows_are_sorted_by_share_or_by_lift(tmp_path: Path, browser: str) -> None:
    relations = relation("scene-object", 0, 2, 0.8, lift=1.1), relation("scene-object", 1, 2, 0.2, lift=4.0)
    written(tmp_path, replace(SMALL, relations=relations))
    steps = """
      const seen = () => [...all("tbody a").map((link) => link.textContent), one("[aria-sort]").textContent];
      const first = seen();
      set(one("main select"), "lift", "change");
      return [first, seen()];
    """
    told = look(browser, tmp_path / "page.html", "#object/car", steps)["steps"]
    assert told == [["street", "garage/indoor", "Share and interval"], ["garage/indoor", "street", "Lift"]]


def test_the_keyboard_finds_a_concept_and_back_returns_to_the_link_that_was_left(tmp_path: Path, browser: str) -> None:
    written(tmp_path)
    steps = """
      const field = document.getElementById("query");
      const open = () => field.getAttribute("aria-expanded");
      press("/");
      const focused = document.activeElement === field;
      type("CA");
      const offered = all("#found [role=option]").map((option) => option.innerText.split("\\n")[0]);
      const opened = open();
      press("ArrowDown");
      const active = document.getElementById(field.getAttribute("aria-activedescendant")).innerText;
      press("Escape");
      const closed = open();
      type("car"); press("Enter"); await wait(100);
      const car = where();
      const link = one("table a[href='#scene/garage%2Findoor']");
      link.focus(); link.click(); await wait(100);
      const scene = [where(), document.activeElement.innerText];
      history.back(); await until(() => where() === car); await wait(20);
      const back = [where(), document.activeElement.getAttribute("href")];
      history.forward(); await until(() => where() !== car);
      return { focused, offered, opened, active, closed, car, scene, back, forward: where() };
    """
    told = look(browser, tmp_path / "page.html", "", steps)["steps"]
    assert told["focused"] and told["offered"] == ["car", "car/wheel"]
    assert (told["opened"], told["closed"]) == ("true", "false")
    assert "car/wheel" in told["active"]
    assert told["car"] == "#object/car"
    assert told["scene"] == ["#scene/garage/indoor", "garage/indoor"]
    assert told["back"] == ["#object/car", "#scene/garage%2Findoor"]
    assert told["forward"] == "#scene/garage/indoor"


def test_the_figure_is_drawn_offline_and_its_nodes_lead_to_their_concepts(tmp_path: Path, browser: str) -> None:
    written(tmp_path)
    steps = """
      const graph = () => document.getElementById("graph");
      await until(() => graph()?.querySelector(".textpoint"));
      const texts = () => all(".textpoint", graph()).map((text) => text.textContent.trim()).filter(Boolean).sort();
      const first = texts();
      set(one("input[type=range]"), 85);
      await until(() => texts().length <= 2);
      const fewer = [texts(), one("main [role=status]").innerText];
      const at = (selector) => all(selector, graph()).map((element) => element.getBoundingClientRect());
      const node = graph().data.findLast((trace) => trace.customdata);
      graph().emit("plotly_hover", { points: [{ customdata: node.customdata[0] }] });
      const [lines] = at(".own-lines"), [left, right] = at(".scatterlayer .point");
      const meets = [lines.left - (left.left + left.right) / 2, lines.right - (right.left + right.right) / 2];
      graph().emit("plotly_click", { points: [{ customdata: node.customdata[0] }] });
      await wait(100);
      return { first, fewer, meets, clicked: where() };
    """
    told = look(browser, tmp_path / "page.html", "#figure", steps)
    assert told["asked"] == [] and told["refused"] == []
    assert told["steps"]["first"] == ["car", "garage/indoor", "street", "wall"]
    assert told["steps"]["fewer"] == [["garage/indoor", "wall"], "1 line between 1 scene and 1 object."]
    assert max(map(abs, told["steps"]["meets"])) < 2  # pixels: the lines end at the nodes
    assert told["steps"]["clicked"] == "#object/wall"


def test_odd_names_are_shown_as_they_are_and_every_view_opens(tmp_path: Path, browser: str) -> None:
    odd = renamed(SMALL, ODD_NAMES)
    write_page(tmp_path / "page.html", odd, examples_of(odd), 40)
    steps = """
      const wrong = [], views = [];
      const links = TASKS.flatMap((task) => all(`main a[href^='#${task}/']`));
      for (const link of links) {
        location.hash = link.getAttribute("href");
        await wait(20);
        if (one("h1").textContent !== link.textContent) wrong.push([link.textContent, one("h1").textContent]);
      }
      for (const name of VIEWS) {
        location.hash = name;
        await wait(20);
        views.push(one("h1").textContent);
      }
      return { wrong, count: links.length, views, title: document.title };
    """
    views = {
        "overview": "Visual knowledge",
        "index/object": "Objects",
        "index/nothing": "Scenes",
        "reading": "How to read this page",
        "figure": "Scenes and objects",
        "object/none": "Not found",
        "object/%E0%A4%A": "Not found",
    }
    steps = steps.replace("TASKS", json.dumps(sorted({concept.task for concept in odd.concepts})))
    told = look(browser, tmp_path / "page.html", "", steps.replace("VIEWS", json.dumps(list(views))))
    assert told["asked"] == [] and told["refused"] == []
    assert told["steps"]["wrong"] == [] and told["steps"]["count"] >= len(ODD_NAMES)
    assert told["steps"]["views"] == list(views.values())
    assert "caught" not in told["steps"]["title"]


def test_other_tasks_and_parts_of_objects_with_a_stroke_have_their_pages(tmp_path: Path, browser: str) -> None:
    more = (
        replace(SMALL.concepts[2], id=8, name="car/toy"),
        replace(SMALL.concepts[4], id=9, name="car/toy/wheel"),
        replace(SMALL.concepts[5], id=10, task="my state/1", name="dirty"),
        replace(SMALL.concepts[0], id=11, task="weather", name="rain"),
    )
    written(tmp_path, replace(SMALL, concepts=(*SMALL.concepts, *more)))
    steps = """
      const visit = async (link) => { location.hash = link; await wait(30); return one("main").innerText; };
      const overview = await visit("overview");
      const found = all("main a").filter((a) => ["dirty", "rain"].includes(a.innerText));
      const links = found.map((a) => a.getAttribute("href"));
      const pages = [];
      for (const link of links) pages.push(await visit(link));
      const index = await visit(all("main a")[0].getAttribute("href"));
      await visit("part/car%2Ftoy%2Fwheel");
      return { overview, pages, index, object: one(".eyebrow").innerText };
    """
    told = look(browser, tmp_path / "page.html", "", steps)["steps"]
    dirty, rain = told["pages"]
    assert "of all pixels with an answer" in dirty
    assert "of all images with an answer" in rain
    assert "rain" in told["index"]
    assert told["object"] == "Parts of car/toy"


def test_what_stands_out_goes_together_more_often_than_by_chance(tmp_path: Path, browser: str) -> None:
    relations = [relation("scene-object", 0, 2, 0.8, lift=1.6), relation("scene-object", 1, 3, 0.9, lift=1.05)]
    relations.append(relation("object-material", 2, 5, 0.7, lift=0.7))
    written(tmp_path, replace(SMALL, relations=tuple(relations)))
    (pairs,) = look(browser, tmp_path / "page.html", "", 'return all(".pairs").map((list) => list.innerText)')["steps"]
    assert "street" in pairs and "garage" not in pairs


def test_examples_are_read_one_after_the_other_and_twice_at_most(tmp_path: Path) -> None:
    """Once for their names and once for their pictures: each is a file."""
    reads: Counter[tuple[int, int]] = Counter()

    class Counted(list[Example]):
        def __getitem__(self, rank: Any) -> Any:
            reads[self.concept, rank] += 1
            return super().__getitem__(rank)

        def __iter__(self) -> Iterator[Example]:
            return (self[rank] for rank in range(len(self)))

        concept = 0

    examples = {concept: Counted(own) for concept, own in examples_of(SMALL, 4).items()}
    for concept, own in examples.items():
        own.concept = concept
    page = written(tmp_path, examples=examples)
    assert set(reads) == {(concept.id, rank) for concept in SMALL.concepts for rank in range(4)}
    assert max(reads.values()) == 2
    assert all(page.pictures(concept.id) == 4 for concept in SMALL.concepts)


def test_a_page_of_one_image_without_examples_opens(tmp_path: Path, browser: str) -> None:
    one = replace(SMALL, images=1, concepts=SMALL.concepts[2:3], relations=(), answers={})
    written(tmp_path, replace(one, concepts=(replace(one.concepts[0], id=0),)), {})
    steps = """
      const overview = one("main").innerText;
      location.hash = "object/car"; await wait(50);
      return [overview, one("main").innerText];
    """
    overview, car = look(browser, tmp_path / "page.html", "", steps)["steps"]
    assert "What 1 image tells" in overview and "No task was answered" in overview
    assert "No example image was kept" in car and "No relation" in car


def test_the_browser_refuses_what_would_leave_the_page(tmp_path: Path, browser: str) -> None:
    """And the tests above would notice a request."""
    written(tmp_path, without(SMALL, "scene"))
    told = look(browser, tmp_path / "page.html", "", "await wait(100)", extra='<img src="http://127.0.0.1:9/a.png">')
    assert [address.rstrip("/") for address in told["refused"]] == ["http://127.0.0.1:9/a.png"]
