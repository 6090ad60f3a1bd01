"""A token that is away, guarded, emptied or badly filled: one typed error each, and good service after it.

On real SoftHSM2 tokens. They are files, so what a test takes away it can put back.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, MechanismFlag, Session

from recording.format.slots import KeySlot, SlotProvider
from recording.keys import pkcs11_token
from recording.keys.errors import (
    ContextMismatchError,
    KeyConfigurationError,
    KeyOperationError,
    KeyUnavailableError,
    NotPermittedError,
    UnknownKeyError,
)
from recording.keys.pkcs11 import PKCS11Provider, in_session
from recording.keys.pkcs11_administration import PKCS11Administration
from recording.keys.pkcs11_token import open_session, shared_token
from recording.keys.provider import KeyContext
from recording.settings import PKCS11KeySettings
from support.openbao import OpenBao
from support.softhsm import SoftHSM

CONTEXT = KeyContext(file_id=b"F" * 16, tenant_handle=b"T" * 16)


@pytest.fixture
def settings(softhsm: SoftHSM) -> PKCS11KeySettings:
    return softhsm.settings(f"outage-{secrets.token_hex(8)}")


@pytest.fixture
def provider(settings: PKCS11KeySettings) -> PKCS11Provider:
    made = PKCS11Provider("main", settings)
    rotate(settings)
    return made


def rotate(settings: PKCS11KeySettings) -> str:
    return PKCS11Administration("main", settings).rotate()


def test_a_new_version_wraps_and_the_old_one_still_opens(
    provider: PKCS11Provider, settings: PKCS11KeySettings
) -> None:
    old = provider.new_key(CONTEXT)
    assert old.slot.wrapped.startswith(b"v1:")
    assert rotate(settings) == "version 2 wraps from now on"
    new = provider.new_key(CONTEXT)
    assert new.slot.wrapped.startswith(b"v2:")
    moved = provider.rewrap(old.slot, CONTEXT)
    assert moved.wrapped.startswith(b"v2:")
    assert provider.unwrap(old.slot, CONTEXT) == provider.unwrap(moved, CONTEXT) == old.dek
    versions = provider.lifecycle().versions
    assert [version.number for version in versions] == [1, 2]
    for version in versions:
        assert version.created_at is not None
        assert abs(datetime.now(UTC) - version.created_at) < timedelta(minutes=1)


def test_a_version_that_was_destroyed_opens_nothing_more(
    provider: PKCS11Provider, settings: PKCS11KeySettings
) -> None:
    old = provider.new_key(CONTEXT)
    rotate(settings)
    moved = provider.rewrap(old.slot, CONTEXT)
    destroy(settings, f"{settings.key}.v1")
    with pytest.raises(UnknownKeyError, match="v1"):
        provider.unwrap(old.slot, CONTEXT)
    with pytest.raises(UnknownKeyError, match="v1"):
        provider.rewrap(old.slot, CONTEXT)
    assert provider.unwrap(moved, CONTEXT) == old.dek
    assert rotate(settings) == "version 3 wraps from now on"


def test_the_version_in_the_slot_decides_which_key_is_tried(
    provider: PKCS11Provider, settings: PKCS11KeySettings
) -> None:
    slot = provider.new_key(CONTEXT).slot
    rotate(settings)
    with pytest.raises(ContextMismatchError):
        provider.unwrap(replace(slot, wrapped=slot.wrapped.replace(b"v1:", b"v2:", 1)), CONTEXT)
    for prefix in (b"v0:", b"v01:", b"v-1:", b"v9999999999:", b"1:", b""):
        with pytest.raises(ContextMismatchError):
            provider.unwrap(replace(slot, wrapped=prefix + slot.wrapped[3:]), CONTEXT)
    assert provider.unwrap(slot, CONTEXT)


def test_a_key_that_is_not_there(settings: PKCS11KeySettings) -> None:
    provider = PKCS11Provider("main", settings)
    for ask in (lambda: provider.new_key(CONTEXT), provider.health, provider.lifecycle):
        with pytest.raises(UnknownKeyError, match=r"\.v1"):
            ask()
    rotate(settings)
    provider.health()


@pytest.mark.parametrize(
    ("template", "bits", "message"),
    [
        ({Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: True}, 256, "taken out"),
        ({Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: False}, 256, "taken out"),
        ({Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True}, 128, "AES-256"),
    ],
)
def test_a_key_that_is_not_kept_or_too_short_wraps_nothing(
    provider: PKCS11Provider,
    settings: PKCS11KeySettings,
    template: dict[Attribute, bool],
    bits: int,
    message: str,
) -> None:
    slot = provider.new_key(CONTEXT).slot
    generate(settings, f"{settings.key}.v2", template, bits=bits)
    with pytest.raises(KeyConfigurationError, match=message):
        provider.new_key(CONTEXT)
    with pytest.raises(KeyConfigurationError, match=message):
        provider.rewrap(slot, CONTEXT)
    assert provider.unwrap(slot, CONTEXT), "what was wrapped well stays readable"


def test_a_key_that_may_only_wrap_does_only_that(
    provider: PKCS11Provider, settings: PKCS11KeySettings
) -> None:
    generate(
        settings,
        f"{settings.key}.v2",
        {Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True},
        capabilities=MechanismFlag.WRAP,
    )
    slot = provider.new_key(CONTEXT).slot
    assert slot.wrapped.startswith(b"v2:")
    with pytest.raises(NotPermittedError, match="unwrap"):
        provider.unwrap(slot, CONTEXT)


def test_two_keys_of_one_label_are_refused(provider: PKCS11Provider, settings: PKCS11KeySettings) -> None:
    provider.health()
    generate(settings, f"{settings.key}.v1", {Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True})
    with pytest.raises(KeyConfigurationError, match="two keys"):
        provider.health()


# The binding ends its search in the closed session once more when it is collected, and reports that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_session_that_the_token_ended_is_opened_again(
    provider: PKCS11Provider, settings: PKCS11KeySettings
) -> None:
    slot = provider.new_key(CONTEXT).slot
    token = shared_token(settings.module_path, settings.token, settings.pin_path)
    token.run(lambda: token.session().close(), timeout_s=10)
    assert provider.unwrap(slot, CONTEXT)


def test_a_token_that_does_not_answer_costs_the_time_that_was_given(
    provider: PKCS11Provider, settings: PKCS11KeySettings
) -> None:
    hold, held = threading.Event(), threading.Event()
    token = shared_token(settings.module_path, settings.token, settings.pin_path)

    def block() -> None:
        held.set()
        hold.wait(30)

    blocker = threading.Thread(target=token.run, args=(block,), kwargs={"timeout_s": 30})
    blocker.start()
    assert held.wait(10)
    hasty = PKCS11Provider("main", replace(settings, timeout_s=0.3))
    began = time.monotonic()
    with pytest.raises(KeyUnavailableError, match=r"within 0\.3 s"):
        hasty.new_key(CONTEXT)
    assert 0.2 < time.monotonic() - began < 3
    hold.set()
    blocker.join(10)
    assert len(provider.new_key(CONTEXT).dek) == 32


def test_a_refused_slot_leaves_no_trace_in_other_connections(
    provider: PKCS11Provider, openbao: OpenBao
) -> None:
    """SoftHSM leaves its failure in OpenSSL's queue of the thread; on ours, the next TLS read would report it."""
    slot = provider.new_key(CONTEXT).slot
    openbao.admin("GET", "sys/health")
    with pytest.raises(ContextMismatchError):
        provider.unwrap(replace(slot, wrapped=slot.wrapped[:-1] + bytes([slot.wrapped[-1] ^ 1])), CONTEXT)
    openbao.admin("GET", "sys/health")


