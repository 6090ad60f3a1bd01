"""Missing packages are found, and without root the one command is printed."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from buildkit import system_packages
from buildkit.errors import BuildError
from buildkit.system_packages import Purpose, install, missing, parse_installed, required

SHOWN = "swig installed \npkgconf installed pkg-config (= 1.8.1), pkgconf-bin\nold-tool config-files \n"


def test_only_installed_packages_and_what_they_provide_count() -> None:
    assert parse_installed(SHOWN) >= {"swig", "pkgconf", "pkg-config"}
    assert "old-tool" not in parse_installed(SHOWN)


def test_a_package_nobody_has_is_missing() -> None:
    assert missing(("dpkg", "no-such-package-at-all")) == ("no-such-package-at-all",)


def test_tests_need_more_than_running() -> None:
    assert set(required(Purpose.RUN)) < set(required(Purpose.TEST))


def test_without_root_the_one_command_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"apt-get update && apt-get install --yes .*swig uuid-dev"):
        install(("swig", "uuid-dev"))


def test_no_service_starts_while_packages_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(system_packages, "POLICY", policy)
    for _ in range(2):
        with system_packages.no_service_starts(()):
            assert subprocess.run([policy, "ceph", "start"], check=False).returncode == 101
            written = policy.read_text()
        assert not policy.exists()
        policy.write_text(written)  # as a run that was killed leaves it
    with pytest.raises(RuntimeError), system_packages.no_service_starts(()):
        raise RuntimeError
    assert not policy.exists()


def test_a_policy_of_the_machine_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")
    monkeypatch.setattr(system_packages, "POLICY", policy)
    with system_packages.no_service_starts(()):
        assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_sudo_that_asks_for_a_password_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\nexit 1\n")
    sudo.chmod(sudo.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="an administrator must run"):
        install(("swig",))
