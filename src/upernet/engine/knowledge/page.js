// The data of the page, as `page.py` wrote them; every view is made from them when it is asked for.
const data = JSON.parse(document.getElementById("data").textContent);

const TASKS = [...new Set(["scene", "object", "part", "material", "texture", ...data.concepts.task])];
const PLURAL = { scene: "Scenes", object: "Objects", part: "Parts", material: "Materials", texture: "Textures" };
const FIRST_ROWS = 15; // of a table, before "Show all" is pressed
const FIRST_EXAMPLES = 6;
const MOST_FOUND = 12; // entries of the search list
const MOST_LINES = 8000; // of the figure; with more it answers slowly and is one dark area

// What a table of neighbours says, seen from the given concept and from the one that goes with it.
const SECTIONS = {
  "scene-object": {
    given: ["Objects", (name) => `How often an object appears in the images of ${name}.`],
    target: ["Scenes", (name) => `How often ${name} appears in the images of a scene.`],
  },
  "object-part": {
    given: ["Parts", (name) => `How often a part is seen in the images in which ${name} appears.`],
    target: ["Objects", (name) => `How often ${name} is seen in the images in which its object appears.`],
  },
  "object-material": {
    given: ["Materials", (name) => `How much of the pixels of ${name} has a material.`],
    target: ["Objects", (name) => `How much of an object's pixels is ${name}.`],
  },
  "part-material": {
    given: ["Materials", (name) => `How much of the pixels of ${name} has a material.`],
    target: ["Parts", (name) => `How much of a part's pixels is ${name}.`],
  },
  "material-texture": {
    given: ["Textures", (name) => `How much of the pixels of ${name} has a texture.`],
    target: ["Materials", (name) => `How much of a material's pixels is ${name}.`],
  },
};

const shown = { sort: "share", images: 1, share: 0 }; // the filter of the tables, for all concepts

// ---- Concepts and relations

const concepts = data.concepts.name.map((name, id) => ({
  id,
  name,
  task: data.concepts.task[id],
  label: label(name),
  key: searchable(label(name)),
  colour: data.concepts.colour[id],
  images: data.concepts.images[id],
  pixels: data.concepts.pixels[id],
  share: data.concepts.share[id],
}));
const byTask = new Map(
  TASKS.map((task) => [task, concepts.filter((c) => c.task === task).sort((a, b) => b.share - a.share || a.id - b.id)])
);
const byName = new Map(concepts.map((c) => [`${c.task}/${c.name}`, c]));
// Tasks that answer once per image, as scenes do.
const oncePerImage = new Set(TASKS.filter((task) => byTask.get(task).every((c) => !c.pixels)));
const kinds = data.relations.map((table) => ({
  ...table,
  name: `${table.source}-${table.target}`,
  given: rowsBy(table.columns.source),
  goesWith: rowsBy(table.columns.target),
}));

function rowsBy(ids) {
  const rows = new Map();
  ids.forEach((id, row) => (rows.has(id) ? rows.get(id).push(row) : rows.set(id, [row])));
  return rows;
}

function relation(kind, row) {
  const at = (name) => kind.columns[name]?.[row] ?? null;
  return {
    source: concepts[at("source")],
    target: concepts[at("target")],
    images: at("images"),
    sourceImages: at("source_images"),
    pixels: at("pixels"),
    sourcePixels: at("source_pixels"),
    share: at("share") ?? 0,
    low: at("low") ?? at("share") ?? 0,
    high: at("high") ?? at("share") ?? 0,
    lift: at("lift"),
  };
}

function label(name) {
  return name.replaceAll("_", " ");
}

function searchable(text) {
  return text.normalize("NFKD").replace(/\p{Mn}/gu, "").toLowerCase();
}

function address(concept) {
  return `#${encodeURIComponent(concept.task)}/${encodeURIComponent(concept.name)}`;
}

// ---- Numbers

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

function percent(share) {
  return `${percentDigits(share)} %`;
}

function percentDigits(share) {
  const value = 100 * share;
  if (value === 0) return "0";
  if (value < 0.01) return "<0.01";
  if (value < 0.995) return value.toFixed(2);
  if (value < 9.95) return value.toFixed(1);
  return value > 99 && value < 99.95 ? value.toFixed(1) : value.toFixed(0);
}

function times(lift) {
  if (lift === null) return "–";
  return `×${lift >= 9.95 ? whole.format(Math.round(lift)) : lift >= 0.095 ? lift.toFixed(1) : lift.toFixed(2)}`;
}

function counted(count, one, many = `${one}s`) {
  return `${whole.format(count)} ${count === 1 ? one : many}`;
}

// ---- Elements. Names are set as text, never read as HTML.

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") Object.assign(element.style, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function swatch(concept) {
  return make("span", { class: "swatch", "aria-hidden": "true", style: { background: concept.colour } });
}

function linkTo(concept) {
  return make("a", { href: address(concept) }, swatch(concept), concept.label);
}

