"""One finished run, for all that look at it."""

from __future__ import annotations

import pytest
from training_run import CONFIG, HELD_OUT, MODEL, SOURCE

from mobileinst_deploy.training.loop import train


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return train(CONFIG, MODEL, SOURCE, folder, held_out=HELD_OUT), folder
