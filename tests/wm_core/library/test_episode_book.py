"""A growing store's episodes, returns and steps, taken in as they arrive."""

import json
from dataclasses import replace

import pytest

from wm_core.contract.errors import StoreError
from wm_core.library.episode_book import EpisodeBook
from wm_core.library.returns_so_far import counted, returns_so_far
from wm_core.library.step_account import StepAccount
from wm_core.recordings.care.episodes import stored_episodes
from wm_core.store.episodes import spans_of
from wm_core.store.retention import prune

SESSION = f"{0:032x}"


def read(tagged):
    book = EpisodeBook(tagged.root)
    while book.refresh():
        pass
    return book


def short(book):
    """(first step, steps, end, whole) of each episode."""
    return [(e.first_step, e.steps, e.end, e.is_whole) for e in book.episodes()]


WHOLE = [
    (0, 25, "terminal", True),
    (25, 25, "last", True),
    (50, 25, "terminal", True),
    (75, 5, "open", False),
]


def test_episodes_are_joined_from_the_chunks_that_hold_them(tagged):
    tagged.fill(4, episode=25)
    book = read(tagged)
    assert short(book) == WHOLE
    first = book.episodes()[0]
    assert first.total == sum(range(25))
    assert first.version == 24
    assert first.agent_steps == 40  # of its last chunk
    assert book.find("robot", SESSION, 1).first_step == 25
    assert book.numbered() == {"robot": 80}


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_order_of_arrival_changes_no_episode(tagged, order):
    book = EpisodeBook(tagged.root)
    for seq in order:
        tagged.write(seq, 20 * seq, episode=25)
        book.refresh()
        book.episodes()
    assert sorted(short(book)) == WHOLE


def test_a_missing_chunk_cuts_the_episode_and_its_steps_are_missing(tagged, tmp_path):
    tagged.write(0, 0, episode=30)
    tagged.write(2, 40, episode=30)
    book = read(tagged)
    assert short(book) == [(0, 20, "gap", False), (40, 20, "last", False)]
    assert counted(book.episodes()) == []
    account = StepAccount(tmp_path, book).now()
    assert (account["recorded"], account["acknowledged"], account["missing"]) == (60, 40, 20)


def test_a_look_takes_in_so_much_and_the_next_goes_on(tagged):
    tagged.fill(5)
    book = EpisodeBook(tagged.root)
    assert book.refresh(most=2)
    assert (book.steps, book.is_behind) == (40, True)
    assert book.refresh(most=4)
    assert (book.steps, book.is_behind) == (100, False)
    assert not book.refresh(most=4)


def test_where_nothing_is_new_no_query_scans_and_no_index_is_read(tagged):
    tagged.fill(3)
    book = read(tagged)
    version, episodes = book.version, book.episodes()
    for path in tagged.root.rglob("*.idx"):
        path.unlink()
    for _ in range(3):
        assert not book.refresh()
    assert book.version == version
    assert book.episodes() is episodes
    plan = book.ledger()._fetch(
        "EXPLAIN QUERY PLAN SELECT * FROM sound WHERE arrival > 3 ORDER BY arrival LIMIT 9"
    )
    assert "USING INTEGER PRIMARY KEY (rowid>?" in str(plan)


def test_evicted_and_damaged_chunks_are_counted_and_no_error(tagged, tmp_path):
    paths = tagged.fill(4, episode=20)
    room = sum(path.stat().st_size for path in paths[1:])
    assert prune(tagged.root, tagged.ledger, room) == 1
    paths[2].write_bytes(b"no chunk")
    paths[2].with_suffix(".idx").unlink(missing_ok=True)
    book = read(tagged)
    assert dict(book.unread) == {"pruned": 1, "damaged": 1}
    assert [e.first_step for e in book.episodes()] == [20, 60]
    account = StepAccount(tmp_path, book).now()
    assert account["acknowledged"] == 80
    assert account["pruned"] == 1
    assert account["missing"] == 0


def test_a_store_that_is_not_there_yet_is_waited_for(tmp_path, tagged):
    book = EpisodeBook(tmp_path / "later")
    assert not book.refresh()
    assert book.problem == ""
    assert StepAccount(tmp_path, book).now()["acknowledged"] == 0
    tagged.fill(1)
    tagged.ledger.close()
    tagged.root.rename(tmp_path / "later")
    assert book.refresh()
    assert book.steps == 20


def test_a_ledger_that_is_no_database_is_a_problem_in_one_line(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"0" * 5000)
    book = EpisodeBook(tmp_path)
    assert not book.refresh()
    assert "cannot be used as a ledger" in book.problem
    assert "\n" not in book.problem


def test_a_ledger_that_was_made_anew_is_read_from_its_beginning(tagged):
    tagged.fill(3)
    book = read(tagged)
    data = (tagged.root / "ledger.sqlite").read_bytes()
    other = tagged.root / "other"
    other.write_bytes(data)
    other.rename(tagged.root / "ledger.sqlite")
    while book.refresh():
        pass
    assert book.steps == 60


