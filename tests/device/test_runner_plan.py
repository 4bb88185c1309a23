"""The plan: what Python writes the C++ parser reads, and whatever else it is given it refuses."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import native
import numpy as np
import pytest
import tiny_pair
from hypothesis import HealthCheck, example, given, settings, strategies as st

from mobileinst_deploy.core.contract import Call, graph_specs
from mobileinst_deploy.core.errors import DeviceError, InputError, OutputError
from mobileinst_deploy.phone.plan import PLAN_FILE, Plan, plan_call, plan_calls, reuse_pattern

GRAPHS = {"frame": "/pair/frame.onnx", "mask_head": "/pair/mask_head.onnx"}
PICTURE = tiny_pair.picture()
KERNELS = np.ones((1, 3, tiny_pair.D), np.float32)
WHOLE = """\
mobileinst-plan\t1
mode\tbench
library\tlib.so
folder\tout
core\t7
warmups\t10
runs\t50
seconds\t2.5
clips\t1,3,6
limit\t600
graph\tframe\tframe.onnx
graph\tmask_head\tmask_head.onnx
call\tframe
input\timage\tfloat32\t1,3,64,64\tin.bin\tuint8\t01234567
result\tkernels\tfloat32\t1,5,4
call\tmask_head
input\timage\tfloat32\t1,3,64,64\tin.bin\tfloat32\t89abcdef
input\tkernels\tfloat32\t1,5,4\t@kernels
result\tmask_logits\tfloat32\t1,5,8,8
end
"""


class Parser:
    """The C++ parser as a process that answers plan after plan."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [native.program("plan_check")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(self, plan: str | bytes) -> str:
        data = plan.encode() if isinstance(plan, str) else plan
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"%d\n" % len(data) + data)
        self._process.stdin.flush()
        answer = self._process.stdout.readline().decode()
        assert answer.endswith("\n"), f"the parser died of {data!r}"
        return answer.strip()

    def close(self) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0, "a leak, or a sanitizer's report"


@pytest.fixture(scope="module")
def parse() -> Iterator[Parser]:
    parser = Parser()
    yield parser
    parser.close()


def written(folder: Path, plan: Plan) -> str:
    plan.write(folder, "/bundle/libonnxruntime.so", GRAPHS)
    return (folder / PLAN_FILE).read_text()


