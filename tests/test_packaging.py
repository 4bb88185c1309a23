"""The wheel holds one package and the zoo, and works where nothing of this checkout is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from mobileinst_deploy import __version__
from mobileinst_deploy.core.zoo import zoo_ids

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout, without the network: the build tools are installed already."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_one_package_and_its_metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert tops == {"mobileinst_deploy", f"mobileinst_deploy-{__version__}.dist-info"}


def test_the_wheel_holds_the_zoos_data(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for model_id in zoo_ids():
        for file in ("model.toml", "MODEL_CARD.md"):
            assert f"mobileinst_deploy/_models/{model_id}/{file}" in names
    assert "mobileinst_deploy/py.typed" in names, "the package says that it is typed"


def test_the_installed_wheel_runs_in_a_clean_environment(wheel: Path, tmp_path: Path):
    """Clean but for the third-party packages, which are lent: copying them would take minutes."""
    clean = tmp_path / "clean"
    venv.create(clean, with_pip=False, symlinks=True)
    python = clean / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    quiet = ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", str(wheel)]
    subprocess.run([*pip, *quiet], check=True)
    # A folder named by a .pth file is searched, but its own .pth files, such as that of this
    # checkout's editable installation, are not followed.
    (packages,) = clean.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    where = "import mobileinst_deploy; print(mobileinst_deploy.__file__)"
    for command, check in (
        ([python, "-c", where], lambda out: out.startswith(str(packages))),
        (
            [clean / "bin" / "mobileinst", "models", "--json"],
            lambda out: [row["id"] for row in json.loads(out)["models"]] == zoo_ids(),
        ),
    ):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert check(done.stdout), done.stdout
