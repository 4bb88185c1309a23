"""The page of what was measured: whole, of one file, safe, and drawn by a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import pytest
from latency_records import record_of

from mobileinst_deploy.core.errors import ConfigError, InputError, OutputError
from mobileinst_deploy.measure.charts import Bar, Series, bars, lines, picture
from mobileinst_deploy.measure.report_page import Counted, Findings, Placed, Tensor, report_page
from mobileinst_deploy.workflows import history
from mobileinst_deploy.workflows.history import history_folder, merge, read_history, remember
from mobileinst_deploy.workflows.report import write_report

RECORD = record_of({1: (10.0, None), 3: (10.0, 6.0)})
HOSTILE = "[/] \x1b[31m</title><script>alert(1)</script>"


def findings(**change) -> Findings:
    empty = Findings("tiny, plain", {}, {}, {}, {}, {})
    return replace(empty, **{"records": {"cpu-onnxruntime-plain": RECORD}, **change})


class Checker(HTMLParser):
    """Counts tags and sees whether they are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_needs_nothing_but_itself():
    page = Checker(report_page(findings()))
    assert page.open == []
    assert page.links == []
    assert not {"script", "link", "img", "iframe"} & set(page.seen)


@pytest.mark.parametrize(
    ("change", "heading"),
    [
        ({}, "Distributions"),
        ({}, "What an average frame costs"),
        ({"counts": {"qemu": Counted({"frame": 9}, {"frame": {"load": 9}})}}, "Instructions"),
        ({"shares": {"cpu: frame by part": [("backbone", 0.6)]}}, "Where the time goes"),
        ({"precision": {"cpu, pictures": 0.5, "clips": None}}, "Average precision"),
        (
            {"parity": {"cpu": [Tensor("frame", "kernels", 1e-6, 0.01, 1.0, True)]}},
            "Parity with PyTorch: cpu",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_it_shows_what_there_is_and_no_more(change, heading):
    assert f"<h2>{heading}</h2>" in report_page(findings(**change))
    if change:
        assert f"<h2>{heading}</h2>" not in report_page(findings())


def test_what_devices_and_files_say_is_text_and_nothing_else():
    pair = replace(RECORD.pair, model_id=HOSTILE)
    hostile = replace(RECORD, runtime=HOSTILE, pair=pair)
    tensors = [Tensor(HOSTILE, HOSTILE, 1.0, 2.0, 0.5, False)]
    text = report_page(
        findings(
            title=HOSTILE,
            records={HOSTILE: hostile},
            counts={HOSTILE: Counted({HOSTILE: 1}, {HOSTILE: {HOSTILE: 1}})},
            parity={HOSTILE: tensors},
            shares={HOSTILE: [(HOSTILE, 0.5)]},
            precision={HOSTILE: 0.5},
            unreadable=(HOSTILE,),
        )
    )
    assert "<script" not in text
    assert "\x1b" not in text
    assert Checker(text).open == []


def test_an_emulated_device_has_no_latency_in_it():
    emulated = replace(RECORD, device=replace(RECORD.device, emulated=True))
    text = report_page(findings(records={"phone": emulated}))
    assert "emulated" in text
    assert "Distributions" not in text
    assert not re.search(r"\b10\.0\b|\b7\.33\b", text)


@pytest.mark.parametrize("most", [0.0004, 3.0, 87000.0])
def test_the_name_of_an_axis_lies_above_its_numbers_however_long_they_are(most):
    svg = lines([Series("AP", [0, 1], [0.0, most])], "iteration", "held-out AP")
    texts = dict(re.findall(r'y="([\d.]+)"[^>]*>([^<]+)</text>', svg))
    (label,) = (float(y) for y, text in texts.items() if text == "held-out AP")
    ticks = [float(y) for y, text in texts.items() if text not in ("held-out AP", "iteration")]
    assert min(ticks) - label >= 10


def test_one_measurement_is_no_plural():
    assert "1 latency measurement of" in report_page(findings(records={"cpu": RECORD}))


def test_a_measurement_that_is_invalid_says_so_first():
    text = report_page(findings(records={"cpu": replace(RECORD, invalid=("the clock moved",))}))
    assert text.index("cpu must not be believed: the clock moved") < text.index("<h2>")


def test_a_pair_is_reported_with_all_that_was_measured_of_it(pair: Path, tmp_path: Path):
    home = pair / "results" / "cpu-onnxruntime-plain"
    home.mkdir(parents=True)
    (home / "latency.json").write_text(json.dumps(RECORD.to_dict()))
    (home / "eval.json").write_text(json.dumps({"runtime": "x", "pictures": {"AP": 0.25}}))
    (home / "parity.json").write_text("[[[")
    path, found = write_report([str(pair)], tmp_path / "report.html")
    assert found.precision == {"cpu-onnxruntime-plain, pictures": 0.25}
    assert len(found.unreadable) == 1
    assert "parity.json" in path.read_text()


def test_accuracy_is_set_over_speed_where_both_are_known(pair: Path, tmp_path: Path):
    home = pair / "results" / "cpu-onnxruntime-plain"
    home.mkdir(parents=True)
    (home / "latency.json").write_text(json.dumps(RECORD.to_dict()))
    block = {"AP": 0.25, "annotations": "val.json"}
    (home / "eval.json").write_text(json.dumps({"runtime": "onnxruntime", "pictures": block}))
    page, found = write_report([str(pair), str(pair)], tmp_path / "report.html")
    assert [(p.name, p.ap, p.clip_length) for p in found.placed] == [
        ("tiny plain, onnxruntime", 0.25, 1)
    ] * 2
    assert "cpu, AP on val.json" in page.read_text()
    (home / "latency.json").write_text(json.dumps(replace(RECORD, invalid=("hot",)).to_dict()))
    assert write_report([str(pair)], tmp_path / "report.html")[1].placed == []


@pytest.mark.parametrize("source", ["nothing/here", "missing.json", "20990101"])
def test_a_source_that_is_not_there_is_refused(source, tmp_path: Path):
    with pytest.raises(ConfigError):
        write_report([source], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_pair_of_which_nothing_was_measured_gets_no_page(pair: Path, tmp_path: Path):
    with pytest.raises(InputError, match="nothing was measured"):
        write_report([str(pair)], tmp_path / "report.html")


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report(["nothing"], tmp_path / "file" / "report.html")


def test_several_sources_go_into_one_page(tmp_path: Path):
    phones = [replace(RECORD, device=replace(RECORD.device, kind="adb", serial=s)) for s in "ab"]
    farm, alone = tmp_path / "farm.json", tmp_path / "alone.json"
    farm.write_text(json.dumps({"schema": 2, "devices": [p.to_dict() for p in phones]}))
    alone.write_text(json.dumps(RECORD.to_dict()))
    page, found = write_report([str(farm), str(alone), str(alone)], tmp_path / "page.html")
    names = ["adb:a-onnxruntime-plain", "adb:b-onnxruntime-plain", "cpu-onnxruntime-plain"]
    assert list(found.records) == [*names, "cpu-onnxruntime-plain of tiny"]
    assert page.read_text().count("adb:b-onnxruntime-plain") > 1


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"schema": 3, "devices": [{}]}, "no latency records of schema 2"),
        ({"schema": 2, "devices": []}, "no record of a device"),
        ({"schema": 2, "devices": 5}, "not a list"),
        ({"schema": 2, "devices": [{"schema": 1}]}, "record 1"),
    ],
)
def test_a_farms_file_of_another_form_is_refused(tmp_path: Path, document, says: str):
    (tmp_path / "farm.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=says):
        write_report([str(tmp_path / "farm.json")], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_measurements_of_different_kinds_share_no_table(tmp_path: Path):
    other = replace(RECORD, runtime="ncnn 1.0", pair=replace(RECORD.pair, model_id="other"))
    text = report_page(findings(records={"one": RECORD, "other": other}))
    assert text.count("protocol sd778g") == 2


class TestHistory:
    def test_takes_over_another_machines_once(self, tmp_path: Path, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "there"))
        remember(RECORD)
        remember(replace(RECORD, measured_at="2026-02-01T12:00:00+00:00"))
        theirs = history_folder()
        (theirs / "broken.json").write_text("{")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "here"))
        remember(RECORD)
        found = merge([theirs])
        assert (found.added, found.known, len(found.refused)) == (1, 1, 1)
        assert merge([theirs]).added == 0
        assert len(read_history().entries) == 2

    def test_knows_also_what_is_too_old_to_be_listed(self, tmp_path: Path, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        monkeypatch.setattr(history, "MOST_ENTRIES", 1)
        monkeypatch.setitem(history.read_history.__kwdefaults__, "most", 1)
        remember(RECORD)
        remember(replace(RECORD, measured_at="2026-02-01T12:00:00+00:00"))
        found = merge([history_folder()])
        assert (found.added, found.known) == (0, 2)

    def test_takes_nothing_over_from_nowhere(self, tmp_path: Path, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        with pytest.raises(InputError, match="does not exist"):
            merge([tmp_path / "missing"])

    def test_keeps_every_measurement_and_finds_it_again(self, tmp_path: Path, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        assert remember(RECORD) is None
        assert remember(RECORD) is None
        names = [entry.name for entry in read_history().entries]
        assert len(set(names)) == 2
        _, found = write_report([names[1]], tmp_path / "one.html")
        assert list(found.records) == [names[1]]
        _, found = write_report(["history"], tmp_path / "all.html")
        assert len(found.records) == 2
        assert read_history(model="other").entries == ()
        assert len(read_history(device="cpu", model="tiny").entries) == 2

    @pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"{}", b"\xff"])
    def test_a_damaged_entry_hides_no_other(self, tmp_path: Path, monkeypatch, content):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        remember(RECORD)
        (history_folder() / "00000000.json").write_bytes(content)
        found = read_history()
        assert len(found.entries) == 1
        assert "00000000.json" in found.damaged[0]

    def test_a_huge_entry_is_passed_over_in_no_time(self, tmp_path: Path, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        remember(RECORD)
        with (history_folder() / "00000000.json").open("wb") as file:
            file.truncate(1 << 32)
        started = time.monotonic()
        assert len(read_history().damaged) == 1
        assert time.monotonic() - started < 2

    def test_a_folder_that_cannot_be_written_costs_no_measurement(
        self, tmp_path: Path, monkeypatch
    ):
        (tmp_path / "state").write_text("a file")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        assert "cannot be written" in remember(RECORD)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_it(tmp_path: Path, dark):
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(report_page(findings()))
    subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--window-size=1000,1600", f"--screenshot={picture}", f"--user-data-dir={tmp_path}"),
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    pixels = cv2.imread(str(picture))
    assert (pixels[2, 2].mean() < 60) == dark
    blue, red = (pixels[..., 0].astype(int), pixels[..., 2].astype(int))
    assert ((blue - red) > 60).sum() > 500  # the keyframes' bars
    assert ((red - blue) > 60).sum() > 300  # the reuse frames'


@pytest.mark.parametrize(
    ("records", "said"), [(0, "0 latency measurements"), (1, "1 latency measurement")]
)
def test_it_says_how_many_latencies_there_are(records, said):
    found = findings(records=dict.fromkeys(("cpu", "phone")[:records], RECORD))
    assert found.measured == said
    assert re.search(rf"{said}\b", report_page(found))


def test_a_long_name_of_a_bar_is_not_cut_off():
    name = "qemu-onnxruntime-plain, mask_head"
    (begin,) = re.findall(rf'<text x="(\d+)" [^>]*>{name}', bars([Bar(name, 1.0, "1")]))
    assert int(begin) > 6.2 * len(name)


def test_charts_make_a_picture_that_stands_alone():
    curves = [[Series("loss", [1, 2, 3], [3.0, 2.0, 1.0])], [], [Series("AP", [3], [0.5])]]
    text = picture(curves, "iteration", ["loss", "nothing", "AP"])
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert text.count("<svg") == text.count("</svg>") == 3
    assert "<title>AP: 0.5 at 3</title>" in text
    assert "nothing" not in text
    assert picture([], "iteration", []).count("<svg") == 1


def test_ap_on_other_data_of_one_name_is_another_figure():
    placed = [
        Placed("a", "cpu", "instances.json", sha256, 1, 10.0, 0.3)
        for sha256 in ("ab" * 32, "cd" * 32)
    ]
    page = report_page(findings(placed=placed))
    assert "AP on instances.json (abababab)" in page
    assert "AP on instances.json (cdcdcdcd)" in page
    assert "AP on instances.json<" in report_page(findings(placed=placed[:1]))
