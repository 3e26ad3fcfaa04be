"""Chooses which columns of a table are observations, and names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from pydantic import ValidationError

from wm_core.contract.errors import RecordingError, nearest, shown
from wm_core.contract.frozen import MAX_NAME
from wm_core.contract.inputs import MAX_INPUTS, MAX_NUMBERS, ImageSpec, Vector
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.recordings.table_options import TableOptions

NONE = "none"  #: in the place of a column: there is none
_UNFIT = re.compile(r"[^A-Za-z0-9_]+")
_PREFIXES = ("observation.images.", "observation.image.", "observation.", "images/", "image/")
_RESERVED = ("action", "step")  # topics of every chunk


def observations(
    where: object, known: Sequence[str], usual: Iterable[str], options: TableOptions
) -> dict[str, str]:
    """Choose the columns that become observations.

    Args:
        where: the recording, for messages.
        known: columns that can be observations.
        usual: those of them that are taken where nothing was said.
        options: what was said.

    Returns:
        The name of the observation for each column, in the order of ``known``.

    Raises:
        RecordingError: for a column that does not exist, with the nearest that does.
    """
    for name in (*options.features, *options.without, *options.names):
        known_column(where, name, known, what="observation")
    wanted = set(options.features or usual) - set(options.without)
    columns = [name for name in known if name in wanted]
    if not columns:
        raise RecordingError(
            f"{where}: found no column that looks like an observation; name some with --features; "
            f"there are: {', '.join(known) or 'none'}"
        )
    if len(columns) > MAX_INPUTS:
        raise RecordingError(
            f"{where}: {len(columns)} columns look like observations, at most {MAX_INPUTS} can be "
            "taken; choose with --features or --without"
        )
    return _named(where, columns, options.names)


def known_column(where: object, name: str, known: Iterable[str], *, what: str) -> str:
    """Return ``name`` if it is ``known``; raises ``RecordingError`` with the nearest if not."""
    known = list(known)
    if name not in known:
        raise RecordingError(f"{where}: {nearest(name, known, what=f'column of the {what}')}")
    return name


def column_or_none(
    where: object, said: str, usual: Sequence[str], known: Iterable[str], *, what: str
) -> str | None:
    """Choose the column of reward or done: as said, else the first of ``usual`` that is there."""
    known = list(known)
    if said == NONE:
        return None
    if said:
        return known_column(where, said, known, what=what)
    return next((name for name in usual if name in known), None)


def _named(where: object, columns: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """Name the observations: as said, else the column's name without what all of them have."""
    short = {column: names.get(column) or short_name(column) for column in columns}
    count = list(short.values())
    found = {
        column: name if column in names or count.count(name) == 1 else fit_name(column)
        for column, name in short.items()
    }
    unfit = [name for name in found.values() if fit_name(name) != name]
    if unfit:
        raise RecordingError(
            f"{where}: expected names of letters, digits and _ for --rename, other than "
            f"{' and '.join(_RESERVED)}, got {unfit[0]!r}"
        )
    twice = sorted({name for name in found.values() if list(found.values()).count(name) > 1})
    if twice:
        raise RecordingError(f"{where}: several columns would be named {twice}; use --rename")
    return found


def short_name(column: str) -> str:
    """Name an observation like its column, without what the names of many begin with."""
    prefix = next((p for p in _PREFIXES if column.startswith(p)), "")
    return fit_name(column[len(prefix) :])


def fit_name(text: str) -> str:
    """Make a name that a recording can hold of ``text``: letters, digits and underscores."""
    name = _UNFIT.sub("_", text).strip("_")[:60] or "column"
    name = f"_{name}" if name[0].isdigit() else name
    return f"{name}_seen" if name in _RESERVED else name


def robot_name(text: str, otherwise: str) -> str:
    """Make a robot's name of ``text``: 1 to 64 of a-z, 0-9, _ and -."""
    return re.sub(r"[^a-z0-9_-]+", "_", text.lower()).strip("_")[:64] or otherwise


def number_names(names: object, size: int) -> tuple[str, ...]:
    """Read the names of a vector's numbers; () where there is not one good name for each."""
    if isinstance(names, dict):  # some list them by group
        names = [n for group in names.values() for n in (group if isinstance(group, list) else [])]
    if not isinstance(names, list | tuple) or len(names) != size:
        return ()
    texts = tuple(str(name) for name in names)
    good = all(text and len(text) <= MAX_NAME and text.isprintable() for text in texts)
    return texts if good and len(set(texts)) == size else ()


def make_spec(
    where: object,
    images: Mapping[str, ImageSpec],
    vectors: Mapping[str, Vector],
    action: ActionSpec,
    period_s: float,
) -> Spec:
    """Describe the steps of a table; raises ``RecordingError`` for what no spec can hold."""
    try:
        return Spec(images=images, vectors=vectors, action=action, period_s=period_s)
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(map(str, found["loc"]))
        raise RecordingError(f"{where}: {place}: {shown(found['msg'], 200)}") from None


def vector_of(where: object, size: int, names: tuple[str, ...] = ()) -> Vector:
    """Describe a vector of ``size`` numbers; raises ``RecordingError`` for too many."""
    if not 0 < size <= MAX_NUMBERS:
        raise RecordingError(
            f"{where}: expected 1 to {MAX_NUMBERS} numbers in a row, got {size}; leave it out "
            "with --without"
        )
    return Vector(size=size, names=names)
