"""What a planner did becomes a feedback law: the regression finds a law that is there, the command writes a stack."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from agent_bridge.tuning.distil import distil, regress, with_law
from runtime.cli import app
from runtime.errors import SurefootError
from runtime.run import Request, run

SHORT = 260  # ticks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("store") / "walk"
    run(Request("half_cheetah-rhythm", seed=3, steps=SHORT, out=out))
    return out


def test_the_regression_finds_the_gains_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    signals = rng.normal(2.0, [0.1, 1.0, 10.0, 0.0], size=(20_000, 4))
    gains = rng.normal(size=(4, 2)) / np.array([[0.1], [1.0], [10.0], [np.inf]])
    found = regress(signals, signals @ gains + 0.5)
    np.testing.assert_allclose(found[:-1], gains, rtol=2e-3, atol=1e-9)
    np.testing.assert_allclose(found[-1], 0.5, atol=0.1)


def test_the_law_imitates_the_controls_of_a_run(folder: Path) -> None:
    law = distil([folder, folder], gain=5.0, slowest=-9.0, gait=True)
    assert 100 < law.samples <= 2 * SHORT
    assert law.agreement is not None and law.agreement > 0.85
    assert "roll" not in law.parameters  # a planar robot does not roll
    assert "target" in law.parameters
    assert "target" not in distil([folder], gain=5.0, slowest=-9.0, gait=False).parameters


def test_the_command_writes_a_stack_that_runs(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "law.yaml"
    arguments = ["distil", str(folder), "--stack", "half_cheetah-rhythm", "--slowest", "-9", "--out", str(out)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "9 parameters" in result.stdout
    assert yaml.safe_load(out.read_text())["layers"]["joint"]["use"] == "state_feedback"
    assert run(Request(str(out), steps=5, out=tmp_path / "run")).episodes[0].steps == 5


def test_the_gains_below_the_speed_stay(folder: Path) -> None:
    law = distil([folder], gain=5.0, slowest=-9.0, gait=False)
    assert with_law("half_cheetah", law)["layers"]["joint"]["kp"] == 8


def test_too_few_ticks_are_refused(folder: Path) -> None:
    with pytest.raises(SurefootError, match=r"0 ticks upright and faster than 50 m/s are too few for 28 signals"):
        distil([folder], gain=5.0, slowest=50.0, gait=False)
