"""A journal keeps what was written whole and forgets what was cut off."""

from __future__ import annotations

import subprocess
import sys
import zlib

import pytest

from mobileinst_deploy.core.documents import Whole
from mobileinst_deploy.core.errors import OutputError
from mobileinst_deploy.core.journal import Journal

KEY = {"model": "a", "data": "b"}
ENTRIES = [[1, "x"], {"y": 0.1}, None, [], "z" * 1000]


def written(folder, entries=ENTRIES, key=KEY):
    with Journal(folder, key) as journal:
        assert list(journal.entries()) == []
        for entry in entries:
            journal.add(entry)
    return journal.path


def read(folder, key=KEY):
    with Journal(folder, key) as journal:
        return list(journal.entries())


def test_what_was_written_is_read_in_order(tmp_path):
    written(tmp_path / "made" / "when missing")
    assert read(tmp_path / "made" / "when missing") == ENTRIES


def test_other_work_has_another_journal(tmp_path):
    written(tmp_path)
    assert read(tmp_path, {**KEY, "model": "other"}) == []


def test_work_goes_on_after_what_is_there(tmp_path):
    written(tmp_path, ENTRIES[:2])
    with Journal(tmp_path, KEY) as journal:
        assert list(journal.entries()) == ENTRIES[:2]
        journal.add(ENTRIES[2])
    assert read(tmp_path) == ENTRIES[:3]


def test_a_file_cut_anywhere_loses_only_its_last_line(tmp_path):
    path = written(tmp_path)
    data = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    for length in [*range(0, 60), ends[-2] + 5, ends[-1] - 1, ends[-1]]:
        path.write_bytes(data[:length])
        whole = sum(end <= length for end in ends)
        assert read(tmp_path) == ENTRIES[:whole]
        assert path.stat().st_size == ([0, *ends])[whole], "the rest is gone for good"


@pytest.mark.parametrize("position", [0, 8, 10, 14])
def test_nothing_after_a_damaged_line_is_believed(tmp_path, position):
    path = written(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\n") + 1 + position] ^= 1
    path.write_bytes(data)
    assert read(tmp_path) == ENTRIES[:1]


def test_finished_work_leaves_nothing(tmp_path):
    with Journal(tmp_path, KEY) as journal:
        journal.add(1)
        journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_two_processes_at_the_same_work_do_not_mix_what_they_keep(tmp_path):
    with Journal(tmp_path, KEY) as first:
        assert list(first.entries()) == []
        first.add(ENTRIES[0])
        with Journal(tmp_path, KEY) as second:
            assert list(second.entries()) == [], "what is still growing is nothing to build on"
            second.add("of the second")
            second.remove()
        first.add(ENTRIES[1])
    assert read(tmp_path) == ENTRIES[:2]


def test_what_a_killed_process_held_is_free_again(tmp_path):
    program = (
        "import os; from pathlib import Path; from mobileinst_deploy.core.journal import Journal\n"
        f"with Journal(Path({str(tmp_path)!r}), {KEY!r}) as journal:\n"
        "    list(journal.entries()); journal.add(1); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert read(tmp_path) == [1]


def test_a_folder_that_cannot_be_made_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError), Journal(tmp_path / "file" / "below", KEY):
        pass


@pytest.mark.parametrize("strange", [None, [], [1], [1, "x", 2], ["1", "x"], [-1, "x"], {"a": 1}])
def test_an_entry_of_another_form_ends_the_journal(tmp_path, strange):
    """A checksum is no signature: whoever writes a line can write its checksum, too."""
    written(tmp_path, [[1, "x"], strange, [2, "y"]])
    with Journal(tmp_path, KEY) as journal:
        assert list(journal.entries(tuple[Whole, str])) == [(1, "x")]
    assert read(tmp_path) == [[1, "x"]]


def test_an_entry_nested_too_deeply_ends_the_journal(tmp_path):
    path = written(tmp_path, [1])
    text = b"[" * 100_000
    path.write_bytes(path.read_bytes() + b"%08x %s\n" % (zlib.crc32(text), text))
    assert read(tmp_path) == [1]
