"""Average precision of pictures' masks, counted by hotcoco, which agrees with pycocotools.

Tracks through clips have another evaluator, :mod:`.track_precision`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hotcoco import StreamingEval

from mobileinst_deploy.core.masks import Rle

#: COCO's names; S, M and L are objects up to 32^2, up to 96^2 and above, in pixels.
PICTURE_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")
#: Bytes of a number in a state.
_COUNT = 8


@dataclass(frozen=True)
class Truth:
    """One annotated object.

    Attributes:
        label: Class index.
        mask: Its mask, or its track's masks side by side.
        area: In pixels, which decides its size class; of a track the mean of the frames that show
            it.
        crowd: Whether it is a region that neither counts as missed nor as found.
        odd: Of a track, pixels of its masks that have another size than the clip, by frame; they
            are not in ``mask``.
    """

    label: int
    mask: Rle
    area: float
    crowd: bool
    odd: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One mask that a model found, with every class that it may be.

    Attributes:
        mask: Its mask, or its track's masks side by side.
        scores: (class index, score in [0, 1]) for each of them.
    """

    mask: Rle
    scores: tuple[tuple[int, float], ...]


class AveragePrecision:
    """Compares what was found with what is there, one picture at a time.

    Each is matched when it is added, so that no masks are kept.

    Args:
        classes: Class names in label order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        # COCO's numbers begin at 1.
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(classes)]
        self._matches = StreamingEval(categories, "segm")
        self._items = 0
        self._truths = 0
        self._results: dict[str, float] | None = None

    @property
    def objects(self) -> int:
        """How many annotated objects were added."""
        return self._truths

    @classmethod
    def of_states(cls, classes: Sequence[str], states: Sequence[bytes]) -> AveragePrecision:
        """What several processes matched, each its own pictures.

        Args:
            classes: As all of them were given them.
            states: The :meth:`state` of each.
        """
        merged = cls(classes)
        merged._truths = sum(int.from_bytes(state[:_COUNT]) for state in states)
        parts = (StreamingEval.from_bytes(state[_COUNT:]) for state in states)
        merged._matches = StreamingEval.merge(parts)
        return merged

    def state(self) -> bytes:
        """What was matched so far, for :meth:`of_states` in another process."""
        return self._truths.to_bytes(_COUNT) + self._matches.to_bytes()

    def add(
        self,
        size: tuple[int, int],
        truth: list[Truth],
        found: list[Candidate],
        *,
        number: int | None = None,
    ) -> None:
        """Add one picture.

        Args:
            size: (height, width) of the masks in pixels.
            truth: What is there.
            found: What the model found.
            number: The picture's own, from 0, where several processes have some each; by default
                they are counted.
        """
        self._items += 1
        item = self._items if number is None else number + 1
        annotations = [
            {
                "id": (item << 24) + place,
                "image_id": item,
                "category_id": one.label + 1,
                "segmentation": one.mask,
                "area": one.area,
                "iscrowd": int(one.crowd),
            }
            for place, one in enumerate(truth, 1)
        ]
        self._truths += len(truth)
        results = [
            {
                "image_id": item,
                "category_id": label + 1,
                "segmentation": one.mask,
                "score": score,
            }
            for one in found
            for label, score in one.scores
        ]
        picture = {"id": item, "height": size[0], "width": size[1]}
        self._matches.update([picture], annotations, results)
        self._results = None

    def metrics(self, names: Sequence[str]) -> dict[str, float | None]:
        """Metrics by COCO's names, in [0, 1]; None where the data holds nothing to measure."""
        results = self._all()
        return {name: _defined(results[name]) for name in names}

    def per_class(self) -> dict[str, float | None]:
        """AP of every class, in [0, 1]; None for a class that the data does not show."""
        results = self._all()
        return {name: _defined(results.get(f"AP/{name}", -1)) for name in self._classes}

    def _all(self) -> dict[str, float]:
        if self._results is None:
            evaluation = self._matches.finalize()
            evaluation.accumulate()
            with contextlib.redirect_stdout(io.StringIO()):
                evaluation.summarize()
            self._results = evaluation.get_results(per_class=True)
        return self._results


def _defined(value: float) -> float | None:
    return float(value) if value >= 0 else None