function fact(name, value, note = "") {
  const small = note ? make("small", {}, ` ${note}`) : null;
  return make("div", {}, make("dt", {}, name), make("dd", {}, value, small));
}

// ---- A concept

function conceptView(concept) {
  const list = byTask.get(concept.task);
  const answers = answered(concept.task);
  const facts = make(
    "dl",
    { class: "facts" },
    fact("Share", percent(concept.share), `of all ${answeredBy(concept.task)}`),
    fact("Images", whole.format(concept.images), answers ? `of ${whole.format(answers)}` : ""),
    oncePerImage.has(concept.task) ? null : fact("Pixels", short.format(concept.pixels)),
    fact(`Rank by share`, whole.format(list.indexOf(concept) + 1), `of ${counted(list.length, concept.task)}`)
  );
  const sections = make("div");
  const draw = () => sections.replaceChildren(...neighbourSections(concept));
  draw();
  return [
    make(
      "p",
      { class: "eyebrow" },
      make("a", { href: indexAddress(concept.task) }, plural(concept.task)),
      ...ofObject(concept)
    ),
    heading(swatch(concept), concept.label),
    facts,
    exampleSection(concept),
    tools(draw),
    sections,
  ];
}

// What the shares of a task's concepts are shares of. "No part" of an object is an answer, too.
function answeredBy(task) {
  if (!oncePerImage.has(task)) return "pixels with an answer";
  return task === "scene" ? "images with a scene" : "images with an answer";
}

function plural(task) {
  return Object.hasOwn(PLURAL, task) ? PLURAL[task] : task;
}

function indexAddress(task) {
  return `#index/${encodeURIComponent(task)}`;
}

function answered(task) {
  return Object.values(data.answers[task] ?? {}).reduce((sum, count) => sum + count, 0);
}

function ofObject(concept) {
  const pieces = concept.task === "part" ? concept.name.split("/") : [];
  const starts = pieces.slice(1).map((_, i) => pieces.slice(0, pieces.length - 1 - i).join("/")); // the longest first
  const object = starts.map((start) => byName.get(`object/${start}`)).find(Boolean);
  return object ? [" of ", make("a", { href: address(object) }, object.label)] : [];
}

function heading(...content) {
  return make("h1", { tabindex: "-1" }, ...content);
}

function tools(draw) {
  const number = (name, text, unit, step, most) => {
    const input = make("input", { type: "number", min: name === "images" ? 1 : 0, max: most, step, value: shown[name] });
    input.addEventListener("input", () => {
      shown[name] = Math.max(0, Number(input.value) || 0);
      draw();
    });
    return [make("label", {}, text, input, unit), input];
  };
  const [images, imagesInput] = number("images", "In at least", "images", 1, null);
  const [share, shareInput] = number("share", "Share at least", "%", "any", 100);
  const sort = make(
    "select",
    { onchange: () => ((shown.sort = sort.value), draw()) },
    make("option", { value: "share", selected: shown.sort === "share" }, "share"),
    make("option", { value: "lift", selected: shown.sort === "lift" }, "lift")
  );
  const reset = () => {
    Object.assign(shown, { sort: "share", images: 1, share: 0 });
    [imagesInput.value, shareInput.value, sort.value] = [1, 0, "share"];
    draw();
  };
  return make(
    "div",
    { class: "tools", role: "group", "aria-label": "What the tables show" },
    make("label", {}, "Sort by", sort),
    images,
    share,
    make("button", { type: "button", onclick: reset }, "Reset"),
    make("a", { href: "#reading", class: "small" }, "How to read this")
  );
}

function neighbourSections(concept) {
  const sections = [];
  for (const kind of kinds) {
    const sides = [
      ["given", kind.given.get(concept.id) ?? [], "target"],
      ["target", kind.goesWith.get(concept.id) ?? [], "source"],
    ];
    for (const [side, rows, other] of sides) {
      if (rows.length) sections.push(neighbourSection(concept, kind, side, other, rows));
    }
  }
  if (!sections.length) sections.push(make("p", { class: "soft" }, "No relation with another concept was found."));
  return sections;
}

function neighbourSection(concept, kind, side, other, rows) {
  const [title, explain] = SECTIONS[kind.name][side];
  const all = rows.map((row) => relation(kind, row));
  const kept = all.filter((r) => r.images >= shown.images && 100 * r.share >= shown.share);
  const value = (r) => (shown.sort === "lift" ? (r.lift ?? -1) : r.share);
  kept.sort((a, b) => value(b) - value(a) || b.share - a.share || b.images - a.images || a[other].id - b[other].id);

  const id = `${kind.name}-${side}`;
  const section = make("section", { "aria-labelledby": id });
  const draw = (count) => {
    const parts = [make("h2", { id }, title), make("p", { class: "soft" }, explain(concept.label))];
    if (kept.length) parts.push(neighbourTable(title, kind, other, kept.slice(0, count)));
    const hidden = all.length - kept.length;
    if (hidden) parts.push(make("p", { class: "soft small" }, `${counted(hidden, "row")} hidden by the filter.`));
    if (kept.length > count) {
      const more = make("button", { type: "button", class: "more" }, `Show all ${whole.format(kept.length)}`);
      more.addEventListener("click", () => {
        draw(kept.length);
        section.querySelectorAll("tbody a")[count].focus(); // where the reader was
      });
      parts.push(more);
    }
    section.replaceChildren(...parts);
  };
  draw(FIRST_ROWS);
  return section;
}

