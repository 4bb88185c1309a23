"""What an outsider meets first: licence, changelog, workflows, hooks. Each says what is so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mobileinst_deploy import __version__

ROOT = Path(__file__).parent.parent
WORKFLOWS = (ROOT / ".github" / "workflows" / "test.yml", ROOT / "examples" / "ci" / "parity.yml")


def test_the_package_names_its_licence_its_authors_and_the_paper():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert project["authors"] == [{"name": "The mobileinst authors"}]
    assert "Paper" in project["urls"]
    licence, notice = (ROOT / name for name in project["license-files"])
    assert "Apache License" in licence.read_text()
    assert "MODEL_CARD.md" in notice.read_text()


def test_the_newest_dated_entry_of_the_changelog_is_this_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text
    dated = re.findall(r"^## \[(.+?)\] - (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)
    assert dated[0][0] == __version__
    assert [day for _, day in dated] == sorted((day for _, day in dated), reverse=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_the_parts_that_github_asks_for(path: Path):
    workflow = yaml.safe_load(path.read_text())
    assert True in workflow  # YAML 1.1 reads the key `on` as true
    for job in workflow["jobs"].values():
        assert {"runs-on", "steps", "timeout-minutes"} <= job.keys()
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])


def test_the_workflow_runs_targets_that_the_makefile_has():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wanted = set(re.findall(r"run: make (\S+)", WORKFLOWS[0].read_text()))
    assert wanted <= targets
    assert {"apt", "test", "docs"} <= wanted


def test_the_hooks_run_what_the_project_has_and_download_nothing():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


def steps_of_the_parity_example(*wanted: str) -> list[str]:
    """The shell lines of its steps whose name begins so."""
    (job,) = yaml.safe_load(WORKFLOWS[1].read_text())["jobs"].values()
    found = [step["run"] for step in job["steps"] if step.get("name", "").startswith(tuple(wanted))]
    assert len(found) == len(wanted)
    return found


def run_in(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a step as a job does, with this project installed."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "MODEL": "mobileinst-demo",
    }
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", line]
    return subprocess.run(
        shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


def test_the_parity_example_proves_a_good_model_and_leaves_what_it_found(tmp_path: Path):
    (export,) = steps_of_the_parity_example("Export")
    done = run_in(tmp_path, export)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "parity-cpu.json").read_text())["parity"]["passed"] is True
    assert (tmp_path / "pair" / "mask_head.onnx").is_file()


@pytest.mark.device
def test_the_parity_example_fails_on_arm_when_a_graph_is_not_the_exported_one(
    pair: Path, tmp_path: Path
):
    if subprocess.run(["which", "qemu-aarch64"], capture_output=True).returncode:
        pytest.skip("qemu-aarch64 is missing: `make apt` brings it")
    (prove,) = steps_of_the_parity_example("Prove the same files")
    assert run_in(tmp_path, prove).returncode == 0
    with (pair / "mask_head.onnx").open("ab") as graph:
        graph.write(b"\0")
    assert run_in(tmp_path, prove).returncode != 0
