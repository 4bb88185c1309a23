"""``mobileinst profile``: the shares add up, and what has no times shows none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import mobileinst

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.network.loading import load_model
from mobileinst_deploy.pair.export import export_model


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> ExportBundle:
    return export_model(
        load_model("mobileinst-demo", size=(64, 64)), tmp_path_factory.mktemp("profile") / "pair"
    )


def test_the_host_shows_every_part_of_both_graphs(pair: ExportBundle):
    done = mobileinst("profile", str(pair.folder), "--runs", "3", "--json")
    assert done.exit_code == 0, done.stderr
    graphs = json.loads(done.stdout)["graphs"]
    shared = {"backbone", "mask decoder", "enhancer", "projections", "normalisation", "masks"}
    decoder = {f"instance decoder, {name}" for name in ("global stage", "local stage", "heads")}
    assert {p["name"] for p in graphs["mask_head"]["parts"]} >= shared
    assert {p["name"] for p in graphs["frame"]["parts"]} >= shared | decoder
    for graph in graphs.values():
        assert graph["runs"] == 3
        total = sum(p["ms"] for p in graph["parts"])
        for kind in ("parts", "operators"):
            assert sum(row["share"] for row in graph[kind]) == pytest.approx(1)
            assert sum(row["ms"] for row in graph[kind]) == pytest.approx(total)
        unknown = sum(p["nodes"] for p in graph["parts"] if "unknown" in p["name"])
        assert unknown < 0.1 * sum(p["nodes"] for p in graph["parts"])
    assert "by part" in done.stderr
    assert "Conv" in done.stderr


def test_it_leaves_its_result_behind_and_nothing_else(
    pair: ExportBundle, tmp_path: Path, monkeypatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(path for path in pair.folder.iterdir() if path.name != "results")
    place = tmp_path / "there"
    done = mobileinst("profile", str(pair.folder), "--runs", "1", "--report", place, "--json")
    assert done.exit_code == 0
    assert sorted(path for path in pair.folder.iterdir() if path.name != "results") == before
    assert not list((tmp_path / "here").iterdir())
    (kept,) = place.rglob("*.json")
    assert kept == place / "cpu-onnxruntime-plain" / "profile.json"
    assert json.loads(kept.read_text()) == json.loads(done.stdout)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--device", "qemu"], "an emulated device has no times"),
        (["--device", "gpu"], "there is no device 'gpu'"),
        (["--device", "adb", "--core", "big"], "the core 'big' is not"),
        (["--core", "7"], "--core speaks of a phone and the device is cpu"),
    ],
    ids=lambda v: v[-1] if isinstance(v, list) else None,
)
def test_what_cannot_be_profiled_is_a_sentence(pair: ExportBundle, words: list[str], says: str):
    done = mobileinst("profile", str(pair.folder), *words)
    assert done.exit_code == 2
    assert says in done.stderr
