"""Indices of annotation files: the same data as without one, and never half or foreign ones."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import BLOCK, TRIANGLE, clips, indexed, pictures, plain, write
from hypothesis import HealthCheck, example, given, settings, strategies as st

from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.core.masks import encode
from mobileinst_deploy.data import index_file, indexing
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.annotation_text import HeldText, WholeText, cut
from mobileinst_deploy.data.index_file import index_folder
from mobileinst_deploy.data.samples import Annotation, Sample

DRAWN = np.zeros_like(BLOCK)
DRAWN[3:9, 5:15] = True
MASKS: list[Any] = [
    [TRIANGLE],
    [[1, 2, 3, 4]],
    [],
    None,
    TRIANGLE,
    "mask.png",
    encode(DRAWN),
    plain(DRAWN),
    encode(DRAWN.T),
    plain(DRAWN.T),
    {"counts": "},{", "size": [24, 32]},
]
#: Of all files that a test writes: with what json.dumps can put between tokens.
FORMS: list[dict[str, Any]] = [{}, {"indent": 1}, {"separators": (",", ":")}]


def said(folder: Path, path: Path, *, is_clips: bool) -> Any:
    """All that an annotation file says, or why it is refused."""
    try:
        data = AnnotatedSet(folder, path, clips=is_clips)
    except DatasetError as error:
        return str(error)
    return everything(data)


def told(items: list[Annotation]) -> Any:
    return [
        (a.id, a.label, a.crowd, a.area, a.odd, [s and bytes(s) for s in a.segmentations])
        for a in items
    ]


def arrays(sample: Sample) -> list[np.ndarray]:
    return [sample.labels, sample.crowd, sample.track_ids]


def everything(data: AnnotatedSet) -> Any:
    catalogue = data.catalogue
    media = [
        (medium.id, medium.size, medium.files, told(medium.objects), told(medium.unseen))
        for medium in data.media
    ]
    samples = [
        (s.image_id, s.masks.shape, s.masks.tobytes(), *map(np.ndarray.tolist, arrays(s)))
        for s in data
    ]
    lines = catalogue.lines(), catalogue.crowds.lines(), catalogue.objects()
    sizes = [(data.size(i), data.length(i)) for i in range(len(data))]
    return data.classes, data.category_ids, lines, media, samples, sizes


@pytest.fixture
def files(folder, monkeypatch) -> Path:
    """As ``folder``; the size of a file that is indexed is a test's own matter."""
    monkeypatch.setattr(index_file, "SMALL_BYTES", 8 << 20)
    return folder


pytestmark = pytest.mark.parametrize("folder", ["by an index"], indirect=True)
numbers = st.integers(1, 4)
extras = st.fixed_dictionaries(
    {},
    optional={
        "iscrowd": st.sampled_from([0, 1, True, "1", None, "no"]),
        "id": st.sampled_from([1, 2, 3, "2", 3.0, None, -3, 1.5]),
        "category_id": st.sampled_from([3, 7, "7", 8]),
        "note": st.sampled_from(["}", "},{", '"]', "\\", 'annotations":[', [{}, {}], {"a": [{}]}]),
    },
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    of_pictures=st.booleans(),
    entries=st.lists(
        st.tuples(
            extras,
            st.lists(st.sampled_from(MASKS), min_size=3, max_size=3),
            st.sampled_from([None, 5.5, float("nan"), -1, "x"]),
            st.sampled_from([11, 5]),
        ),
        max_size=6,
    ),
    form=st.sampled_from(FORMS),
    order=st.permutations(["head", "annotations", "categories"]),
    block=st.sampled_from([150, 400, 1 << 20]),
)
@example(True, [], {}, ["annotations", "head", "categories"], 150)
def test_an_index_changes_nothing(files, of_pictures, entries, form, order, block):
    annotations = [
        {"segmentation": masks[0], "area": area, "image_id": owner, **extra}
        if of_pictures
        else {"segmentations": masks, "areas": [area, 3.0, None], **extra}
        for extra, masks, area, owner in entries
    ]
    document = (pictures if of_pictures else clips)(*annotations)
    head = "images" if of_pictures else "videos"
    ordered = {name: document[name] for name in [head if o == "head" else o for o in order]}
    path = write(files, json.dumps({"info": {"annotations": [1]}, **ordered}, **form))
    without = said(files, path, is_clips=not of_pictures)
    with pytest.MonkeyPatch.context() as patched:
        indexed(patched, block)
        assert said(files, path, is_clips=not of_pictures) == without
        assert said(files, path, is_clips=not of_pictures) == without, "and mapped"


def document_of(count: int) -> dict[str, Any]:
    return pictures(*[{"segmentation": [TRIANGLE], "area": n} for n in range(count)])


@pytest.fixture
def path(folder) -> Path:
    return write(folder, json.dumps(document_of(40)))


@pytest.fixture
def unread(monkeypatch):
    """Call it, and from then on no annotation is read any more."""

    def call() -> None:
        def refuse(*_: Any) -> None:
            pytest.fail("an annotation was read")

        monkeypatch.setattr(indexing, "problem", refuse)

    return call


def only_index() -> Path:
    (found,) = index_folder().glob("*")
    return found


