"""One tiny random model, exported once a session: what most tests of the spine stand on."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

# Before torch is imported: tiny tensors are slower on two threads, and less repeatable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from tiny import TINY, TINY_TOML, TOLERANCE, TOLERANCE_TOML

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.network.loading import LoadedModel, build_loaded


def pytest_configure() -> None:
    """A background job ignores Ctrl-C, and the commands that tests start would inherit that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def tiny_source() -> LoadedModel:
    """The tiny network with random weights, in eval mode."""
    return build_loaded("tiny", TINY, None, seed=0, tolerance=TOLERANCE)


@pytest.fixture(scope="session")
def exported(tiny_source: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> ExportBundle:
    """The tiny network's exported pair; tests read it and never write there."""
    from mobileinst_deploy.pair.export import export_model

    return export_model(tiny_source, tmp_path_factory.mktemp("exported") / "tiny")


@pytest.fixture(autouse=True)
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    """What is measured in a test goes into no user's history."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture
def pair(exported: ExportBundle, tmp_path: Path) -> Path:
    """A copy of the exported pair's folder that a test may spoil."""
    folder = tmp_path / "pair"
    shutil.copytree(exported.folder, folder)
    return folder


@pytest.fixture
def bundle(pair: Path) -> ExportBundle:
    """The pair of that folder."""
    return load_bundle(pair)


@pytest.fixture
def tiny_toml(tmp_path: Path) -> Path:
    """The tiny network as a user would write it down."""
    path = tmp_path / "model.toml"
    path.write_text(TINY_TOML + TOLERANCE_TOML)
    return path