function neighbourTable(title, kind, other, relations) {
  const end = axisEnd(Math.max(...relations.map((r) => r.high)));
  const ticks = [0, end / 2, end].map((tick) =>
    make("span", { style: { left: `${(100 * tick) / end}%` } }, `${+(100 * tick).toPrecision(3)}${tick ? " %" : ""}`)
  );
  const head = (text, extra = {}) => make("th", { role: "columnheader", scope: "col", ...extra }, text);
  const sorted = (name) => (shown.sort === name ? { "aria-sort": "descending" } : {});
  // Browsers forget that it is a table where narrow screens show its rows as blocks; the roles tell them.
  return make(
    "table",
    { class: "relation", role: "table", "aria-label": title },
    make("colgroup", {}, ...["name", "share", "interval", "count", "lift"].map((name) => make("col", { class: name }))),
    make(
      "thead",
      { role: "rowgroup" },
      make(
        "tr",
        { role: "row" },
        head(title.slice(0, -1)),
        make("th", { role: "columnheader", scope: "col", class: "scale", "aria-label": "Bar" }, make("div", { class: "axis" }, ...ticks)),
        head("Share and interval", sorted("share")),
        head("Counted"),
        head("Lift", sorted("lift"))
      )
    ),
    make("tbody", { role: "rowgroup" }, ...relations.map((r) => neighbourRow(kind, r[other], r, end)))
  );
}

function neighbourRow(kind, neighbour, r, end) {
  const at = (share) => `${Math.min(100, (100 * share) / end)}%`;
  const bar = make(
    "div",
    { class: "bar", "aria-hidden": "true" },
    make("div", { class: "fill", style: { width: at(r.share) } }),
    make("div", { class: "range", style: { left: at(r.low), width: at(r.high - r.low) } })
  );
  const pixels =
    kind.basis === "pixels" ? `${short.format(r.pixels)} of ${short.format(r.sourcePixels)} px in ` : "";
  const images = kind.basis === "pixels" ? counted(r.images, "image") : `${whole.format(r.images)} of ${counted(r.sourceImages, "image")}`;
  const cell = (name, ...content) => make("td", { role: "cell", class: name }, ...content);
  return make(
    "tr",
    { role: "row" },
    make("td", { role: "rowheader" }, linkTo(neighbour)),
    cell("share", bar),
    cell(
      "interval number",
      `${percent(r.share)} `,
      make("span", { class: "soft small" }, `${percentDigits(r.low)}–${percentDigits(r.high)}`)
    ),
    cell("count small", pixels + images),
    cell("lift number", times(r.lift))
  );
}

// The end of the axis: a round number that holds the longest bar and its interval.
function axisEnd(largest) {
  return [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1].find((end) => largest <= end + 1e-9) ?? 1;
}

// ---- Example images

function exampleSection(concept) {
  const element = document.getElementById(`examples-${concept.id}`);
  const examples = element ? JSON.parse(element.textContent) : [];
  const section = make("section", { "aria-labelledby": "images" });
  const title = make("h2", { id: "images" }, `Images with ${concept.label}`);
  const all = make("code", {}, "images.parquet");
  if (!examples.length) {
    section.append(title, make("p", { class: "soft" }, "No example image was kept. The file ", all, " lists all images."));
    return section;
  }
  const pictured = examples.filter(([, , picture]) => picture);
  const named = examples.filter(([, , picture]) => !picture);
  const left = named.length
    ? ` ${counted(named.length, "picture")} left out, so that the page stays within ${data.largest_mb} MB.`
    : "";
  const draw = (count) => {
    const parts = [
      title,
      make(
        "p",
        { class: "soft" },
        `${counted(examples.length, "example")}. It appears in ${counted(concept.images, "image")}; the file `,
        all,
        ` lists all.${left}`
      ),
    ];
    if (pictured.length) {
      const cards = pictured.slice(0, count).map((example) => exampleCard(concept, example));
      parts.push(make("ul", { class: "examples" }, ...cards));
    }
    if (pictured.length > count || (named.length && pictured.length && count !== Infinity)) {
      const more = make("button", { type: "button", class: "more" }, `Show all ${whole.format(examples.length)}`);
      more.addEventListener("click", () => {
        draw(Infinity);
        title.focus();
      });
      parts.push(more);
    } else if (named.length) {
      const items = named.map(([image, share]) => make("li", {}, `${image} `, shareNote(concept, share)));
      parts.push(make("ol", { class: "names", start: pictured.length + 1 }, ...items));
    }
    section.replaceChildren(...parts);
  };
  title.tabIndex = -1;
  draw(FIRST_EXAMPLES);
  return section;
}

