"""Missing packages are found, and without root the one command is printed."""

import os
import stat
from pathlib import Path

import pytest

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


def test_sudo_that_asks_for_a_password_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\nexit 1\n")
    sudo.chmod(sudo.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="an administrator must run"):
        install(("swig",))
