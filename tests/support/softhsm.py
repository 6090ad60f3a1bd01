"""SoftHSM2 tokens for tests: made once for the run, before the module is loaded into the process.

softhsm.settings("recordings-1a2b", tmp_path)    # PKCS11KeySettings with the PIN in a file of mode 0600
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recording.settings import PKCS11KeySettings

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
TOKENS = ("clinic", "other", "guarded")


class SoftHSM:
    """A directory of tokens. Logins hold for the whole process, so a test that spoils one uses `guarded`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pins = {token: secrets.token_hex(8) for token in TOKENS}
        tokens = directory / "tokens"
        tokens.mkdir(mode=0o700)
        self.configuration = directory / "softhsm2.conf"
        self.configuration.write_text(
            f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        for token, pin in self.pins.items():
            subprocess.run(
                [
                    "softhsm2-util", "--module", str(MODULE), "--init-token", "--free", "--label", token,
                    "--so-pin", secrets.token_hex(8), "--pin", pin,
                ],
                env={**os.environ, "SOFTHSM2_CONF": str(self.configuration)},
                check=True,
                capture_output=True,
            )  # fmt: skip

    def pin_file(self, token: str = "clinic") -> Path:
        """The one file of that token's PIN, mode 0600."""
        path = self.directory / f"{token}.pin"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(self.pins[token] + "\n")
        return path

    def settings(self, key: str, *, token: str = "clinic") -> PKCS11KeySettings:
        return PKCS11KeySettings(module_path=MODULE, token=token, key=key, pin_path=self.pin_file(token))


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHSM]:
    """The run's tokens: give keys labels of your own."""
    made = SoftHSM(tmp_path_factory.mktemp("softhsm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(made.configuration))  # the module reads it when it is loaded
        yield made
