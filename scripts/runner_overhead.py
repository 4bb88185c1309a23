"""What the on-device runner's timing adds to a bare Run loop, on this machine: PAIR [RUNS].

Both programs are built for this machine by ``cmake --preset host -DMOBILEINST_TESTS=ON && cmake
--build --preset host`` in ``android_bench``. Medians in ms; a ratio of 1 means no overhead.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import onnxruntime

from mobileinst_deploy.core.bundle import load_bundle, load_golden
from mobileinst_deploy.core.contract import ROLES
from mobileinst_deploy.phone.plan import Plan, reuse_pattern
from mobileinst_deploy.phone.result import read_result

PROGRAMS = Path(__file__).parent.parent / "android_bench" / "build" / "host"
LIBRARY = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))

bundle = load_bundle(Path(sys.argv[1]))
runs = int(sys.argv[2]) if len(sys.argv) > 2 else 200
golden = load_golden(bundle)
calls = reuse_pattern(
    {role: graph.spec for role, graph in bundle.graphs.items()},
    [golden.image(0)],
    golden.kernels(0),
)
with tempfile.TemporaryDirectory() as folder:
    plan = Plan("bench", calls, core=0, warmups=5, runs=runs, clip_lengths=(2,))
    graphs = {role: str(graph.path.resolve()) for role, graph in bundle.graphs.items()}
    plan.write(Path(folder), str(LIBRARY), graphs)

    def start(program: str) -> subprocess.CompletedProcess[str]:
        """Run one of the two on the plan."""
        return subprocess.run(
            [PROGRAMS / program, f"{folder}/plan.txt"], capture_output=True, text=True, check=True
        )

    for _ in range(5):
        done = start("mobileinst_runner")
        samples = read_result(done.stdout, done.returncode, done.stderr).schedules[0].samples
        bare = dict(line.split() for line in start("bare_loop").stdout.splitlines())
        for role in ROLES:
            ours = statistics.median(s.run_ms for s in samples if s.role == role)
            loop = float(bare[role])
            print(f"{role}: runner {ours:.3f}, bare loop {loop:.3f}, ratio {ours / loop:.3f}")
