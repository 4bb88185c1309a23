"""What phones print about themselves, understood defensively; no phone needed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.measure.device import DeviceFacts, DeviceState
from mobileinst_deploy.phone.state import (
    check_abi,
    check_memory,
    parse_phone,
)

GOOD = """\
prop [ro.soc.model]: [SM7325]
prop [ro.product.manufacturer]: [Xiaomi]
prop [ro.product.model]: [Mi 11 Lite]
prop [ro.build.version.release]: [13]
prop [ro.product.cpu.abilist]: [arm64-v8a,armeabi-v7a]
file cpu0/cpufreq/cpuinfo_max_freq=1900800
core cpu0
file cpu7/online=1
file cpu7/cpufreq/cpuinfo_min_freq=806400
file cpu7/cpufreq/cpuinfo_max_freq=2400000
file cpu7/cpufreq/scaling_max_freq=2000000
file cpu7/cpufreq/scaling_cur_freq=1800000
file cpu7/cpufreq/scaling_governor=schedutil
core cpu7
file thermal_zone0/type=battery
file thermal_zone0/temp=31200
memory MemTotal:        7600000 kB
memory MemAvailable:    4000000 kB
battery USB powered: true
battery AC powered: false
battery level: 77
battery temperature: 312
thermal Thermal Status: 1
thermal Temperature{mValue=33.25, mType=3, mName=skin, mStatus=1}
power mWakefulness=Awake
"""


def facts(**properties: str) -> DeviceFacts:
    """A phone with these properties; ``__`` stands for a dot."""
    text = "".join(f"prop [{k.replace('__', '.')}]: [{v}]\n" for k, v in properties.items())
    return parse_phone("SERIAL", text)[0]


def state(text: str) -> DeviceState:
    return parse_phone("SERIAL", text)[1]


def test_a_stock_phone_is_read() -> None:
    what, how = parse_phone("SERIAL", GOOD)
    assert what == DeviceFacts(
        "adb", "SERIAL", "Xiaomi", "Mi 11 Lite", "SM7325", "13", ("arm64-v8a", "armeabi-v7a"), False
    )
    assert what.comparable is None
    core = how.core(7)
    assert core is not None
    assert (core.min_khz, core.max_khz, core.allowed_khz) == (806400, 2400000, 2000000)
    assert (core.now_khz, core.governor) == (1800000, "schedutil")
    assert how.zones_celsius == {"battery": 31.2}
    assert (how.battery_percent, how.battery_celsius, how.charging) == (77, 31.2, True)
    assert (how.thermal_status, how.skin_celsius, how.awake) == (1, 33.25, True)
    assert how.celsius == 33.25
    assert (how.memory_bytes, how.available_bytes) == (7600000 << 10, 4000000 << 10)


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        ({"ro__soc__model": "SM7325"}, None),
        ({"ro__soc__model": "SM8550"}, "SM8550, and the paper has SM7325"),
        ({}, "an unknown SoC"),
        ({"ro__board__platform": "lahaina"}, "lahaina"),
        ({"ro__soc__model": "SM7325", "ro__kernel__qemu": "1"}, "emulated"),
        ({"ro__soc__model": "SM7325", "ro__boot__qemu": "1"}, "emulated"),
        ({"ro__soc__model": "SM7325", "ro__hardware": "ranchu"}, "emulated"),
        ({"ro__soc__model": "SM7325", "ro__build__characteristics": "emulator"}, "emulated"),
    ],
)
def test_only_a_real_778g_is_comparable(properties: dict[str, str], why: str | None) -> None:
    comparable = facts(**properties).comparable
    assert comparable == why if why is None else comparable is not None and why in comparable


def test_androids_own_emulator_is_known_by_its_serial() -> None:
    assert parse_phone("emulator-5554", GOOD)[0].emulated


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("battery level: 300", "battery_percent"),
        ("battery level: -1", "battery_percent"),
        ("battery level: ", "battery_percent"),
        ("battery temperature: 99999", "battery_celsius"),
        ("battery temperature: warm", "battery_celsius"),
        ("thermal Thermal Status: 9", "thermal_status"),
        ("thermal Thermal Status: -1", "thermal_status"),
        ("thermal Temperature{mValue=NaN, mType=3, mName=skin}", "skin_celsius"),
        ("thermal Temperature{mValue=999.0, mType=3, mName=skin}", "skin_celsius"),
        ("thermal Temperature{mValue=36.0, mType=30, mName=npu}", "skin_celsius"),
        ("power mWakefulness=Perhaps", "awake"),
        ("memory MemAvailable: lots", "available_bytes"),
    ],
)
def test_values_beyond_reason_are_unknown(line: str, field: str) -> None:
    assert getattr(state(line), field) is None


@pytest.mark.parametrize(
    ("raw", "celsius"),
    [("31200", 31.2), ("312", 31.2), ("31", 31.0), ("-5000", -5.0), ("149", 149.0)],
)
def test_thermal_zones_speak_three_units(raw: str, celsius: float) -> None:
    assert state(f"file thermal_zone3/temp={raw}").zones_celsius == {"thermal_zone3": celsius}


@pytest.mark.parametrize("raw", ["", "-274000", "200000", "1e3", "0x20", "٣١", "9" * 40])
def test_switched_off_sensors_are_left_out(raw: str) -> None:
    assert state(f"file thermal_zone3/temp={raw}").zones_celsius == {}


@pytest.mark.parametrize("raw", ["0", "5", "99999999999", "-2400000", "2.4GHz", ""])
def test_impossible_clocks_are_unknown(raw: str) -> None:
    core = state(f"file cpu1/cpufreq/cpuinfo_max_freq={raw}\ncore cpu1").core(1)
    assert core is not None
    assert core.max_khz is None


def test_a_core_is_online_unless_it_says_otherwise() -> None:
    read = state("file cpu1/online=0\ncore cpu1\ncore cpu0")
    assert [(c.index, c.online) for c in read.cores] == [(0, True), (1, False)]


def test_escape_codes_do_not_reach_the_terminal() -> None:
    read = facts(ro__product__model="\x1b[2JPwned\x07", ro__soc__model="SM\x007325")
    assert read.model == "[2JPwned"
    assert read.soc == "SM7325"


_WORDS = st.sampled_from([*GOOD.split(), "file", "core", "prop", "[", "]", "=", ":", "cpu99"])
_LINES = st.lists(_WORDS | st.text(max_size=20), max_size=6).map(" ".join)
_TEXTS = st.lists(_LINES | st.sampled_from(GOOD.splitlines()), max_size=40).map("\n".join)


@given(_TEXTS | st.text())
def test_whatever_a_phone_prints_is_no_error_and_within_reason(text: str) -> None:
    what, how = parse_phone("SERIAL", text)
    assert len(how.cores) <= 64
    assert all(-40 <= v <= 150 for v in (how.zones_celsius or {}).values())
    assert how.battery_percent is None or 0 <= how.battery_percent <= 100
    assert how.thermal_status is None or 0 <= how.thermal_status <= 6
    assert all(c.max_khz is None or 10_000 <= c.max_khz <= 10_000_000 for c in how.cores)
    shown: list[Any] = [what.manufacturer, what.model, what.soc, what.android, *what.abis]
    assert all(v is None or v.isprintable() for v in shown)
    import json

    json.dumps([what.to_dict(), how.to_dict()], allow_nan=False)


def test_a_32_bit_system_is_refused_and_silence_is_not() -> None:
    check_abi(facts())
    check_abi(facts(ro__product__cpu__abilist="x86_64,arm64-v8a"))
    with pytest.raises(DeviceError, match="armeabi-v7a"):
        check_abi(facts(ro__product__cpu__abilist="armeabi-v7a,armeabi"))


def test_too_little_memory_is_refused_and_silence_is_not() -> None:
    check_memory(facts(), state(""), 1 << 40)
    check_memory(facts(), state(GOOD), 50 << 20)
    with pytest.raises(DeviceError, match="3906 MB of memory free"):
        check_memory(facts(), state(GOOD), 4 << 30)
