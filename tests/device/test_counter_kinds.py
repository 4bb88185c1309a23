"""The counter tells kinds of instructions apart as the disassembler does, and adds them up."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import native
import pytest

from mobileinst_deploy.phone.counter import host_compiler
from mobileinst_deploy.phone.device_bundle import RUNNER, DeviceBundle
from mobileinst_deploy.phone.toolchain import compile_shared

COUNTER = native.SOURCES / "counter"
#: Those that compilers seldom write, on top of what is in a library.
RARE = """
fmla v0.4s, v1.4s, v2.4s; fmls v0.2s, v1.2s, v2.2s; fmla v0.2d, v1.2d, v2.2d
fmla v0.8h, v1.8h, v2.8h; fmls v0.4h, v1.4h, v2.4h; fmla v0.8h, v1.8h, v2.h[7]
fmls v0.4h, v1.4h, v2.h[0]; fmla v0.4s, v1.4s, v2.s[3]; fmls v0.2s, v1.2s, v2.s[1]
fmla v0.2d, v1.2d, v2.d[1]; fmla s0, s1, v2.s[1]; fmls d0, d1, v2.d[1]; fmla h0, h1, v2.h[5]
fmadd h0, h1, h2, h3; fnmsub d0, d1, d2, d3; fmul v0.4s, v1.4s, v2.s[1]; fmulx v0.4s, v1.4s, v2.4s
fmul v0.8h, v1.8h, v2.8h; fadd v0.4s, v1.4s, v2.4s; mla v0.4s, v1.4s, v2.s[1]
smlal v0.4s, v1.4h, v2.4h; sqdmulh v0.4s, v1.4s, v2.4s; fcmla v0.4s, v1.4s, v2.4s, #90
ld1 {v0.4s}, [x0]; ld1 {v0.4s, v1.4s, v2.4s, v3.4s}, [x0], #64; ld1r {v0.4s}, [x0], x1
ld4 {v0.s, v1.s, v2.s, v3.s}[1], [x0]; st1 {v0.8h}, [x0], #16; st2 {v0.4s, v1.4s}, [x0]
ldp q0, q1, [x0, #32]!; stp d0, d1, [x0]; ldnp q0, q1, [x0]; ldpsw x0, x1, [x2]; ldr q0, [x0, x1]
ldr q0, 0; ldr x0, 0; ldrsw x0, 0; prfm pldl1keep, 0; prfm pldl1keep, [x0]; prfum pldl1keep, [x0]
str q0, [x0], #16; str h0, [x0]; ldur b0, [x0, #-1]; stur q0, [x0, #-16]; ldrsb w0, [x0]
strb w0, [x0, #1]; ldar x0, [x1]; stlr w0, [x1]; ldxr x0, [x1]; stxr w0, x1, [x2]; ldapr x0, [x1]
ldadd x0, x1, [x2]; swp x0, x1, [x2]; ldtr x0, [x1]; sttr x0, [x1]; b 0; b.eq 0; bl 0; br x0
blr x1; ret; cbz x0, 0; cbnz w0, 0; tbz x0, #3, 0; tbnz w0, #3, 0; svc #0; nop
mrs x0, nzcv; dmb ish
"""
#: A program whose kinds between two marks are known: ten rounds of what is in the loop.
PROGRAM = """
.global _start
mark: mov x8, #167
      mov x0, #0x726b
      movk x0, #0x6d61, lsl #16
      svc #0
      ret
_start:
      adr x9, data
      mov x1, #0
      bl mark
      mov x10, #10
loop: ldr q0, [x9]
      ld1 {v1.4s, v2.4s}, [x9]
      fmla v3.4s, v1.4s, v0.s[0]
      fmla v3.4s, v1.4s, v2.4s
      fmla v4.2s, v1.2s, v2.2s
      fmadd s5, s0, s1, s2
      fmul v6.4s, v1.4s, v2.4s
      subs x10, x10, #1
      b.ne loop
      mov x1, #1
      bl mark
      mov x8, #93
      mov x0, #0
      svc #0
.balign 16
data: .fill 64, 1, 0
"""


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}; run: make apt")
    return found


def disassembled(mnemonic: str, operands: str) -> str:
    """The kind of an instruction by its name."""
    if mnemonic in ("fmadd", "fmsub", "fnmadd", "fnmsub"):
        return "fmla_scalar"
    if mnemonic in ("fmla", "fmls"):
        first = operands.split(",")[0]
        if not first.startswith("v"):
            return "fmla_scalar"
        half = "half_" if ".4h" in first or ".8h" in first else ""
        return f"fmla_{half}{64 if first.endswith(('.2s', '.4h', '.1d')) else 128}"
    if re.fullmatch(r"b(\.\w+)?|bl|br|blr|ret|cbn?z|tbn?z", mnemonic):
        return "branch"
    if re.match(r"(ld(?!g)|cas|swp)", mnemonic):
        return "load"
    return "store" if re.match(r"st(?!g)", mnemonic) else "other"


@pytest.mark.device
def test_kinds_are_the_disassemblers(tmp_path: Path, real_bundle: DeviceBundle):
    objdump = tool("aarch64-linux-gnu-objdump")
    check = tmp_path / "check"
    source = native.SOURCES / "tests" / "kinds_check.c"
    subprocess.run([*host_compiler(), "-O1", source, "-o", check], check=True)
    rare = tmp_path / "rare"
    rare.with_suffix(".s").write_text(RARE.replace(";", "\n"))
    command = [tool("aarch64-linux-gnu-gcc"), "-march=armv8.5-a+fp16", "-c", "-o", rare]
    subprocess.run([*command, rare.with_suffix(".s")], check=True)
    seen: Counter[str] = Counter()
    for path in (rare, real_bundle.folder / "libm.so.6", real_bundle.folder / RUNNER):
        command = [objdump, "-d", "--section=.text", path]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        # The undefined word and data between functions are no instructions.
        line = re.compile(r"^\s*[0-9a-f]+:\s+([0-9a-f]{8})\s+([a-z]\S*)\s*(.*)$", re.MULTILINE)
        lines = [found for found in line.findall(text) if found[1] != "udf"]
        words = "\n".join(code for code, _, _ in lines)
        told = subprocess.run([check], input=words, capture_output=True, text=True, check=True)
        for (code, mnemonic, operands), kind in zip(lines, told.stdout.split(), strict=True):
            assert kind == disassembled(mnemonic, operands), (code, mnemonic, operands)
            seen[kind] += 1
    assert len(seen) == 9
    assert seen.total() > 50_000


@pytest.mark.device
def test_kinds_between_marks_add_up(tmp_path: Path):
    assembler, qemu = tool("aarch64-linux-gnu-gcc"), tool("qemu-aarch64")
    (tmp_path / "program.s").write_text(PROGRAM)
    command = [assembler, "-nostdlib", "-static", "program.s", "-o", "program"]
    subprocess.run(command, cwd=tmp_path, check=True)
    plugin = tmp_path / "libcounter.so"
    compile_shared(host_compiler(), str(COUNTER / "counter.c"), plugin)
    log = tmp_path / "log"
    command = [qemu, "-plugin", f"{plugin},out={log},kinds=on", tmp_path / "program"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "plugin" in done.stderr:
        pytest.skip(f"this qemu takes no plugin: {done.stderr[:100]}")
    assert done.returncode == 0
    text = log.read_text()
    marks = {int(k): int(n) for k, n in re.findall(r"^mark (\d+) (\d+)$", text, re.MULTILINE)}
    kinds = [
        {name: int(n) for name, n in re.findall(r"(\w+)=(\d+)", line)}
        for line in text.splitlines()
        if line.startswith("kinds ")
    ]
    between = {name: kinds[1][name] - kinds[0][name] for name in kinds[0]}
    assert sum(between.values()) == marks[1] - marks[0]
    assert between | {"other": 0, "branch": 0} == {
        **{"fmla_128": 20, "fmla_64": 10, "fmla_scalar": 10, "fmla_half_128": 0},
        **{"fmla_half_64": 0, "load": 20, "store": 0, "branch": 0, "other": 0},
    }
    assert between["branch"] == 10 + 2  # the loop, a return and a call
