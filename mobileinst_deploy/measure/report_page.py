"""What was measured, as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import jinja2
import numpy as np

from mobileinst_deploy.core.text import shown
from mobileinst_deploy.core.version import __version__
from mobileinst_deploy.measure.charts import (
    LEAST_AP_SPAN,
    Bar,
    Point,
    Series,
    bars,
    histogram,
    lines,
    scatter,
)
from mobileinst_deploy.measure.instructions import MACS, InstructionRecord, bound
from mobileinst_deploy.measure.latency_table import LatencyTable, latency_table
from mobileinst_deploy.measure.record import LatencyRecord

#: The amortised cost is drawn for every T up to this one.
LONGEST_CLIP = 12
#: A page of more measurements than these draws the newest alone.
MOST_DRAWN = 6


@dataclass(frozen=True)
class Tensor:
    """Parity of one output tensor.

    Attributes:
        graph: Role of its graph.
        tensor: Its name.
        max_abs: Largest difference from PyTorch.
        max_excess: That over what is allowed; passes up to 1.
        cosine: Lowest cosine similarity.
        passed: Whether all of it is within tolerance.
    """

    graph: str
    tensor: str
    max_abs: float
    max_excess: float
    cosine: float
    passed: bool


@dataclass(frozen=True)
class Counted:
    """Executed instructions of a pair by one runtime.

    Attributes:
        instructions: By graph.
        kinds: By graph and kind; empty where an older version counted.
    """

    instructions: Mapping[str, int]
    kinds: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Placed:
    """A pair of which both latency and AP are known: a point of the paper's Figure 1.

    Attributes:
        name: Of the pair, its form and runtime.
        device: Where the latency was measured.
        on: Name of the annotations that AP was measured on.
        on_sha256: Of that file.
        clip_length: T of the latency, the shortest measured.
        ms: An average frame.
        ap: In [0, 1].
    """

    name: str
    device: str
    on: str
    on_sha256: str
    clip_length: int
    ms: float
    ap: float


@dataclass(frozen=True)
class Findings:
    """Everything that the page can show; what is empty is left out.

    Attributes:
        title: Of the page.
        records: Latency, by name, the oldest first.
        counts: Executed instructions, by runtime and form.
        parity: Tensors by where they were computed.
        shares: Part or operator and its share of a graph's time, by caption.
        precision: AP by what was evaluated.
        unreadable: Results that could not be read, with the reason.
        placed: Pairs of which both latency and AP are known.
    """

    title: str
    records: Mapping[str, LatencyRecord]
    counts: Mapping[str, Counted]
    parity: Mapping[str, Sequence[Tensor]]
    shares: Mapping[str, Sequence[tuple[str, float]]]
    precision: Mapping[str, float | None]
    unreadable: Sequence[str] = ()
    placed: Sequence[Placed] = ()

    @property
    def measured(self) -> str:
        """How many latencies there are, in words."""
        number = len(self.records)
        return f"{number} latency measurement{'s' * (number != 1)}"


@dataclass(frozen=True)
class _Figure:
    caption: str
    svg: str


@dataclass(frozen=True)
class _Heat:
    name: str
    used: str
    hue: int
    max_abs: str
    cosine: str
    passed: bool


@dataclass(frozen=True)
class _Section:
    title: str
    figures: Sequence[_Figure] = ()
    text: Sequence[str] = ()
    heat: Sequence[_Heat] = ()
    table: LatencyTable | None = None


def report_page(found: Findings) -> str:
    """The page as HTML; whatever was read from files or devices is escaped in it."""
    records = list(found.records.values())
    # One table holds what was measured alike: its title names model, runtime and protocol.
    alike: dict[str, list[LatencyRecord]] = defaultdict(list)
    for record in records:
        alike[latency_table([record]).title].append(record)
    models = sorted({record.pair.model_id for record in records})
    when = sorted(record.measured_at for record in records)
    subtitle = found.measured + (f" of {', '.join(models)}" * bool(models))
    if when:
        subtitle += f", {when[0]}" + (f" to {when[-1]}" if when[0] != when[-1] else "")
    return _template().render(
        title=shown(found.title),
        subtitle=shown(subtitle, 2000),
        caveats=[shown(text, 2000) for text in _caveats(found)],
        tables=[latency_table(group) for group in alike.values()],
        sections=list(_sections(found)),
        version=__version__,
    )


@cache
def _template() -> jinja2.Template:
    text = files("mobileinst_deploy.measure").joinpath("report_page.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(text)


def _caveats(found: Findings) -> Iterator[str]:
    if any(record.emulated for record in found.records.values()):
        yield "Some of it was measured on an emulated device: it has no latency, and none is shown."
    if any(not record.pair.trained for record in found.records.values()):
        yield "Random weights: speed is real, masks mean nothing."
    for name, record in found.records.items():
        if not record.valid:
            yield f"{name} must not be believed: {record.invalid[0]}"
    yield from (f"Left out: {cause}" for cause in found.unreadable)


def _sections(found: Findings) -> Iterator[_Section]:
    real = {name: record for name, record in found.records.items() if not record.emulated}
    drawn = dict(list(real.items())[-MOST_DRAWN:])
    few = [f"The newest {MOST_DRAWN} of {len(real)} are drawn."] * (len(real) > len(drawn))
    if drawn:
        yield _Section("Distributions", list(_distributions(drawn)), few)
        yield _Section("What an average frame costs", [_amortised(drawn)], _AMORTISED)
        yield _Section("Over time", list(_over_time(drawn)), few)
    again = _again(real)
    if again:
        yield _Section("From measurement to measurement", [again])
    if found.records:
        yield _Section("Heat and charge", table=_heat(found.records), text=_HEAT)
    if found.shares:
        figures = [
            _Figure(shown(caption), bars([Bar(shown(n, 40), s, f"{s:.1%}") for n, s in rows]))
            for caption, rows in found.shares.items()
        ]
        yield _Section("Where the time goes", figures)
    for where, tensors in found.parity.items():
        yield _Section(f"Parity with PyTorch: {shown(where)}", heat=list(map(_cell, tensors)))
    if found.counts:
        rows = [
            Bar(shown(f"{where}, {role}", 40), float(count), f"{count / 1e6:,.1f} M")
            for where, record in found.counts.items()
            for role, count in record.instructions.items()
        ]
        figure = _Figure("Executed ARM instructions of one run", bars(rows))
        text = ["Exact, and not a latency.", f"{_upper(InstructionRecord.model)}."]
        yield _Section("Instructions", [figure], text, table=_kinds(found.counts))
    if found.precision:
        rows = [
            Bar(
                shown(what, 40), value or 0.0, "not measurable" if value is None else f"{value:.3f}"
            )
            for what, value in found.precision.items()
        ]
        yield _Section("Average precision", [_Figure("AP", bars(rows, scale=1.0))])
    if found.placed:
        yield _Section("Accuracy and speed", list(_figure_1(found.placed)), _FIGURE_1)


def _figure_1(placed: Sequence[Placed]) -> Iterator[_Figure]:
    """AP over latency, for each device, T and set of annotations by itself."""
    alike: dict[tuple[str, str, str, int], list[Placed]] = defaultdict(list)
    for each in placed:
        alike[each.device, each.on, each.on_sha256, each.clip_length].append(each)
    files = Counter(on for on, _ in {(each.on, each.on_sha256) for each in placed})
    for (device, on, sha256, length), some in alike.items():
        points = [Point(each.name, each.ms, 100 * each.ap) for each in some]
        which = f" ({sha256[:8]})" if files[on] > 1 else ""
        yield _Figure(
            shown(f"{device}, AP on {on}{which}"),
            scatter(points, f"ms a frame at T = {length}", "AP, %", least_span=LEAST_AP_SPAN),
        )


def _kinds(counts: Mapping[str, Counted]) -> LatencyTable | None:
    """What each graph's instructions are."""
    rows = []
    for where, record in counts.items():
        for role, kinds in record.kinds.items():
            total = max(sum(kinds.values()), 1)
            parts = (*(kinds.get(name, 0) for name in MACS), kinds.get("load", 0))
            shares = (f"{part / total:.1%}" for part in (*parts, kinds.get("branch", 0)))
            least = bound(kinds)
            name = shown(f"{where}, {role}")
            rows.append((name, *shares, f"{least.cycles / 1e6:,.1f} M", least.by))
    columns = ("", *(name.replace("_", " ") for name in MACS), "load", "branch", "bound", "by")
    return LatencyTable("", columns, tuple(rows), ()) if rows else None


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


