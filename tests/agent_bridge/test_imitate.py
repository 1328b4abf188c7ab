"""The documented way from programs to networks: fitted to what a run sent, a network tells more than a constant."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("jax")
pytest.importorskip("minari")

import typer

from agent_bridge.examples import imitate
from agent_bridge.records.export import export
from runtime.run import Request, run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_a_network_learns_what_the_rhythm_does_and_drives_the_environment(tmp_path: Path):
    folder = tmp_path / "store" / "walk"
    run(Request("half_cheetah-rhythm", episodes=2, seed=9, steps=200, out=folder))
    export([folder], "surefoot/walk", tmp_path / "sets")
    app = typer.Typer()
    app.command()(imitate.main)
    arguments = ["surefoot/walk", "--data", str(tmp_path / "sets"), "--epochs", "200", "--batch", "50",
                 "--episodes", "1", "--steps", "5"]  # fmt: skip
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    outcome = json.loads(result.stdout)
    assert outcome["steps"] == 199
    assert outcome["test_mse"] < 0.5 * outcome["variance"]
    assert len(outcome["returns"]) == 1
