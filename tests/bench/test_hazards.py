"""The hazard battery, the stop test and undisturbed episodes at a test's size: the layers alone, one seed."""

import pytest

from bench import hazards, stop
from bench.guarded import GuardedEpisode, GuardedRun, no_fault, prepare
from bench.hazards import announced
from bench.nominal import untouched


@pytest.fixture(scope="module")
def ant() -> GuardedRun:
    return prepare("ant-rhythm", rules="ant", planned=False)


@pytest.fixture(scope="module")
def battery(ant: GuardedRun) -> dict[str, dict[str, object]]:
    figures = hazards.measure(ant, "ant-rhythm", range(30, 31))
    return {row["hazard"]: row for row in figures["hazards"]}


HAZARDS = ("push", "sensor bias", "sensor freeze", "NaN", "sensor spikes", "dropout", "delay", "velocity sign flip",
           "joint swap", "actuator stuck", "bang-bang guest", "clock jump")  # fmt: skip


@pytest.mark.parametrize("name", HAZARDS)
def test_a_hazard_is_caught_in_its_time_by_a_rule_meant_for_it(
    battery: dict[str, dict[str, object]], name: str
) -> None:
    assert battery[name]["caught"] == battery[name]["episodes"], battery[name]
    assert battery[name]["argument"]


def test_the_battery_holds_nothing_else(battery: dict[str, dict[str, object]]) -> None:
    assert tuple(battery) == HAZARDS


def test_nothing_intervenes_and_nothing_is_touched_without_a_hazard(ant: GuardedRun) -> None:
    ant.begin(31)
    episode = ant.run(300)
    assert episode.interventions == 0 and untouched(episode) and len(episode.actions) == 300


def test_a_run_goes_on_from_a_mark_as_if_nothing_had_happened(ant: GuardedRun) -> None:
    ant.begin(32)
    ant.run(20)
    mark = ant.mark()
    first = [c.tobytes() for c in ant.run(30).sent[-30:]]
    ant.back(mark)
    ant.run(10, lambda tick: tick.control.fill(1.0))
    ant.back(mark)
    assert [c.tobytes() for c in ant.run(30, no_fault).sent] == first


@pytest.mark.parametrize(("stack", "rules"), [("ant-rhythm", "ant"), ("half_cheetah-rhythm", "half_cheetah")])
def test_a_robot_stands_still_within_the_time_that_its_stop_rule_allows(stack: str, rules: str) -> None:
    figures = stop.measure(prepare(stack, rules=rules, planned=False), stack, range(30, 31), phases=4)
    assert figures["stopped"] == figures["stops"] == 4 and figures["worst_s"] < figures["allowed_s"]


def test_a_stop_that_fails_is_no_stop() -> None:
    run = prepare("half_cheetah-rhythm", rules="half_cheetah", planned=False)
    run.monitor.tape.config["hold_kd"] = 0.1  # shakes the legs at 20 Hz: what this test was written after
    figures = stop.measure(run, "half_cheetah-rhythm", range(30, 31), phases=1)
    assert figures["stopped"] == 0


@pytest.mark.parametrize(
    ("tilt", "tripped", "lead"),
    [
        ([0.1, 1.1, 1.2, 1.3, 1.7, 1.8], [0, 1, 1, 1, 1, 1], 3),
        ([0.1, 1.1, 0.2, 1.3, 1.7, 1.8], [0, 1, 0, 1, 1, 1], 1),  # the first trip was released
        ([0.1, 1.6, 0.2, 1.3, 1.7, 1.8], [0, 1, 1, 1, 1, 1], 3),  # and so was the first tilt
        ([0.1, 0.2, 0.2, 0.3, 1.7, 1.8], [0, 0, 0, 0, 1, 1], 0),
        ([0.1, 0.2, 0.2, 0.3, 1.7, 1.8], [0, 0, 0, 0, 0, 1], -1),
    ],
)
def test_a_fall_is_announced_by_the_trip_that_was_in_force(tilt: list[float], tripped: list[int], lead: int) -> None:
    episode = GuardedEpisode(0, tilt=tilt, rules=[["R-03"] if t else [] for t in tripped])
    assert announced(episode) == lead
