"""New certificates without a restart: judged whole, then swapped on the listener and in the verifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import structlog

from b2bua.errors import EngineError
from b2bua.settings import Settings
from b2bua.sip.endpoint import SIPStack
from tls.material import TLSMaterial
from tls.policy import PeerVerifier
from tls.rotation import MaterialWatcher, RotationOffered, RotationRefused

_log = structlog.get_logger(__name__)


class CertificateReload:
    """Polled by the SIP loop, forced by SIGHUP. A set that does not do is reported; the old one stays in force."""

    def __init__(
        self,
        *,
        settings: Settings,
        material: TLSMaterial,
        stack: SIPStack,
        verifier: PeerVerifier,
        on_outcome: Callable[[TLSMaterial, bool], None],
    ) -> None:
        self._settings = settings
        self._watcher = MaterialWatcher(material)
        self._stack = stack
        self._verifier = verifier
        self._on_outcome = on_outcome

    def check(self, *, force: bool = False) -> None:
        """Look at the files once."""
        match self._watcher.check(force=force):
            case None:
                return
            case RotationOffered(material=material):
                self._take(material)
            case RotationRefused(error=error, kept=kept):
                _log.error("certificate_reload_refused", problems=str(error))
                self._on_outcome(kept, False)
            case other:
                assert_never(other)

    def _take(self, material: TLSMaterial) -> None:
        try:
            self._stack.swap_certificate(self._settings)
        except EngineError as error:
            _log.error("certificate_reload_failed", problem=str(error))
            self._on_outcome(material, False)
            return
        self._verifier.adopt(material.trust)
        _log.info(
            "certificate_reloaded", fingerprint=material.fingerprint, not_after=material.not_after.isoformat()
        )
        self._on_outcome(material, True)
