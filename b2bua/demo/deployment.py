"""The demonstration's directory: made by `b2bua init` when it is missing, then read, and given a second layout.

Only what the two endpoints must know is read from the configuration; judging it is the server's business.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from b2bua.demo.errors import DemoError

CONFIGURATION_NAME: Final = "b2bua.toml"
SPLIT_NAME: Final = "b2bua-split.toml"
CALLING_NUMBER: Final = "+12025550144"
CALLED_NUMBER: Final = "+12025550199"
"""From the range that is kept for fiction; no subscriber has them."""
_LAYOUT_LINE: Final = re.compile(r'^(layout\s*=\s*)"(?:mixed|split)"', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Certificate, key and authority of one endpoint."""

    certificate: Path
    private_key: Path
    authority: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where everything of the demonstration is. `configurations` are by layout; both use the same ports and stores."""

    directory: Path
    configurations: dict[str, Path]
    sip_host: str
    sip_port: int
    server_name: str
    """The name in the server's certificate."""
    callee_port: int
    caller: Material
    callee: Material

    @property
    def request_uri(self) -> str:
        """What the caller dials."""
        return f"sips:{CALLED_NUMBER}@{self.server_name}:{self.sip_port}"

    def wav_path(self, layout: str, file_id: str) -> Path:
        """Where the export of a recording goes."""
        return self.directory / "exports" / f"{layout}-{file_id}.wav"


def is_made(directory: Path) -> bool:
    """Whether `b2bua init` has been here."""
    return (directory / CONFIGURATION_NAME).exists()


def read_deployment(directory: Path) -> Deployment:
    """Read what `b2bua init` made and write the configuration of the split layout beside it.

    Raises:
        DemoError: it is not a directory that `b2bua init` made.
    """
    path = directory / CONFIGURATION_NAME
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
        host, port = content["sip"]["listen"].rsplit(":", 1)
        target = content["trunks"]["callee"]["target"]
        authority = directory / content["tls"]["trust"]
        certificate = directory / content["tls"]["certificate"]
        callee_port = int(target.rsplit(":", 1)[1])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DemoError(
            f"{path} is not a configuration that `b2bua init` made ({error}); move {directory} away and start again"
        ) from error
    return Deployment(
        directory=directory,
        configurations={
            "mixed": _with_layout(directory, text, "mixed"),
            "split": _with_layout(directory, text, "split"),
        },
        sip_host=host,
        sip_port=int(port),
        server_name=_server_name(content),
        callee_port=callee_port,
        caller=_material(certificate.parent, "caller", authority),
        callee=_material(certificate.parent, "callee", authority),
    )


def _with_layout(directory: Path, text: str, layout: str) -> Path:
    changed, count = _LAYOUT_LINE.subn(rf'\1"{layout}"', text)
    if count != 1:
        raise DemoError(
            f"{directory / CONFIGURATION_NAME} has {count} layout lines; move it away and start again"
        )
    if changed == text:
        return directory / CONFIGURATION_NAME
    path = directory / (SPLIT_NAME if layout == "split" else "b2bua-mixed.toml")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(changed)
    return path


def _server_name(content: dict[str, Any]) -> str:
    """The edge's certificate is named beside the trunks' in one domain: `edge.<domain>`."""
    domain = content["trunks"]["caller"]["identities"][0].split(".", 1)[1]
    return f"edge.{domain}"


def _material(folder: Path, name: str, authority: Path) -> Material:
    return Material(
        certificate=folder / f"{name}.pem", private_key=folder / f"{name}.key", authority=authority
    )