@pytest.mark.parametrize(
    ("robot", "session", "number", "said"),
    [
        ("robot", SESSION, 9, "from 0 to 0, got 9"),
        ("robot", SESSION, -1, "from 0 to 0, got -1"),
        ("robot", "f" * 32, 0, "holds no session"),
        ("nobody", SESSION, 0, "holds no session"),
    ],
)
def test_an_episode_that_is_not_there_is_named(tagged, robot, session, number, said):
    tagged.fill(1)
    with pytest.raises(StoreError, match=said):
        read(tagged).find(robot, session, number)


def test_returns_come_with_bounds_versions_and_known_levels(tagged, tmp_path):
    """Two sessions: in one no policy acted; the robot was stopped at the end of the other."""

    tagged.fill(5, episode=20, session=1, edit=lambda s: replace(s, reward=1.0, policy_version=-1))
    tagged.fill(
        4, episode=20, edit=lambda s: replace(s, reward=2.0, policy_version=s.policy_version // 40)
    )
    baselines = {"task": "x", "random": {"mean": 1.5}, "best": 50.0}
    (tmp_path / "baselines.json").write_text(json.dumps(baselines))
    found = returns_so_far(read(tagged).episodes(), tmp_path)
    assert found["episodes"] == 9
    assert found["points"][0] == [20, 20.0, -1]
    assert found["points"][-1] == [180, 40.0, 1]
    assert found["versions"] == [[120, 0], [160, 1]]
    assert found["no_policy"] == {"mean": 20.0, "low": 20.0, "high": 20.0, "episodes": 5}
    assert found["baselines"] == {"random": {"mean": 1.5}, "best": 50.0}
    assert sum(b["episodes"] for b in found["bins"]) == 9
    mixed = found["bins"][1]  # one of 20 and three of 40
    assert mixed["mean"] == 35.0
    assert mixed["low"] < 35.0 < mixed["high"]
    assert found["bins"][-1]["low"] is None  # one episode tells no bounds


def test_an_episode_that_was_stopped_with_its_session_does_not_count(tagged):

    def edit(step):
        return replace(step, is_last=step.is_last or step.policy_version == 59)

    tagged.fill(3, episode=25, edit=edit)
    book = read(tagged)
    assert short(book)[-1] == (50, 10, "last", True)
    assert [e.first_step for e in counted(book.episodes())] == [0, 25]


def test_nothing_stored_has_no_returns(tmp_path):
    found = returns_so_far([])
    assert found["points"] == found["bins"] == found["versions"] == []
    assert found["no_policy"] is None


def test_what_robots_learner_and_chunks_say_is_joined(tagged, tmp_path):
    tagged.fill(2)
    (tmp_path / "status.json").write_text(
        json.dumps({"agent_steps": 40, "pid": 7, "left_out": {"damaged": 1}})
    )
    (tmp_path / "live").mkdir()
    learner = {"steps_trained_on": 30, "pid": 7}
    (tmp_path / "live" / "learner.json").write_text(json.dumps(learner))
    live = {
        "robot": {"counters": {"steps_recorded": 55, "oldest_unacked_s": 2.5}},
        "other": {"counters": {}},
    }
    account = StepAccount(tmp_path, read(tagged)).now(live)
    assert account["trained_on"] == 30
    assert account["trained_share"] == 0.75
    assert account["left_out"] == {"damaged": 1}
    assert account["oldest_unacknowledged_s"] == 2.5
    assert account["robots"]["robot"]["recorded"] == 55
    assert account["robots"]["other"]["recorded"] is None
    assert account["disk_free_bytes"] > 0
    assert account["quarantined"] == account["damaged"] == 0
    learner["pid"] = 8  # of an earlier process
    (tmp_path / "live" / "learner.json").write_text(json.dumps(learner))
    assert StepAccount(tmp_path, read(tagged)).now()["trained_on"] is None


@pytest.mark.parametrize("order", [(0, 1, 2, 4, 5), (5, 2, 1, 0, 4)])
def test_the_page_and_wm_data_list_the_same_episodes(tagged, order):
    """One that grows with the store, the other read at once; chunk 3 is missing."""
    book = EpisodeBook(tagged.root)
    for seq in order:
        tagged.write(seq, 20 * seq, episode=25, edit=lambda s: replace(s, period_s=0.1))
        book.refresh()
    listed = list(stored_episodes(tagged.root, tagged.ledger))
    assert [(e.first_step, e.end) for e in listed] == [
        (0, "terminal"), (25, "last"), (50, "gap"), (80, "last"), (100, "open"),
    ]  # fmt: skip
    assert listed[0].start_ns == 1_000_000_000
    for episode in listed:
        own = book.find("robot", SESSION, episode.number)
        same = {"agent_steps": 0, "arrived_ns": 0, "start_ns": 0, "total": 0.0, "seconds": 0.0}
        assert replace(own, **same) == replace(episode, **same)
        assert own.total == episode.total
        assert own.seconds == pytest.approx(episode.steps * 0.1)
        spans = list(spans_of(tagged.ledger, own))
        assert [
            i for row, a, b in spans for i in range(row.first_step + a, row.first_step + b)
        ] == [*range(own.first_step, own.first_step + own.steps)]


def test_what_is_kept_does_not_grow_with_the_chunks_of_an_episode(tagged):
    tagged.fill(30, count=5)
    book = read(tagged)
    (session,) = book._sessions.values()
    assert [len(run.episodes) for run in session._runs] == [1]
    assert session.episodes()[0].steps == 150
