"""bench --against, history and report as a user types them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import mobileinst
from latency_records import record_of

from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.measure.sustained import Sustained
from mobileinst_deploy.measure.validity import Measured
from mobileinst_deploy.workflows import against, bench_targets
from mobileinst_deploy.workflows.against import GateResult
from mobileinst_deploy.workflows.history import history_folder, remember
from mobileinst_deploy.workflows.host_clips import HostClips

BRIEF = ("--runs", "8", "--warmup", "0", "--seconds", "0", "--clip-lengths", "2")
RECORD = record_of({1: (10.0, None), 3: (10.0, 6.0)})


@pytest.fixture(autouse=True)
def _history_of_its_own(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_a_pair_held_against_itself_is_not_slower_by_half(pair: Path):
    done = mobileinst("bench", pair, "--against", pair, "--fail-above", "100%", *BRIEF, "--json")
    document = json.loads(done.stdout)
    assert document["interleaved"] is True
    assert [s["clip_length"] for s in document["slowdowns"]] == [2]
    assert done.exit_code in (0, 4)  # 4: this machine is shared, and noise may forbid an answer
    assert document["slowdowns"][0]["answer"] == {0: "not slower", 4: "unknown"}[done.exit_code]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--against", "missing.json"), "missing.json"),
        (("--fail-above", "7%"), "--fail-above"),
        (("--against", "{pair}", "--fail-above", "much"), "no share"),
        (("--against", "{pair}", "--device", "qemu", "--count"), "need no gate"),
        (("--against", "{record}"), "another pair"),
        (("--against", "{other_schema}"), "schema 2"),
        (("--against", "{huge}"), "huge.json"),
        (("--against", "{damaged}"), "damaged.json"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else None,
)
def test_a_gate_that_cannot_be_is_refused_before_anything_is_measured(
    pair: Path, tmp_path: Path, words, said
):
    other = replace(RECORD, pair=replace(RECORD.pair, model_id="other"))
    (tmp_path / "record.json").write_text(json.dumps(other.to_dict()))
    (tmp_path / "damaged.json").write_text("{")
    (tmp_path / "other_schema.json").write_text(json.dumps({**RECORD.to_dict(), "schema": 1}))
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 32)
    names = ("record", "damaged", "other_schema", "huge")
    places = {name: tmp_path / f"{name}.json" for name in names}
    words = [word.format(pair=pair, **places) for word in words]
    done = mobileinst("bench", pair, *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (pair / "results").exists()
    assert not history_folder().exists()


def test_every_bench_is_in_the_history_and_on_its_page(pair: Path, tmp_path: Path):
    assert json.loads(mobileinst("history", "--json").stdout)["entries"] == []
    mobileinst("bench", pair, *BRIEF)
    mobileinst("bench", pair, *BRIEF)
    entries = json.loads(mobileinst("history", "--json").stdout)["entries"]
    assert len(entries) == 2
    assert all("schedules" not in entry for entry in entries)
    for source in ("history", entries[0]["name"], pair):
        page = tmp_path / "page.html"
        told = json.loads(mobileinst("report", source, "-o", page, "--json").stdout)
        assert (told["page"], told["bytes"]) == (str(page), page.stat().st_size)
        assert len(told["measurements"]) == (2 if source == "history" else 1)
        assert "Distributions" in page.read_text()


def test_repeats_are_measured_apart_and_their_agreement_is_told(pair: Path):
    done = mobileinst("bench", pair, *BRIEF, "--repeat", "2", "--json")
    document = json.loads(done.stdout)
    assert len(document["devices"]) == 2
    assert len({json.dumps(d["schedules"]) for d in document["devices"]}) == 2
    assert len(json.loads(mobileinst("history", "--json").stdout)["entries"]) == 2


@pytest.mark.parametrize(
    "words", [("--repeat", "0"), ("--repeat", "2", "--device", "qemu", "--count")], ids=" ".join
)
def test_repeats_that_cannot_be_are_refused(pair: Path, words: tuple[str, ...]):
    assert mobileinst("bench", pair, *words).exit_code == 2


def test_another_machines_measurements_are_taken_over(tmp_path: Path):
    farm = tmp_path / "farm.json"
    farm.write_text(json.dumps({"schema": 2, "devices": [RECORD.to_dict()]}))
    done = mobileinst("history", "--merge", farm, "--merge", farm, "--json")
    document = json.loads(done.stdout)
    assert document["merged"] == {"added": 1, "known": 1, "refused": []}
    assert len(document["entries"]) == 1
    assert mobileinst("history", "--merge", tmp_path / "missing").exit_code == 2


def test_a_damaged_entry_is_named_and_the_others_are_listed():
    remember(RECORD)
    (history_folder() / "0000.json").write_text("{")
    done = mobileinst("history", "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert [entry["pair"]["model_id"] for entry in document["entries"]] == ["tiny"]
    assert "0000.json" in document["damaged"][0]


class Phone:
    """A phone that measures what it is told."""

    runtime = "onnxruntime 1.32.0"

    def __init__(self, serial: str, ms: float):
        self.serial, self.ms, self.name = serial, ms, f"adb:{serial}"

    def measure(self, pair, settings, cancel, progress) -> Measured:
        made = record_of({1: (self.ms, None)})
        device = replace(made.device, kind="adb", serial=self.serial)
        states = made.state_before, made.state_after
        return Measured(device, *states, self.runtime, 1, (1,), made.schedules)


def test_of_several_phones_the_baselines_own_is_judged(pair: Path, tmp_path: Path, monkeypatch):
    phones = [Phone("A", 10), Phone("B", 10)]
    monkeypatch.setattr(bench_targets, "open_targets", lambda *a, **k: tuple(phones))
    measured = ("bench", pair, "--device", "adb", "--all", "--clip-lengths", "1", "--json")
    baseline = tmp_path / "b.json"
    baseline.write_text(json.dumps(json.loads(mobileinst(*measured).stdout)["devices"][1]))
    judged = []

    def judge(record, older, share, name):
        judged.append((record.device.serial, older.device.serial))
        return GateResult(name, False, share, ())

    monkeypatch.setattr(against, "against_record", judge)
    done = mobileinst(*measured, "--against", baseline)
    assert judged == [("B", "B")]
    assert "adb:A was not judged" in " ".join(done.stderr.split())
    assert len(json.loads(done.stdout)["devices"]) == 2
    del phones[1]
    refused = mobileinst(*measured, "--against", baseline)
    assert refused.exit_code == 2
    assert "measured on adb:B, and this is for adb:A" in " ".join(refused.stderr.split())
    assert len(judged) == 1


@pytest.mark.parametrize("source", ["missing/pair", "missing.json", "2099"])
def test_a_page_of_nothing_is_refused(source, tmp_path: Path):
    done = mobileinst("report", source, "-o", tmp_path / "page.html")
    assert done.exit_code == 2
    assert not (tmp_path / "page.html").exists()


def test_a_load_too_short_for_one_clip_is_one_clip(pair: Path):
    words = ("--sustained", "1e-9", "--clip-lengths", "1", "--warmup", "0", "--json")
    done = mobileinst("bench", pair, *words)
    assert done.exit_code == 4, done.stderr
    assert len(json.loads(done.stdout)["clips"]) == 1


def test_a_load_is_borne_by_one_phone(pair: Path):
    phones = ("--device", "adb", "--serial", "A", "--serial", "B")
    done = mobileinst("bench", pair, "--sustained", "60", *phones)
    assert done.exit_code == 2
    assert "a second --serial" in done.stderr


def test_a_load_that_was_borne_outlives_a_failure_at_the_next_t(pair: Path, monkeypatch):
    really, seen = HostClips.run, []

    def failing(self, length, *rest):
        seen.append(length)
        if length == 3:
            raise DeviceError("the phone went away", "Connect it again")
        return really(self, length, *rest)

    monkeypatch.setattr(HostClips, "run", failing)
    monkeypatch.setattr(Sustained, "holds", False)
    words = ("--sustained", "0.2", "--clip-lengths", "1,3", "--warmup", "0")
    assert mobileinst("bench", pair, *words).exit_code == 3
    (kept,) = pair.rglob("sustained.json")
    assert [clip["clip_length"] for clip in json.loads(kept.read_text())["clips"]] == [1]
