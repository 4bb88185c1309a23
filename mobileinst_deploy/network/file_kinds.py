"""What a file is that has a weights file's name and is something else.

People hand over what they have: the pointer that Git LFS left, a page that said "log in first", an
archive, a TorchScript program. Each is told by its first bytes, or by an archive's list of parts.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

_HEAD_BYTES = 512
_TAR_MARK = slice(257, 262)


class OtherKind(NamedTuple):
    """Something that is no weights file.

    Attributes:
        name: With its article, such as ``a tar archive``.
        next_step: What to do.
    """

    name: str
    next_step: str


_PAGE = OtherKind("a page of HTML or XML", "Download the file itself")
_PACKED = "Unpack it, and give the weights file inside"
_BY_START = (
    (
        b"version https://git-lfs",
        OtherKind("what Git LFS leaves in place of a file", "Fetch the file by git lfs pull"),
    ),
    (b"<", _PAGE),
    (b"\xef\xbb\xbf<", _PAGE),
    (b"\x1f\x8b", OtherKind("a gzip archive", _PACKED)),
    (b"BZh", OtherKind("a bzip2 archive", _PACKED)),
    (b"\xfd7zXZ\x00", OtherKind("an xz archive", _PACKED)),
    (b"7z\xbc\xaf\x27\x1c", OtherKind("a 7z archive", _PACKED)),
    (b"Rar!", OtherKind("a RAR archive", _PACKED)),
    (
        b"\x89HDF\r\n",
        OtherKind("an HDF5 file, as Keras writes", "Give a PyTorch or safetensors file"),
    ),
)
_SAFETENSORS = OtherKind("a safetensors file", "Rename it so that it ends in .safetensors")
_TORCH = OtherKind("a file that torch.save wrote", "Rename it so that it ends in .pth")
_TAR = OtherKind("a tar archive", _PACKED)
_ZIP = OtherKind("a zip archive that torch did not write", _PACKED)
_PROGRAM = OtherKind(
    "a TorchScript program",
    "Where you trust it, write torch.jit.load(FILE).state_dict() with "
    "safetensors.torch.save_file, and give that file",
)


def other_kind(path: Path) -> OtherKind | None:
    """What a weights file really is; None where its beginning is as its name says.

    Args:
        path: A file; by its suffix it should be safetensors, or else torch's own.

    Raises:
        OSError: It cannot be read.
        zipfile.BadZipFile: It is a damaged archive.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for start, kind in _BY_START:
        if head.startswith(start):
            return kind
    if head[_TAR_MARK] == b"ustar":
        return _TAR
    if path.suffix == ".safetensors":
        return _TORCH if head.startswith((b"PK\x03\x04", b"\x80\x02")) else None
    # Eight bytes of length, and then a document of JSON.
    if head[8:10] == b'{"' and head[6:8] == b"\0\0":
        return _SAFETENSORS
    return _of_archive(path) if head.startswith(b"PK\x03\x04") else None


def _of_archive(path: Path) -> OtherKind | None:
    with zipfile.ZipFile(path) as archive:
        parts = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in parts:
        return _PROGRAM
    return None if "data.pkl" in parts else _ZIP