function exampleCard(concept, [image, share, picture]) {
  const marked = oncePerImage.has(concept.task) ? "" : `; ${concept.label} is outlined`;
  return make(
    "li",
    {},
    make("img", { src: picture, alt: `Image ${image}${marked}`, loading: "lazy", decoding: "async" }),
    make("div", { class: "caption" }, `${image} `, shareNote(concept, share))
  );
}

function shareNote(concept, share) {
  return oncePerImage.has(concept.task) ? null : make("span", { class: "soft number" }, percent(share));
}

// ---- Overview

function overviewView() {
  const skipped = data.skipped ? fact("Skipped", whole.format(data.skipped), "could not be read") : null;
  const total = kinds.reduce((sum, kind) => sum + kind.columns.source.length, 0);
  return [
    heading("Visual knowledge"),
    make(
      "p",
      {},
      `What ${counted(data.images, "image")} ${data.images === 1 ? "tells" : "tell"} of scenes, objects, parts, materials and textures, and of what goes with what.`
    ),
    make(
      "dl",
      { class: "facts" },
      fact("Images", whole.format(data.images)),
      skipped,
      fact("Concepts", whole.format(concepts.length)),
      fact("Relations", whole.format(total)),
      fact("Model", data.model || "none", data.model ? "" : "annotations only")
    ),
    mostSection(),
    pairSection(),
    make("div", { class: "columns" }, answerSection(), relationSection(), settingSection()),
  ];
}

// For each kind of relation, the pairs that stand out.
function pairSection() {
  const [images, share, lift] = [data.images < 1000 ? 2 : 10, 0.3, 1.1];
  const lists = kinds.map((kind) => {
    const { columns } = kind;
    const standsOut = (row) => columns.images[row] >= images && columns.share[row] >= share && columns.lift[row] >= lift;
    const rows = [...columns.source.keys()].filter(standsOut);
    const best = rows.sort((a, b) => columns.lift[b] - columns.lift[a] || columns.share[b] - columns.share[a]).slice(0, 5);
    const items = best.map((row) => {
      const r = relation(kind, row);
      return make("li", {}, linkTo(r.source), " → ", linkTo(r.target), make("span", { class: "soft small" }, `${percent(r.share)}, lift ${times(r.lift)}`));
    });
    const title = `${PLURAL[kind.source]} → ${PLURAL[kind.target].toLowerCase()}`;
    return items.length ? make("div", {}, make("h3", {}, title), make("ul", { class: "pairs" }, ...items)) : null;
  });
  if (!lists.some(Boolean)) return null;
  return make(
    "section",
    {},
    make("h2", {}, "What stands out"),
    make("p", { class: "soft" }, `The pairs with the largest lift, at least ${times(lift)}, among those with a share of at least ${percent(share)} in at least ${counted(images, "image")}. `, make("a", { href: "#reading" }, "How to read this")),
    make("div", { class: "tops" }, ...lists.filter(Boolean))
  );
}

function mostSection() {
  const lists = TASKS.filter((task) => byTask.get(task).length).map((task) => {
    const all = byTask.get(task);
    const link = make("a", { href: indexAddress(task) }, `All ${counted(all.length, task)}`);
    return make("div", {}, make("h3", {}, plural(task)), indexList(all.slice(0, 5)), all.length > 5 ? make("p", { class: "small" }, link) : null);
  });
  const title = make("h2", {}, "Most frequent");
  if (!lists.length) return make("section", {}, title, make("p", { class: "soft" }, "No concept was seen."));
  return make("section", {}, title, make("div", { class: "tops" }, ...lists));
}

function answerSection() {
  const tasks = [...new Set([...TASKS, ...Object.keys(data.answers)])].filter((task) => data.answers[task]);
  const rows = tasks.map((task) => {
    const annotated = data.answers[task].annotated ?? 0;
    const predicted = data.answers[task].predicted ?? 0;
    const part = (name, count) =>
      count ? make("div", { class: name, style: { flexGrow: count, flexBasis: 0 } }) : null;
    const rest = Math.max(0, data.images - annotated - predicted);
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, plural(task)),
      make("td", { class: "number" }, whole.format(annotated)),
      make("td", { class: "number" }, whole.format(predicted)),
      make(
        "td",
        {},
        make("div", { class: "parted", "aria-hidden": "true" }, part("annotated", annotated), part("predicted", predicted), part("", rest))
      )
    );
  });
  const column = (name, ...content) => make("th", { scope: "col" }, key(name), ...content);
  return make(
    "section",
    {},
    make("h2", {}, "Where the answers come from"),
    rows.length
      ? make(
          "table",
          { class: "plain" },
          make("caption", { class: "soft" }, "Images whose answer was annotated, and images whose answer the model predicted."),
          make(
            "thead",
            {},
            make("tr", {}, make("th", { scope: "col" }, "Task"), column("annotated", "annotated"), column("predicted", "predicted"), make("th", { scope: "col" }, "of all images"))
          ),
          make("tbody", {}, ...rows)
        )
      : make("p", { class: "soft" }, "No task was answered.")
  );
}

