"""Nothing that names a person or opens a call comes through the log, wherever in an event it stands."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from b2bua.log import redact, redact_text, set_up
from b2bua.settings import LogFormat, LogLevel, LogSettings


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def logged(form: LogFormat = LogFormat.JSON, level: LogLevel = LogLevel.INFO) -> io.StringIO:
    stream = io.StringIO()
    set_up(LogSettings(level=level, format=form), stream)
    return stream


# --- redaction

DIGITS = st.text("0123456789", min_size=5, max_size=15)
SEPARATORS = st.sampled_from(["", "", " ", "-", ".", "/", ") ", " ("])
NUMBERS = st.builds(
    lambda plus, digits, separators: plus + "".join(d + s for d, s in zip(digits, separators, strict=False)),
    st.sampled_from(["", "+", "%2B"]),
    DIGITS,
    st.lists(SEPARATORS, min_size=15, max_size=15),
).map(lambda text: text.rstrip(" -./()"))
AROUND = st.text(st.characters(exclude_categories=["Cs", "N"]), max_size=20)
USERS = st.from_regex(r"[a-z]{3,10}", fullmatch=True)
HOSTS = st.from_regex(r"[a-z]{3,10}\.example", fullmatch=True)
URIS = st.builds(
    lambda scheme, user, host, rest: f"{scheme}:{user}@{host}{rest}",
    st.sampled_from(["sip", "sips", "SIP", "Sips"]),
    USERS,
    HOSTS,
    st.sampled_from(["", ":5061", ";transport=tls", "?Subject=x"]),
)
KEYS = st.from_regex(r"[A-Za-z0-9+/]{20,60}={0,2}", fullmatch=True)


@given(before=AROUND, number=NUMBERS, after=AROUND)
def test_no_five_digits_survive(before: str, number: str, after: str) -> None:
    text = redact_text(f"{before}{number}{after}")
    assert re.search(r"\d(?:[-\s()/.]{0,2}\d){4}", text) is None


@given(
    before=AROUND, user=USERS, host=HOSTS, after=AROUND, scheme=st.sampled_from(["sip:", "sips:", "SIP:", ""])
)
def test_no_user_of_an_address_survives(before: str, user: str, host: str, after: str, scheme: str) -> None:
    marked = f"Q{user}Q"  # a word that does not come about by chance
    assert marked not in redact_text(f"{before} {scheme}{marked}@{host} {after}")


@given(before=AROUND, number=DIGITS, after=AROUND)
def test_no_tel_uri_survives(before: str, number: str, after: str) -> None:
    assert number not in redact_text(f"{before} tel:+{number};phone-context=x {after}")


@given(before=AROUND, key=KEYS, after=AROUND, tail=st.sampled_from(["", "|2^20|1:4", "|2^48"]))
def test_no_srtp_key_survives(before: str, key: str, after: str, tail: str) -> None:
    assert key not in redact_text(f"{before}a=crypto:1 AEAD_AES_256_GCM inline:{key}{tail}\r\n{after}")
    assert key not in redact_text(f"{before} inline:{key}{tail} {after}")


@pytest.mark.parametrize("form", ["inline:{key}", "uri:https://k.example/{key}", "inline: {key}", "{key}"])
def test_nothing_of_a_crypto_attribute_survives(form: str) -> None:
    """Whatever form the key has: the whole attribute goes."""
    key = "c2VjcmV0c2VjcmV0c2VjcmV0"
    text = redact_text(f"offer a=crypto:1 AEAD_AES_256_GCM {form.format(key=key)} KDR=1\r\na=sendrecv")
    assert text == "offer <crypto>\r\na=sendrecv"


def test_no_private_key_survives() -> None:
    text = redact_text("read -----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY----- done")
    assert text == "read <key> done"
    assert "MIGH" not in redact_text("-----BEGIN EC PRIVATE KEY-----\nMIGHAgEA")


NESTED = st.recursive(
    URIS | NUMBERS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(USERS, inner, max_size=2),
    max_leaves=4,
)


@given(field=USERS, value=NESTED, event=URIS)
def test_every_value_of_an_event_is_redacted(field: str, value: object, event: str) -> None:
    text = json.dumps(redact(None, "info", {"event": event, field: value}))
    assert "@" not in text
    assert re.search(r"\d{5}", text) is None


@given(
    number=DIGITS, field=st.sampled_from(["call_uid", "file_id", "key_id", "fingerprint", "tenant_handle"])
)
def test_an_id_field_is_no_way_out_for_a_number(number: str, field: str) -> None:
    assert number not in json.dumps(redact(None, "info", {field: number}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("call_uid", "0123456789abcdef0123456789abcdef"),
        ("call_uid", "00000000000000001111111122222222"),
        ("fingerprint", "1" * 64),
        ("key_id", "1234567890123456"),
        ("duration_ms", 123456),
        ("size_bytes", 1234567),
        ("port", 50610),
        ("source", "192.0.2.77"),
        ("address", "2001:db8::1"),
        ("event", "call_ended"),
        ("rest", "recording 0123456789abcdef0123456789abcde0 cut off after 7 records"),
    ],
)
def test_what_operators_need_stays(field: str, value: object) -> None:
    assert redact(None, "info", {field: value}) == {field: value}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", "4915112345678"),
        ("number", 4915112345678),
        ("user", 123456),
        ("key", b"123"),
        ("x_ms", "4915112345"),
    ],
)
def test_a_field_of_another_kind_is_redacted(field: str, value: object) -> None:
    assert redact(None, "info", {field: value}) != {field: value}


# --- the set-up


def test_json_lines_carry_event_level_time_and_fields() -> None:
    stream = logged()
    structlog.get_logger("b2bua.x").info(
        "call_ended", call_uid="0123456789abcdef0123456789abcdef", status=200
    )
    line = json.loads(stream.getvalue())
    assert line["event"] == "call_ended"
    assert line["level"] == "info"
    assert line["status"] == 200
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["at"])


def test_text_lines_begin_with_time_level_and_event() -> None:
    stream = logged(LogFormat.TEXT)
    structlog.get_logger("b2bua.x").warning("host_not_resolved", host="pbx.example.test")
    assert re.fullmatch(
        r"at='?\S+Z'? level='?warning'? event='?host_not_resolved'? host='?pbx\.example\.test'?\n",
        stream.getvalue(),
    )


@pytest.mark.parametrize("form", LogFormat)
def test_an_exception_is_told_without_what_it_quotes(form: LogFormat) -> None:
    stream = logged(form)
    try:
        int("no route for sip:+4915112345678@pbx.example.test")
    except ValueError:
        structlog.get_logger("b2bua.x").exception("callback_failed")
    text = stream.getvalue()
    assert "ValueError: invalid literal" in text
    assert "no route for <uri>" in text
    assert "4915112345678" not in text


def test_the_standard_library_goes_the_same_way() -> None:
    stream = logged()
    logging.getLogger("botocore").warning("retrying %s", "sip:alice@example.test")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"]) == ("retrying <uri>", "warning")


def test_levels() -> None:
    stream = logged(level=LogLevel.WARNING)
    structlog.get_logger("b2bua.x").info("quiet")
    structlog.get_logger("b2bua.x").warning("loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]
    stream = logged(level=LogLevel.DEBUG)
    structlog.get_logger("b2bua.y").debug("ours")
    logging.getLogger("urllib3").info("not ours")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["ours"]
