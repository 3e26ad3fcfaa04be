"""Remembers which chunks have arrived, so that none is counted twice.

``wm data gc`` gives the chunks that it keeps new places at the end of the order of arrival, and a
reader that has the store open meets them again there.
"""

from __future__ import annotations

from bisect import bisect_right

from wm_core.format.chunk import ChunkKey


class Arrived:
    """Keeps the sequence numbers of each session as runs: many gaps make it grow, not chunks."""

    def __init__(self) -> None:
        #: by robot and session: first number, number behind the last, and so on for each run
        self._edges: dict[tuple[str, str], list[int]] = {}

    def add(self, key: ChunkKey) -> bool:
        """Remember a chunk; returns whether it is new."""
        edges, seq = self._edges.setdefault((key.robot, key.session), []), key.seq
        at = bisect_right(edges, seq)
        if at % 2:  # behind the beginning of a run and before its end
            return False
        ends_here = at > 0 and edges[at - 1] == seq
        begins_behind = at < len(edges) and edges[at] == seq + 1
        new = [*([] if ends_here else [seq]), *([] if begins_behind else [seq + 1])]
        edges[at - ends_here : at + begins_behind] = new
        return True
