"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mobileinst_deploy.core import files
from mobileinst_deploy.core.errors import InputError, OutputError
from mobileinst_deploy.core.files import (
    canonical_sha256,
    exchange,
    folder_atomically,
    require_writable,
    sha256_of,
    write_atomically,
    write_json,
)

KNOWN = frozenset({"mark", "more"})


def fill(folder: Path, content: str = "new") -> None:
    with folder_atomically(folder, "mark", KNOWN) as temporary:
        (temporary / "mark").write_text(content)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path):
    path = tmp_path / "deep" / "file"
    write_atomically(path, lambda temporary: temporary.write_text("one"))
    write_atomically(path, lambda temporary: temporary.write_text("two"))
    assert path.read_text() == "two"
    assert names(path.parent) == ["file"]


def test_a_new_file_has_the_permissions_that_any_new_file_has(tmp_path):
    write_atomically(tmp_path / "file", lambda temporary: temporary.write_text(""))
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, failure):
    path = tmp_path / "file"
    path.write_text("old")

    def half(temporary: Path) -> None:
        temporary.write_text("ha")
        raise failure

    with pytest.raises(failure):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "there is no space left"),
        (errno.EDQUOT, "there is no space left"),
        (errno.EACCES, "cannot be written: Permission denied"),
        (errno.EROFS, "cannot be written: Read-only file system"),
    ],
)
def test_a_refusal_to_write_is_a_sentence(tmp_path, number, said):
    def refuse(temporary: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError, match=said):
        write_atomically(tmp_path / "file", refuse)
    with pytest.raises(OutputError, match=said), folder_atomically(tmp_path / "f", "mark", KNOWN):
        refuse(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "failure", [FileNotFoundError(2, "No such file", "/elsewhere"), ConnectionResetError(104, "x")]
)
def test_what_fails_elsewhere_while_writing_is_not_called_unwritable(tmp_path, failure):
    def fail(temporary: Path) -> None:
        raise failure

    with pytest.raises(type(failure)):
        write_atomically(tmp_path / "file", fail)
    with (
        pytest.raises(type(failure)),
        folder_atomically(tmp_path / "f", "mark", KNOWN) as temporary,
    ):
        fail(temporary)
    assert names(tmp_path) == []


