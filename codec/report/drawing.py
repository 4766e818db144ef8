"""How every plot of a report is drawn: its looks by matplotlib, and an <svg> element that can stand in a page among others.

A plot has a scale of its own, 4.4 inches wide, so that its text can be read on a phone. In the page it has no fixed size, ids of
its own, the same fonts as the page (an image cannot inherit them), a title and a description in words. Codecs are told apart by
colour (Okabe and Ito's), by marker and by line: nvc is solid, anchors are dashed. Equal figures give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from nvc.bitstream.errors import MachineError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
SIZE = (4.4, 2.7)  # inches of 72 units, without keys
LEGEND_ROW = 0.18
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"  # page.css has the same
INK = "#010203"  # stands for the page's colour of text; replaced by currentColor
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nvc",
    "text.parse_math": False,
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "legend.fontsize": 8.5,
    "hatch.linewidth": 0.6,
    "hatch.color": "#ffffff",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
Dashes = str | tuple[int, tuple[float, ...]]
# Colour, marker, dashes and width of line by kind and number of a codec. Thin over thick: both show where they coincide.
LOOKS: dict[str, tuple[tuple[str, str, Dashes, float], ...]] = {
    "nvc": (
        ("#d55e00", "o", "solid", 2.8),
        ("#cc79a7", "s", "solid", 1.2),
        ("#e69f00", "D", (0, (5, 1)), 1.6),
    ),
    "anchor": (
        ("#0072b2", "^", (0, (4, 2)), 1.3),
        ("#009e73", "v", (0, (1.5, 1.5)), 1.3),
        ("#56b4e9", "P", (0, (6, 2, 1.5, 2)), 1.3),
        ("#7f7f7f", "X", (0, (2, 3)), 1.3),
    ),
}


@dataclass(frozen=True)
class Style:
    """How a codec is drawn in every plot of a report."""

    label: str
    kind: str
    colour: str
    marker: str
    dashes: Dashes
    width: float

    def line(self) -> dict[str, Any]:
        order = 3 if self.kind == "nvc" else 2.5  # nvc over anchors, whichever is drawn first
        return {"color": self.colour, "linestyle": self.dashes, "linewidth": self.width, "zorder": order}

    def marks(self) -> dict[str, Any]:
        return {"marker": self.marker, "markersize": 3.2 + 1.1 * self.width, "markeredgewidth": 0}


def styles_of(codecs: Sequence[Document]) -> dict[str, Style]:
    """Styles by codec id, in the order of the codecs of a kind."""
    styles = {}
    for kind in ("nvc", "anchor"):
        for i, codec in enumerate(codec for codec in codecs if codec["kind"] == kind):
            styles[codec["id"]] = Style(_plain(codec["label"]), kind, *LOOKS[kind][i % len(LOOKS[kind])])
    return styles


@dataclass(frozen=True)
class Drawing:
    """A figure with its words."""

    figure: Figure
    title: str
    description: str


# ---- parts of plots


def new_figure(height: float = SIZE[1]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=INK, linewidth=0.5, alpha=0.18)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    return figure, axes


def add_legend(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """The keys above the axes, where they cover nothing, in as many columns as have room; the figure grows by their rows."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), floor(62 / (max(map(len, labels)) + 7)), 4))
    rows = ceil(len(labels) / columns) + (title is not None)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * rows)
    look = {
        "frameon": False,
        "handlelength": 2.6,
        "columnspacing": 1.2,
        "borderaxespad": 0,
        "alignment": "left",
        "title_fontsize": 9,
    }
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, title=title, **look)


def logarithmic(axis: Any, values: Sequence[float], form: str = "{:g}") -> None:
    """A logarithmic axis around the values, with plain numbers at its ticks."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    low, high = min(values), max(values)
    margin = max((high / low) ** 0.06, 1.05)
    ticks = ticks_between(low / margin, high * margin)
    if axis.axis_name == "x":
        axis.axes.set_xscale("log")
        axis.axes.set_xlim(low / margin, high * margin)
    else:
        axis.axes.set_yscale("log")
        axis.axes.set_ylim(low / margin, high * margin)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FixedFormatter([form.format(tick) for tick in ticks]))


def ticks_between(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high` for a logarithmic axis: as many as a small plot has room for, at most seven."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    best: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)):
        found = [tick for decade in decades for step in steps if low <= (tick := float(f"{step}e{decade}")) <= high]
        best = found if len(found) <= 7 else best
    return best


def shortened(label: str, most: int = 30) -> str:
    """A label that leaves room for the plot: its middle left out where it is long."""
    label = _plain(label)
    return label if len(label) <= most else f"{label[: most // 2]}…{label[len(label) - most // 2 + 1 :]}"


def _plain(label: str) -> str:
    """A label in one line; matplotlib takes one that begins with _ for none, and a space in front of it is not shown."""
    label = " ".join(_legal(label).split())
    return f" {label}" if label.startswith("_") else label


# ---- SVG


@contextmanager
def our_matplotlib() -> Iterator[None]:
    """Our settings of matplotlib, whatever those of the user are; no warning of letters that its own font lacks."""
    try:
        import matplotlib
    except ImportError as error:
        raise MachineError("extra", "plots need the package matplotlib: pip install 'nvc-codec[report]'") from error
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def as_svg(key: str, drawing: Drawing) -> str:
    """The drawing as one <svg> element, without metadata, of which every id begins with a prefix that is the key's own."""
    file = io.BytesIO()
    drawing.figure.savefig(file, format="svg", transparent=True)
    root = ElementTree.fromstring(_legal(file.getvalue().decode()))
    prefix = f"p{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()[:10]}-"
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style")]:
            parent.remove(child)
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, _attribute(name, value, prefix))
    words = [ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{prefix}{tag}"}) for tag in ("title", "desc")]
    for element, text in zip(words, (drawing.title, drawing.description), strict=True):
        element.text = _legal(text)
    root[:0] = words
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update(
        {"viewBox": view, "role": "img", "aria-labelledby": f"{prefix}title {prefix}desc"}
        | {"stroke-linejoin": "round", "stroke-linecap": "butt", "font-family": FONTS}
    )
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(name: str, value: str, prefix: str) -> str:
    """An attribute's value with ids of the plot's own, the colour of text for ink and the drawing's font."""
    if name == "id":
        return prefix + value
    if name in ("href", f"{{{XLINK}}}href"):
        return re.sub("^#", f"#{prefix}", value)
    if name in ("d", "x", "y", "width", "height", "transform"):
        value = re.sub(r"-?\d+\.\d+", lambda number: f"{round(float(number[0]), 2) + 0.0:g}", value)
        value = re.sub(r" ?\n ?| {2,}", " ", value).strip()
    if name == "style":
        value = re.sub(r"font: (?:[a-z]+ |\d+ )*([\d.]+px)[^;]*", r"font-size: \1", value)
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
    return value.replace("url(#", f"url(#{prefix}").replace(INK, "currentColor")


def _legal(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
