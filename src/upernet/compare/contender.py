"""What is measured beside what: implementations as plain descriptions, which any process can open."""

from __future__ import annotations

from dataclasses import dataclass

from upernet.compare.implementation import Opening
from upernet.model import UPerNet


@dataclass(frozen=True)
class Contender:
    """An implementation before it is opened.

    Attributes:
        name: `upernet`, or the name of the other software in `--compare`.
        opening: Opens it.
        exact: Our network with the configuration and the weights that it has; in float64 it tells how exact answers
            are. None if there is none, of an exported file.
        engine: The engine that computes: `torch`, `openvino`, `onnxruntime` or `mnn`.
        form: `fused`, `plain` or `exported`, the form of the network that it computes.
        differences: The differences of its network or its answers from ours, in words.
        multiply_adds: Number of multiply-adds for one image, all its windows included; None to have it counted in the
            opened network.
        parameters: Number of parameters; None to have it counted in the opened network.
    """

    name: str
    opening: Opening
    exact: UPerNet | None
    engine: str = "torch"
    form: str = "plain"
    differences: tuple[str, ...] = ()
    multiply_adds: int | None = None
    parameters: int | None = None

    @property
    def label(self) -> str:
        """Its name, and for our own the engine: no two contenders have the same."""
        return f"{self.name} {self.engine}" if self.name == "upernet" else self.name

    @property
    def keeps_graph(self) -> bool:
        """Whether its first use keeps a graph on disk, which later uses find there."""
        return self.name == "upernet" and self.engine != "torch" and self.form != "exported"