# --- the administrator


def test_older_versions_out_of_use_open_nothing_and_can_be_taken_back(
    provider: PKCS11Provider, settings: PKCS11KeySettings
) -> None:
    old = provider.new_key(CONTEXT)
    rotate(settings)
    moved = provider.rewrap(old.slot, CONTEXT)
    administration = PKCS11Administration("main", settings)
    assert administration.disable_older().startswith("1 ")
    with pytest.raises(UnknownKeyError, match="v1"):
        provider.unwrap(old.slot, CONTEXT)
    assert provider.unwrap(moved, CONTEXT) == old.dek
    assert administration.disable_older().startswith("0 ")
    relabel(settings, f"{settings.key}.v1.disabled", f"{settings.key}.v1")
    assert provider.unwrap(old.slot, CONTEXT) == old.dek


def test_of_two_who_make_the_same_version_none_leaves_twins(
    provider: PKCS11Provider, settings: PKCS11KeySettings
) -> None:
    """Providers use neither of two keys of one label, so a recorder would stop."""
    token = shared_token(settings.module_path, settings.token, settings.pin_path)

    def other(_: Session) -> None:
        """As another administrator's command does at the same moment."""
        with token.writing() as writer:
            writer.generate_key(KeyType.AES, 256, label=f"{settings.key}.v2.new", store=True)

    def remove(_: Session) -> None:
        with token.writing() as writer:
            (key,) = list(writer.get_objects({Attribute.LABEL: f"{settings.key}.v2.new"}))
            key.destroy()

    in_session("main", settings, other)
    with pytest.raises(KeyOperationError, match="somebody else makes version 2 now"):
        rotate(settings)
    assert provider.new_key(CONTEXT).slot.wrapped.startswith(b"v1:")
    in_session("main", settings, remove)
    assert rotate(settings) == "version 2 wraps from now on"
    assert provider.new_key(CONTEXT).slot.wrapped.startswith(b"v2:")


