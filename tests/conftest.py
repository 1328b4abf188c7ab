"""What all tests share: ledgers of temporary stores leave no heads in the user's state folder."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory):
    """Subprocesses inherit it."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
