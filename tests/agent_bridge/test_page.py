"""The page shows what the store knows, and nothing that somebody wrote gets out of its place."""

from pathlib import Path

import pytest

from agent_bridge.records.ledger import Ledger
from agent_bridge.records.page import write_page
from agent_bridge.records.trial import Trial
from runtime.errors import SurefootError
from runtime.journal import Journal

PARENT, CHILD, GRANDCHILD = "a" * 64, "b" * 64, "c" * 64


def gated(parent: str, candidate: str, verdict: str, hypothesis: str) -> Trial:
    return Trial(
        name="g", kind="gate", environment="HalfCheetah-v5", slot="limb", parent=parent, candidate=candidate,
        verdict=verdict, hypothesis=hypothesis, scores=(1.0, 3.0),
        gates=({"name": "score", "verdict": verdict, "reasons": ["because"]},),
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "runs"
    ledger = Ledger(store / "trials.jsonl")
    ledger.append(gated(PARENT, CHILD, "accept", "<script>alert(1)</script>"))
    ledger.append(gated(CHILD, GRANDCHILD, "reject", "too fast"))
    ledger.append(Trial(name="l", kind="lesson", environment="HalfCheetah-v5", lesson="slow & smooth"))
    return store


def page(store: Path, beside: str = "page.html") -> str:
    return write_page(store, store / beside).read_text()


def test_lineage_verdicts_reasons_and_lessons_are_shown(store: Path):
    text = page(store)
    lineage = text.split("<h2>Lineage</h2>")[1].split("<h2>")[0]
    assert lineage.index(PARENT[:12]) < lineage.index(CHILD[:12]) < lineage.index(GRANDCHILD[:12])
    assert lineage.count("<ul") == 2
    for part in ("score: because", "slow &amp; smooth", "the ledger verifies", "data:image/png;base64,", "2.0"):
        assert part in text


def test_what_somebody_wrote_is_text(store: Path):
    text = page(store)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_nothing_is_fetched_from_anywhere(store: Path):
    assert "http" not in page(store)


def test_videos_are_linked_from_where_the_page_is(store: Path):
    folder = store / "failures" / "f1"
    folder.mkdir(parents=True)
    (folder / "failure.json").write_text('{"id": "f1", "reason": "it fell", "version": "b"}')
    (folder / "video.mp4").write_bytes(b"")
    (store / "out").mkdir()
    text = page(store, "out/page.html")
    assert 'src="../failures/f1/video.mp4"' in text
    assert "it fell" in text


def test_swaps_are_shown_with_where_each_version_stands(store: Path):
    journal = Journal(store / "robot" / "events.jsonl")
    with journal.locked():
        journal.append(
            {"time": 0.0, "tick": 7, "stage": "active", "slots": {"limb": CHILD}, "reason": "through probation"}
        )
    text = page(store)
    assert "through probation" in text
    assert f'{CHILD[:12]}</code> <span class="badge accept">accept</span> <span class="badge active">active' in text


def test_a_store_without_trials_is_refused(tmp_path: Path):
    with pytest.raises(SurefootError, match="no trials yet"):
        write_page(tmp_path, tmp_path / "page.html")
