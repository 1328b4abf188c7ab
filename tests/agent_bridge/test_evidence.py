"""What an author is fed back: terms, pace, last moments before a fall, margins, differences; and probes that count."""

from pathlib import Path

import numpy as np
import pytest

from agent_bridge.contracts import parameters
from agent_bridge.examples.cma_agent import Space, in_step, objective, share
from agent_bridge.gate.evaluate import evaluate
from agent_bridge.probe import run_probe
from agent_bridge.records.feedback import Episode, difference, feedback
from agent_bridge.records.ledger import Ledger
from agent_bridge.records.traces import columns, default_signals, fall_tick, table
from controllers.stack import Stack, load_stack
from runtime.episode import EpisodeResult, run_episode
from runtime.errors import SurefootError
from runtime.guest import Guest
from runtime.lineage import descend
from runtime.plants import make_plant
from runtime.versions import VersionStore, stack_versions

TICKS = 30


@pytest.fixture(scope="module")
def stack() -> Stack:
    return load_stack("half_cheetah-rhythm")


@pytest.fixture(scope="module")
def episode(stack: Stack) -> Episode:
    return next(evaluate(stack, stack_versions(stack), [3], TICKS))


def test_an_evaluation_is_the_run_that_the_stack_would_make(stack: Stack, episode: Episode):
    plant = make_plant("native", stack.robot, stack.timestep, stack.frame_skip)
    expected = run_episode(Guest(stack, None, None), plant, EpisodeResult(3), steps=TICKS)
    assert episode.result.total == expected.total
    assert len(episode.rows) == TICKS


def test_parameters_reach_the_plant(stack: Stack, episode: Episode):
    limb = stack_versions(stack)["limb"]
    slower = descend(limb.source, limb, {"stance_frequency": 2.0})
    assert next(evaluate(stack, {"limb": slower}, [3], TICKS)).result.total != episode.result.total


def test_a_parameter_out_of_its_range_is_refused(stack: Stack):
    limb = stack_versions(stack)["limb"]
    with pytest.raises(SurefootError, match="outside"):
        list(evaluate(stack, {"limb": descend(limb.source, limb, {"stance_frequency": 99.0})}, [0], 1))


def test_the_score_is_told_by_term_beside_the_parent(stack: Stack, episode: Episode):
    told = feedback(stack, [episode], {"forward": 0.0, "total": 1.0})
    assert told["terms"]["forward"]["difference"] == told["terms"]["forward"]["mean"]
    assert "parent" not in told["terms"]["control"]
    assert told["time"]["ticks"] == TICKS
    assert len(told["time"]["reward_per_tick_by_tenth_of_the_episode"]) == 10


def test_a_fall_is_shown_by_named_signals_up_to_its_tick(stack: Stack, episode: Episode):
    rows = np.tile(episode.rows, 3)
    rows["signals"]["torso"]["tilt"][50:] = 3.0
    assert fall_tick(stack.robot, rows) == 50
    (shown,) = feedback(stack, [Episode(episode.result, rows)], {})["last_moments"]
    assert shown["tick"] == 50
    lines = shown["table"].splitlines()
    assert lines[0] == '<data from="tape">'
    assert {"time", "torso.pitch", "joint.control.bfoot"} <= set(lines[1].split())
    assert 10 <= len(lines) - 3 <= 14


def test_a_robot_that_stays_up_has_no_fall(stack: Stack, episode: Episode):
    assert fall_tick(stack.robot, episode.rows) is None


def test_margins_are_told_for_the_rules_in_force(episode: Episode):
    told = feedback(load_stack("half_cheetah"), [episode], {})["rule_margins"]
    assert told
    assert all(set(entry) == {"nearest", "ticks_tripped"} for entry in told.values())


