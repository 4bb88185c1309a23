"""A kernel network of somebody else's code: from its name to a verified pair, and its use."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import foreign_network
import pytest
import torch
from commands import mobileinst
from safetensors.torch import save_file
from test_bad_input import refused

from mobileinst_deploy.core.bundle import load_bundle

HERE = "foreign_network"


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("user") / "pair"
    result = mobileinst("export", "--network", f"{HERE}:sized", "--size", "128x192", "-o", folder)
    assert result.exit_code == 0, result.stderr
    return folder


def weights(path: Path, rename=lambda name: name, **more: torch.Tensor) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state = foreign_network.Spots().state_dict()
    floats = {rename(n): t for n, t in state.items() if t.is_floating_point()}
    save_file({**floats, **more}, path)
    return path


def test_the_manifest_describes_it_whole(pair: Path):
    bundle = load_bundle(pair)
    assert bundle.model_id == f"{HERE}:sized"
    assert bundle.config == foreign_network.sized((128, 192)).needs
    assert not bundle.trained
    document = json.loads((pair / "manifest.json").read_text())
    assert document["model"]["needs"]["scores"] == "softmax"
    assert "config" not in document["model"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "PAIR", "--json"],
        ["inspect", "PAIR", "--json"],
        ["profile", "PAIR", "--json"],
        ["optimize", "PAIR", "-o", "OUT"],
        ["quantize", "PAIR", "--half-weights", "-o", "OUT"],
        ["verify", "PAIR", "--network", f"{HERE}:sized", "--locate"],
    ],
    ids=lambda a: " ".join(a[:3]),
)
def test_what_works_on_a_pair_works_on_this_one(arguments: list[str], pair: Path, tmp_path: Path):
    names = {"PAIR": str(pair), "OUT": str(tmp_path / "out")}
    result = mobileinst(*(names.get(a, a) for a in arguments))
    assert result.exit_code == 0, result.stderr


def test_its_weights_load_and_are_told_apart_from_random_ones(tmp_path: Path):
    file = weights(tmp_path / "w.safetensors")
    out = tmp_path / "out"
    result = mobileinst("export", "--network", f"{HERE}:Spots", "--weights", file, "-o", out)
    assert result.exit_code == 0, result.stderr
    assert load_bundle(out).trained


def test_a_published_layout_loads_by_the_networks_own_translation(tmp_path: Path):
    file = weights(
        tmp_path / "w.safetensors",
        lambda name: name.replace("stem.", "body."),
        step_count=torch.zeros(1),
    )
    out = tmp_path / "out"
    result = mobileinst(
        "export", "--network", f"{HERE}:Renamed", "--weights", file, "-o", out, "--no-verify"
    )
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("Narrow", "decode's kernels has the shape 1x6x4, not 1x6x8"),
        ("Few", "decode's class_logits has the shape 1x6x2, not 1x6x3"),
        ("Double", "features' mask_features is float64, not float32"),
        ("More", "decode gives a tuple, not Decoded"),
        ("Follows", "follows the values in a picture"),
        ("Infinite", "decode's kernels holds values that are not finite"),
        ("Coarse", "masks has the shape 1x6x4x6, not 1x6x8x12"),
        ("Unlike", "reuse_features gives other mask features"),
        ("Unmade", "features raises NotImplementedError"),
        ("NoQuality", "decode's objectness_logits is a NoneType"),
        ("Beside", "features gives a context"),
        ("Chance", "decode's kernels are others each time"),
        ("Spoils", "features' mask_features are others each time"),
        ("Whole", "decode's kernels is int64, not float32"),
        ("Listed", "features gives a list, not Features"),
        ("Text", "decode raises ValueError: \\x1b[31mfirst line"),
        ("raises", "cannot be built: KeyError"),
        ("wants_more", "missing 1 required positional argument"),
        ("endless", "cannot be built: RecursionError"),
        ("leaves", "cannot be built: SystemExit"),
        ("bare", "gives a Linear, not a KernelNetwork"),
        ("missing", "has no missing to call"),
        ("NEEDS", "has no NEEDS to call"),
    ],
)
def test_a_network_that_breaks_the_contract_is_told_which_part(
    factory: str, said: str, tmp_path: Path
):
    out = tmp_path / "out"
    refused(mobileinst("export", "--network", f"{HERE}:{factory}", "-o", out), said)
    assert not out.exists()


def test_what_the_users_code_prints_leaves_the_answer_whole(tmp_path: Path):
    result = mobileinst("export", "--network", f"{HERE}:Loud", "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["parity"]["passed"] is True
    assert "decoding" in result.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module:x", "ModuleNotFoundError"),
        ("broken_module:x", "cannot be imported: SyntaxError"),
        ("loud_module:x", "cannot be imported: ZeroDivisionError"),
        ("foreign_network", "is not package.module:factory"),
        (":x", "is not package.module:factory"),
        ("foreign_network:a b", "is not package.module:factory"),
        ("..foreign:x", "cannot be imported"),
    ],
)
def test_code_that_cannot_be_had_is_one_sentence(name: str, said: str, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("def (:\n")
    (tmp_path / "loud_module.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    refused(mobileinst("export", "--network", name, "-o", "out"), said)
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--network", f"{HERE}:Spots", "mobileinst-demo"], "not both"),
        ([], "give either a model or --network"),
        (["--network", f"{HERE}:deaf", "--size", "96x96"], "asked for 96x96 and built 64x96"),
        (["--network", f"{HERE}:Spots", "--weights", "other.safetensors"], "does not fit Spots"),
        (["--network", f"{HERE}:Spots", "--weights", "none.pth"], "there is no weights file"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, said, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({"backbone.conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    refused(mobileinst("export", *arguments, "-o", "out"), said)
    assert not (tmp_path / "out").exists()


def test_no_code_runs_because_a_manifest_names_it(pair: Path, tmp_path: Path):
    """A bundle is untrusted: its network is imported only when the user names it."""
    refused(
        mobileinst("verify", pair, "--weights", weights(tmp_path / "w.safetensors")),
        "code that is not mobileinst's",
    )


def test_another_network_than_the_pairs_is_refused(pair: Path, tmp_path: Path):
    refused(
        mobileinst("verify", pair, "--network", f"{HERE}:sized", "--weights",
                   weights(tmp_path / "w.safetensors")),
        "at hand",
    )  # fmt: skip


def test_the_network_of_the_documents_is_exported_and_verified(tmp_path: Path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
    (tmp_path / "dots.py").write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    result = mobileinst("export", "--network", "dots:Dots", "-o", "pair")
    assert result.exit_code == 0, result.stderr
    sys.modules.pop("dots")
