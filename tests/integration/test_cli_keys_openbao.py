"""`b2bua keys` over recordings under a key of a real OpenBao server, each command with the token of its role."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from b2bua.cli import keys_retire
from b2bua.cli.main import main
from recording.keys.errors import UnknownKeyError
from recording.keys.local import create_kek
from support.configuration import ConfigurationFile, make_configuration
from support.openbao import OpenBao
from support.recorded import RecordedCall, record_call

POLICIES: Final = Path(__file__).parents[2] / "packaging" / "policies" / "openbao"
NOT_PERMITTED, IN_USE = 35, 113
REASON: Final = ("--reason", "suspected-leak")
RETIRE: Final = ("keys", "retire", "dev", "--to", "dev", "--rewrap", *REASON)
VERIFY: Final = ("recordings", "verify", "--all", "--reason", "test")


class Site:
    """A configuration whose tenant's key is at OpenBao; `as_role` changes whose token lies in the token file."""

    def __init__(self, server: OpenBao, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.server = server
        self.key = f"recordings-{secrets.token_hex(8)}"
        server.create_key(self.key)
        self.file: ConfigurationFile = make_configuration(directory)
        self._token = directory / "keys" / "vault.token"
        self._token.touch(mode=0o600)
        self.as_role("recorder")
        self.file.replace(
            "[keys.dev]                              # a key in a file: development only. "
            'Otherwise: provider = "aws-kms"\nprovider = "local"\nkek = "keys/dev.kek"',
            'fsync_interval_ms = 50\n[keys.dev]\nprovider = "vault-transit"\n'
            f'address = "{server.url}"\nkey = "{self.key}"\n'
            f'token_file = "{self._token}"\nca = "{server.files.ca_path}"',
        )
        self._capsys = capsys
        self.out = self.err = ""

    def as_role(self, *roles: str) -> None:
        names = []
        for role in roles:
            names.append(f"cli-{role}")
            text = (POLICIES / f"{role}.hcl").read_text()
            self.server.admin("PUT", f"sys/policies/acl/cli-{role}", {"policy": text})
        body = {"policies": names, "no_default_policy": True, "no_parent": True}
        token = self.server.admin("POST", "auth/token/create", body)["auth"]["client_token"]
        self._token.write_text(f"{token}\n")

    def run(self, *words: str) -> int:
        code = main([*words, "-c", str(self.file.path)])
        captured = self._capsys.readouterr()
        self.out, self.err = captured.out, captured.err
        return code

    def json(self, *words: str) -> dict[str, Any]:
        self.run(*words, "--json")
        found: dict[str, Any] = json.loads(self.out)
        return found

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.admin("GET", f"transit/keys/{self.key}")["data"]
        return found


@pytest.fixture
def site(openbao: OpenBao, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(openbao, tmp_path / "site", capsys)


def record(site: Site, calls: int) -> list[RecordedCall]:
    return [record_call(site.file.load(), seconds=0.2) for _ in range(calls)]


def test_a_key_is_rotated_and_its_older_version_retired_by_those_who_may(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(site, 2)
    assert site.run(*VERIFY) == NOT_PERMITTED, "the recorder cannot read"
    for role in ("recorder", "player", "rewrapper", "auditor"):
        site.as_role(role)
        assert site.run("keys", "rotate", "dev", *REASON) == NOT_PERMITTED
    assert site.facts()["latest_version"] == 1

    site.as_role("key-administrator")
    assert site.run("keys", "rotate", "dev", *REASON) == 0, site.err
    assert "version 2 wraps from now on" in site.out
    assert site.run(*RETIRE) == NOT_PERMITTED, "who looks after keys moves no slots"

    site.as_role("rewrapper")
    assert site.run(*RETIRE, "--keep-enabled") == 0, site.err
    assert "2 recordings moved to keys.dev, 0 were there" in site.out
    assert site.run(*RETIRE) == IN_USE, "recorders may have data keys of the older version ready"
    assert "version 2 of keys.dev is younger" in site.err
    later = datetime.now(UTC) + timedelta(seconds=site.file.load().recording.pool.ttl_s + 1)
    monkeypatch.setattr(keys_retire, "utc_now", lambda: later)
    assert site.run(*RETIRE) == NOT_PERMITTED, "who moves slots takes no version out of use"
    assert site.facts()["min_decryption_version"] == 1

    site.as_role("rewrapper", "key-administrator")
    assert site.run(*RETIRE) == 0, site.err
    assert "0 recordings moved to keys.dev, 2 were there" in site.out
    assert site.facts()["min_decryption_version"] == 2

    site.as_role("player")
    assert site.run(*VERIFY) == 0, site.err


def test_older_versions_stay_in_use_while_a_recording_could_not_be_moved(site: Site) -> None:
    damaged, whole = record(site, 2)
    site.server.rotate_key(site.key)
    (path,) = site.file.load().recording.directory.glob(f"**/{damaged.file_id}.crec")
    data = bytearray(path.read_bytes())
    data[136:138] = b"\xff\xff"  # the slot count
    path.write_bytes(data)
    site.as_role("rewrapper", "key-administrator")
    assert site.run(*RETIRE) == IN_USE
    assert damaged.file_id in site.err
    assert whole.file_id not in site.err
    assert site.facts()["min_decryption_version"] == 1


def test_status_tells_the_age_of_the_newest_version_and_what_needs_the_key(site: Site) -> None:
    record(site, 1)
    site.server.rotate_key(site.key)
    report = site.json("keys", "status")
    dev = next(each for each in report["keys"] if each["name"] == "dev")
    assert (dev["kind"], dev["version"], dev["recordings"]) == ("vault-transit", "2", 1)
    age = next(each for each in report["ages"] if each["name"] == "keys.dev")
    assert (age["age_days"], age["limit_days"], age["state"]) == (0, 365, "ok")


def take_off(site: Site) -> None:
    """The trunks' calls are another tenant's, as before a tenant is shredded."""
    create_kek(site.file.path.parent / "keys" / "heir.kek")
    site.file.path.write_text(site.file.text.replace('tenant = "clinic"', 'tenant = "heir"'))
    site.file.append('[keys.heir]\nprovider = "local"\nkek = "keys/heir.kek"')
    site.file.append(f'[tenants.heir]\nhandle = "{secrets.token_hex(16)}"\nkey = "heir"')


def test_a_run_that_was_killed_between_two_keys_is_finished_by_the_next(site: Site) -> None:
    """The first key is gone from the server, the second not yet."""
    record(site, 1)
    second = f"recordings-{secrets.token_hex(8)}"
    site.server.create_key(second)
    dev = site.file.text[site.file.text.index("[keys.dev]") : site.file.text.index("[tenants.clinic]")]
    site.file.append(dev.replace("[keys.dev]", "[keys.second]").replace(site.key, second))
    site.file.replace('key = "dev"', 'key = "second"')
    record(site, 1)
    take_off(site)
    site.server.admin("POST", f"transit/keys/{site.key}/config", {"deletion_allowed": True})
    site.server.admin("DELETE", f"transit/keys/{site.key}")
    site.as_role("key-administrator")
    assert site.run("keys", "shred", "clinic", "--yes", *REASON) == UnknownKeyError.exit_code
    assert "destroyed: keys.second; not found" in site.err
    assert "keys.dev: " in site.err
    assert site.server.call("GET", f"transit/keys/{second}")[0] == 404


def test_a_shredded_tenants_key_is_gone_from_the_server(site: Site) -> None:
    record(site, 1)
    take_off(site)
    site.as_role("player")
    assert site.run(*VERIFY) == 0, site.err
    assert site.run("keys", "shred", "clinic", "--yes", *REASON) == NOT_PERMITTED
    assert site.facts()["latest_version"] == 1
    site.as_role("key-administrator")
    assert site.run("keys", "shred", "clinic", "--yes", *REASON) == 0, site.err
    status, _ = site.server.call("GET", f"transit/keys/{site.key}")
    assert status == 404
    site.as_role("player")
    assert site.run(*VERIFY) != 0
