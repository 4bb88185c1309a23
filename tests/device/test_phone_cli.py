"""devices, doctor, bench and clean as a user types them, against real adb and phones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.phone.session import Session
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.storage import REMOTE_ROOT

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]


def mobileinst(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def test_devices_lists_every_device_with_what_it_tells(phone, odd_phone) -> None:
    odd = odd_phone("unauthorized")
    done = mobileinst("devices", "--json")
    assert done.exit_code == 0
    rows = {row["serial"]: row for row in json.loads(done.stdout)["devices"]}
    assert rows[phone.serial]["facts"]["soc"] == "SM7325"
    assert rows[phone.serial]["facts"]["not_comparable_because"] == "emulated"
    assert len(rows[phone.serial]["state"]["cores"]) == 8
    assert rows[odd]["facts"] is None
    assert "authorised" in rows[odd]["problem"]


def test_devices_shows_a_table_to_people(phone) -> None:
    done = mobileinst("devices")
    assert done.exit_code == 0
    for words in ("SM7325", "1 x 806-2400 MHz", "arm64-v8a", "27.5", "not: emulated"):
        assert words in done.stdout


def test_no_device_is_exit_3_for_people_and_machines(adb_server) -> None:
    done = mobileinst("devices", "--json")
    assert done.exit_code == 3
    document = json.loads(done.stdout)
    assert document["devices"] == []
    assert document["error"]["exit_code"] == 3
    assert "USB debugging" in mobileinst("devices").stderr


def test_doctor_is_content_with_a_good_phone(phone, real_bundle) -> None:
    done = mobileinst("doctor", "--device", "adb", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert done.exit_code == 0, findings
    assert any(f["name"] == f"phone {phone.serial}: storage" for f in findings)


@pytest.mark.parametrize(
    ("kind", "words"),
    [(None, "USB debugging"), ("unauthorized", "Unlock the phone")],
    ids=["no phone", "unauthorised"],
)
def test_doctor_names_what_is_missing_and_what_mends_it(
    adb_server, odd_phone, kind: str | None, words: str
) -> None:
    if kind:
        odd_phone(kind)
    done = mobileinst("doctor", "--device", "adb", "--json")
    assert done.exit_code == 3
    broken = [f for f in json.loads(done.stdout)["findings"] if not f["ok"]]
    assert any(words in f["mend"] for f in broken)
    assert all(f["mend"] for f in broken)


def test_doctor_sees_that_a_phone_is_32_bit_or_read_only(other_phone, real_bundle) -> None:
    serials = [other_phone("armv7").serial, other_phone("read-only").serial]
    done = mobileinst("doctor", "--device", "adb", "--json")
    assert done.exit_code == 3
    details = {f["name"]: f["detail"] for f in json.loads(done.stdout)["findings"] if not f["ok"]}
    assert "armeabi-v7a" in details[f"phone {serials[0]}"]
    assert "Read-only" in details[f"phone {serials[1]}"]


def test_bench_saves_prints_and_exits_by_the_protocol(phone, pair, real_bundle) -> None:
    done = mobileinst(
        *("bench", str(pair.folder), "--device", "adb", "--clip-lengths", "1,3", "--json"),
        *("--runs", "2", "--seconds", "0", "--warmup", "0"),
    )
    assert done.exit_code == 4  # too few runs: whatever they show, it is not to be believed
    document = json.loads(done.stdout)
    assert document.pop("error")["exit_code"] == 4  # what is printed says why it failed, too
    place = f"results/adb-{phone.serial.replace(':', '-')}-onnxruntime-plain/latency.json"
    assert document == json.loads((pair.folder / place).read_text())
    assert document["valid"] is False
    assert [c["clip_length"] for c in document["emulated_schedules"]] == [1, 3]
    assert "EMULATED" in done.stderr
    assert "2 runs where sd778g asks for 50" in done.stderr.replace("\n", " ")
    # What the emulator took is in the file for the curious, and nowhere on the screen. (The version
    # of the runtime, 1.32.0, is no time of 1.3 ms.)
    numbers = re.findall(r"\d+(?:\.\d+)+", done.stderr)
    for schedule in document["emulated_schedules"]:
        for ms in schedule["samples"]["run_ms"]:
            for digits in (1, 2, 3):
                assert f"{ms:.{digits}f}" not in numbers


def test_profile_comes_back_from_a_phone_and_an_emulated_ones_times_are_not_shown(
    phone, pair, real_bundle
) -> None:
    done = mobileinst(
        *("profile", str(pair.folder), "--device", "adb", "--runs", "2", "--core", "prime"),
        "--json",
    )
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["emulated"] is True
    assert document["core"] == 7
    for graph in document["graphs"].values():
        assert graph["run_ms"] is None
        rows = graph["parts"] + graph["operators"]
        assert {row["ms"] for row in rows} == {row["share"] for row in rows} == {None}
        assert "Conv" in {row["name"] for row in graph["operators"]}
    assert "EMULATED" in done.stderr
    assert "%" not in done.stderr


class Lying(Session):
    """A phone that sends back something else than the profiler wrote."""

    content = b""

    def fetch(self, result, folder: Path) -> None:
        super().fetch(result, folder)
        (folder / result.profiles["frame"]).write_bytes(self.content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[{", "cannot be read"),
        (b'{"traceEvents": 1}', "it is a table, not a list"),
        (b"[]", "no complete run after 3 warm-ups"),
    ],
    ids=["cut", "another form", "empty"],
)
def test_a_profile_that_is_none_is_a_sentence(
    phone, pair, real_bundle, monkeypatch, content: bytes, says: str
) -> None:
    monkeypatch.setattr(Lying, "content", content)
    monkeypatch.setattr("mobileinst_deploy.workflows.profile.Session", Lying)
    done = mobileinst("profile", str(pair.folder), "--device", "adb", "--runs", "1")
    assert done.exit_code == 3
    sentence, next_step = done.stderr.strip().splitlines()[-2:]
    assert says in sentence
    assert next_step.startswith("Profile again")


def test_bench_gives_reuse_frames_only_the_live_kernels_asked_for(phone, pair, real_bundle) -> None:
    few = ("--runs", "1", "--seconds", "0", "--warmup", "0", "--clip-lengths", "2", "--json")
    done = mobileinst(*("bench", str(pair.folder), "--device", "adb", "--live-kernels", "2", *few))
    document = json.loads(done.stdout)
    assert document["conditions"]["live_kernels"] == 2
    assert any("reuse frames with 2 of 5 kernels" in note for note in document["notes"])
    refused = mobileinst(
        *("bench", str(pair.folder), "--device", "adb", "--live-kernels", "6", *few)
    )
    assert refused.exit_code == 2
    assert "the model has 5" in refused.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--core", "big"], 2),
        (["--protocol", "mlperf"], 2),
        (["--max-temp", "200"], 2),
        (["--clip-lengths", "0"], 2),
        (["--serial", "nobody"], 3),
        (["--all"], 3),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_bench_refuses_at_once_and_leaves_an_older_report_alone(
    adb_server, pair, words: list[str], code: int, tmp_path: Path
) -> None:
    report = tmp_path / "latency.json"
    report.write_text("older")
    done = mobileinst(
        *("bench", str(pair.folder), "--device", "adb", "--report", str(report)), *words
    )
    assert done.exit_code == code
    sentence, next_step = done.stderr.strip().splitlines()
    assert sentence.startswith("error: ")
    assert next_step.endswith(".")
    assert report.read_text() == "older"


def test_clean_frees_the_phone(phone, pair, fake_bundle) -> None:
    device = AdbDevice(phone.serial)
    device.shell(f"mkdir -p {REMOTE_ROOT}/x; head -c 3000000 /dev/zero > {REMOTE_ROOT}/x/y")
    done = mobileinst("device", "clean", "--serial", phone.serial)
    assert done.exit_code == 0
    assert "Freed" in done.stdout
    assert device.shell(f"ls {REMOTE_ROOT}").exit_code != 0
    assert mobileinst("device", "clean").exit_code == 0
