"""The emulated phone itself: it starts in seconds, is reached from this machine only, and stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PHONE, REPOSITORY

sys.path.insert(0, str(PHONE.parent))

from emulated_phone import image, phone as emulator

from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.state import read_phone

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]


def test_it_runs_aarch64_programs_on_the_cores_that_its_profile_has(phone) -> None:
    said = AdbDevice(phone.serial).shell(
        "uname -m; nproc; taskset -p $$; taskset 80 sh -c 'taskset -p $$'"
    )
    machine, cores, shell_mask, pinned_mask = said.stdout.splitlines()
    assert (machine, cores) == ("aarch64", "8")
    assert shell_mask.endswith(": ff")
    assert pinned_mask.endswith(": 80")


class TestVersions:
    """An archive keeps no old versions: what was tried is preferred, and never insisted on."""

    @pytest.mark.parametrize(
        ("versions", "taken", "told"),
        [
            (["1:10.0.2+ds-2~bpo12+1", "1:7.2+dfsg-7"], "1:10.0.2+ds-2~bpo12+1", False),
            (["1:11.1+ds-1", "1:10.0.8+ds-1"], "1:10.0.8+ds-1", False),
            (["1:11.1+ds-1", "1:7.2+dfsg-7"], "1:11.1+ds-1", True),
        ],
        ids=["the newest", "an older one", "untried"],
    )
    def test_a_tried_one_is_taken_if_there_is_one(
        self, versions: list[str], taken: str, told: bool
    ):
        version, note = image.choose("qemu-user", versions)
        assert version == taken
        assert bool(note) == told

    def test_a_package_that_is_gone_is_said(self):
        with pytest.raises(image.PhoneError, match="no adbd; run: apt-get update"):
            image.choose("adbd", [])

    def test_the_image_says_what_it_is_made_of(self, start_phone):
        lines = (image.image() / image.VERSIONS).read_text().splitlines()
        assert {line.partition("=")[0] for line in lines} >= {*image.TRIED, "toybox:arm64"}
        assert all(line.partition("=")[2] for line in lines)


def test_it_listens_on_loopback_alone(phone) -> None:
    wanted = f"{phone.port:04X}"
    listening = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{wanted}") and line.split()[3] == "0A"
    ]
    loopback = {f"0100007F:{wanted}", f"0000000000000000FFFF00000100007F:{wanted}"}
    assert listening
    assert set(listening) <= loopback


def test_it_sees_its_own_root_only(phone) -> None:
    """Or a bundle that forgot a library could find one in the host's folders for arm64."""
    device = AdbDevice(phone.serial)
    said = device.shell("ls / > /data/own; ls /proc/1/root/ | diff /data/own - ; ls /")
    assert said.stdout.split() == ["apex", "bin", "data", "dev", "proc", "sys", "system"]
    hosts = device.shell("ls -d /usr /lib /lib64 /proc/[0-9]*/root/usr 2>/dev/null")
    assert hosts.stdout == ""


def test_the_machine_keeps_no_trace_of_it(phone) -> None:
    registered = Path("/proc/sys/fs/binfmt_misc")
    assert not (registered / "aarch64").exists()
    assert str(phone.folder) not in Path("/proc/mounts").read_text()


def test_its_system_is_read_only(phone) -> None:
    assert AdbDevice(phone.serial).shell("touch /system/bin/x").exit_code != 0


def test_orphans_are_buried(phone) -> None:
    said = AdbDevice(phone.serial).shell(
        "(sleep 0.1 & ) ; sleep 0.5; for s in /proc/[0-9]*/stat; do"
        " read -r a b state rest < $s && [ $state = Z ] && echo $b; done; true"
    )
    assert said.stdout == ""


def test_its_clock_falls_when_something_pins_itself(other_phone) -> None:
    device = AdbDevice(other_phone("throttling").serial)
    clock = "cat /sys/devices/system/cpu/cpu7/cpufreq/scaling_cur_freq"
    said = device.shell(f"{clock}; taskset 80 sleep 2; {clock}; dumpsys thermalservice")
    before, after, *rest = said.stdout.splitlines()
    assert (before, after) == ("2400000", "1497600")
    assert "Thermal Status: 2" in rest


def test_it_cools_down_by_itself(other_phone) -> None:
    device = AdbDevice(other_phone("cooling").serial)
    assert read_phone(device)[1].celsius == 42.0
    time.sleep(4)
    assert read_phone(device)[1].celsius == 36.5


def test_it_starts_in_seconds_and_stops_by_its_pid(start_phone) -> None:
    began = time.monotonic()
    phone = start_phone("8gen2")
    took = time.monotonic() - began
    assert took < 10
    assert phone.folder.is_dir()
    os.kill(phone.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _listens(phone.port):
        time.sleep(0.05)
    assert not _listens(phone.port)
    # The next start removes what was left.
    start_phone("778g")
    assert not phone.folder.exists()


def test_stopping_what_is_no_phone_is_refused() -> None:
    done = subprocess.run(
        [PHONE, "stop", str(os.getpid())], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"no emulated phone has the pid {os.getpid()}" in done.stderr


def test_a_record_that_another_process_just_removes_stops_nobody(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, record in (("being-written", "{"), ("whole", '{"pid": 1}')):
        (image.cache_folder() / "instances" / name).mkdir(parents=True)
        (image.cache_folder() / "instances" / name / "phone.json").write_text(record)
    (image.cache_folder() / "instances" / "gone").mkdir()
    (image.cache_folder() / "instances" / "gone" / "phone.json").symlink_to(tmp_path / "nowhere")
    emulator.sweep()
    left = {path.name for path in (image.cache_folder() / "instances").iterdir()}
    assert left == {"being-written", "gone"}


def test_an_unknown_profile_is_refused() -> None:
    done = subprocess.run(
        [PHONE, "start", "--profile", "nokia"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "778g" in done.stderr


def test_every_profile_is_listed_with_a_title() -> None:
    folder = REPOSITORY / "scripts" / "emulated_phone" / "profiles"
    listed = subprocess.run([PHONE, "profiles"], capture_output=True, text=True, check=True)
    titles = {s.split()[0]: s.split()[1:] for s in listed.stdout.splitlines()}
    assert set(titles) == {p.stem for p in folder.glob("*.toml")}
    assert all(len(words) > 3 for words in titles.values())


def test_a_phone_can_be_described_in_a_file_of_ones_own(
    start_phone, connect, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'like = "778g"\ntitle = "One big core"\n[properties]\n"ro.soc.model" = "TEST1"\n'
        '[[cluster]]\ncount = 1\npart = "0xd41"\nmin_khz = 500000\nmax_khz = 3000000\n'
        'governor = "performance"\n'
    )
    phone = start_phone(str(mine))
    connect(phone.serial)
    facts, state = read_phone(AdbDevice(phone.serial))
    assert facts.soc == "TEST1"
    assert [(c.max_khz, c.governor) for c in state.cores] == [(3000000, "performance")]


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