def test_a_disabled_or_destroyed_key_opens_nothing(
    provider: PKCS11Provider, settings: PKCS11KeySettings
) -> None:
    slot = provider.new_key(CONTEXT).slot
    rotate(settings)
    administration = PKCS11Administration("main", settings)
    administration.disable()
    with pytest.raises(UnknownKeyError):
        provider.unwrap(slot, CONTEXT)
    assert administration.disable().startswith("2 versions were labelled .disabled before")
    assert rotate(settings) == "version 3 wraps from now on", "no number is used twice"
    assert administration.destroy().startswith("3 ")
    with pytest.raises(UnknownKeyError):
        provider.new_key(CONTEXT)
    for operation in (administration.destroy, administration.disable, administration.disable_older):
        with pytest.raises(UnknownKeyError):
            operation()


# --- PIN, token and module


@pytest.fixture
def guarded(softhsm: SoftHSM) -> Iterator[PKCS11KeySettings]:
    """A token that nobody else logs in to; its PIN file is put right and its session ended afterwards."""
    settings = softhsm.settings(f"guarded-{secrets.token_hex(8)}", token="guarded")
    token = shared_token(settings.module_path, settings.token, settings.pin_path)
    token.run(token.drop, timeout_s=10)
    yield settings
    settings.pin_path.unlink(missing_ok=True)
    softhsm.pin_file("guarded")
    token.run(token.drop, timeout_s=10)


