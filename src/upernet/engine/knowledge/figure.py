"""The bipartite graph of scenes and objects (Xiao et al. 2018, section 4.2), ordered by clustering, drawn by Plotly."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from upernet.engine.knowledge.findings import Concept, Knowledge, Relation
from upernet.files import write_whole

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter

KIND = "scene-object"
"""The relation that is drawn."""
PALETTE = ("#2f6fc4", "#c8572b", "#2f8f4e", "#8a4fc0", "#b8860b", "#c23b72", "#1f8a91", "#6f7a1f")
"""Colours of the groups of scenes. Neighbouring groups differ; all can be seen on white and on black."""
STRENGTHS = ((0.8, 2.4, 0.75), (0.6, 1.9, 0.55), (0.4, 1.4, 0.42), (0.2, 1.0, 0.3), (0.0, 0.7, 0.22))
"""Smallest likelihood, width in pixels and opacity of a line, strongest first."""
FONT = {"family": "system-ui, 'Segoe UI', 'Noto Sans', sans-serif"}
"""The fonts of a figure: those of the system, so that nothing is loaded."""
MOST_ORDERED = 600
"""Most scenes whose tree's leaves are put in the best order, which takes time with the cube of their number."""
CURVED = 1500
"""Most lines that are drawn as curves; more are straight, so that the figure stays quick."""
STEPS = 20
"""Straight pieces of a curve."""
LABEL_ROOM = 0.3
"""Room for names on either side, as a share of the distance between the two columns."""
ROW = 14
"""Height of a node in pixels, while the figure is not higher than `HIGHEST`."""
LOWEST, HIGHEST = 360, 6000
"""Limits of the figure's height in pixels."""
LABEL_ROW = 9
"""Where nodes are nearer than this, in pixels, only the most frequent of neighbours has its name beside it."""
LABEL_LENGTH = 26
"""Most characters of a name beside a node; the whole one appears when the pointer is over the node."""
HOVER_EDGES = 8
"""Most edges that are listed when the pointer is over a node."""


@dataclass(frozen=True)
class Arrangement:
    """The order of the nodes, from top to bottom, as ids of concepts.

    Attributes:
        scenes: Scenes that have an edge; those in which similar objects appear are neighbours.
        groups: For each of `scenes`, the number of its cluster, from 0. A cluster's scenes stand together.
        objects: Objects that have an edge, each near the middle of its scenes.
    """

    scenes: tuple[int, ...]
    groups: tuple[int, ...]
    objects: tuple[int, ...]


def arrange(knowledge: Knowledge) -> Arrangement:
    """Order scenes and objects so that similar ones are neighbours and edges are short.

    Scenes are clustered by the likelihoods of their objects (Ward's method). The order of the tree's leaves is the one
    with the most similar neighbours, up to `MOST_ORDERED` scenes. An object takes the mean place of its scenes,
    weighted by likelihood.
    """
    relations = [relation for relation in knowledge.relations if relation.kind == KIND]
    scenes = sorted({relation.source for relation in relations})
    objects = sorted({relation.target for relation in relations})
    rows, columns = ({concept: i for i, concept in enumerate(ids)} for ids in (scenes, objects))
    shares = np.zeros((len(scenes), len(objects)))
    for relation in relations:
        shares[rows[relation.source], columns[relation.target]] = relation.share
    order, groups = _cluster(shares)
    shares = shares[order]
    places = (np.arange(len(scenes)) @ shares) / shares.sum(0).clip(1e-12)
    # Rounding keeps ties ties on every machine; they go by id.
    by_place = np.argsort(places.round(9), kind="stable")
    return Arrangement(
        tuple(scenes[i] for i in order), tuple(groups[i] for i in order), tuple(objects[i] for i in by_place)
    )