function key(name) {
  return make("span", { class: "key", "aria-hidden": "true" }, make("span", { class: `parted ${name}` }, make("span", { class: name, style: { flexGrow: 1 } })));
}

function relationSection() {
  const rows = kinds.map((kind) => {
    const count = kind.columns.source.length;
    const what = kind.basis === "images" ? "images in which both appear" : "pixels that have both";
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, `${PLURAL[kind.source]} and ${PLURAL[kind.target].toLowerCase()}`),
      make("td", { class: "number" }, count ? whole.format(count) : "none found"),
      make("td", {}, what)
    );
  });
  const head = ["Relation", "Pairs", "Counts"].map((text) => make("th", { scope: "col" }, text));
  return make(
    "section",
    {},
    make("h2", {}, "Relations"),
    make("table", { class: "plain" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows))
  );
}

function settingSection() {
  const settings = Object.entries(data.settings);
  if (!settings.length) return null;
  const rows = settings.map(([name, value]) =>
    make("tr", {}, make("th", { scope: "row" }, label(name)), make("td", {}, value === null ? "none" : String(value)))
  );
  return make("section", {}, make("h2", {}, "Settings"), make("table", { class: "plain" }, make("tbody", {}, ...rows)));
}

// ---- Index

function indexView(task) {
  const tasks = TASKS.filter((name) => byTask.get(name).length);
  if (!tasks.length) return [heading("Index"), make("p", { class: "soft" }, "No concept was seen.")];
  const chosen = tasks.includes(task) ? task : tasks[0];
  const links = tasks.map((name) =>
    make("a", { href: indexAddress(name), "aria-current": name === chosen ? "page" : null }, `${plural(name)} ${byTask.get(name).length}`)
  );
  const list = make("div");
  const order = make(
    "select",
    { onchange: () => draw() },
    make("option", { value: "share" }, "share"),
    make("option", { value: "name" }, "name")
  );
  const draw = () => {
    const sorted = [...byTask.get(chosen)];
    if (order.value === "name") sorted.sort((a, b) => a.label.localeCompare(b.label, "en"));
    list.replaceChildren(indexList(sorted));
  };
  draw();
  return [
    heading(plural(chosen)),
    make("nav", { "aria-label": "Tasks" }, ...links),
    make(
      "p",
      { class: "soft" },
      `The share of all ${answeredBy(chosen)}. Bars are relative to the longest.`
    ),
    make("label", { class: "small" }, "Sort by ", order),
    list,
  ];
}

function indexList(list) {
  const largest = Math.max(...list.map((concept) => concept.share), 1e-9);
  return make(
    "ol",
    { class: "index" },
    ...list.map((concept) =>
      make(
        "li",
        {},
        make("span", { class: "name" }, linkTo(concept)),
        make("span", { class: "number small soft" }, percent(concept.share)),
        make(
          "div",
          { class: "bar", "aria-hidden": "true" },
          make("div", { class: "fill", style: { width: `${(100 * concept.share) / largest}%` } })
        )
      )
    )
  );
}

// ---- How to read the page

function readingView() {
  const entries = [
    ["Share", "Of a pair: how likely the second concept is where the first is given. Scenes with objects, and objects with parts, count images: in 40 of 50 images of a kitchen a sink appears, so its share is 80 %. The other three relations count pixels: 30 % of the pixels of a chair are fabric."],
    ["Bar and interval", "The bar is the share. The dark bracket on its end is the confidence interval: with other images of the same kind, the share would most likely lie inside. Few images give a wide bracket. The axis ends at a round number that is written above it, so compare lengths inside one table only."],
    ["Lift", "The share divided by that of the second concept in all images or pixels. ×1 means that the first concept changes nothing. ×5 means five times as often as usual; below ×1 is rarer than usual. Walls have a large share in most rooms and a lift near 1; a washer has a large lift in a laundromat. A lift from few images says little: raise the least number of images."],
    ["Both directions", "A concept's page also shows the relations in which it is the second concept. Their shares keep their direction: under Scenes, the page of an object tells how often the object appears in each scene, and not which part of the object's images is of that scene."],
    ["Example images", "The concept keeps its colours inside a white outline; the rest is dark and grey. The number below is the concept's share of the image."],
    ["Keyboard", "Tab and Shift+Tab go from link to link, Enter follows one, and Alt+Left goes back. / goes to the search: type, choose with Up and Down, open with Enter, close with Escape. The threshold of the figure moves with the arrow keys."],
  ];
  const list = make("dl", { class: "facts", style: { display: "block" } }, ...entries.map(([name, text]) => make("div", { style: { marginBottom: "0.7rem" } }, make("dt", {}, name), make("dd", { style: { fontSize: "1rem", fontWeight: "400" } }, text))));
  return [heading("How to read this page"), list];
}

