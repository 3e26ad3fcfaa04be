"""``wm store``: look after the experience that a trainer keeps."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from wm_core.contract.errors import StoreError, shown
from wm_core.contract.whole import whole
from wm_core.format.chunk import chunk_path
from wm_core.recordings.care.place import alone
from wm_core.store.existing import existing_store
from wm_core.store.importer import import_chunks
from wm_core.store.intake import StoreIntake
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.objects import open_objects
from wm_core.store.pull import Pull, Pulled
from wm_core.store.rebuild import rebuild
from wm_core.store.verify import verify_store

_ABOUT = """\
Look after a store: the folder `store` of a run, with its ledger and its chunks.

  wm store pull --from s3://bucket/robots --root runs/x
            copy what `wm serve --objects` put into an object store
  wm store pull --from s3://bucket/robots --root runs/x --watch
            and go on, beside `wm train --follow --run runs/x`

  wm store import --root runs/x --from /media/stick/spool
            take in a folder of chunks, such as a robot's spool that was copied
            or carried; each chunk once, the folder is only read
  wm store verify --root runs/x
            read and hash every chunk, and name those that are damaged
  wm store rebuild --root runs/x
            make a new ledger from the chunk files, where it is damaged; stop
            `wm serve` and `wm train` before

Of S3 the address and the keys are read from the environment: AWS_ENDPOINT_URL,
AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
"""
_NAMED = 50  # files that are named, of those that are refused or damaged
_LOOK_S = 2.0  # between two looks at the object store
_MOST_S = 60.0  # ... while it cannot be reached


def main(argv: list[str]) -> int:
    """Run ``wm store``; the exit status."""
    try:
        asked = _parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    run: Callable[[argparse.Namespace], int] = asked.run
    return run(asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm store", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(metavar="VERB")
    verbs.required = True
    pull = verbs.add_parser("pull", help="copy what is new in an object store, each chunk once")
    pull.set_defaults(run=_pull)
    pull.add_argument("--from", dest="url", required=True, help="s3://bucket/prefix or a folder")
    pull.add_argument("--watch", action="store_true", help="go on until interrupted")
    pull.add_argument(
        "--min-free-bytes", type=whole, default=200_000_000, help="bytes of the disk to keep free"
    )
    bring = verbs.add_parser("import", help="take in a folder of chunk files, each chunk once")
    bring.set_defaults(run=_import)
    bring.add_argument("--from", dest="source", type=Path, required=True, help="any such folder")
    bring.add_argument(
        "--min-free-bytes", type=whole, default=200_000_000, help="bytes of the disk to keep free"
    )
    check = verbs.add_parser("verify", help="hash every chunk and name those that are damaged")
    check.set_defaults(run=_verify)
    renew = verbs.add_parser("rebuild", help="make a new ledger from the chunk files")
    renew.set_defaults(run=_rebuild)
    for verb in verbs.choices.values():
        verb.add_argument("--root", type=Path, required=True, help="run folder, as of `wm serve`")
    return parser


def _pull(asked: argparse.Namespace) -> int:
    console = Console(highlight=False, soft_wrap=True)
    store, objects = asked.root / "store", open_objects(asked.url)
    ledger = Ledger(store / LEDGER_NAME)
    pull = Pull(objects, store, ledger, min_free_bytes=asked.min_free_bytes)
    total, failures = Pulled(), 0
    try:
        with console.status(f"looking at {asked.url}") as status:
            while True:
                try:
                    found = pull.once(
                        lambda key: status.update(f"copying {'/'.join(map(str, key))}")
                    )
                except StoreError as error:
                    if not asked.watch:
                        raise
                    failures += 1
                    console.print(f"{error}; it is tried again", markup=False)
                else:
                    failures, total = 0, Pulled(*map(sum, zip(total, found, strict=True)))
                    if any(found):
                        console.print(_said(found), markup=False)
                if not asked.watch:
                    break
                status.update(f"waiting for what is new in {asked.url}")
                time.sleep(min(_LOOK_S * 2**failures, _MOST_S))
    except KeyboardInterrupt:
        pass
    finally:
        ledger.close()
    console.print(f"{store}: {_said(total)}", markup=False)
    return 1 if total.failed and not asked.watch else 0


def _import(asked: argparse.Namespace) -> int:
    console = Console(highlight=False, soft_wrap=True)
    store = asked.root / "store"
    ledger = Ledger(store / LEDGER_NAME)
    intake = StoreIntake(store, ledger, min_free_bytes=asked.min_free_bytes)
    try:
        with console.status(f"reading {asked.source}") as status:
            found = import_chunks(
                asked.source, intake, on_file=lambda path: status.update(f"reading {path}")
            )
    finally:
        intake.close()
        ledger.close()
    for path, reason in [*found.refused, *found.failed][:_NAMED]:
        console.print(f"{path}: {shown(reason)}", markup=False)
    console.print(
        f"{store}: {found.new} new chunks, {found.known} known, {found.replaced} damaged ones "
        f"replaced, {len(found.refused)} refused, {len(found.failed)} to be tried again",
        markup=False,
    )
    return 1 if found.refused or found.failed else 0


def _verify(asked: argparse.Namespace) -> int:
    console = Console(highlight=False, soft_wrap=True)
    store = existing_store(asked.root / "store")
    with console.status("verifying") as status:
        found = verify_store(
            store, on_chunk=lambda row: status.update(f"chunk {row.arrival} of {row.robot}")
        )
    for key, reason in found.damaged[:_NAMED]:
        console.print(f"{chunk_path(store, key)}: {reason}", markup=False)
    console.print(
        f"{store}: {found.chunks} chunks, {found.bytes} bytes, {len(found.damaged)} damaged",
        markup=False,
    )
    if found.damaged:
        console.print(
            "a damaged chunk is replaced when its bytes come again: "
            f"wm store import --root {asked.root} --from FOLDER takes them from a robot's black "
            "box or a backup",
            markup=False,
        )
    return 1 if found.damaged else 0


def _rebuild(asked: argparse.Namespace) -> int:
    console = Console(highlight=False, soft_wrap=True)
    store = asked.root / "store"
    if not store.is_dir():
        raise StoreError(f"{store} does not exist; expected the store of a run folder")
    with alone(store), console.status(f"reading {store}") as status:
        found = rebuild(store, on_file=lambda path: status.update(f"reading {path}"))
    console.print(
        f"{store}: {found.kept} chunks as before, {found.adopted} found without a row, "
        f"{found.evicted} evicted for room, {found.missing} whose files are gone, "
        f"{found.quarantined} moved to the quarantine, {found.unreadable} unreadable",
        markup=False,
    )
    if found.old is not None:
        console.print(f"the old ledger is {found.old}", markup=False)
    return 0


def _said(pulled: Pulled) -> str:
    return (
        f"{pulled.stored} new chunks, {pulled.known} known, {pulled.refused} refused, "
        f"{pulled.failed} to be tried again"
    )
