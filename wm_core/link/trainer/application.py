"""Puts the routes of the service together: health, status, chunks, policies, live."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.link.trainer.access import Access
from wm_core.link.trainer.answers import not_found, wrong_method
from wm_core.link.trainer.chunk_routes import ChunkRoutes
from wm_core.link.trainer.health_routes import HealthRoutes
from wm_core.link.trainer.live_routes import LiveRoutes
from wm_core.link.trainer.policy_keys import PolicyKeys
from wm_core.link.trainer.policy_routes import PolicyRoutes
from wm_core.link.trainer.settings import POLICIES, STORE, ServeSettings
from wm_core.link.trainer.tokens import Tokens
from wm_core.store.intake import Intake, StoreIntake
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.object_intake import ObjectIntake
from wm_core.store.objects import open_objects
from wm_core.store.reconcile import Reconciled, reconcile
from wm_core.store.verify import Scrub


class Application:
    """Answers the routes of one service.

    Args:
        settings: what to store and to accept.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings, self._closing = settings, contextlib.ExitStack()
        self.store = settings.root / STORE
        self.policies = settings.root / POLICIES
        self.access = Access(
            Tokens(settings.tokens) if settings.tokens else None,
            certificates=settings.tls_client_ca is not None,
            host=settings.host,
        )
        self.ledger: Ledger | None = None  #: None before an object store
        self.at_drain: list[Callable[[], None]] = []  #: of others who add routes
        self.reconciled = Reconciled()  #: what an unclean end had left
        self.intake = self._open_intake()
        self.chunk_routes = ChunkRoutes(settings, self.access, self.intake)
        self.policy_routes = PolicyRoutes(
            self.policies,
            self.access,
            PolicyKeys(settings.policy_keys) if settings.policy_keys else None,
            settings.statement_s,
        )
        self.live_routes = LiveRoutes(self.access)
        self.health_routes = HealthRoutes(
            settings, self.access, self.intake, self.chunk_routes, self.policy_routes
        )
        self.health_routes.live = self.live_routes.board
        self.chunk_routes.metrics = self.health_routes.metrics
        self.app = Starlette(
            routes=[
                *self.health_routes.routes,
                *self.chunk_routes.routes,
                *self.policy_routes.routes,
                *self.live_routes.routes,
            ],
            exception_handlers={404: not_found, 405: wrong_method},
        )

    def _open_intake(self) -> Intake:
        settings = self.settings
        spec = _read_spec(settings.spec) if settings.spec else None
        if settings.objects:
            objects = open_objects(settings.objects)
            return ObjectIntake(objects, max_bytes=settings.max_chunk_bytes, spec=spec)
        self.ledger = ledger = Ledger(self.store / LEDGER_NAME)
        self._closing.callback(ledger.close)
        self.reconciled = reconcile(self.store, ledger)
        if settings.scrub_bytes_per_s:
            scrub = Scrub(self.store, ledger, bytes_per_s=settings.scrub_bytes_per_s)
            self._closing.callback(scrub.close)
        return StoreIntake(
            self.store,
            ledger,
            max_bytes=settings.max_chunk_bytes,
            min_free_bytes=settings.min_free_bytes,
            spec=spec,
        )

    @property
    def uploads(self) -> int:
        """Bodies that are being received or stored."""
        return self.chunk_routes.limits.uploads

    def drain(self) -> None:
        """Answer waiting requests at once, and refuse new uploads."""
        self.policy_routes.closing = True
        self.chunk_routes.drain()
        for leave in self.at_drain:
            leave()

    def close(self) -> None:
        """Finish what was offered and close the ledger."""
        self.intake.close()
        self._closing.close()


def _read_spec(path: Path) -> Spec:
    try:
        return Spec.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"--spec {path}: expected a spec as `wm robot spec --json` prints it: {error}"
        ) from error
