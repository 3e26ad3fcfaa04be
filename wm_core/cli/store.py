"""``wm store``: look after the experience that a trainer keeps."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from wm_core.contract.errors import StoreError
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.objects import open_objects
from wm_core.store.pull import Pull, Pulled

_ABOUT = """\
Look after a store: the folder `store` of a run, with its ledger and its chunks.

  wm store pull --from s3://bucket/robots --root runs/x
                               copy what `wm serve --objects` put into an object store
  wm store pull --from s3://bucket/robots --root runs/x --watch
                               and go on, beside `wm train --follow --run runs/x`

Of S3 the address and the keys are read from the environment: AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
"""
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
        "--min-free-bytes", type=int, default=200_000_000, help="bytes of the disk to keep free"
    )
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


def _said(pulled: Pulled) -> str:
    return (
        f"{pulled.stored} new chunks, {pulled.known} known, {pulled.refused} refused, "
        f"{pulled.failed} to be tried again"
    )
