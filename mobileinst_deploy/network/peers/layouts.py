"""Names in published checkpoints, turned into the peers' own."""

from __future__ import annotations

import re

_DETECTRON2 = (
    (re.compile(r"^backbone\.bottom_up\."), "backbone."),
    (
        re.compile(r"^backbone\.fpn_(lateral|output)(\d)\."),
        lambda m: f"fpn.{m[1]}.{int(m[2]) - 2}.",
    ),
    (re.compile(r"^backbone\.stem\.conv1\.norm\."), "backbone.bn1."),
    (re.compile(r"^backbone\.stem\.conv1\."), "backbone.conv1."),
    (re.compile(r"^(backbone\.res\d\.\d+\.)conv(\d)\.norm\."), r"\1bn\2."),
    (re.compile(r"^(backbone\.res\d\.\d+\.)shortcut\.norm\."), r"\1downsample.1."),
    (re.compile(r"^(backbone\.res\d\.\d+\.)shortcut\."), r"\1downsample.0."),
    (re.compile(r"^backbone\.res(\d)\."), lambda m: f"backbone.layer{int(m[1]) - 1}."),
)
#: Of training, or constants of a configuration.
_NOT_BUILT = ("criterion.", "pixel_mean", "pixel_std")


def detectron2(name: str) -> str | None:
    """A name of detectron2's ResNet, or of what the authors built on it, as ours.

    Returns:
        None for what only training needs.
    """
    if name.startswith(_NOT_BUILT):
        return None
    for pattern, replacement in _DETECTRON2:
        name = pattern.sub(replacement, name)
    return name


def pyramid(name: str, finest: int) -> str:
    """A name of detectron2's feature pyramid as ours.

    Args:
        name: As published.
        finest: The level of the finest map that the pyramid reads, 2 for 1/4.
    """
    return re.sub(
        r"^backbone\.fpn_(lateral|output)(\d)\.",
        lambda m: f"fpn.{m[1]}.{int(m[2]) - finest}.",
        name,
    )
