"""Plants by name."""

import sys

import pytest

from runtime.errors import SurefootError
from runtime.plants import make_plant
from runtime.records import load_robot


@pytest.mark.parametrize("name", ["native", "gymnasium"])
def test_each_name_makes_its_plant_at_the_environments_rate(name: str) -> None:
    robot = load_robot("half_cheetah")
    for plant in (make_plant(name, robot), make_plant(name, robot, 0.01, 5)):
        assert type(plant).__module__ == f"runtime.plants.{name}"
        assert plant.period == pytest.approx(0.05)
        assert plant.realtime == (name == "native")


def test_only_the_native_plant_runs_at_another_rate() -> None:
    robot = load_robot("half_cheetah")
    assert make_plant("native", robot, 0.001, 10).period == pytest.approx(0.01)
    for name in ("gymnasium", "envpool"):
        with pytest.raises(SurefootError, match=f"plant {name}: runs HalfCheetah-v5 at 20 Hz only"):
            make_plant(name, robot, 0.01, 1)
        with pytest.raises(SurefootError, match=f"plant {name}: runs HalfCheetah-v5 at 20 Hz only"):
            make_plant(name, robot, 0.005)


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(SurefootError, match="unknown plant 'nativ'; did you mean 'native'"):
        make_plant("nativ", load_robot("ant"))


def test_a_missing_envpool_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(SurefootError, match=r"plant envpool: not installed; pip install 'surefoot\[envpool\]'"):
        make_plant("envpool", load_robot("ant"))