// ---- Figure: scenes left, objects right, a line for each likelihood above the threshold

const dark = matchMedia("(prefers-color-scheme: dark)");
let redraw = () => {}; // draws the figure again while it is in view

function figureView() {
  if (!data.figure) {
    return [heading("Scenes and objects"), make("p", { class: "soft" }, "No scene and object were seen together, so there is no figure.")];
  }
  const kind = kinds.find((k) => k.name === "scene-object");
  const shares = kind.columns.share;
  const start = [0.3, 0.2, 0.1, 0.05].find((share) => shares.some((s) => s >= share)) ?? 0;
  const value = make("output", {}, percent(start));
  const slider = make("input", { type: "range", min: 0, max: 100, step: 1, value: 100 * start, "aria-label": "Least share, in percent" });
  const told = make("p", { class: "soft", role: "status" }, "The figure is being drawn …");
  const graph = make("div", { id: "graph" });
  const list = make("div");
  const details = make("details", {}, make("summary", {}, "The nodes of the figure as a list"), list);
  const high = make("input", { type: "checkbox", onchange: () => redraw() });
  redraw = () => {
    const all = edgesFrom(kind, slider.value / 100);
    const edges = all.slice(0, MOST_LINES);
    const columns = figureColumns(edges);
    const strongest = all.length > edges.length ? `The strongest of ${whole.format(all.length)}: ` : "";
    told.textContent = edges.length
      ? `${strongest}${counted(edges.length, "line")} between ${counted(columns.scenes.length, "scene")} and ${counted(columns.objects.length, "object")}.`
      : "No scene and object go together that often; lower the threshold.";
    drawGraph(graph, edges, columns, high.checked);
    list.replaceChildren(
      ...["scenes", "objects"].map((side) =>
        make("div", {}, make("h3", {}, PLURAL[side.slice(0, -1)]), make("ul", { class: "names" }, ...columns[side].map((id) => make("li", {}, linkTo(concepts[id])))))
      )
    );
  };
  let waiting = 0;
  slider.addEventListener("input", () => {
    value.textContent = percent(slider.value / 100);
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 120); // while the slider moves, nothing is drawn
  });
  requestAnimationFrame(() => setTimeout(() => redraw())); // once the view is there; Plotly may take a second to start
  return [
    heading("Scenes and objects"),
    make(
      "p",
      { class: "soft" },
      "A line means that the object (circle, right) appears in the images of the scene (square, left) at least as often as the threshold; thicker is more often. Scenes with similar objects stand together, and each of these groups has its own colour. Point at a name to see which lines are its own; choose it to open its page."
    ),
    make("div", { class: "tools" }, make("label", {}, "Least share ", slider, value), make("label", {}, high, "Room for every name")),
    told,
    graph,
    details,
  ];
}

function edgesFrom(kind, least) {
  const { source, target, share } = kind.columns;
  const edges = [];
  share.forEach((s, row) => s >= least && edges.push({ scene: source[row], object: target[row], share: s }));
  return edges.sort((a, b) => b.share - a.share);
}

function figureColumns(edges) {
  const kept = new Set(edges.flatMap((edge) => [edge.scene, edge.object]));
  return { scenes: data.figure.scenes.filter((id) => kept.has(id)), objects: data.figure.objects.filter((id) => kept.has(id)) };
}

function plotly() {
  if (!window.Plotly) {
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
  }
  return window.Plotly;
}

