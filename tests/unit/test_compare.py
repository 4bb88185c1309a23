"""Several pairs beside each other: run in turn, held against one, drawn as Figure 1."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from latency_records import record_of
from rich.console import Console

from mobileinst_deploy.cli.tables import comparison_table
from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.errors import (
    BundleError,
    ConfigError,
    DeviceError,
    MeasurementInvalid,
)
from mobileinst_deploy.measure.charts import Point, scatter
from mobileinst_deploy.measure.protocol import PROTOCOLS
from mobileinst_deploy.measure.samples import clip_times
from mobileinst_deploy.measure.validity import Measured
from mobileinst_deploy.workflows import compare as workflow, phone_rounds
from mobileinst_deploy.workflows.bench_targets import BenchSettings
from mobileinst_deploy.workflows.compare import Comparison, Entry, Row, compare, open_entries
from mobileinst_deploy.workflows.compare_figure import figure, left_out
from mobileinst_deploy.workflows.history import read_history
from mobileinst_deploy.workflows.kept import Precision, counts_of, precision_of
from mobileinst_deploy.workflows.phone_rounds import ROUNDS, joined, measure_in_rounds

BRIEF = BenchSettings(
    replace(PROTOCOLS["sd778g"], warmups=0, runs=8, seconds=0.0), clip_lengths=(1, 2)
)


@pytest.fixture
def two(exported: ExportBundle, tmp_path: Path) -> tuple[Path, Path]:
    """The tiny pair under two names."""
    return tuple(shutil.copytree(exported.folder, tmp_path / name) for name in ("one", "other"))


def keep(pair: Path, kind: str, **document: object) -> None:
    place = pair / "results" / "cpu-onnxruntime-plain" / f"{kind}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    sha = load_bundle(pair).sha256
    whole = {"bundle_sha256": sha, "model_sha256": sha, "runtime": "onnxruntime 1", **document}
    place.write_text(json.dumps(whole))


def evaluated(
    pair: Path, ap: float, annotations: str = "set.json", sha256: str = "ab" * 32, **more: str
) -> None:
    on = {"annotations": annotations, "annotations_sha256": sha256}
    keep(pair, "eval", pictures={"AP": ap, **on}, **more)


def counted(pair: Path, frame: int) -> None:
    keep(pair, "instructions", live_kernels=5, instructions={"frame": frame, "mask_head": 1})


def test_every_pair_is_timed_and_held_against_the_first(two):
    entries = open_entries(two, ["onnxruntime"])
    found = compare(entries, BRIEF)
    assert [row.entry.name for row in found.rows] == ["one", "other"]
    assert found.to == "one"
    for row in found.rows:
        assert [ratio.clip_length for ratio in row.ratios] == [1, 2]
        assert all(ratio.comparisons >= 8 for ratio in row.ratios)
        assert row.macs["frame"] > row.macs["mask_head"] > 0
        assert "measured in turn with" in row.record.notes[-1]
    assert found.rows[0].ratios[0].ratio == 1
    assert isinstance(found.failure, MeasurementInvalid)  # eight runs are not fifty
    json.dumps(found.to_dict(), allow_nan=False)


def test_another_reference_turns_the_ratio_round(two, monkeypatch):
    entries = open_entries(two, ["onnxruntime"])
    record = record_of({1: (10.0, None)})

    def measured(opened, used, lengths, progress):
        slow = record_of({1: (20.0, None)})
        return [
            Measured(r.device, r.state_before, r.state_after, r.runtime, 1, (1,), r.schedules)
            for r in (record, slow)
        ]

    monkeypatch.setattr(workflow, "measure_in_turn", measured)
    settings = replace(BRIEF, clip_lengths=(1,))
    assert compare(entries, settings).rows[1].ratios[0].ratio == pytest.approx(2, rel=0.01)
    turned = compare(entries, settings, to=entries[1])
    assert turned.rows[0].ratios[0].ratio == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    ("names", "runtimes", "said"),
    [
        (["one"], ["onnxruntime"], "nothing to be compared with"),
        (["one", "one"], ["onnxruntime"], "one pair is named twice"),
        (["one", "other"], ["ncnn", "ncnn"], "one runtime is named twice"),
        (["one", "other"], ["tnn"], "no runtime 'tnn'"),
    ],
)
def test_what_cannot_be_compared_is_refused(two, names, runtimes, said):
    with pytest.raises(ConfigError, match=said):
        open_entries([two[0].parent / name for name in names], runtimes)


def test_pairs_of_one_name_are_told_apart_by_their_paths(two, tmp_path):
    again = shutil.copytree(two[0], tmp_path / "elsewhere" / "one")
    names = [entry.name for entry in open_entries([two[0], again], ["onnxruntime"])]
    assert names == [str(two[0]), str(again)]


def test_a_pair_that_its_runtime_cannot_take_is_named(two):
    entries = open_entries(two, ["ncnn"])
    with pytest.raises(BundleError, match="one: ncnn resizes maps of one row wrongly"):
        compare(entries, BRIEF)


def test_what_was_counted_and_evaluated_of_this_very_pair_stands_beside(two):
    evaluated(two[0], 0.5)
    counted(two[0], 1000)
    pair = load_bundle(two[0])
    assert counts_of(pair, "onnxruntime") == {"frame": 1000, "mask_head": 1}
    assert counts_of(pair, "ncnn") is None
    assert precision_of(pair, "ncnn") == Precision(0.5, "set.json", "ab" * 32)
    keep(two[0], "eval", pictures={"AP": 0.5}, model_sha256="0" * 64)
    keep(two[0], "instructions", live_kernels=4, instructions={"frame": 1, "mask_head": 1})
    assert precision_of(pair, "onnxruntime") is None
    assert counts_of(pair, "onnxruntime") is None


@pytest.mark.parametrize(
    ("evaluated_by", "asked", "told"),
    [
        ("onnxruntime 1", "ncnn", True),
        ("ncnn 1", "onnxruntime", True),
        ("ncnn-fp16 1", "ncnn-fp16", True),
        ("onnxruntime 1", "ncnn-fp16", False),
        ("ncnn-fp16 1", "ncnn", False),
    ],
)
def test_half_precision_says_nothing_of_float32s_accuracy(two, evaluated_by, asked, told):
    evaluated(two[0], 0.5, runtime=evaluated_by)
    assert (precision_of(load_bundle(two[0]), asked) is not None) is told


class Phone:
    """A target whose frames take as long as it says."""

    def __init__(self, ms: float, order: list[float], emulated: bool = False):
        self.name, self.runtime = "adb:R58", "onnxruntime 1"
        self.ms, self.order, self.emulated = ms, order, emulated

    def measure(self, pair, settings, cancel, progress) -> Measured:
        self.order.append(self.ms)
        made = record_of(dict.fromkeys(settings.clip_lengths, (self.ms, self.ms / 2)))
        device = replace(made.device, kind="adb", serial="R58", emulated=self.emulated)
        return Measured(
            device, made.state_before, made.state_after, self.runtime, 1, (1,), made.schedules
        )


def test_on_a_phone_pairs_take_turns_by_rounds(exported):
    order: list[float] = []
    phones = [(Phone(ms, order), exported) for ms in (10.0, 20.0)]
    rounds = measure_in_rounds(phones, BRIEF)
    assert order[:6] == [20.0, 10.0, 10.0, 20.0, 20.0, 10.0]
    assert [len(each) for each in rounds] == [ROUNDS, ROUNDS]
    whole = joined(rounds[0])
    per_round = len(clip_times(rounds[0][0].schedules[1]))
    assert len(clip_times(whole.schedules[1])) == ROUNDS * per_round
    starts = [s.start_ms for s in whole.schedules[1].samples]
    assert starts == sorted(starts)


@pytest.mark.parametrize("emulated", [False, True])
def test_a_comparison_on_a_phone_shows_no_times_of_an_emulated_one(two, monkeypatch, emulated):
    speeds = iter((10.0, 20.0))
    monkeypatch.setattr(
        workflow, "open_targets", lambda *a, **k: (Phone(next(speeds), [], emulated),)
    )
    found = compare(open_entries(two, ["onnxruntime"]), BRIEF, device="adb")
    assert (found.device, found.emulated) == ("adb:R58", emulated)
    ratios = [ratio.ratio for ratio in found.rows[1].ratios]
    assert ratios == ([] if emulated else pytest.approx([2.0, 2.0], rel=0.01))
    clips = found.to_dict()["rows"][1]["latency"]["clips"]
    assert bool(clips) is not emulated


class Leaving(Phone):
    """A phone that leaves after some starts."""

    def measure(self, pair, settings, cancel, progress) -> Measured:
        if len(self.order) == 7:
            raise DeviceError("the phone R58 is gone", "Connect it again")
        return super().measure(pair, settings, cancel, progress)


def test_what_a_phone_measured_before_it_left_is_kept(two, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    order: list[float] = []
    speeds = iter((10.0, 20.0))
    monkeypatch.setattr(workflow, "open_targets", lambda *a, **k: (Leaving(next(speeds), order),))
    with pytest.raises(DeviceError, match="is gone"):
        compare(open_entries(two, ["onnxruntime"]), BRIEF, device="adb")
    kept = [entry.record for entry in read_history().entries]
    per_round = len(clip_times(record_of({1: (10.0, None)}).schedules[0]))
    starts = sorted(len(clip_times(record.schedules[0])) // per_round for record in kept)
    assert starts == [3, 4], "of seven starts"


def test_a_whole_comparison_is_one_entry_of_each(two, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    speeds = iter((10.0, 20.0))
    monkeypatch.setattr(workflow, "open_targets", lambda *a, **k: (Phone(next(speeds), []),))
    found = compare(open_entries(two, ["onnxruntime"]), BRIEF, device="adb")
    kept = [entry.record for entry in read_history().entries]
    assert [record.schedules for record in kept] == [row.record.schedules for row in found.rows]


def comparison(pairs: Sequence[Path], device: str, emulated: bool = False) -> Comparison:
    """What a comparison of these pairs would be, with times made by hand."""
    entries = open_entries(pairs, ["onnxruntime"])
    rows = []
    for number, entry in enumerate(entries):
        record = record_of({1: (10.0 * (number + 1), None)})
        runtime = "onnxruntime"
        counts, ap = counts_of(entry.pair, runtime), precision_of(entry.pair, runtime)
        rows.append(Row(entry, {"frame": 1, "mask_head": 1}, counts, ap, record))
    return Comparison(device, emulated, entries[0].name, tuple(rows))


def test_the_plot_shows_latency_of_a_phone(two):
    for pair, ap in zip(two, (0.3, 0.4), strict=True):
        evaluated(pair, ap)
        counted(pair, 1_000_000)
    text = figure(comparison(two, "adb:R58"))
    root = ET.fromstring(text)  # noqa: S314  # made here
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert text.count("<circle") == 2
    assert "ms a frame at T = 1<" in text
    assert "AP on set.json, %" in text


def test_without_a_phone_it_shows_instructions_and_says_so(two):
    for pair, ap in zip(two, (0.3, 0.4), strict=True):
        evaluated(pair, ap)
    assert "on this computer: no phone" in figure(comparison(two, "cpu"))
    for pair in two:
        counted(pair, 1_000_000)
    for device, emulated in (("cpu", False), ("qemu", True), ("adb:R58", True)):
        text = figure(comparison(two, device, emulated))
        assert "counted under qemu: not a latency" in text
        assert "ms a frame" not in text


def test_times_of_an_emulated_phone_are_never_drawn(two):
    for pair in two:
        evaluated(pair, 0.3)
    with pytest.raises(ConfigError, match="no latency to draw"):
        figure(comparison(two, "adb:R58", emulated=True))


def test_a_plot_of_different_sets_is_refused(two):
    with pytest.raises(ConfigError, match="none of these pairs was evaluated"):
        figure(comparison(two, "cpu"))
    evaluated(two[0], 0.3)
    evaluated(two[1], 0.3, "other.json")
    with pytest.raises(ConfigError, match=r"different sets: other\.json, set\.json"):
        figure(comparison(two, "cpu"))


def test_sets_are_told_apart_by_what_they_hold_and_not_by_their_files_names(two):
    evaluated(two[0], 0.3, "instances.json", "ab" * 32)
    evaluated(two[1], 0.3, "instances.json", "cd" * 32)
    found = comparison(two, "cpu")
    both = r"instances\.json \(abababab\), instances\.json \(cdcdcdcd\)"
    with pytest.raises(ConfigError, match=f"different sets: {both}"):
        figure(found)
    rows = Console(width=200).render_lines(comparison_table(comparison(two, "qemu", True)))
    text = "\n".join("".join(part.text for part in line) for line in rows)
    assert "0.300 on instances.json (abababab)" in text
    assert "0.300 on instances.json (cdcdcdcd)" in text


def test_what_was_not_evaluated_is_named_beside_the_plot(two):
    evaluated(two[0], 0.3)
    found = comparison(two, "cpu")
    assert figure(found).count("<circle") == 1
    assert left_out(found) == ("other",)


def test_a_name_that_says_anything_leaves_the_plot_whole(two):
    evaluated(two[0], 0.3)
    odd = Entry("</svg><script>&", load_bundle(two[0]), "onnxruntime")
    found = comparison(two, "cpu")
    found = replace(found, rows=(replace(found.rows[0], entry=odd),))
    assert "<script>" not in figure(found)
    ET.fromstring(figure(found))  # noqa: S314  # made here


def test_a_phone_gets_rounds_enough_for_an_interval():
    assert phone_rounds.ROUNDS >= 8


def test_what_hardly_differs_in_ap_does_not_look_far_apart(two):
    for pair, ap in zip(two, (0.457, 0.459), strict=True):
        evaluated(pair, ap)
        counted(pair, 1_000_000)
    circles = ET.fromstring(figure(comparison(two, "qemu")))  # noqa: S314  # made here
    heights = [float(c.get("cy")) for c in circles.iter("{http://www.w3.org/2000/svg}circle")]
    assert 0 < abs(heights[0] - heights[1]) < 10


def test_names_of_points_that_lie_together_are_not_written_over_each_other():
    points = [Point(f"a pair of many letters {i}", 100 - i, 45 + i / 100) for i in range(4)]
    texts = [
        float(text.get("y"))
        for text in ET.fromstring(scatter(points, "ms", "AP", least_span=5))  # noqa: S314
        if text.tag == "text" and text.text.startswith("a pair")
    ]
    gaps = np.diff(sorted(texts))
    assert len(texts) == 4
    assert (gaps >= 12).all()