@pytest.mark.parametrize("place", ["new", "deep/er/new", "folder", "file"])
def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    require_writable(tmp_path / place)
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("place", ["/proc/mobileinst", "/dev/null/mobileinst", "/proc/self"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(place):
    with pytest.raises(OutputError, match=f"{place}.* cannot be written"):
        require_writable(Path(place))


def test_a_place_without_room_is_told_before_the_work(tmp_path):
    with pytest.raises(OutputError, match="no space left"):
        require_writable(tmp_path / "file", room=1 << 60)


@pytest.mark.parametrize("place", ["/proc/mobileinst", "/dev/null/mobileinst"])
def test_where_nobody_may_write_the_sentence_names_the_place(place):
    with pytest.raises(OutputError, match=f"{place}.* cannot be written"):
        fill(Path(place))
    with pytest.raises(OutputError, match=f"{place}.* cannot be written"):
        write_json(Path(place) / "file", {})


def test_a_full_disk_is_said_to_be_full(tmp_path):
    write = f'write_atomically(Path("{tmp_path}/file"), lambda t: t.write_bytes(bytes(1 << 20)))'
    python = f"from pathlib import Path; from mobileinst_deploy.core.files import *; {write}"
    script = f"mount -t tmpfs -o size=64k tmpfs {tmp_path} && exec {sys.executable} -c '{python}'"
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("this system gives no user namespaces, so no file system of its own size")
    done = subprocess.run([*namespace, "sh", "-c", script], capture_output=True, text=True)
    assert "OutputError: there is no space left" in done.stderr


def test_json_holds_no_value_that_json_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", {"value": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("before", [None, (), ("mark",), ("mark", "more")])
def test_a_new_an_empty_and_an_older_folder_give_way(tmp_path, before):
    folder = tmp_path / "folder"
    if before is not None:
        folder.mkdir()
        for name in before:
            (folder / name).write_text("old")
    fill(folder)
    assert names(folder) == ["mark"]
    assert (folder / "mark").read_text() == "new"
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("before", [("photo.jpg",), ("mark", "photo.jpg"), ("more",)])
def test_a_folder_of_anything_else_does_not(tmp_path, before):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in before:
        (folder / name).write_text("precious")
    with pytest.raises(OutputError, match="is not an older export"):
        fill(folder)
    assert names(folder) == sorted(before)
    assert names(tmp_path) == ["folder"]


def test_a_file_does_not_become_a_folder(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        fill(tmp_path / "file")


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    fill(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    fill(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "mark").read_text() == "new"
    assert names(tmp_path) == ["link", "real"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_the_older_one(tmp_path, failure):
    folder = tmp_path / "folder"
    fill(folder, "old")

    def half() -> None:
        with folder_atomically(folder, "mark", KNOWN) as temporary:
            (temporary / "mark").write_text("half")
            raise failure

    with pytest.raises(failure):
        half()
    assert (folder / "mark").read_text() == "old"
    assert names(tmp_path) == ["folder"]


class TestTheStepIntoPlace:
    """An older folder gives way in one step; two renames are what other file systems have."""

    @pytest.mark.parametrize(("at_once", "which"), [(True, 1), (False, 1), (False, 2), (False, 3)])
    def test_an_interruption_loses_nothing(self, tmp_path, monkeypatch, at_once, which):
        folder = tmp_path / "folder"
        fill(folder, "old")
        rename, seen = Path.rename, []

        def interrupted(path: Path, target: Path) -> Path:
            seen.append(path)
            if len(seen) == which:
                raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", interrupted)
        if not at_once:
            monkeypatch.setattr(files, "exchange", lambda one, other: False)
        with pytest.raises(KeyboardInterrupt):
            fill(folder)
        assert (folder / "mark").read_text() == "old"
        assert names(tmp_path) == ["folder"]

    @pytest.mark.parametrize("at_once", [True, False])
    def test_both_ways_give_the_new_folder(self, tmp_path, monkeypatch, at_once):
        if not at_once:
            monkeypatch.setattr(files, "exchange", lambda one, other: False)
        fill(tmp_path / "folder", "old")
        fill(tmp_path / "folder", "new")
        assert (tmp_path / "folder" / "mark").read_text() == "new"
        assert names(tmp_path) == ["folder"]

    def test_a_folder_that_filled_meanwhile_is_not_lost(self, tmp_path):
        folder = tmp_path / "folder"

        def late() -> None:
            with folder_atomically(folder, "mark", KNOWN) as temporary:
                (temporary / "mark").write_text("new")
                folder.mkdir()
                (folder / "photo.jpg").write_text("precious")

        with pytest.raises(OutputError, match="is not an older export"):
            late()
        assert names(folder) == ["photo.jpg"]

    def test_two_paths_change_places(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "b").write_text("b")
        if not exchange(tmp_path / "a", tmp_path / "b"):
            pytest.skip("this file system cannot")
        assert (tmp_path / "b").is_dir()
        assert (tmp_path / "a").read_text() == "b"
        with pytest.raises(OSError, match="No such file"):
            exchange(tmp_path / "a", tmp_path / "none")


def test_a_document_is_the_same_in_any_order_and_form():
    assert canonical_sha256({"a": 1, "b": [2]}) == canonical_sha256({"b": [2], "a": 1})
    assert canonical_sha256({"a": 1}) != canonical_sha256({"a": 2})


def test_a_file_that_cannot_be_read_has_no_sha256(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        sha256_of(tmp_path / "none")
    with pytest.raises(InputError, match="Is a directory"):
        sha256_of(tmp_path)