// The drawing of `figure.py` `scene_object_figure`, with its sizes and colours, for the width and the colours of here.
function drawGraph(graph, edges, { scenes, objects }, high) {
  const style = data.figure;
  const group = new Map(style.scenes.map((id, i) => [id, style.groups[i]]));
  const full = Math.max(style.lowest, style.row * Math.max(scenes.length, objects.length));
  const height = Math.min(full, high ? style.highest : Math.max(style.lowest, innerHeight - 110));
  const place = new Map([scenes, objects].flatMap((ids) => ids.map((id, i) => [id, 1 - (i + 0.5) / ids.length])));
  const steps = edges.length > style.curved ? 1 : style.steps;
  const narrow = graph.clientWidth < 600;
  const letters = narrow ? 14 : style.label_length;
  const css = getComputedStyle(document.documentElement);
  const ink = css.getPropertyValue("--ink").trim();
  const soft = css.getPropertyValue("--soft").trim();

  const line = (bundle) => {
    const [x, y] = [[], []];
    for (const { scene, object } of bundle) {
      const [begin, end] = [place.get(scene), place.get(object)];
      for (let i = 0; i <= steps; i++) {
        const t = i / steps;
        x.push(t);
        y.push(begin + (end - begin) * t * t * (3 - 2 * t));
      }
      x.push(null);
      y.push(null);
    }
    return { x, y };
  };
  const bundles = style.strengths.map(() => style.palette.map(() => []));
  for (const edge of edges) bundles[style.strengths.findIndex(([least]) => edge.share >= least)][group.get(edge.scene)].push(edge);
  const traces = [];
  for (let strength = style.strengths.length - 1; strength >= 0; strength--) {
    const [, width, opacity] = style.strengths[strength];
    bundles[strength].forEach((bundle, number) => {
      if (bundle.length) {
        const color = style.palette[number];
        const seen = Math.min(1, opacity * (dark.matches ? 1.6 : 1)); // thin lines fade on black
        traces.push({ ...line(bundle), mode: "lines", line: { color, width }, opacity: seen, hoverinfo: "skip" });
      }
    });
  }

  const beside = new Map([...scenes, ...objects].map((id) => [id, []]));
  for (const edge of edges) {
    beside.get(edge.scene).push(edge);
    beside.get(edge.object).push(edge);
  }
  const nodes = (ids, left) => {
    const row = height / ids.length;
    return {
      x: ids.map(() => (left ? 0 : 1)),
      y: ids.map((id) => place.get(id)),
      mode: "markers+text",
      text: labels(ids, row, letters).map((text) => text && (left ? `${text}\u00a0` : `\u00a0${text}`)), // a hard space keeps it off its node
      textposition: left ? "middle left" : "middle right",
      textfont: { size: Math.min(13, Math.max(9, 0.8 * row)), color: ink },
      marker: { symbol: left ? "square" : "circle", size: 8, color: left ? ids.map((id) => style.palette[group.get(id)]) : soft },
      customdata: ids,
      hovertext: ids.map((id) => hover(id, beside.get(id), left)),
      hoverinfo: "text",
      cliponaxis: false,
    };
  };
  if (scenes.length) traces.push(nodes(scenes, true), nodes(objects, false));

  // Names lie inside the axes, where Plotly notices the pointer.
  const room = narrow ? 92 : 190;
  const beyond = room / Math.max(50, graph.clientWidth - 20 - 2 * room);
  const axis = { visible: false, fixedrange: true };
  const layout = {
    template: "none",
    font: { ...style.font, color: ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    height: height + 50,
    margin: { l: 10, r: 10, t: 40, b: 10 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink },
    xaxis: { ...axis, range: [-beyond, 1 + beyond] },
    yaxis: { ...axis, range: [0, 1] },
    showlegend: false,
    hovermode: "closest",
    hoverdistance: room,
    hoverlabel: { align: "left", font: style.font },
    dragmode: false,
  };
  const library = plotly();
  library.react(graph, traces, layout, style.config);

  graph.removeAllListeners("plotly_click").removeAllListeners("plotly_hover").removeAllListeners("plotly_unhover");
  graph.on("plotly_click", ({ points }) => go(address(concepts[points[0].customdata])));
  // The lines of the node pointed at are drawn here: Plotly would draw the whole figure again.
  const [across, down] = [(graph.clientWidth - 20) / (1 + 2 * beyond), height];
  const only = (bundle) => {
    graph.querySelector(".own-lines")?.remove();
    if (!bundle) return;
    const { x, y } = line(bundle);
    const points = x.map((t, i) => {
      if (t === null) return "";
      const start = i === 0 || x[i - 1] === null ? "M" : "L";
      return `${start}${((t + beyond) * across).toFixed(1)},${((1 - y[i]) * down).toFixed(1)}`;
    });
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", "own-lines");
    path.setAttribute("d", points.join(""));
    Object.assign(path.style, { fill: "none", stroke: ink, strokeWidth: 2, pointerEvents: "none" });
    graph.querySelector(".scatterlayer").append(path);
  };
  graph.on("plotly_hover", ({ points }) => only(beside.get(points[0].customdata)));
  graph.on("plotly_unhover", () => only(null));
}

function labels(ids, row, letters) {
  const several = Math.ceil(data.figure.label_row / row);
  const texts = ids.map(() => "");
  for (let begin = 0; begin < ids.length; begin += several) {
    let chosen = begin;
    for (let i = begin; i < Math.min(begin + several, ids.length); i++) {
      if (concepts[ids[i]].images > concepts[ids[chosen]].images) chosen = i;
    }
    const text = concepts[ids[chosen]].label;
    texts[chosen] = plain(text.length <= letters ? text : `${text.slice(0, letters - 1)}…`);
  }
  return texts;
}

function hover(id, edges, left) {
  const most = data.figure.hover_edges;
  const sorted = [...edges].sort((a, b) => b.share - a.share);
  const texts = sorted.slice(0, most).map((edge) => `${percent(edge.share)} ${plain(concepts[left ? edge.object : edge.scene].label)}`);
  if (sorted.length > most) texts.push(`and ${sorted.length - most} more`);
  return [`<b>${plain(concepts[id].label)}</b> (${concepts[id].task})`, ...texts].join("<br>");
}

// Plotly reads HTML tags in texts.
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

// ---- Search

const query = document.getElementById("query");
const found = document.getElementById("found");
const count = document.getElementById("count");
let offered = [];
let chosen = -1;

function matches(text) {
  const words = searchable(text).split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const typed = words.join(" ");
  const ranked = [];
  for (const concept of concepts) {
    if (!words.every((word) => concept.key.includes(word))) continue;
    const starts = concept.key.startsWith(typed);
    const rank = concept.key === typed ? 0 : starts ? 1 : concept.key.split(/[\s/]+/).some((w) => w.startsWith(words[0])) ? 2 : 3;
    ranked.push([rank, concept]);
  }
  return ranked.sort(([a, c], [b, d]) => a - b || d.images - c.images || c.id - d.id).map(([, concept]) => concept);
}

function offer() {
  const all = matches(query.value);
  offered = all.slice(0, MOST_FOUND);
  chosen = offered.length ? 0 : -1;
  const open = query.value.trim() !== "";
  found.replaceChildren(
    ...offered.map((concept, i) =>
      make(
        "li",
        { role: "option", id: `option-${i}`, onclick: () => take(i) },
        make("span", {}, swatch(concept), concept.label),
        make("span", { class: "soft" }, `${concept.task}, ${counted(concept.images, "image")}`)
      )
    )
  );
  if (!offered.length) found.append(make("li", { class: "none soft", role: "option", "aria-disabled": "true" }, "No concept has this name."));
  count.textContent = open ? `${counted(all.length, "concept")} found` : "";
  unfold(open);
  mark();
}

function unfold(open) {
  found.hidden = !open;
  query.setAttribute("aria-expanded", String(open));
  if (!open) query.removeAttribute("aria-activedescendant");
}

function mark() {
  [...found.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === chosen)));
  if (chosen < 0) return query.removeAttribute("aria-activedescendant");
  query.setAttribute("aria-activedescendant", `option-${chosen}`);
  found.children[chosen].scrollIntoView({ block: "nearest" });
}

