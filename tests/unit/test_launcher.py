"""A launcher's variables are held to their form before anything relies on them."""

from __future__ import annotations

import pytest

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.training.launcher import processes

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_there_is_one_process():
    assert processes() == 1


def test_a_launcher_tells_how_many(monkeypatch):
    for name, value in zip(NAMES, ("4", "1", "1", "localhost", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    assert processes() == 4


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"])
@pytest.mark.parametrize("value", ["x", "", "-1", "1" * 5000, "²", "\x1b[31m"])
def test_what_is_no_number_is_named(monkeypatch, name: str, value: str):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"the environment's {name} is"):
        processes()


def test_several_processes_without_a_meeting_place_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 5, and RANK is not set"):
        processes()
