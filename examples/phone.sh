#!/usr/bin/env bash
# An exported pair on the phone that hangs on the cable: prove it, measure it, follow a clip there.
#
#   examples/phone.sh PAIR CLIP OUT [options of `mobileinst bench`]
#
# The phone needs USB debugging and nothing else. `mobileinst doctor` says what is missing here.
set -euo pipefail
[ $# -ge 3 ] || { sed -n 2,6p "$0" >&2; exit 2; }
pair=$1 clip=$2 out=$3
mkdir -p "$out"

mobileinst devices

# Does the phone compute what PyTorch computes? Exit code 1 says no, and ends this script.
mobileinst verify "$pair" --device adb --report "$out/parity.json"

# Milliseconds per frame. Exit code 4 says that they must not be believed, for instance because the
# phone became too warm. The record and all samples are kept even then.
mobileinst bench "$pair" --device adb --report "$out/latency.json" "${@:4}" || [ $? -eq 4 ]

# The loop of an app, on the phone: out/overlay.mp4 shows what it found.
mobileinst run "$pair" "$clip" --device adb -T 3 -o "$out/clip"

# Nothing of ours stays on the phone.
mobileinst device clean