function take(i) {
  const concept = offered[i];
  query.value = "";
  unfold(false);
  go(address(concept));
}

query.addEventListener("input", offer);
query.addEventListener("focus", () => query.value.trim() && unfold(true));
query.addEventListener("keydown", (event) => {
  const steps = { ArrowDown: 1, ArrowUp: -1 };
  if (event.key in steps) {
    event.preventDefault();
    if (found.hidden) return offer();
    if (offered.length) chosen = (chosen + steps[event.key] + offered.length) % offered.length;
    mark();
  } else if (event.key === "Enter" && !found.hidden && chosen >= 0) {
    event.preventDefault();
    take(chosen);
  } else if (event.key === "Escape") {
    if (found.hidden) query.value = "";
    unfold(false);
  }
});
found.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
query.addEventListener("blur", () => unfold(false));
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, select, textarea");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    query.focus();
  }
});

// ---- Addresses: #overview, #index/object, #figure, #reading, #object/car

const main = document.getElementById("main");
const VIEWS = [["overview", "Overview"], ["index", "Index"], ...(data.figure ? [["figure", "Figure"]] : []), ["reading", "Help"]];

function view() {
  const hash = location.hash.slice(1) || "overview";
  const cut = hash.indexOf("/");
  const first = decoded(cut < 0 ? hash : hash.slice(0, cut));
  const rest = cut < 0 ? "" : decoded(hash.slice(cut + 1));
  if (first === "overview") return [first, "Overview", overviewView()];
  if (first === "index") return [first, TASKS.includes(rest) ? plural(rest) : "Index", indexView(rest)];
  if (first === "figure") return [first, "Scenes and objects", figureView()];
  if (first === "reading") return [first, "How to read this page", readingView()];
  const concept = byName.get(`${first}/${rest}`);
  if (concept) return ["index", concept.label, conceptView(concept)];
  return ["", "Not found", [heading("Not found"), make("p", {}, `No concept is called ${rest || first}. `, make("a", { href: "#index" }, "Index"))]];
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show(focus) {
  const graph = document.getElementById("graph");
  if (graph && window.Plotly) window.Plotly.purge(graph);
  redraw = () => {};
  const [current, title, content] = view();
  document.title = `${title} – Visual knowledge`;
  document.getElementById("views").replaceChildren(
    ...VIEWS.map(([name, text]) => make("a", { href: `#${name}`, "aria-current": name === current ? "page" : null }, text))
  );
  main.replaceChildren(...content.filter(Boolean));
  if (!focus) return;
  // Back leads to the link and the place that were left; a new view begins at its top.
  const left = history.state;
  const link = left?.link && [...main.querySelectorAll("a")].find((a) => a.getAttribute("href") === left.link);
  (link || main.querySelector("h1")).focus({ preventScroll: true });
  scrollTo(0, left?.y ?? 0);
}

function remember(link) {
  history.replaceState({ y: scrollY, link }, "");
}

function go(link) {
  remember(link);
  if (location.hash === link) show(true);
  else location.hash = link;
}

history.scrollRestoration = "manual";
addEventListener("hashchange", () => show(true));
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  if (link.id === "skip") main.focus();
  else go(link.getAttribute("href"));
});
dark.addEventListener("change", () => redraw());
let resizing = 0;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => redraw(), 200);
});
show(false);
