"""A swap needs an accepting verdict of the gate in force, against what is active."""

import pytest

from runtime.errors import SurefootError
from runtime.lineage import descend, parameter_names
from runtime.verdicts import Verdict, default_gate, gate_hash, refusal, verdicts, write_verdict
from runtime.versions import VersionStore, make_version

BASES = {"limb": "a" * 64, "joint": "b" * 64}
GATE = "c" * 64


@pytest.fixture
def store(tmp_path):
    return VersionStore(tmp_path / "versions")


@pytest.fixture
def candidate(store):
    version = make_version("source", {})
    store.submit(version)
    return version.hash


def verdict(**changes):
    given = {"verdict": "accept", "stage": "score", "reasons": ("better",), "slot": "limb", "robot": "half_cheetah",
             "stack": "half_cheetah", "base": BASES, "gate": "half_cheetah", "gate_hash": GATE, "trial": 3}  # fmt: skip
    return Verdict(**{**given, **changes})


def test_verdicts_come_back_in_order(store, candidate):
    written = [verdict(trial=i) for i in range(3)]
    for one in written:
        write_verdict(store, candidate, one)
    assert verdicts(store, candidate) == written


def test_an_accepted_version_may_be_swapped_in(store, candidate):
    write_verdict(store, candidate, verdict())
    assert refusal(store, {"limb": candidate}, BASES, GATE) is None
    assert refusal(store, {"limb": candidate}, BASES, GATE, "half_cheetah") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "no verdict for this slot"),
        ({"slot": "joint"}, "no verdict for this slot"),
        ({"verdict": "reject", "reasons": ("it falls",)}, "the gate said reject (score): it falls"),
        ({"verdict": "inconclusive"}, "the gate said inconclusive"),
        ({"verdict": "unchanged"}, "the gate said unchanged"),
        ({"gate_hash": "d" * 64}, "judged by another gate"),
        ({"base": {**BASES, "joint": "e" * 64}}, f"judged against joint {'e' * 12}, now {'b' * 12} is active"),
    ],
)
def test_a_swap_is_refused(store, candidate, change, words):
    if change is not None:
        write_verdict(store, candidate, verdict(**change))
    said = refusal(store, {"limb": candidate}, BASES, GATE)
    assert said is not None and words in said and said.startswith("limb")


def test_the_last_verdict_counts(store, candidate):
    write_verdict(store, candidate, verdict())
    write_verdict(store, candidate, verdict(verdict="reject"))
    assert "reject" in str(refusal(store, {"limb": candidate}, BASES, GATE))


def test_a_verdict_of_another_stack_does_not_count(store, candidate):
    write_verdict(store, candidate, verdict())
    assert "no verdict" in str(refusal(store, {"limb": candidate}, BASES, GATE, "half_cheetah-rhythm"))


def test_a_damaged_verdict_is_an_error(store, candidate):
    write_verdict(store, candidate, verdict()).write_text("{}")
    with pytest.raises(SurefootError, match="gate the version again"):
        verdicts(store, candidate)


def test_the_gate_hash_is_the_same_twice_and_not_for_another_file():
    hashes = [gate_hash(default_gate(robot)) for robot in ("half_cheetah", "half_cheetah", "ant")]
    assert hashes[0] == hashes[1] != hashes[2]


SOURCE = "class Params:\n    clock: float = param(1)\n    gain: float = param(1)\n"


def test_a_changed_source_keeps_what_it_still_has():
    parent = make_version("old", {"clock": 3.0, "lost": 1.0})
    child = descend(SOURCE, parent, {"gain": 2.0})
    assert child.values == {"clock": 3.0, "gain": 2.0}
    assert parameter_names(SOURCE) == ["clock", "gain"]
    assert parameter_names("class (") == []
    with pytest.raises(SurefootError, match="no parameter 'gian'; did you mean 'gain'"):
        descend(SOURCE, parent, {"gian": 1})