_FIGURE_1 = (
    "As the paper's Figure 1: up is more accurate, left is faster. Pairs of several sources go "
    "into one picture where device, T and annotations are the same.",
)
_AMORTISED = (
    "Points were measured at that T. The line is (keyframe + (T-1) reuse) / T with the figures of "
    "the longest clips measured.",
)
_HEAT = ("Before and after the measurement; a dash is what the device does not tell.",)


def _distributions(records: Mapping[str, LatencyRecord]) -> Iterator[_Figure]:
    for name, record in records.items():
        for clip in record.clips:
            series = [("keyframe", clip.keyframe.samples_ms)]
            if clip.reuse is not None:
                series.append(("reuse frame", clip.reuse.samples_ms))
            caption = f"{name}, T = {clip.clip_length}: dashed are p50 and p90"
            yield _Figure(shown(caption), histogram(series, "ms"))


def _amortised(records: Mapping[str, LatencyRecord]) -> _Figure:
    series = []
    for name, record in records.items():
        longest = max(record.clips, key=lambda clip: clip.clip_length)
        if longest.reuse is not None:
            key, reuse = longest.keyframe.headline, longest.reuse.headline
            every = range(1, LONGEST_CLIP + 1)
            curve = [(key + (t - 1) * reuse) / t for t in every]
            series.append(Series(f"{name}, computed", list(every), curve))
        clips = record.clips
        measured = Series(
            f"{name}, measured",
            [clip.clip_length for clip in clips],
            [clip.amortised_ms for clip in clips],
            joined=False,
        )
        series.append(measured)
    return _Figure("Amortised cost by T", lines(series, "T", "ms a frame", zero=True, counted=True))


