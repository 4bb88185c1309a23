"""Other programs: their words, their end, and that none of them outlives the wait."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from mobileinst_deploy.core.programs import run_program


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_program_is_heard_to_its_end(tmp_path: Path):
    code = "import os, sys; print(os.getcwd(), sorted(os.environ)); sys.exit('no: \\xe9')"
    done = run_program(python(code), limit_s=20, cwd=tmp_path, env={"LC_ALL": "C.UTF-8"})
    assert (done.code, done.fault) == (1, None)
    assert str(tmp_path) in done.stdout
    assert "LC_ALL" in done.stdout
    assert "HOME" not in done.stdout
    assert done.stderr.strip() == "no: \xe9"


def test_bytes_that_are_no_text_are_replaced():
    done = run_program(python("import os; os.write(1, b'a\\xff')"), limit_s=20)
    assert done.stdout == "a\ufffd"


def test_it_reads_nothing():
    assert run_program(python("print(repr(input()))"), limit_s=20).code == 1


def test_one_that_is_not_there_does_not_start():
    done = run_program(["/no/such/program"], limit_s=1)
    assert (done.code, done.fault) == (None, "does not start: No such file or directory")


def test_one_that_takes_too_long_is_killed(tmp_path: Path):
    code = f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(60)"
    begun = time.monotonic()
    done = run_program(python(code), limit_s=2)
    assert (done.code, done.fault) == (None, "did not end within 2 s")
    assert time.monotonic() - begun < 10
    assert not alive(int((tmp_path / "pid").read_text()))


def test_whoever_waits_may_end_the_wait_and_the_program(tmp_path: Path):
    pid = tmp_path / "pid"
    code = f"import os, time; open('{pid}', 'w').write(str(os.getpid())); time.sleep(60)"

    def give_up() -> None:
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_program(python(code), limit_s=30, between=give_up)
    assert not alive(int(pid.read_text()))


def test_much_output_does_not_stop_it():
    done = run_program(python("print('x' * 2_000_000)"), limit_s=20, between=lambda: None)
    assert len(done.stdout) == 2_000_001