def test_a_wrong_pin_is_tried_once_until_its_file_changes(
    softhsm: SoftHSM, guarded: PKCS11KeySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def counted(token: pkcs11.Token, pin: str) -> pkcs11.Session:
        tried.append(pin)
        return open_session(token, pin)

    monkeypatch.setattr(pkcs11_token, "open_session", counted)
    guarded.pin_path.write_text("000000\n")
    provider = PKCS11Provider("main", guarded)
    with pytest.raises(NotPermittedError, match="PIN"):
        provider.health()
    for _ in range(3):
        with pytest.raises(NotPermittedError, match="not tried again"):
            provider.health()
    assert tried == ["000000"]
    guarded.pin_path.write_text(softhsm.pins["guarded"] + "\n")
    rotate(guarded)
    provider.health()
    assert tried == ["000000", softhsm.pins["guarded"]]


def test_a_pin_file_that_others_may_read_is_not_used(guarded: PKCS11KeySettings) -> None:
    guarded.pin_path.chmod(0o644)
    with pytest.raises(KeyConfigurationError, match="0644"):
        rotate(guarded)
    guarded.pin_path.chmod(0o600)
    assert rotate(guarded)


def test_a_token_that_is_not_there(softhsm: SoftHSM, settings: PKCS11KeySettings) -> None:
    absent = PKCS11Provider("main", replace(settings, token="absent", pin_path=softhsm.pin_file()))
    with pytest.raises(KeyUnavailableError, match="absent"):
        absent.new_key(CONTEXT)


@pytest.mark.parametrize("name", ["missing.so", "text.so"])
def test_a_module_that_cannot_be_loaded(settings: PKCS11KeySettings, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.so").write_text("no library")
    provider = PKCS11Provider("main", replace(settings, module_path=tmp_path / name))
    with pytest.raises(KeyConfigurationError, match="module"):
        provider.new_key(CONTEXT)


def test_a_second_pin_file_for_a_token_is_refused(
    provider: PKCS11Provider, settings: PKCS11KeySettings, tmp_path: Path
) -> None:
    provider.health()
    with pytest.raises(KeyConfigurationError, match="once a process"):
        PKCS11Provider("main", replace(settings, pin_path=tmp_path / "other.pin")).health()


@pytest.mark.parametrize("field", ["token", "key"])
@pytest.mark.parametrize("text", ["", "a/b", "a b", "x" * 65, "a\n"])
def test_a_label_that_cannot_stand_in_a_key_id_is_refused(
    settings: PKCS11KeySettings, field: str, text: str
) -> None:
    with pytest.raises(KeyConfigurationError, match=field):
        PKCS11Provider("main", replace(settings, **{field: text}))


def test_a_slot_of_no_provider_reaches_no_token(tmp_path: Path) -> None:
    settings = PKCS11KeySettings(
        module_path=tmp_path / "none.so", token="t", key="k", pin_path=tmp_path / "pin"
    )
    with pytest.raises(UnknownKeyError):
        PKCS11Provider("main", settings).unwrap(
            KeySlot(provider=SlotProvider.PKCS11_AES_KW, key_id=b"t/other", wrapped=b"v1:" + bytes(40)),
            CONTEXT,
        )


def generate(
    settings: PKCS11KeySettings,
    label: str,
    template: dict[Attribute, bool],
    *,
    bits: int = 256,
    capabilities: MechanismFlag = MechanismFlag.WRAP | MechanismFlag.UNWRAP,
) -> None:
    """A key as another program would make it."""
    token = shared_token(settings.module_path, settings.token, settings.pin_path)

    def make() -> None:
        token.session()
        with token.writing() as session:
            session.generate_key(
                KeyType.AES, bits, label=label, store=True, capabilities=capabilities, template=template
            )

    token.run(make, timeout_s=10)


def destroy(settings: PKCS11KeySettings, label: str) -> None:
    token = shared_token(settings.module_path, settings.token, settings.pin_path)

    def remove() -> None:
        token.session()
        with token.writing() as session:
            session.get_key(label=label).destroy()

    token.run(remove, timeout_s=10)


def relabel(settings: PKCS11KeySettings, old: str, new: str) -> None:
    token = shared_token(settings.module_path, settings.token, settings.pin_path)

    def change() -> None:
        token.session()
        with token.writing() as session:
            session.get_key(label=old)[Attribute.LABEL] = new

    token.run(change, timeout_s=10)