class TestWriting:
    @pytest.mark.parametrize("mode", ["outputs", "bench", "profile", "count"])
    def test_the_parser_reads_what_is_written(self, tmp_path: Path, parse: Parser, mode: str):
        calls = reuse_pattern(tiny_pair.SPECS, [PICTURE])
        plan = Plan(mode, calls, core=3, warmups=1, runs=2, seconds=1e-3, clip_lengths=(1, 6))
        assert parse(written(tmp_path, plan)) == "plan 2 calls"

    @pytest.mark.parametrize("kernels", [None, KERNELS])
    def test_context_is_handed_over_by_the_latest_keyframe(
        self, tmp_path: Path, parse: Parser, kernels: np.ndarray | None
    ):
        specs = graph_specs(tiny_pair.REUSING)
        _, reuse = calls = reuse_pattern(specs, [PICTURE], kernels)
        sources = {i.spec.name: i.source for i in reuse.inputs}
        assert sources["context_p"] == "@context_p"
        assert sources["context_m"] == "@context_m"
        assert isinstance(sources["kernels"], str) == (kernels is None)
        plan = Plan("bench", calls, runs=1, seconds=0, clip_lengths=(3,))
        assert parse(written(tmp_path, plan)) == "plan 2 calls"

    def test_pictures_are_stored_as_bytes_and_equal_tensors_once(self, tmp_path: Path):
        calls = [
            Call("frame", {"image": PICTURE}),
            Call("mask_head", {"image": PICTURE, "kernels": KERNELS / 3}),
        ]
        plan = Plan("outputs", plan_calls(tiny_pair.SPECS, calls))
        names = plan.write(tmp_path, "lib", GRAPHS)
        sizes = sorted((tmp_path / name).stat().st_size for name in names if name != PLAN_FILE)
        assert sizes == [KERNELS.nbytes, PICTURE.size]
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)

    @pytest.mark.parametrize("value", [0.5, -1.0, 256.0, np.nan, np.inf])
    def test_values_that_are_not_bytes_keep_their_dtype(self, tmp_path: Path, value: float):
        picture = PICTURE.copy()
        picture[0, 0, 0, 0] = value
        plan = Plan("outputs", plan_calls(tiny_pair.SPECS, [Call("frame", {"image": picture})]))
        (name,) = [n for n in plan.write(tmp_path, "lib", GRAPHS) if n != PLAN_FILE]
        np.testing.assert_array_equal(np.fromfile(tmp_path / name, "<f4"), picture.ravel())

    def test_negative_zero_and_views_survive(self, tmp_path: Path):
        kernels = np.asfortranarray(KERNELS * -0.0)
        calls = [Call("mask_head", {"image": PICTURE, "kernels": kernels})]
        names = Plan("outputs", plan_calls(tiny_pair.SPECS, calls)).write(tmp_path, "lib", GRAPHS)
        assert len(names) == 3

    @pytest.mark.parametrize("path", ["a\tb", "a\nb", ""])
    def test_a_path_that_would_break_the_plan_is_refused(self, tmp_path: Path, path: str):
        plan = Plan("outputs", plan_calls(tiny_pair.SPECS, [Call("frame", {"image": PICTURE})]))
        with pytest.raises(DeviceError, match="holds an empty field, a TAB or a line break"):
            plan.write(tmp_path, path, GRAPHS)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path):
        (tmp_path / "file").write_text("")
        plan = Plan("outputs", plan_calls(tiny_pair.SPECS, [Call("frame", {"image": PICTURE})]))
        with pytest.raises(OutputError, match="file"):
            plan.write(tmp_path / "file", "lib", GRAPHS)

    @pytest.mark.parametrize(
        ("role", "arrays", "says"),
        [
            ("frame", {}, "image takes float32 .* was given nothing"),
            ("frame", {"image": PICTURE[..., :32]}, r"was given float32 \(1, 3, 64, 32\)"),
            ("frame", {"image": PICTURE.astype(np.float64)}, "was given float64"),
            ("frame", {"image": PICTURE, "photo": PICTURE}, "no input photo"),
            ("mask_head", {"image": PICTURE, "kernels": KERNELS[0]}, r"\(1, 'n', 4\)"),
        ],
    )
    def test_inputs_that_do_not_fit_are_named(
        self, role: str, arrays: dict[str, np.ndarray], says: str
    ):
        with pytest.raises(InputError, match=says):
            plan_call(tiny_pair.SPECS[role], arrays)