def scene_object_figure(knowledge: Knowledge, min_share: float) -> Figure:
    """The bipartite graph: scenes left, objects right, an edge for each likelihood of an object in a scene.

    Args:
        knowledge: Its scene-object relations are drawn.
        min_share: Edges of a smaller likelihood are dropped, and so are nodes without an edge. 0 to 1.

    Returns:
        The figure. Its height grows with the number of nodes. A node's `customdata` is the id of its concept.
    """
    import plotly.graph_objects as go

    arrangement = arrange(knowledge)
    edges = [relation for relation in knowledge.relations if relation.kind == KIND and relation.share >= min_share]
    kept = {edge.source for edge in edges} | {edge.target for edge in edges}
    groups = dict(zip(arrangement.scenes, arrangement.groups, strict=True))
    columns = [[id for id in ids if id in kept] for ids in (arrangement.scenes, arrangement.objects)]
    height = min(HIGHEST, max(LOWEST, ROW * max(map(len, columns))))
    places = {id: 1 - (i + 0.5) / len(ids) for ids in columns for i, id in enumerate(ids)}
    figure = go.Figure(layout=_layout(height + 80, min_share, bool(edges)))
    figure.add_traces(_lines(edges, groups, places))
    for ids, left in zip(columns, (True, False), strict=True):
        if ids:
            figure.add_trace(_nodes(knowledge, edges, ids, groups, places, height, left))
    return figure


def write_figure(path: Path, knowledge: Knowledge, min_share: float) -> None:
    """Write the bipartite graph as an HTML page that works offline; one of its buttons saves it as SVG.

    Args:
        path: Replaced if it exists.
        knowledge: As for `scene_object_figure`.
        min_share: As for `scene_object_figure`.

    Raises:
        OSError: If the file cannot be written.
    """
    from plotly.io import to_html

    body = to_html(
        scene_object_figure(knowledge, min_share),
        config=plot_config(),
        include_plotlyjs=True,
        full_html=False,
        div_id="scene-object",  # Plotly would draw a random one
        default_height=None,
    )
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    icon = '<link rel="icon" href="data:,">'
    page = f'<!doctype html>\n<html lang="en">\n<head>{head}{icon}<title>Scenes and objects</title></head>\n'
    page += f'<body style="margin: 0">\n{body}\n</body>\n</html>\n'
    write_whole(path, lambda file: file.write(page.encode()))


def plot_config() -> dict[str, Any]:
    """Plotly's options: one button, which saves an SVG. Among the others is one that sends the figure to a server."""
    return {
        "displaylogo": False,
        "displayModeBar": True,
        "responsive": True,
        "modeBarButtons": [["toImage"]],
        "plotlyServerURL": "",
        "toImageButtonOptions": {"format": "svg", "filename": KIND},
    }


def _cluster(shares: np.ndarray) -> tuple[list[int], list[int]]:
    """Order of the rows, and each row's group; groups are numbered in this order."""
    count = len(shares)
    if count < 3:
        return list(range(count)), [0] * count
    from scipy.cluster.hierarchy import fcluster, leaves_list, linkage

    tree = linkage(shares, "ward", optimal_ordering=count <= MOST_ORDERED)
    order = [int(leaf) for leaf in leaves_list(tree)]
    wanted = min(len(PALETTE), max(2, round(math.sqrt(count) / 2)))
    found = fcluster(tree, wanted, "maxclust")
    numbers = {group: i for i, group in enumerate(dict.fromkeys(found[order].tolist()))}
    return order, [numbers[group] for group in found.tolist()]


def _lines(edges: Sequence[Relation], groups: dict[int, int], places: dict[int, float]) -> list[Scatter]:
    """One trace for each strength and group, weak ones first so that strong ones lie above them."""
    import plotly.graph_objects as go

    steps = np.linspace(0, 1, STEPS + 1 if len(edges) <= CURVED else 2)
    bend = steps**2 * (3 - 2 * steps)
    bundles: dict[tuple[int, int], list[Relation]] = {}
    for edge in edges:
        strength = next(i for i, (least, _, _) in enumerate(STRENGTHS) if edge.share >= least)
        bundles.setdefault((strength, groups[edge.source]), []).append(edge)
    traces = []
    for (strength, group), bundle in sorted(bundles.items(), key=lambda item: (-item[0][0], item[0][1])):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for edge in bundle:
            begin, end = places[edge.source], places[edge.target]
            xs += [*steps.round(4).tolist(), None]
            ys += [*(begin + (end - begin) * bend).round(6).tolist(), None]
        _, width, opacity = STRENGTHS[strength]
        style = {"color": PALETTE[group], "width": width}
        traces.append(go.Scatter(x=xs, y=ys, mode="lines", line=style, opacity=opacity, hoverinfo="skip"))
    return traces


