"""Records keep what decides them, and their verdicts can be recomputed from what they keep."""

from __future__ import annotations

from mobileinst_deploy.core.records import Check, ParityReport


def test_a_ladder_holds_when_every_rung_does_and_names_the_lowest_that_does_not():
    def climb(*passed: bool) -> ParityReport:
        checks = tuple(Check(f"rung {i}", ok, "") for i, ok in enumerate(passed))
        return ParityReport("00", "tiny", False, "cpu", "onnxruntime", "PyTorch", {}, checks)

    assert climb(True, True).passed
    assert climb(True, True).first_failure is None
    failed = climb(True, False, True, False)
    assert not failed.passed
    assert failed.first_failure.rung == "rung 1"
    document = failed.to_dict()
    assert document["passed"] is False
    assert [check["passed"] for check in document["checks"]] == [True, False, True, False]
