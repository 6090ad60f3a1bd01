"""SDP and SDES in the patched pjproject: too much, out of range, or weakened is refused, and nothing dies of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from support.pj_attack import (
    CRYPTO_GCM_256,
    Authority,
    Identity,
    Peer,
    Victim,
    client_context,
    invite,
    offer,
    run_check,
)

KEY = CRYPTO_GCM_256.split("inline:")[1]
PCMU = ["a=rtpmap:0 PCMU/8000"]
CRYPTO = [f"a=crypto:{CRYPTO_GCM_256}"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> dict[str, Path]:
    server = authority.issue("server", sans=[x509.DNSName("server.example")])
    return {"ca": authority.path, "cert": server.cert, "key": server.key}


@pytest.fixture(scope="module")
def client(authority: Authority) -> Identity:
    return authority.issue("client")


@pytest.fixture
def victim(files: dict[str, Path]) -> Iterator[Victim]:
    with Victim(**files) as running:
        yield running


@pytest.fixture
def peer(victim: Victim, authority: Authority, client: Identity) -> Iterator[Peer]:
    with Peer.connect(client_context(authority, client), victim.port) as connected:
        yield connected


def crypto_lines(count: int) -> list[str]:
    return [f"a=crypto:{tag} AEAD_AES_256_GCM inline:{KEY}" for tag in range(1, count + 1)]


def refused_and_alive(victim: Victim, peer: Peer, body: str) -> None:
    """The offer gets a final refusal, and the very next good call of the same peer an answer."""
    assert 400 <= int(invite(peer, body).split()[1]) < 500
    assert invite(peer, offer()).startswith("SIP/2.0 200")
    assert victim.process.poll() is None


@pytest.mark.parametrize("count", [61, 65, 150])
def test_too_many_crypto_lines_are_refused(victim: Victim, peer: Peer, count: int) -> None:
    refused_and_alive(victim, peer, offer("m=audio 40000 RTP/SAVP 0", *PCMU, *crypto_lines(count)))


def test_many_crypto_lines_are_answered(peer: Peer) -> None:
    answer = invite(peer, offer("m=audio 40000 RTP/SAVP 0", *PCMU, *crypto_lines(59)))
    assert answer.startswith("SIP/2.0 200")
    assert answer.count("a=crypto:1 ") == 1


def test_too_many_media_are_refused(victim: Victim, peer: Peer) -> None:
    more = ["m=audio 40002 RTP/SAVP 0", *CRYPTO] * 16
    refused_and_alive(victim, peer, offer("m=audio 40000 RTP/SAVP 0", *PCMU, *CRYPTO, *more))


def test_sixteen_media_get_sixteen_answers(peer: Peer) -> None:
    more = ["m=audio 40002 RTP/SAVP 0", *CRYPTO] * 15
    answer = invite(peer, offer("m=audio 40000 RTP/SAVP 0", *PCMU, *CRYPTO, *more))
    assert answer.startswith("SIP/2.0 200")
    assert answer.count("\r\nm=audio ") == 16


def test_too_many_formats_are_refused(victim: Victim, peer: Peer) -> None:
    formats = " ".join(str(number) for number in range(33))
    refused_and_alive(victim, peer, offer(f"m=audio 40000 RTP/SAVP {formats}", *PCMU, *CRYPTO))


def test_thirty_two_formats_are_answered(peer: Peer) -> None:
    formats = " ".join(str(number) for number in range(32))
    assert invite(peer, offer(f"m=audio 40000 RTP/SAVP {formats}", *PCMU, *CRYPTO)).startswith("SIP/2.0 200")


@pytest.mark.parametrize(
    "suffix",
    [
        "|1:4",
        "|2^20|1:4",
        "|2^20 |1:4",
        "|2^20;inline:x",
        ";inline:x",
        " UNENCRYPTED_SRTP",
        " UNENCRYPTED_SRTCP",
        "|2^20 UNAUTHENTICATED_SRTP",
        " KDR=0",
    ],
)
def test_weakened_crypto_is_refused(victim: Victim, peer: Peer, suffix: str) -> None:
    crypto = f"a=crypto:1 AEAD_AES_256_GCM inline:{KEY}{suffix}"
    refused_and_alive(victim, peer, offer("m=audio 40000 RTP/SAVP 0", *PCMU, crypto))


@pytest.mark.parametrize("suffix", ["", "|2^48", "|1048576", " "])
def test_lifetime_of_a_key_is_no_reason_to_refuse(peer: Peer, suffix: str) -> None:
    crypto = f"a=crypto:1 AEAD_AES_256_GCM inline:{KEY}{suffix}"
    assert invite(peer, offer("m=audio 40000 RTP/SAVP 0", *PCMU, crypto)).startswith("SIP/2.0 200")


@pytest.mark.parametrize("tag", ["4294967297", "1234567890", "99999999999999999999", "01", "-1"])
def test_crypto_tag_out_of_range_is_refused(victim: Victim, peer: Peer, tag: str) -> None:
    crypto = f"a=crypto:{tag} AEAD_AES_256_GCM inline:{KEY}"
    refused_and_alive(victim, peer, offer("m=audio 40000 RTP/SAVP 0", *PCMU, crypto))


def test_largest_crypto_tag_comes_back_in_the_answer(peer: Peer) -> None:
    crypto = f"a=crypto:999999999 AEAD_AES_256_GCM inline:{KEY}"
    answer = invite(peer, offer("m=audio 40000 RTP/SAVP 0", *PCMU, crypto))
    assert "a=crypto:999999999 AEAD_AES_256_GCM " in answer


def test_many_redundancy_formats_do_not_end_the_process(
    files: dict[str, Path], authority: Authority, client: Identity
) -> None:
    """Real-time text is off in the product; the negotiator must hold with it on."""
    formats = range(96, 126)
    text = [
        f"m=text 40010 RTP/SAVP {' '.join(map(str, formats))} 126",
        "a=rtpmap:126 t140/1000",
        *(f"a=rtpmap:{number} red/1000" for number in formats),
        *CRYPTO,
    ]
    with (
        Victim(text=1, **files) as victim,
        Peer.connect(client_context(authority, client), victim.port) as peer,
    ):
        answer = invite(peer, offer("m=audio 40000 RTP/SAVP 0", *PCMU, *CRYPTO, *text))
        assert answer.startswith("SIP/2.0 200")
        assert "m=text " in answer
        assert victim.finish() == 0


def check(*question: str) -> tuple[bool, int]:
    """Ask the SDP check program: is it success, and the number that comes with it."""
    run = run_check("sdp.c", *question)
    assert run.returncode == 0, run
    status, number = run.stdout.split()
    return status == "0", int(number)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("101 telephone-event/8000", (True, 8000)),
        ("0 PCMU/8000/1", (True, 8000)),
        ("128 telephone-event/8000", (False, 0)),
        ("4294967295 telephone-event/8000", (False, 0)),
        ("18446744073709551615 telephone-event/8000", (False, 0)),
        ("x telephone-event/8000", (False, 0)),
        ("101 telephone-event/0", (False, 0)),
        ("101 telephone-event/4294967296", (False, 0)),
        ("101 telephone-event/99999999999999999999", (False, 0)),
        ("101 telephone-event", (False, 0)),
        ("101", (False, 0)),
        ("", (False, 0)),
    ],
)
def test_numbers_of_a_format_are_in_range(value: str, expected: tuple[bool, int]) -> None:
    assert check("rtpmap", value) == expected


@pytest.mark.parametrize(
    ("value", "behind", "expected"),
    [("101 0-16", "", (True, 4)), ("101", " ", (False, 0)), ("101", "7 0-16", (False, 0))],
)
def test_format_parameters_end_with_their_line(value: str, behind: str, expected: tuple[bool, int]) -> None:
    assert check("fmtp", value, behind) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(8, 8, (True, 16)), (9, 8, (False, 0)), (16, 16, (False, 0))]
)
def test_new_offer_stays_inside_its_array(before: int, after: int, expected: tuple[bool, int]) -> None:
    assert check("reoffer", str(before), str(after)) == expected


@pytest.mark.parametrize(
    ("case", "started", "active"), [("keys", True, 1), ("nokeys", False, 0), ("again", False, 0)]
)
def test_mandatory_srtp_does_not_start_without_keys(case: str, started: bool, active: int) -> None:
    run = run_check("srtp.c", case)
    assert run.returncode == 0, run
    status, protected = run.stdout.split()
    assert (status == "0", int(protected)) == (started, active)