@pytest.mark.parametrize(
    ("find", "put", "why"),
    [
        ("plan\t1", "plan\t2", "not a plan of version 1"),
        ("mode\tbench", "mode\tdance", "unknown mode 'dance'"),
        ("core\t7", "core\t-1", "from 0 to 1023"),
        ("core\t7", "core\tsome", "from 0 to 1023"),
        ("warmups\t10", "warmups\t1001", "from 0 to 1000"),
        ("runs\t50", "runs\t0", "from 1 to 100000"),
        ("runs\t50", "runs\t99999999999999999999", "from 1 to 100000"),
        ("runs\t50", "runs\t50\t50", "wrong number of fields"),
        ("runs\t50", "runs\t16668", "more than 100000 runs"),
        ("seconds\t2.5", "seconds\tnan", "not a number of seconds"),
        ("seconds\t2.5", "seconds\t1e9", "not a number of seconds"),
        ("seconds\t2.5", "seconds\t0x10", "not a number of seconds"),
        ("limit\t600", "limit\t86401", "from 1 to 86400"),
        ("clips\t1,3,6", "clips\t1,,6", "from 1 to 1000"),
        ("clips\t1,3,6", "clips\t3,3", "the same T twice"),
        ("clips\t1,3,6", "clips\t" + ",".join(map(str, range(1, 18))), "more than 16"),
        ("library\tlib.so\n", "", "no line 'library'"),
        ("core\t7\n", "core\t7\ncore\t7\n", "a second 'core'"),
        ("core\t7\n", "core\t7\ncolour\tred\n", "unknown keyword 'colour'"),
        ("core\t7", "core\t", "an empty field"),
        ("graph\tframe\tframe.onnx\n", "", "no graph frame"),
        ("graph\tframe\tframe.onnx\n", "graph\tframe\ta\ngraph\tframe\tb\n", "second such graph"),
        ("graph\tframe", "graph\tface", "unknown graph 'face'"),
        ("call\tframe\n", "", "no call has begun"),
        ("1,3,64,64\tin.bin\tuint8", "1,3,65536,65536\tin.bin\tuint8", "too large"),
        ("1,3,64,64\tin.bin\tuint8", "1,0\tin.bin\tuint8", "from 1 to"),
        ("1,3,64,64\tin.bin\tuint8", "1,1,1,1,1,1,1,1,1\tin.bin\tuint8", "too large"),
        ("in.bin\tuint8", "in.bin\tint64", "only uint8 is widened"),
        ("01234567", "0123456", "not a CRC-32"),
        ("01234567", "0123456g", "not a CRC-32"),
        ("in.bin\tuint8\t01234567", "in.bin", "input from a file"),
        ("@kernels", "@masks", "no frame call before this one has a result 'masks'"),
        ("@kernels", "@", "no frame call before this one"),
        ("1,5,4\t@kernels", "1,4,5\t@kernels", "differ in dtype or shape"),
        ("input\tkernels", "input\timage", "a second tensor named 'image'"),
        ("call\tmask_head\n", "call\tframe\n", "one frame call and at most one mask_head"),
        ("result\tmask_logits\tfloat32\t1,5,8,8\n", "", "no input or no result"),
        ("result\tkernels", "result\t" + "k" * 201, "longer than 200"),
        ("lib.so", "l" * 4096, "longer than 4095"),
        ("end\n", "", "cut off"),
        ("end\n", "end", "the line has no end"),
        ("end\n", "end\nend\n", "goes on after its end"),
        ("lib.so", "lib\r", "line feed"),
        ("lib.so", "lib\0", "line feed"),
    ],
)
def test_an_absurd_plan_is_refused_with_the_reason(parse: Parser, find: str, put: str, why: str):
    assert parse(WHOLE) == "plan 2 calls"
    assert WHOLE.count(find) >= 1
    answer = parse(WHOLE.replace(find, put, 1))
    assert answer.startswith("refused ")
    assert why in answer


def test_more_calls_or_bytes_than_the_limits_are_refused(parse: Parser):
    head, call = WHOLE.split("call\tframe\n", 1)
    call = "call\tframe\n" + call.split("call\tmask_head")[0]
    head = head.replace("bench", "outputs")
    assert parse(head + call * 4096 + "end\n") == "plan 4096 calls"
    assert "more than 4096 calls" in parse(head + call * 4097 + "end\n")
    large = call.replace("1,3,64,64", "1,16384,16384")
    assert "more than 2 GiB" in parse(head + large * 9 + "end\n")


lines = st.lists(
    st.sampled_from(WHOLE.splitlines(keepends=True))
    | st.text(st.characters(codec="utf-8"), max_size=30),
    max_size=30,
)
edits = st.lists(
    st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 12), st.binary(max_size=12)), max_size=6
)
quick = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class TestFuzz:
    @quick
    @given(st.binary(max_size=400))
    @example(b"")
    @example(b"\n")
    @example(b"mobileinst-plan\t1\nend\n")
    def test_any_bytes_are_answered(self, parse: Parser, data: bytes):
        assert re.match("refused |plan ", parse(data))

    @quick
    @given(lines)
    def test_any_lines_are_answered(self, parse: Parser, parts: list[str]):
        assert re.match("refused |plan ", parse("".join(parts)))

    @quick
    @given(edits)
    def test_any_edits_are_answered(self, parse: Parser, changes: list[tuple[int, int, bytes]]):
        data = WHOLE.encode()
        for at, drop, put in changes:
            data = data[:at] + put + data[at + drop :]
        assert re.match("refused |plan ", parse(data))
