"""An optimised pair is written only when its own pictures bear it out."""

import json

import numpy as np
import onnx
import pytest

from mobileinst_deploy.core.bundle import load_bundle, load_golden
from mobileinst_deploy.core.contract import ROLES
from mobileinst_deploy.core.errors import BundleError, OutputError, VerificationFailed
from mobileinst_deploy.optimize import optimize_graph
from mobileinst_deploy.optimize.pair import (
    SHARE,
    TILE_LIMITS,
    optimize_checked,
    optimize_pair,
)
from mobileinst_deploy.pair.ladder import verify_bundle
from mobileinst_deploy.pair.onnx_file import get_metadata, load_graph
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner


@pytest.fixture(scope="module")
def optimized(exported, tmp_path_factory):
    return optimize_pair(exported, tmp_path_factory.mktemp("optimized") / "pair")


def test_the_ladder_holds_for_an_optimised_pair(optimized):
    pair, _ = optimized
    report = verify_bundle(pair, CpuRunner(pair), load_golden(pair), reference="golden")
    assert report.passed, report.first_failure


def test_signatures_reference_and_tolerance_stay(exported, optimized):
    pair, _ = optimized
    assert {r: pair.graphs[r].spec for r in ROLES} == {r: exported.graphs[r].spec for r in ROLES}
    assert pair.golden.sha256 == exported.golden.sha256
    assert pair.tolerance == exported.tolerance
    assert pair.config == exported.config


def test_the_pair_says_what_was_done_to_it(exported, optimized):
    pair, reports = optimized
    done = {p.name for report in reports for p in report.passes if p.rewrites}
    assert set(pair.optimized) == done
    assert done
    assert pair.pair_id != exported.pair_id
    for role in ROLES:
        carried = get_metadata(load_graph(pair.graphs[role].path))
        assert carried["pair_id"] == pair.pair_id
        assert carried["optimized"].split() == list(pair.optimized)


def test_the_report_gives_what_was_measured(optimized):
    for report in optimized[1]:
        assert 0 <= report.excess <= SHARE
        assert report.largest_tile in TILE_LIMITS
        assert report.seconds > 0


def test_it_is_written_the_same_each_time(exported, optimized, tmp_path):
    again, _ = optimize_pair(exported, tmp_path / "again")
    assert again.pair_id == optimized[0].pair_id
    for role in ROLES:
        assert again.graphs[role].sha256 == optimized[0].graphs[role].sha256


def test_a_pair_can_be_optimised_in_its_own_folder(pair):
    optimize_pair(load_bundle(pair), pair)
    assert load_bundle(pair).optimized


def test_a_pair_is_not_optimised_twice(optimized, tmp_path):
    with pytest.raises(BundleError, match="already"):
        optimize_pair(optimized[0], tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_a_folder_with_something_else_in_it_is_not_touched(exported, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError):
        optimize_pair(exported, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def spoiling(limit_that_works, amount):
    """A rewrite that moves the mask logits unless it is given small enough tiles."""

    def rewrite(graph, *, largest_tile):
        spoilt, records = optimize_graph(graph, largest_tile=0)
        if largest_tile > limit_that_works:
            last = next(n for n in spoilt.graph.node if "mask_logits" in n.output)
            last.output[:] = ["true_mask_logits"]
            shift = onnx.numpy_helper.from_array(np.float32(amount), "shift")
            spoilt.graph.initializer.append(shift)
            inputs = ["true_mask_logits", "shift"]
            spoilt.graph.node.append(onnx.helper.make_node("Add", inputs, ["mask_logits"]))
        return spoilt, records

    return rewrite


@pytest.mark.parametrize("limit", [6, 4, 0])
def test_tiles_that_round_too_much_are_given_up(exported, limit):
    plain = load_graph(exported.graphs["frame"].path)
    golden, tolerance = load_golden(exported), exported.tolerance
    rewrite = spoiling(limit, 0.6 * tolerance.atol + 100 * tolerance.rtol)
    _, report = optimize_checked("frame", plain, golden, tolerance, rewrite)
    assert report.largest_tile == limit


@pytest.mark.parametrize("amount", [1.0, float("nan"), float("inf")])
def test_a_rewrite_that_changes_the_outputs_is_refused(exported, amount):
    plain = load_graph(exported.graphs["frame"].path)
    with pytest.raises(VerificationFailed, match="mask_logits"):
        optimize_checked(
            "frame", plain, load_golden(exported), exported.tolerance, spoiling(-1, amount)
        )


def test_a_refused_rewrite_leaves_nothing_behind(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("mobileinst_deploy.optimize.pair.SHARE", -1.0)
    with pytest.raises(VerificationFailed):
        optimize_pair(exported, tmp_path / "pair")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_pair_and_one_json_document(pair, tmp_path, capsys):
    from mobileinst_deploy.cli.optimize import optimize

    optimize(pair, tmp_path / "out", json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["pair_id"] == load_bundle(tmp_path / "out").pair_id
    assert set(document["graphs"]) == set(ROLES)


def test_the_default_folder_lies_beside_the_pair(pair):
    from mobileinst_deploy.cli.optimize import optimize

    optimize(pair)
    assert load_bundle(pair.with_name("pair-optimized")).optimized