def test_signals_are_named_and_a_wrong_name_gets_the_nearest(stack: Stack, episode: Episode):
    found = columns(stack.robot, episode.rows, ["torso.vx", "foot.force", "reward.forward"])
    assert list(found) == ["torso.vx", "foot.force.back", "foot.force.front", "reward.forward"]
    assert columns(stack.robot, episode.rows, default_signals(stack.robot))
    with pytest.raises(SurefootError, match=r"did you mean 'torso\.vx'"):
        columns(stack.robot, episode.rows, ["torso.vxx"])


def test_a_table_keeps_its_last_row_whatever_is_left_out():
    lines = table({"t": np.arange(100.0)}, 5).split()
    assert lines[-1] == "99"
    assert len(lines) <= 6


def test_a_difference_names_parameters_and_lines(stack: Stack):
    limb = stack_versions(stack)["limb"]
    text = difference(limb, descend(limb.source + "\nSPARE = 1\n", limb, {"stance_frequency": 2.0}))
    assert "stance_frequency: 4.49" in text
    assert "+SPARE = 1" in text


def test_a_probe_tells_each_variant_and_counts_every_step(stack: Stack, tmp_path: Path):
    store = VersionStore(tmp_path / "versions")
    bases = stack_versions(stack)
    variants = [descend(bases["limb"].source, bases["limb"], {"stance_frequency": f}) for f in (4.2, 99.0, 4.4)]
    for version in (*bases.values(), *variants):
        store.submit(version)
    request = {"job": "j", "agent": "t", "stack": stack.name, "slot": "limb", "seeds": [1, 2], "ticks": 5,
               "bases": {k: v.hash for k, v in bases.items()}, "variants": [v.hash for v in variants],
               "hypothesis": "h"}  # fmt: skip
    first, again = run_probe(tmp_path, request), run_probe(tmp_path, request)
    assert "outside" in first["variants"][1]["error"]
    means = [v["mean"] for v in first["variants"]]
    assert first["best"] == max((0, 2), key=lambda i: means[i])
    assert (first["env_steps"], again["env_steps"]) == (30, 20)  # the parent is measured once
    rows = Ledger(tmp_path / "trials.jsonl").rows()
    assert [(r.trial.kind, r.trial.environment_steps, r.episodes) for r in rows] == [("probe", 30, 2), ("probe", 20, 2)]


def test_the_search_looks_at_the_worst_episodes_twice():
    assert objective([0.0, 3.0, 3.0]) == 1.5
    assert objective([1.0, None]) == objective([]) == -np.inf


def test_starts_that_go_wrong_are_a_share():
    assert share([1.0, 1.0, 1.0]) == share([1.0, 1.0, 9.0]) == 1.0
    assert share([0.0, 1.0, 1.0, 1.0]) == 0.75
    assert share([-1.0, -1.0, 1.0]) == share([1.0, None]) == share([]) == 0.0


def test_a_vector_is_parameters_within_their_ranges():
    space = Space.of(
        [{"name": "a", "value": [1.0, -1.0], "range": [-1, 1]}, {"name": "b", "value": 0, "range": [0, 1]}]
    )
    assert space.size == 2
    assert space.params(np.array([5.0, 0.0])) == {"a": [1.0, -1.0]}


def test_frequencies_in_step_make_a_cycle_of_half_ticks_the_nearest_first(stack: Stack):
    told = parameters(stack_versions(stack)["limb"])
    as_it_is, *steps = in_step(told, 20.0, 99)
    assert as_it_is == {}
    assert steps[:2] == [dict.fromkeys(("stance_frequency", "swing_frequency"), f) for f in (40 / 9, 5.0)]
    assert sorted({round(40.0 / s["stance_frequency"], 9) for s in steps}) == [6, 7, 8, 9, 10, 11, 12, 13]
    assert in_step(told, 20.0, 3) == [{}, *steps[:2]]
    narrow = {"name": "a", "unit": "Hz", "value": 4.0, "range": [3.9, 4.1]}
    assert in_step([narrow], 20.0, 99) == [{}, {"a": 4.0}]
    assert in_step([narrow | {"unit": "1"}], 20.0, 99) == [{}]