def _over_time(records: Mapping[str, LatencyRecord]) -> Iterator[_Figure]:
    for name, record in records.items():
        runs, clocks, began = {"frame": _Times(), "mask_head": _Times()}, _Times(), 0.0
        for schedule in record.schedules:
            for sample in schedule.samples:
                at = (began + sample.start_ms) / 1000
                runs[sample.role].add(at, sample.run_ms)
                if sample.khz is not None:
                    clocks.add(at, sample.khz / 1000)
            began += schedule.wall_ms
        series = [
            Series(label, runs[role].x, runs[role].y, joined=False)
            for role, label in (("frame", "keyframe"), ("mask_head", "reuse frame"))
            if runs[role].x
        ]
        yield _Figure(shown(f"{name}: every run"), lines(series, "s", "ms", zero=True))
        if clocks.x:
            clock = Series("clock", clocks.x, clocks.y)
            yield _Figure(shown(f"{name}: the core's clock"), lines([clock], "s", "MHz", zero=True))


class _Times:
    """Values by when they were seen."""

    def __init__(self) -> None:
        self.x: list[float] = []
        self.y: list[float] = []

    def add(self, at: float, value: float) -> None:
        self.x.append(at)
        self.y.append(value)


def _again(records: Mapping[str, LatencyRecord]) -> _Figure | None:
    """What was measured in the same way more than once."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for record in records.values():
        for clip in record.clips:
            where = f"{record.device.serial} {record.runtime.split(' ')[0]} {record.pair.form}"
            kind = f"{record.pair.model_id} on {where}, T = {clip.clip_length}"
            by_kind[kind].append(clip.amortised_ms)
    series = [
        Series(shown(kind, 80), list(range(1, len(times) + 1)), times)
        for kind, times in by_kind.items()
        if len(times) > 1
    ]
    if not series:
        return None
    chart = lines(series[:MOST_DRAWN], "measurement", "ms a frame", zero=True, counted=True)
    return _Figure("The oldest first", chart)


def _heat(records: Mapping[str, LatencyRecord]) -> LatencyTable:
    def pair(before: object, after: object) -> str:
        shown_ = ["-" if value is None else f"{value:g}" for value in (before, after)]
        return " → ".join(shown_)

    def hottest(zones: Mapping[str, float] | None) -> float | None:
        return max((zones or {}).values(), default=None)

    rows = []
    for name, record in records.items():
        was, now = record.state_before, record.state_after
        rows.append(
            (
                shown(name),
                pair(was.battery_celsius, now.battery_celsius),
                pair(was.skin_celsius, now.skin_celsius),
                pair(hottest(was.zones_celsius), hottest(now.zones_celsius)),
                pair(was.thermal_status, now.thermal_status),
                pair(was.battery_percent, now.battery_percent),
                pair(was.load_1min, now.load_1min),
            )
        )
    columns = ("", "battery °C", "skin °C", "hottest zone °C", "thermal status", "charge %", "load")
    return LatencyTable("", columns, tuple(rows), ())


def _cell(tensor: Tensor) -> _Heat:
    used = tensor.max_excess
    # Green where next to nothing of the tolerance is used, red where it is passed.
    hue = int(np.clip(120 * (1 - max(used, 0.0)), 0, 120)) if np.isfinite(used) else 0
    return _Heat(
        shown(f"{tensor.graph}, {tensor.tensor}"),
        f"{used:.1%}",
        hue,
        f"{tensor.max_abs:.2e}",
        f"{tensor.cosine:.8f}",
        tensor.passed,
    )
