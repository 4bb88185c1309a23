"""An app's loop around an exported pair, with nothing of mobileinst but its C tracker.

    g++ -std=c++17 -O2 -shared -fPIC -ffp-contract=off -Iandroid_bench/include -Iandroid_bench/src \
        android_bench/src/track_*.cc -o libmobileinst_track.so
    python examples/app_loop.py PAIR PICTURES tracks.json --library libmobileinst_track.so

For a folder of pictures it writes what ``mobileinst run PAIR PICTURES -o OUT`` writes to
OUT/tracks.json, byte for byte. The rules are those of docs/picture-to-graph.md. ``--record FILE``
also keeps what the graphs gave, for examples/app_loop.c.
"""

import argparse
import ctypes
import json
import os
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path

import cv2
import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

PADDING = (124, 116, 104)


class Options(ctypes.Structure):
    """mobileinst_track_options, field by field."""

    _fields_ = [
        *((name, c_int32) for name in ("queries", "classes", "kernel_width")),
        *((name, c_int32) for name in ("mask_height", "mask_width")),
        *((name, c_int32) for name in ("picture_height", "picture_width")),
        *((name, c_int32) for name in ("content_height", "content_width", "clip_length")),
        *((name, c_double) for name in ("score", "keep", "similarity", "duplicate_iou", "overlap")),
        *((name, c_int32) for name in ("memory", "remembered", "automatic")),
        *((name, c_double) for name in ("change", "certainty")),
    ]


class Instance(ctypes.Structure):
    """mobileinst_track_instance."""

    _fields_ = [("id", c_int64), ("class_index", c_int32), ("score", c_double)]


class Rle(ctypes.Structure):
    """mobileinst_track_rle."""

    _fields_ = [
        *((name, c_int32) for name in ("height", "width")),
        *(("counts", c_char_p), ("length", c_size_t), ("area", c_int64)),
    ]


def check(status: int) -> None:
    """Every status is looked at; none is expected but OK."""
    if status != 0:
        raise RuntimeError(f"the tracker gives status {status}; see mobileinst_track.h")


def fit(picture: np.ndarray, content: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Points 4 to 6: resize, place at the top left, pad; (1,3,H,W) float32."""
    if picture.shape[:2] != content:
        shrinks = min(size[0] / picture.shape[0], size[1] / picture.shape[1]) < 1
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        picture = cv2.resize(picture, (content[1], content[0]), interpolation=way)
    padded = np.full((*size, 3), PADDING, np.uint8)
    padded[: content[0], : content[1]] = picture
    return np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32)


def floats(array: np.ndarray) -> "ctypes._Pointer[c_float]":
    """A C pointer to a float32 array's values."""
    return array.ctypes.data_as(POINTER(c_float))


def main() -> None:
    """Follow the pictures and write the tracks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pair", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("tracks", type=Path)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("-T", type=int, default=3, dest="clip_length")
    parser.add_argument("--score", type=float)
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()

    config = json.loads((arguments.pair / "manifest.json").read_text())["model"]["config"]
    height, width = config["input_size"]
    frame_graph, mask_head = (
        onnxruntime.InferenceSession(arguments.pair / name, providers=["CPUExecutionProvider"])
        for name in ("frame.onnx", "mask_head.onnx")
    )
    slots = mask_head.get_inputs()[1].shape[1]  # a number, or a name where any number goes
    files = sorted(arguments.pictures.iterdir())
    first = cv2.imread(str(files[0]))

    library = ctypes.CDLL(arguments.library.resolve())
    library.mobileinst_track_live_kernels.restype = POINTER(c_float)
    options = Options()
    library.mobileinst_track_defaults(byref(options))
    options.queries = config["num_queries"]
    options.classes = len(config["classes"])
    options.kernel_width = config["width"]
    options.mask_height, options.mask_width = height // 8, width // 8
    options.clip_length = arguments.clip_length
    if arguments.score is not None:
        options.score = arguments.score
    # Points 2 and 3, and where masks are made.
    check(library.mobileinst_track_fit(byref(options), first.shape[0], first.shape[1]))
    content = options.content_height, options.content_width
    tracker = c_void_p()
    check(library.mobileinst_track_create(byref(options), byref(tracker)))

    record = bytearray()
    for value in (*config["input_size"], config["num_queries"], len(config["classes"])):
        record += c_int32(value)
    for value in (config["width"], *first.shape[:2], arguments.clip_length, len(files)):
        record += c_int32(value)
    known, masks = {}, {}  # by identity: class and score; the mask in each frame
    for index, file in enumerate(files):
        picture = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        image = fit(picture, content, (height, width))
        if library.mobileinst_track_wants_keyframe(tracker):
            names = ["class_logits", "objectness_logits", "kernels", "mask_logits"]
            outputs = frame_graph.run(names, {"image": image})
            check(library.mobileinst_track_keyframe(tracker, *map(floats, outputs)))
        else:
            live, outputs = c_int32(), []
            kernels = library.mobileinst_track_live_kernels(tracker, byref(live))
            if live.value:
                shape = (1, live.value, config["width"])
                given = np.ctypeslib.as_array(kernels, shape).copy()
                if isinstance(slots, int):
                    given = np.pad(given, ((0, 0), (0, slots - live.value), (0, 0)))
                logits = mask_head.run(None, {"image": image, "kernels": given})[0]
                outputs = [np.ascontiguousarray(logits[:, : live.value])]
            check(library.mobileinst_track_reuse(tracker, *(map(floats, outputs) or [None])))
        for output in outputs:
            record += output.tobytes()
        instance, rle = Instance(), Rle()
        for i in range(library.mobileinst_track_seen_count(tracker)):
            check(library.mobileinst_track_seen(tracker, i, byref(instance)))
            known[instance.id] = instance.class_index, instance.score
        for i in range(library.mobileinst_track_count(tracker)):
            check(library.mobileinst_track_get(tracker, i, byref(instance)))
            check(library.mobileinst_track_mask(tracker, i, byref(rle)))
            if rle.area:  # else it is not seen in this frame
                mask = {"size": [rle.height, rle.width], "counts": rle.counts.decode()}
                masks.setdefault(instance.id, [None] * len(files))[index] = mask
    library.mobileinst_track_destroy(tracker)

    tracks = []
    for identity, (kind, score) in sorted(known.items(), key=lambda item: (-item[1][1], item[0])):
        if identity in masks:
            head = {"video_id": 1, "id": identity, "category_id": kind + 1}
            tracks.append(head | {"score": round(score, 6), "segmentations": masks[identity]})
    arguments.tracks.write_text("[" + ",\n".join(map(json.dumps, tracks)) + "]\n")
    if arguments.record:
        arguments.record.write_bytes(record)


if __name__ == "__main__":
    main()