def _nodes(
    knowledge: Knowledge,
    edges: Sequence[Relation],
    ids: Sequence[int],
    groups: dict[int, int],
    places: dict[int, float],
    height: int,
    left: bool,
) -> Scatter:
    import plotly.graph_objects as go

    concepts = [knowledge.concepts[id] for id in ids]
    beside: dict[int, list[tuple[float, str]]] = {id: [] for id in ids}
    for edge in edges:
        end, other = (edge.source, edge.target) if left else (edge.target, edge.source)
        beside[end].append((edge.share, knowledge.concepts[other].name))
    row = height / len(ids)
    return go.Scatter(
        x=[0 if left else 1] * len(ids),
        y=[round(places[id], 6) for id in ids],
        mode="markers+text",
        # A hard space keeps the name off its node.
        text=[name and (f"{name}\u00a0" if left else f"\u00a0{name}") for name in _labels(concepts, row)],
        textposition="middle left" if left else "middle right",
        textfont={"size": round(min(13.0, max(9.0, 0.8 * row)), 1)},
        marker={
            "symbol": "square" if left else "circle",
            "size": 8,
            "color": [PALETTE[groups[id]] for id in ids] if left else "#5b626e",
        },
        customdata=list(ids),
        hovertext=[_hover(concept, beside[concept.id]) for concept in concepts],
        hoverinfo="text",
        cliponaxis=False,
    )


def _labels(concepts: Sequence[Concept], row: float) -> list[str]:
    """Names beside nodes that are `row` pixels apart; where that is too near, of the most frequent of neighbours."""
    several = math.ceil(LABEL_ROW / row)
    labels = [""] * len(concepts)
    for begin in range(0, len(concepts), several):
        chosen = max(range(begin, min(begin + several, len(concepts))), key=lambda i: concepts[i].images)
        name = concepts[chosen].name
        labels[chosen] = _plain(name if len(name) <= LABEL_LENGTH else name[: LABEL_LENGTH - 1] + "…")
    return labels


def _hover(concept: Concept, beside: list[tuple[float, str]]) -> str:
    beside = sorted(beside, key=lambda edge: -edge[0])
    lines = [f"{100 * share:.0f} % {_plain(name)}" for share, name in beside[:HOVER_EDGES]]
    if len(beside) > HOVER_EDGES:
        lines.append(f"and {len(beside) - HOVER_EDGES} more")
    return "<br>".join([f"<b>{_plain(concept.name)}</b> ({concept.task})", *lines])


def _plain(name: str) -> str:
    """A class's name for Plotly, which reads HTML tags in texts."""
    return html.escape(name.replace("_", " "), quote=False)


def _layout(height: int, min_share: float, anything: bool) -> dict[str, Any]:
    hidden = {"visible": False, "fixedrange": True}
    note = f"Lines: the object appears in at least {100 * min_share:.3g} % of the scene's images, thicker ones in more."
    title = f"Scenes and objects<br><sup>{note}</sup>"
    nothing = {"text": "No scene and object go together that often.", "showarrow": False, "x": 0.5, "y": 0.5}
    return {
        "template": "none",
        "title": {"text": title, "x": 0.5, "y": 1 - 28 / height, "yanchor": "top"},
        "font": FONT | {"color": "#20242c"},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "height": height,
        "margin": {"l": 10, "r": 10, "t": 70, "b": 10},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#565d69", "activecolor": "#20242c"},
        # Names lie inside the axes, where Plotly notices the pointer.
        "xaxis": hidden | {"range": [-LABEL_ROOM, 1 + LABEL_ROOM]},
        "yaxis": hidden | {"range": [0, 1]},
        "showlegend": False,
        "hovermode": "closest",
        "hoverdistance": 150,
        "hoverlabel": {"align": "left", "font": FONT},
        "dragmode": False,
        "annotations": [] if anything else [nothing],
    }