def test_a_second_start_reads_no_annotation(folder, path, unread):
    first = everything(AnnotatedSet(folder, path))
    unread()
    assert everything(AnnotatedSet(folder, path)) == first


def test_a_copy_of_the_file_has_the_same_index(folder, path, unread):
    first = everything(AnnotatedSet(folder, path))
    unread()
    copied = folder / "copy.json"
    copied.write_bytes(path.read_bytes())
    assert everything(AnnotatedSet(folder, copied)) == first


def test_a_changed_file_has_another_index(folder, path):
    AnnotatedSet(folder, path)
    status = path.stat()
    path.write_text(path.read_text().replace('"area": 7}', '"area": 8}'))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [m.area for m in AnnotatedSet(folder, path).media[0].objects][7] == 8.0


def test_a_large_file_is_read_in_pieces(path):
    held = HeldText(path)
    found = cut(held)
    assert found is not None
    assert len(found.pieces) > 5
    assert json.loads(found.rest) == {**document_of(40), "annotations": []}
    whole = ",".join(held.read(start, end - start).decode() for start, end in found.pieces)
    assert json.loads(f"[{whole}]") == document_of(40)["annotations"]


@pytest.mark.parametrize(
    "text",
    [
        '{"annotations": [{"a": 1}, ]}',
        '{"annotations": [{"a": 1},',
        '{"annotations": [{"a": 1}]',
        '{"annotations": [{"a": 1}] 5}',
        '{"annotations": [{"a": 1}], "annotations": []}',
        '{"info": {"annotations": [{"a": 1}]}}',
        '{"annotations": [{"a": 1}], "\\u0061nnotations": [{"a": 2}]}',
        '{"note": "\\"annotations\\":[{}]"}',
    ],
)
def test_what_cannot_be_cut_for_certain_is_not_cut(tmp_path, folder, text):
    (tmp_path / "text").write_text(text)
    assert cut(HeldText(tmp_path / "text")) is None


def test_where_nothing_can_be_kept_a_file_is_read_all_the_same(folder, path, monkeypatch):
    first = everything(AnnotatedSet(folder, path))
    blocked = folder / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert everything(AnnotatedSet(folder, path)) == first


def changed(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "empty": lambda p: p.write_bytes(b""),
    "cut short": lambda p: p.write_bytes(p.read_bytes()[:-64]),
    "longer": lambda p: p.write_bytes(p.read_bytes() + bytes(64)),
    "a bit of the columns": lambda p: changed(p, -300),
    "a bit of the mark": lambda p: changed(p, 3),
    "another version": lambda p: p.write_bytes(
        p.read_bytes().replace(b'"version":1', b'"version":0')
    ),
    "another file's": lambda p: p.write_bytes(
        p.read_bytes().replace(b'"annotations":"', b'"annotations":"0', 1)
    ),
    "writable by all": lambda p: p.chmod(0o666),
    "a link": lambda p: p.rename(p.with_name("x")) and p.symlink_to(p.with_name("x")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_an_index_that_is_not_whole_or_not_ours_is_made_anew(folder, path, damage):
    first = everything(AnnotatedSet(folder, path))
    good = only_index().read_bytes()
    kept = only_index()
    damage(kept)
    assert everything(AnnotatedSet(folder, path)) == first
    assert not kept.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.read_bytes() == good


def test_no_more_than_the_latest_indices_are_kept(folder, path):
    for n in range(index_file.KEPT + 3):
        path.write_text(json.dumps(document_of(n)))
        AnnotatedSet(folder, path)
        os.utime(max(index_folder().glob("*"), key=lambda p: p.stat().st_mtime), (n, n))
    assert len(list(index_folder().glob("*"))) == index_file.KEPT


def test_a_file_that_another_one_replaces_is_still_read(folder, path):
    data = AnnotatedSet(folder, path)
    first = everything(data)
    other = folder / "other.json"
    other.write_text("{}")
    other.replace(path)
    assert everything(data) == first


@pytest.mark.parametrize("change", [lambda p: p.write_text("{}"), lambda p: os.truncate(p, 9)])
def test_a_file_that_is_written_into_while_it_is_in_use_is_told(folder, path, change):
    data = AnnotatedSet(folder, path)
    change(path)
    with pytest.raises(DatasetError, match="was changed while it was in use"):
        data.sample(0)


def test_a_file_of_numbers_that_are_none_stays_in_memory(folder):
    text = json.dumps(pictures({"segmentation": [TRIANGLE], "area": float("nan")}))
    data = AnnotatedSet(folder, write(folder, text))
    assert isinstance(data.catalogue.index.text, WholeText)
    assert not list(index_folder().glob("*"))


def test_a_process_that_is_not_forked_reads_the_same(folder, path):
    data = AnnotatedSet(folder, path)
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301 - our own
    assert everything(copy) == everything(data)


def _opened(folder: Path, path: Path) -> int:
    made = indexing.index_of

    def counted(*given: Any) -> Any:
        with (folder / f"made-{os.getpid()}").open("x"):
            return made(*given)

    index_file.index_of = counted
    return len(AnnotatedSet(folder, path).media[0].objects)


def test_of_several_processes_one_makes_the_index(folder, path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.starmap(_opened, [(folder, path)] * 4, chunksize=1) == [40] * 4
    assert len(list(folder.glob("made-*"))) == 1
