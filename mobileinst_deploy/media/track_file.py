"""``tracks.json``: tracks in YouTube-VIS's results form, written without holding a clip's masks.

::

    [{"video_id": 1, "id": identity, "category_id": class index + 1, "score": 0.93,
      "segmentations": [RLE or null, one per frame]}, ...]
"""

from __future__ import annotations

import errno
import json
import tempfile
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from mobileinst_deploy.core.files import write_atomically
from mobileinst_deploy.core.masks import encode
from mobileinst_deploy.core.tracker import KnownTrack
from mobileinst_deploy.media.overlay_file import no_output

_VIDEO_ID = 1


class TrackFile:
    """Collects run lengths frame by frame in a nameless temporary file beside the result.

    Only where they lie stays in memory: 24 bytes for each mask. The form wants tracks, each over
    all frames, while a clip comes in frames, each with all tracks; hence the detour.

    Args:
        path: The file to write in the end.

    Raises:
        OutputError: Its folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered, so that a full disk is noticed at the frame that does not fit.
            self._spool: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115 - closed by close()
                dir=path.parent, buffering=0
            )
        except OSError as error:
            raise no_output(path, error) from error
        #: By identity, triples (frame, offset, bytes).
        self._places: dict[int, array[int]] = {}
        self.frames = 0

    def add(self, ids: np.ndarray, masks: np.ndarray) -> None:
        """Append one frame.

        Args:
            ids: (k,) identities.
            masks: (k, H, W) bool; an empty one means that the instance is not seen.

        Raises:
            OutputError: The disk is full.
        """
        for identity, mask in zip(ids.tolist(), masks, strict=True):
            if mask.any():
                text = json.dumps(encode(mask)).encode()
                place = self._places.setdefault(identity, array("q"))
                try:
                    offset = self._spool.tell()
                    written = self._spool.write(text)
                except OSError as error:
                    raise no_output(self._path, error) from error
                if written == len(text):
                    place.extend((self.frames, offset, written))
                else:
                    raise no_output(self._path, OSError(errno.ENOSPC, "no space"))
        self.frames += 1

    @property
    def identities(self) -> frozenset[int]:
        """The tracks that a mask showed, and so those of the file."""
        return frozenset(self._places)

    def write(self, tracks: Mapping[int, KnownTrack]) -> int:
        """Write the file, strongest track first.

        Args:
            tracks: By identity; those that no mask showed are left out.

        Returns:
            How many tracks it holds.

        Raises:
            OutputError: It cannot be written, or the disk is full.
        """
        shown = sorted(
            (track for track in tracks.values() if track.id in self._places),
            key=lambda track: (-track.score, track.id),
        )

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                for number, track in enumerate(shown):
                    head = {
                        "video_id": _VIDEO_ID,
                        "id": track.id,
                        "category_id": track.class_index + 1,
                        "score": round(track.score, 6),
                    }
                    file.write(b",\n" if number else b"[")
                    file.write(json.dumps(head).encode()[:-1] + b', "segmentations": [')
                    file.writelines(self._segmentations(track.id))
                    file.write(b"]}")
                file.write(b"]\n" if shown else b"[]\n")

        write_atomically(self._path, write)
        return len(shown)

    def close(self) -> None:
        """Drop the temporary file."""
        self._spool.close()

    def _segmentations(self, identity: int) -> Iterator[bytes]:
        places = np.array(self._places[identity]).reshape(-1, 3)
        texts = {}
        for frame, offset, size in places.tolist():
            texts[frame] = (offset, size)
        for frame in range(self.frames):
            if frame:
                yield b", "
            if frame in texts:
                offset, size = texts[frame]
                self._spool.seek(offset)
                yield self._spool.read(size)
            else:
                yield b"null"
        self._spool.seek(0, 2)
