"""Puts the routes of the service together: health, status, chunks and policies."""

from __future__ import annotations

import contextlib

from starlette.applications import Starlette

from wm_core.link.trainer.access import Access
from wm_core.link.trainer.answers import not_found, wrong_method
from wm_core.link.trainer.chunk_routes import ChunkRoutes
from wm_core.link.trainer.health_routes import HealthRoutes
from wm_core.link.trainer.policy_keys import PolicyKeys
from wm_core.link.trainer.policy_routes import PolicyRoutes
from wm_core.link.trainer.settings import POLICIES, STORE, ServeSettings
from wm_core.link.trainer.tokens import Tokens
from wm_core.store.intake import Intake, StoreIntake
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.object_intake import ObjectIntake
from wm_core.store.objects import open_objects
from wm_core.store.reconcile import Reconciled, reconcile


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
        )
        self.ledger: Ledger | None = None  #: None before an object store
        self.reconciled = Reconciled()  #: what an unclean end had left
        self.intake = self._open_intake()
        self.chunk_routes = ChunkRoutes(settings, self.access, self.intake)
        self.policy_routes = PolicyRoutes(
            self.policies,
            self.access,
            PolicyKeys(settings.policy_keys) if settings.policy_keys else None,
            settings.statement_s,
        )
        self.health_routes = HealthRoutes(
            settings, self.access, self.intake, self.chunk_routes, self.policy_routes.versions
        )
        self.chunk_routes.metrics = self.health_routes.metrics
        self.app = Starlette(
            routes=[
                *self.health_routes.routes,
                *self.chunk_routes.routes,
                *self.policy_routes.routes,
            ],
            exception_handlers={404: not_found, 405: wrong_method},
        )

    def _open_intake(self) -> Intake:
        settings = self.settings
        if settings.objects:
            objects = open_objects(settings.objects)
            return ObjectIntake(objects, max_bytes=settings.max_chunk_bytes)
        self.ledger = ledger = Ledger(self.store / LEDGER_NAME)
        self._closing.callback(ledger.close)
        self.reconciled = reconcile(self.store, ledger)
        return StoreIntake(
            self.store,
            ledger,
            max_bytes=settings.max_chunk_bytes,
            min_free_bytes=settings.min_free_bytes,
        )

    @property
    def uploads(self) -> int:
        """Bodies that are being received or stored."""
        return self.chunk_routes.limits.uploads

    def drain(self) -> None:
        """Answer waiting requests at once, and refuse new uploads."""
        self.policy_routes.closing = True
        self.chunk_routes.drain()

    def close(self) -> None:
        """Finish what was offered and close the ledger."""
        self.intake.close()
        self._closing.close()
