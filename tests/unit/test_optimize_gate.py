"""A change that costs a phone more than one instruction in a hundred is noticed."""

import importlib.util
import sys
from pathlib import Path

import pytest

from mobileinst_deploy.core.errors import BundleError, DeviceError, VerificationFailed

SCRIPT = Path(__file__).parents[2] / "scripts" / "instruction_counts.py"
sys.path.insert(0, str(SCRIPT.parent))

from recorded_counts import (  # noqa: E402  # it lies beside the script
    Recorded,
    insist,
    read_recorded,
    write_recorded,
)

RUNTIME = "onnxruntime 1.2.3"
BEFORE = Recorded(RUNTIME, {"plain/frame": 1_000_000, "optimized/frame": 500_000})


def counted(plain, optimized, runtime=RUNTIME):
    return Recorded(runtime, {"plain/frame": plain, "optimized/frame": optimized})


@pytest.mark.parametrize("plain", [1_000_000, 1_009_999, 1_010_000, 500_000])
def test_what_costs_no_more_passes_and_is_shown(plain):
    lines = insist(BEFORE, counted(plain, 500_000), "accept")
    assert len(lines) == 2
    assert f"{plain:,}" in lines[0]


def test_one_graph_that_costs_more_fails_with_the_numbers_and_the_way_to_accept():
    with pytest.raises(VerificationFailed) as caught:
        insist(BEFORE, counted(1_000_000, 505_001), "the command")
    assert "500,000 to 505,001" in caught.value.cause
    assert "plain/frame" not in caught.value.cause
    assert "the command" in caught.value.next_step


def test_another_runtime_is_no_comparison():
    with pytest.raises(VerificationFailed, match=r"9\.9\.9"):
        insist(BEFORE, counted(1, 1, "onnxruntime 9.9.9"), "accept")


def test_a_graph_that_is_new_or_gone_is_noticed():
    with pytest.raises(VerificationFailed, match="optimized/frame"):
        insist(BEFORE, Recorded(RUNTIME, {"plain/frame": 1}), "accept")


def test_accepted_counts_come_back(tmp_path):
    write_recorded(tmp_path / "r.json", BEFORE)
    assert read_recorded(tmp_path / "r.json") == BEFORE


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', '{"schema": 1}', "null"])
def test_a_damaged_record_is_an_error_and_not_a_pass(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(BundleError, match="no recorded"):
        read_recorded(tmp_path / "r.json")


@pytest.mark.device
def test_the_demo_model_costs_no_more_than_recorded(tmp_path):
    spec = importlib.util.spec_from_file_location("instruction_counts", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    try:
        now = script.count_demo(tmp_path)
    except DeviceError as error:
        pytest.skip(str(error))
    insist(read_recorded(script.RECORD), now, script.ACCEPT)
    assert now.counts["optimized/frame"] < 0.75 * now.counts["plain/frame"]
