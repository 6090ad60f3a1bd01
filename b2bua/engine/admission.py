"""Whether a new call may start, decided before pjsua allocates anything for it and before the far leg is rung.

Source: RFC 3261 sections 16.3 (Max-Forwards), 21.4.5 (404), 21.4.21 (483), 21.5.4 (503 with Retry-After).
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from b2bua.call.headers import HeaderError, InviteHeaders, read_invite
from b2bua.call.routing import Destination, find_destination, is_emergency
from b2bua.settings import KeyOutagePolicy, RecordingPolicy, Settings, TrunkSettings
from b2bua.sip.handler import Refusal
from recording.errors import RecordingError
from recording.recorder import Recorder, Reservation, UnavailableReason

_STRICTNESS = {RecordingPolicy.OFF: 0, RecordingPolicy.BEST_EFFORT: 1, RecordingPolicy.REQUIRED: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """An INVITE that may become a call.

    `unrecorded`: why it goes without a recording though its policy asks for one.
    """

    source: TrunkSettings
    destination: Destination
    headers: InviteHeaders
    tenant: str
    policy: RecordingPolicy
    emergency: bool
    reservation: Reservation | None
    unrecorded: str | None = None


def may_lack_key(settings: Settings, tenant: str, reason: str) -> bool:
    """Whether `reason` is that there was no data key, for which the tenant lets calls go on unrecorded."""
    if reason != UnavailableReason.NO_KEY.value:
        return False
    return settings.tenants[tenant].on_key_outage is KeyOutagePolicy.CONNECT_UNRECORDED


def must_be_recorded(settings: Settings, admission: Admission, reason: str) -> bool:
    """Whether a call whose recording failed for `reason` has to end."""
    return (
        admission.policy is RecordingPolicy.REQUIRED
        and not admission.emergency
        and not may_lack_key(settings, admission.tenant, reason)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Live calls, in all and by trunk (a call counts on both of its trunks)."""

    calls: int
    by_trunk: Mapping[str, int]


class Admissions:
    """The door. SIP thread only; `recorder` None: every trunk's recording is off.

    `is_audited`: whether the audit log takes lines now. While it does not no new call starts; live ones go on.
    """

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder | None,
        *,
        is_audited: Callable[[], bool] = lambda: True,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._is_audited = is_audited
        self._settings = settings
        self._recorder = recorder
        self._clock_ns = clock_ns
        self._recent_ns: collections.deque[int] = collections.deque()
        self.draining = False

    def decide(self, source: TrunkSettings, message: bytes, load: Load) -> Admission | Refusal:
        """Admit or refuse; an admission holds a data key until it is used or released."""
        try:
            headers = read_invite(message, source.pass_headers)
        except HeaderError:
            return Refusal(status=400, reason="malformed_header")
        if headers.replaces:
            return Refusal(status=403, reason="replaces")
        if headers.max_forwards == 0:
            return Refusal(status=483, reason="max_forwards")
        destination = find_destination(self._settings, source.name, headers.called_user)
        if destination is None:
            return Refusal(status=404, reason="no_route")
        admission = self._draft(source, destination, headers)
        refusal = self._check_load(admission, load)
        if refusal is not None:
            return refusal
        return self._with_recording(admission)

    def _draft(self, source: TrunkSettings, destination: Destination, headers: InviteHeaders) -> Admission:
        """The stricter of the two trunks' recording policies governs, and with it that trunk's tenant.

        A's where they agree.
        """
        far = destination.trunk
        stricter = far if _STRICTNESS[far.recording] > _STRICTNESS[source.recording] else source
        return Admission(
            source=source,
            destination=destination,
            headers=headers,
            tenant=stricter.tenant,
            policy=stricter.recording,
            emergency=is_emergency(self._settings.emergency_numbers, headers.called_user),
            reservation=None,
        )

    def _check_load(self, admission: Admission, load: Load) -> Refusal | None:
        if admission.emergency:
            return None
        limits = self._settings.limits
        now = self._clock_ns()
        while self._recent_ns and now - self._recent_ns[0] >= 1_000_000_000:
            self._recent_ns.popleft()
        trunks = {trunk.name: trunk for trunk in (admission.source, admission.destination.trunk)}
        full = any(load.by_trunk.get(name, 0) >= trunk.max_calls for name, trunk in trunks.items())
        checks = (
            (self.draining, "draining"),
            (not self._is_audited(), "audit_unavailable"),
            (load.calls >= limits.max_calls, "call_limit"),
            (len(self._recent_ns) >= limits.max_calls_per_s, "rate_limit"),
            (full, "trunk_limit"),
        )
        for failed, reason in checks:
            if failed:
                return self._busy(reason)
        self._recent_ns.append(now)
        return None

    def _with_recording(self, admission: Admission) -> Admission | Refusal:
        if admission.policy is RecordingPolicy.OFF:
            return admission
        try:
            if self._recorder is None:
                return self._without(admission, "no_recorder")
            return replace(admission, reservation=self._recorder.reserve(admission.tenant))
        except RecordingError as error:
            return self._without(admission, getattr(error, "reason_label", "recorder_unavailable"))

    def _without(self, admission: Admission, reason: str) -> Admission | Refusal:
        goes_on = (
            admission.emergency
            or admission.policy is RecordingPolicy.BEST_EFFORT
            or may_lack_key(self._settings, admission.tenant, reason)
        )
        if goes_on:
            return replace(admission, unrecorded=reason)
        return self._busy(reason)

    def _busy(self, reason: str) -> Refusal:
        retry = str(self._settings.limits.retry_after_s)
        return Refusal(status=503, reason=reason, headers=(("Retry-After", retry),))

    def release(self, admission: Admission) -> None:
        """Give back what an admission holds when no call came of it."""
        if admission.reservation is not None and self._recorder is not None:
            self._recorder.release(admission.reservation)
