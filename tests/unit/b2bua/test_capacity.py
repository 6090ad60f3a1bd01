"""The library's limits hold what the configuration may ask for."""

from __future__ import annotations

import re
from pathlib import Path

from b2bua.config_shape_calls import MOST_CALLS
from b2bua.sip.endpoint import CALL_HEADROOM, MAX_MESSAGE_BYTES

SITE = (Path(__file__).parents[3] / "packaging" / "pjsip" / "config_site.h").read_text()


def limit(name: str) -> int:
    found = re.search(rf"#\s*define\s+{name}\s+\(?(\d+)", SITE)
    assert found is not None, name
    return int(found[1])


def test_two_legs_for_every_call_and_some_to_refuse_with() -> None:
    assert limit("PJSUA_MAX_CALLS") >= 2 * (MOST_CALLS + CALL_HEADROOM)


def test_two_streams_and_two_taps_for_every_call() -> None:
    assert limit("PJSUA_MAX_CONF_PORTS") >= 4 * (MOST_CALLS + CALL_HEADROOM) + 8


def test_our_message_limit_speaks_before_the_librarys() -> None:
    assert limit("PJSIP_MAX_PKT_LEN") > MAX_MESSAGE_BYTES
