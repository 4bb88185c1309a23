"""Pictures read ahead: the same ones, in order, never many, and no thread stays behind."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.media.clip import Picture
from mobileinst_deploy.media.read_ahead import ReadAhead

PIXELS = np.zeros((2, 2, 3), np.uint8)


def test_every_picture_comes_once_and_in_order():
    with ReadAhead(Picture(PIXELS, n) for n in range(50)) as pictures:
        assert [p.pts for p in pictures] == list(range(50))


def test_no_more_than_a_few_wait():
    read = []

    def clip():
        for n in range(100):
            read.append(n)
            yield Picture(PIXELS, n)

    with ReadAhead(clip()) as pictures:
        next(pictures)
        time.sleep(0.3)
        assert len(read) <= 6


def test_what_breaks_off_comes_after_the_pictures_before_it():
    def clip():
        yield Picture(PIXELS, 0)
        raise MediaError("the clip is damaged", "Record it again")

    with ReadAhead(clip()) as pictures:
        assert next(pictures).pts == 0
        with pytest.raises(MediaError, match="damaged"):
            next(pictures)


def test_who_stops_early_leaves_no_thread_and_closes_the_clip():
    closed = threading.Event()

    def clip():
        try:
            for n in range(1000):
                yield Picture(PIXELS, n)
        finally:
            closed.set()

    before = threading.active_count()
    with ReadAhead(clip()) as pictures:
        next(pictures)
    assert closed.wait(2)
    assert threading.active_count() == before


def test_a_camera_that_gives_no_more_keeps_nobody_waiting():
    blocked = threading.Event()

    def camera():
        yield Picture(PIXELS, 0)
        blocked.wait(30)
        yield Picture(PIXELS, 1)

    started = time.monotonic()
    with ReadAhead(camera()) as pictures:
        next(pictures)
    assert time.monotonic() - started < 5
    blocked.set()
