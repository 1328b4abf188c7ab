"""Plants by name."""

import pytest

from runtime.errors import SurefootError
from runtime.plants import PLANTS, make_plant
from runtime.records import load_robot


@pytest.mark.parametrize("name", ["native", "gymnasium"])
def test_each_name_makes_its_plant_at_the_environments_rate(name: str) -> None:
    plant = make_plant(name, load_robot("half_cheetah"))
    assert type(plant).__module__ == f"runtime.plants.{name}"
    assert plant.period == pytest.approx(0.05)
    assert plant.realtime == (name == "native")


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(SurefootError, match="unknown plant 'nativ'; did you mean 'native'"):
        make_plant("nativ", load_robot("ant"))
    assert "native" in PLANTS
