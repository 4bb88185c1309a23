"""Charts as inline SVG: no script, no network, coloured by the page's own style sheet.

Series are told apart by the classes ``s0`` to ``s5``; what a mark stands for is in its ``<title>``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from mobileinst_deploy.core.text import shown

WIDTH, HEIGHT = 640, 220
#: What an axis of AP spans at the least, in hundredths. The paper's Figure 1 spans ten.
LEAST_AP_SPAN = 5.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 24, 36
#: More points than a screen has columns only make the page heavy.
_MOST_POINTS = 600
_SERIES = 6
#: So few points are marked one by one.
_FEW_POINTS = 12
#: Width of a letter of the page's 11px, rather too wide than cut off.
_LETTER = 6.4
#: Height of its line.
_LINE = 12.0


@dataclass(frozen=True)
class Series:
    """One line or set of points.

    Attributes:
        name: For the legend.
        x: Of each point.
        y: Of each point; NaN leaves a gap.
        joined: Whether points are joined by a line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    joined: bool = True


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: What it stands for.
        value: Its length.
        shown: The value for people.
    """

    name: str
    value: float
    shown: str


def lines(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    zero: bool = False,
    counted: bool = False,
) -> str:
    """Lines or points over a common axis.

    Args:
        series: At most six are told apart.
        x_label: With its unit.
        y_label: With its unit.
        zero: Whether the vertical axis begins at 0.
        counted: Whether the horizontal axis counts things: then points are few, large and whole.
    """
    xs = np.concatenate([np.zeros(0), *(np.asarray(s.x, float) for s in series)])
    ys = np.concatenate([np.zeros(0), *(np.asarray(s.y, float) for s in series)])
    ys = ys[np.isfinite(ys)]
    if not len(xs) or not len(ys):
        return ""
    low = 0.0 if zero else float(ys.min()) - 0.05 * float(np.ptp(ys))
    x, y = _scales((xs.min(), xs.max()), (low, float(ys.max()) + 0.05 * float(np.ptp(ys))))
    body = []
    for number, each in enumerate(series):
        points = _thinned(np.asarray(each.x, float), np.asarray(each.y, float))
        colour = f"s{number % _SERIES}"
        if each.joined:
            path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
            body.append(f'<polyline class="{colour} line" points="{path}"/>')
        radius = 3.5 if counted else 1.4
        if counted or not each.joined:
            body += [
                f'<circle class="{colour}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="{radius}">'
                f"<title>{_text(each.name)}: {_short(b)} at {_short(a)}</title></circle>"
                for a, b in points
            ]
    frame = _axes(x, y, (xs.min(), xs.max()), (low, float(ys.max())), x_label, y_label, counted)
    return _svg([*frame, *body], HEIGHT) + _legend([s.name for s in series])


#: Of a picture that no page colours; the colours can be told apart by the colour-blind.
_STYLE = """
svg{font:11px sans-serif;fill:#333;background:#fff}
.axis,.grid{fill:none;stroke:#999}.grid{stroke:#e5e5e5}
.line{fill:none;stroke-width:1.5}
""" + "".join(
    f".s{number}{{fill:{colour}}}.s{number}.line{{fill:none;stroke:{colour}}}"
    for number, colour in enumerate(
        ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
    )
)


def picture(charts: Sequence[Sequence[Series]], x_label: str, y_labels: Sequence[str]) -> str:
    """Charts of lines one below the other, as an SVG file that stands alone.

    Args:
        charts: The series of each; one without a point is left out.
        x_label: Of all.
        y_labels: Of each.
    """
    body, top = [], 0
    for series, y_label in zip(charts, y_labels, strict=True):
        # A line through a single point cannot be seen.
        few = max((len(one.x) for one in series), default=0) < _FEW_POINTS
        drawn = lines(series, x_label, y_label, zero=True, counted=few).split("</svg>")[0]
        if not drawn:
            continue
        names = "".join(
            f'<tspan class="s{n % _SERIES}" dx="10">{_text(one.name)}</tspan>'
            for n, one in enumerate(series)
        )
        body.append(
            f'<svg y="{top}" height="{HEIGHT}" {drawn.removeprefix("<svg ")}</svg>'
            f'<text x="{_LEFT}" y="{top + HEIGHT + 12}">{names}</text>'
        )
        top += HEIGHT + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
        f'viewBox="0 0 {WIDTH} {max(top, 1)}"><style>{_STYLE}</style>{"".join(body)}</svg>\n'
    )


def histogram(series: Sequence[tuple[str, Sequence[float]]], x_label: str) -> str:
    """Distributions over a common axis; the slowest 0.5 % share the last bin.

    Args:
        series: A name and the values of each.
        x_label: With its unit.
    """
    values = [np.asarray(v, float) for _, v in series]
    low = min(float(v.min()) for v in values)
    high = max(float(np.percentile(v, 99.5)) for v in values)
    high = high if high > low else low + max(abs(low), 1e-9) * 0.01
    edges = np.linspace(low, high, 61)
    counts = [np.histogram(np.minimum(v, high), edges)[0] / len(v) for v in values]
    top = max(float(c.max()) for c in counts)
    x, y = _scales((low, high), (0.0, top))
    body = []
    for number, ((name, _), found, raw) in enumerate(zip(series, counts, values, strict=True)):
        for share, a, b in zip(found, edges, edges[1:], strict=False):
            if share:
                body.append(
                    f'<rect class="s{number % _SERIES} fill" x="{x(a):.1f}" y="{y(share):.1f}"'
                    f' width="{max(x(b) - x(a) - 0.5, 0.5):.1f}"'
                    f' height="{y(0) - y(share):.1f}"><title>{_text(name)}: {share:.1%}'
                    f" from {_short(a)} to {_short(b)}</title></rect>"
                )
        for label, at in (("p50", np.median(raw)), ("p90", np.percentile(raw, 90))):
            if at <= high:
                body.append(
                    f'<line class="s{number % _SERIES} mark" x1="{x(float(at)):.1f}" y1="{_TOP}"'
                    f' x2="{x(float(at)):.1f}" y2="{y(0):.1f}"><title>{_text(name)} {label}:'
                    f" {_short(float(at))}</title></line>"
                )
    frame = _axes(x, y, (low, high), (0.0, top), x_label, "share of runs")
    return _svg([*frame, *body], HEIGHT) + _legend([name for name, _ in series])


def bars(rows: Sequence[Bar], *, scale: float | None = None) -> str:
    """Horizontal bars with their names and values.

    Args:
        rows: From the top down.
        scale: The value that fills the width; None means the largest.
    """
    top = scale or max((row.value for row in rows), default=0.0) or 1.0
    longest = max((len(row.name) for row in rows), default=0)
    step, left = 20, min(max(210, round(_LETTER * longest) + 12), WIDTH - 210)
    room = WIDTH - left - 110
    body = []
    for number, row in enumerate(rows):
        middle = number * step + 14
        length = room * min(row.value / top, 1.0)
        body.append(
            f'<text x="{left - 8}" y="{middle}" text-anchor="end">{_text(row.name)}</text>'
            f'<rect class="s0 fill" x="{left}" y="{number * step + 4}" width="{length:.1f}"'
            f' height="13"/>'
            f'<text x="{left + length + 6:.1f}" y="{middle}">{_text(row.shown)}</text>'
        )
    return _svg(body, max(1, len(rows)) * step + 6)


@dataclass(frozen=True)
class Point:
    """One named point.

    Attributes:
        name: Written beside it.
        x: Across.
        y: Up.
    """

    name: str
    x: float
    y: float


def scatter(points: Sequence[Point], x_label: str, y_label: str, *, least_span: float = 0.0) -> str:
    """Named points, such as AP over latency (the paper's Figure 1).

    Args:
        points: At least one.
        x_label: With its unit; the axis begins at 0.
        y_label: With its unit.
        least_span: What the vertical axis spans at the least, in its unit: points that hardly
            differ shall not look as if they did.
    """
    right = 1.12 * max(p.x for p in points) or 1.0
    low, high = min(p.y for p in points), max(p.y for p in points)
    room = max(0.1 * (high - low), (least_span - (high - low)) / 2) or 0.1 * abs(high) or 1.0
    xs, ys = (0.0, right), (low - room, high + room)
    x, y = _scales(xs, ys)
    names = _beside([(x(p.x), y(p.y), p.name, p.x > 0.6 * right) for p in points])
    body = []
    for number, (each, (left, middle, anchor)) in enumerate(zip(points, names, strict=True)):
        body.append(
            f'<circle class="s{number % _SERIES}" cx="{x(each.x):.1f}" cy="{y(each.y):.1f}" r="4">'
            f"<title>{_text(each.name)}: {_short(each.y)} at {_short(each.x)}</title></circle>"
            f'<text x="{left:.1f}" y="{middle + 4:.1f}"'
            f' text-anchor="{anchor}">{_text(each.name)}</text>'
        )
    return _svg([*_axes(x, y, xs, ys, x_label, y_label), *body], HEIGHT)


def _beside(marks: Sequence[tuple[float, float, str, bool]]) -> list[tuple[float, float, str]]:
    """Where the names of marks go: beside each, and higher or lower where another is in the way.

    Args:
        marks: x, y, name, and whether the name goes to the left, as in the right half it would
            leave the picture.

    Returns:
        x, y and anchor of each name.
    """
    taken = [(x - 5, x + 5, y) for x, y, _, _ in marks]
    found = []
    for x, y, name, left in marks:
        width = _LETTER * min(len(name), 120)
        start, end = (x - 7 - width, x - 7) if left else (x + 7, x + 7 + width)
        places = (y + step * _LINE for step in (0, -1, 1, -2, 2, -3, 3))
        free = (
            at
            for at in places
            if _TOP <= at <= HEIGHT - _BOTTOM
            and all(end < a or b < start or abs(at - c) >= _LINE for a, b, c in taken)
        )
        at = next(free, y)
        taken.append((start, end, at))
        found.append((x - 7 if left else x + 7, at, "end" if left else "start"))
    return found


#: What the page's style sheet says, for a chart that stands alone.
_ALONE = (
    "svg{background:#fff;font:11px sans-serif}.tick{fill:#5b646e;font-size:10px}"
    ".axis{fill:none;stroke:#5b646e}.grid{stroke:#d9dde1;stroke-width:.7}"
    ".s0{fill:#1f6fb2}.s1{fill:#c4561b}.s2{fill:#2f8f4e}.s3{fill:#8a4fb0}.s4{fill:#a08000}"
    ".s5{fill:#b03060}"
)


def alone(svg: str) -> str:
    """A chart of named points as a file of its own: with its name space and its colours."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" '
    body = svg.removeprefix("<svg ")
    opening, _, rest = body.partition(">")
    return f"{head}{opening}><style>{_ALONE}</style>{rest}\n"


Scale = Callable[[float], float]


def _scales(xs: tuple[float, float], ys: tuple[float, float]) -> tuple[Scale, Scale]:
    width = (xs[1] - xs[0]) or 1.0
    height = (ys[1] - ys[0]) or 1.0

    def x(value: float) -> float:
        return _LEFT + (value - xs[0]) / width * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - ys[0]) / height * (HEIGHT - _TOP - _BOTTOM)

    return x, y


def _axes(
    x: Scale,
    y: Scale,
    xs: tuple[float, float],
    ys: tuple[float, float],
    x_label: str,
    y_label: str,
    counted: bool = False,
) -> list[str]:
    base = HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT},{_TOP}V{base}H{WIDTH - _RIGHT}"/>']
    for tick in _ticks(*xs, whole=counted):
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{base + 14}" text-anchor="middle">'
            f"{_short(tick)}</text>"
        )
    for tick in _ticks(*ys):
        parts.append(
            f'<path class="grid" d="M{_LEFT},{y(tick):.1f}H{WIDTH - _RIGHT}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 3:.1f}" text-anchor="end">'
            f"{_short(tick)}</text>"
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{_text(x_label)}</text>'
        # Beside the axis it would lie on the numbers of a small scale.
        f'<text x="4" y="12">{_text(y_label)}</text>'
    )
    return parts


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers within a range."""
    if not high > low:
        return [low]
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    step = max(step, 1.0) if whole else step
    first = np.ceil(low / step) * step
    return [float(v) for v in np.arange(first, high + step * 1e-6, step)]


def _thinned(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """Points that can be drawn, at most :data:`_MOST_POINTS`; the extremes of each stretch stay."""
    kept = np.isfinite(y)
    x, y = x[kept], y[kept]
    if len(x) > _MOST_POINTS:
        chosen: set[int] = set()
        for part in np.array_split(np.arange(len(x)), _MOST_POINTS // 2):
            chosen |= {int(part[np.argmin(y[part])]), int(part[np.argmax(y[part])])}
        order = sorted(chosen)
        x, y = x[order], y[order]
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _short(value: float) -> str:
    """A number of at most four figures, or a whole one below a million.

    Example:
        >>> _short(0.123456), _short(15000.0), _short(2e7)
        ('0.1235', '15,000', '2.000e+07')
    """
    if abs(value) >= 1e6:
        return f"{value:.3e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _text(name: str) -> str:
    """A name as text of the page, whatever it holds."""
    return escape(shown(name, 120))


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    items = "".join(
        f'<span><i class="s{n % _SERIES}"></i>{_text(name)}</span>' for n, name in enumerate(names)
    )
    return f'<p class="legend">{items}</p>'


def _svg(body: Sequence[str], height: float) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" preserveAspectRatio="xMinYMin meet">'
        f"{''.join(body)}</svg>"
    )
