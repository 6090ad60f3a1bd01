"""What `b2bua init` makes, and what it refuses to touch."""

from __future__ import annotations

import socket
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b2bua import initialise as subject
from b2bua.config import load
from b2bua.errors import ConfigurationError, InitialisationError
from b2bua.initialise import InitOptions, identity_of, initialise
from recording.settings import Layout
from tls.material import load_material


def test_makes_private_files_that_belong_together(tmp_path: Path) -> None:
    result = initialise(tmp_path / "lab", InitOptions())
    for path in (result.directory, result.kek.parent, result.edge.certificate_path.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for material in (result.edge, result.caller, result.callee, result.monitor):
        assert stat.S_IMODE(material.private_key_path.stat().st_mode) == 0o600
        loaded = load_material(material, now=datetime.now(UTC))
        assert {identity.host for identity in loaded.identities} == {
            identity_of(material.certificate_path.stem)
        }
    assert stat.S_IMODE(result.kek.stat().st_mode) == 0o600
    for name in ("audit.kek", "signing.pem"):
        assert stat.S_IMODE((result.kek.parent / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(result.configuration.stat().st_mode) == 0o600
    assert len(result.kek.read_bytes()) == 32


def test_calls_can_be_paused_by_command_out_of_the_box(tmp_path: Path) -> None:
    control = load(initialise(tmp_path / "lab", InitOptions()).configuration).control
    assert control is not None
    assert control.socket == tmp_path / "lab" / "run" / "control.sock"


def test_two_runs_share_no_secret_and_no_handle(tmp_path: Path) -> None:
    one, other = (initialise(tmp_path / name, InitOptions()) for name in ("one", "other"))
    assert one.kek.read_bytes() != other.kek.read_bytes()
    assert one.edge.private_key_path.read_bytes() != other.edge.private_key_path.read_bytes()
    assert (
        load(one.configuration).tenants["clinic"].handle != load(other.configuration).tenants["clinic"].handle
    )


def test_options_reach_the_configuration(tmp_path: Path) -> None:
    options = InitOptions(
        layout=Layout.SPLIT,
        sip_port=6061,
        caller_port=6071,
        callee_port=6072,
        metrics_port=6443,
        rtp_port_first=30000,
        max_calls=3,
    )
    result = initialise(tmp_path / "lab", options)
    made = load(result.configuration)
    assert made.recording.layout is Layout.SPLIT
    assert (made.listener.port, result.sip_port) == (6061, 6061)
    targets = {name: trunk.target.port for name, trunk in made.trunks.items() if trunk.target is not None}
    assert targets == {"caller": 6071, "callee": 6072}
    assert made.metrics is not None
    assert made.metrics.port == 6443
    assert (made.media.rtp_port_first, made.media.rtp_port_last) == (30000, 30011)
    assert made.limits.max_calls == 3


def test_free_ports_can_be_bound_and_differ(tmp_path: Path) -> None:
    result = initialise(tmp_path / "lab", InitOptions(free_ports=True, max_calls=5))
    made = load(result.configuration)
    assert made.metrics is not None
    tcp = [result.sip_port, result.caller_port, result.callee_port, result.metrics_port]
    assert len(set(tcp)) == 4
    assert [made.listener.port, made.metrics.port] == [result.sip_port, result.metrics_port]
    for port in tcp:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    for port in range(made.media.rtp_port_first, made.media.rtp_port_last + 1):
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", port))


def test_the_search_for_media_ports_passes_over_taken_ones() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
        even = port - port % 2
        first = subject._free_udp_range(4, within=range(even - 4, even + 6), avoid=frozenset())
        assert port not in range(first, first + 4)
        with pytest.raises(InitialisationError, match="in a row are free"):
            subject._free_udp_range(4, within=range(even - 2, even + 4), avoid=frozenset())


@pytest.mark.parametrize("name", ["b2bua.toml", "tls", "keys"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InitialisationError, match=f"{name} exists"):
        initialise(tmp_path, InitOptions())
    assert (tmp_path / name).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "b2bua.toml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InitialisationError, match="exists"):
        initialise(tmp_path, InitOptions())
    assert not (tmp_path / "elsewhere").exists()


def test_other_files_in_the_directory_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    initialise(tmp_path, InitOptions())
    assert (tmp_path / "notes").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (InitOptions(sip_port=5071), "same"),
        (InitOptions(sip_port=0), "1 to 65535"),
        (InitOptions(metrics_port=65536), "1 to 65535"),
        (InitOptions(rtp_port_first=20001), "even"),
        (InitOptions(rtp_port_first=1000), "1024"),
        (InitOptions(rtp_port_first=65500), "below 65536"),
        (InitOptions(rtp_port_first=5000), "hold one of the other ports"),
        (InitOptions(max_calls=0), "1 to"),
        (InitOptions(max_calls=1001), "1 to"),
    ],
)
def test_ports_that_could_not_work_are_refused_before_anything_is_made(
    tmp_path: Path, options: InitOptions, words: str
) -> None:
    with pytest.raises(InitialisationError, match=words):
        initialise(tmp_path / "lab", options)
    assert not (tmp_path / "lab").exists()


def test_a_directory_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InitialisationError, match="choose another directory"):
        initialise(tmp_path / "file" / "lab", InitOptions())


def test_certificates_last_ninety_days(tmp_path: Path) -> None:
    result = initialise(tmp_path / "lab", InitOptions())
    load(result.configuration, now=datetime.now(UTC) + timedelta(days=89))
    with pytest.raises(ConfigurationError, match="renew"):
        load(result.configuration, now=datetime.now(UTC) + timedelta(days=91))


@settings(max_examples=20, deadline=None)
@given(
    ports=st.lists(st.integers(1, 9999), min_size=4, max_size=4, unique=True),
    first=st.integers(5000, 30000).map(lambda port: port * 2),
    calls=st.integers(1, 1000),
    layout=st.sampled_from(Layout),
)
def test_whatever_init_accepts_is_a_good_configuration(
    tmp_path_factory: pytest.TempPathFactory, ports: list[int], first: int, calls: int, layout: Layout
) -> None:
    directory = tmp_path_factory.mktemp("init")
    sip, caller, callee, metrics = ports
    options = InitOptions(
        layout=layout,
        sip_port=sip,
        caller_port=caller,
        callee_port=callee,
        metrics_port=metrics,
        rtp_port_first=first,
        max_calls=calls,
    )
    try:
        result = initialise(directory, options)
    except InitialisationError:
        assert first + 4 * calls - 1 > 65535
        return
    assert load(result.configuration).limits.max_calls == calls
