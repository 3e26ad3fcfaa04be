"""The newest episode that is long enough, wherever its chunks lie."""

import numpy as np

from wm_core.replay.newest import FEWEST, newest_window


def numbers(found):
    return (found.batch.key[0] % 2**32).tolist()


def test_the_end_of_the_newest_episode_is_read(tagged):
    tagged.fill(5, episode=40)  # steps 0 .. 99: the third episode has 20
    found = newest_window(tagged.open(), length=16, least=12)
    assert numbers(found) == [*range(84, 100)]
    assert (found.robot, found.session, found.first_step) == ("robot", "0" * 32, 84)
    assert not found.batch.is_first.any()
    np.testing.assert_array_equal(found.batch.obs["image"][0, :, 0, 0, 0], np.arange(84, 100))
    np.testing.assert_array_equal(
        found.batch.prev_action[0, :, 0], np.arange(83, 99, dtype=np.float32) / 65536
    )


def test_one_that_is_too_short_gives_way_to_the_one_before(tagged):
    tagged.fill(5, episode=40)
    found = newest_window(tagged.open(), length=50, least=30)
    assert numbers(found) == [*range(40, 80)]
    assert found.batch.is_first[0].tolist() == [True] + 39 * [False]


def test_the_longest_counts_where_none_is_long_enough(tagged):
    tagged.fill(2, episode=15)
    found = newest_window(tagged.open(), length=50, least=30)
    assert numbers(found) == [*range(15, 30)]


def test_a_gap_ends_what_is_read_and_begins_without_a_past(tagged):
    tagged.write(0, 0)
    tagged.write(2, 40)
    found = newest_window(tagged.open(), length=50, least=10)
    assert numbers(found) == [*range(40, 60)]
    assert found.batch.is_first[0, 0]  # nothing is known before it


def test_the_newest_is_what_arrived_last_of_all_sessions(tagged):
    tagged.write(0, 0, session=1)
    tagged.write(0, 0, session=2)
    tagged.write(1, 20, session=1)
    found = newest_window(tagged.open(), length=8, least=4)
    assert (found.session, found.first_step) == (f"{1:032x}", 32)


def test_nothing_is_found_in_an_empty_store_or_in_crumbs(tagged):
    store = tagged.open()
    assert newest_window(store, length=8, least=4) is None
    tagged.write(0, 0, FEWEST - 1)
    store.refresh()
    assert newest_window(store, length=8, least=4) is None


def test_a_file_that_has_gone_is_no_error(tagged):
    path, _ = tagged.fill(2)
    store = tagged.open(cache_bytes=0)
    path.unlink()
    assert newest_window(store, length=40, least=4) is None
    assert numbers(newest_window(store, length=40, least=4)) == [*range(20, 40)]
