"""The long round: ``python -m fuzz CASES [--seed=N] [TARGET ...]``, run by ``make fuzz``.

Each target runs in a process of its own under atheris, which follows the coverage of this package;
half of the inputs are libFuzzer's mutations, half :mod:`fuzz.mutate`'s. What fails is kept under
``tests/fuzz/corpus``, one file for each place that failed, and belongs into the repository once it
is fixed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

#: The most that one input may take: the limits that the readers promise.
SECONDS, MIB = 5, 2048
TESTS = Path(__file__).parents[1]


def main() -> int:
    """Run every target, or those named, with its share of the cases; 1 when something was found."""
    cases, names = int(sys.argv[1].replace("_", "")), sys.argv[2:]
    first = 1  # of the targets' seeds; another one tries other cases
    if names and names[0].startswith("--seed="):
        first = int(names.pop(0).removeprefix("--seed="))
    sys.path.insert(0, str(TESTS))
    from fuzz.targets import CORPUS, TARGETS

    chosen = {name: target for name, target in TARGETS.items() if not names or name in names}
    whole = sum(target.share for target in chosen.values())
    before = set(CORPUS.rglob("*"))
    for number, (name, target) in enumerate(chosen.items(), first):
        runs, began = round(cases * target.share / whole), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--one", name, folder, str(runs), str(number)]
            done = subprocess.run(command, env=os.environ | {"PYTHONPATH": _path()}, check=False)
        minutes = (time.monotonic() - began) / 60
        print(f"{name}: {runs} cases, seed {number}, {minutes:.1f} min, exit {done.returncode}",
              flush=True)  # fmt: skip
    found = sorted(set(CORPUS.rglob("*")) - before)
    print("\n".join(f"found {path}" for path in found) or "nothing found")
    return int(bool(found))


def _path() -> str:
    return os.pathsep.join((str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")))


def fuzz_one(name: str, folder: Path, runs: int, seed: int) -> None:
    """Fuzz one target in this process, which atheris ends."""
    import atheris

    with atheris.instrument_imports(include=["mobileinst_deploy"]):
        from fuzz.targets import CORPUS, TARGETS, survives
    from fuzz.mutate import mutated

    target = TARGETS[name]
    seeds = target.seeds()
    for number, data in enumerate(seeds):
        (folder / str(number)).write_bytes(data)

    def test(data: bytes) -> None:
        began = time.perf_counter()
        try:
            survives(target, data)
            if time.perf_counter() - began < SECONDS:
                return
            where = "slow"
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
        path = CORPUS / name / where
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def mutate(data: bytes, most: int, number: int) -> bytes:
        if number % 2:
            return atheris.Mutate(data, most)
        return mutated(number, [data, *seeds], text=target.text)[:most]

    digest = int(hashlib.sha256(f"{name}{seed}".encode()).hexdigest()[:7], 16)
    options = [f"-runs={runs}", f"-seed={digest}", f"-timeout={SECONDS}", f"-rss_limit_mb={MIB}"]
    options += [f"-artifact_prefix={CORPUS / name}-", "-max_len=65536", "-verbosity=0", str(folder)]
    atheris.Setup([sys.argv[0], *options], test, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz_one(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        sys.exit(main())
