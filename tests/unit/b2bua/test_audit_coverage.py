"""Every command that touches recordings, keys, calls or logs leaves a line in the audit log, and says which."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType

import pytest

from b2bua.audit import AuditEvent
from b2bua.cli.main import build_parser

TOLD: dict[str, set[AuditEvent]] = {
    "serve": {AuditEvent.SERVICE_STARTED, AuditEvent.SERVICE_STOPPED, AuditEvent.CERTIFICATE_RELOADED},
    "calls list": {AuditEvent.CONTROL_COMMAND},
    "calls show": {AuditEvent.CONTROL_COMMAND},
    "calls pause": {AuditEvent.CONTROL_COMMAND, AuditEvent.RECORDING_PAUSED},
    "calls resume": {AuditEvent.CONTROL_COMMAND, AuditEvent.RECORDING_RESUMED},
    "calls hang-up": {AuditEvent.CONTROL_COMMAND},
    "recordings show": {AuditEvent.RECORDING_READ},
    "recordings verify": {AuditEvent.RECORDING_READ},
    "recordings export": {
        AuditEvent.RECORDING_READ,
        AuditEvent.EXPORT_SEALED,
        AuditEvent.EXPORT_PLAINTEXT,
    },
    "audit verify": {AuditEvent.AUDIT_VERIFIED},
    "audit expire": {AuditEvent.AUDIT_EXPIRED, AuditEvent.AUDIT_EXPIRY_REFUSED},
    "audit show": {AuditEvent.AUDIT_READ},
    "audit export": {AuditEvent.AUDIT_EXPORTED},
    "log show": {AuditEvent.LOG_READ},
}
SILENT: dict[str, str] = {
    "init": "makes a configuration where there was none",
    "check": "reads the configuration alone",
    "demo": "the server that it starts tells",
    "recordings list": "shows what the index has in clear: ids, sizes, hours",
    "recordings recover": "moves ciphertext, needs no key",
    "keys status": "asks key services how they are; a data key that it may ask for is wiped unused",
    "tls check": "looks at an endpoint from outside; a server that it asks tells of the refused peer",
    "posture": "probes and reports; what it asks of a server is told there",
}
SERVED = {"serve", "calls list", "calls show", "calls pause", "calls resume", "calls hang-up"}
"""What the serving process tells for them stands in `b2bua.watch`."""


def leaves(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """Each command that does something, with the function that does it."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(words), parser.get_default("run")
    for group in groups:
        for name, child in group.choices.items():
            yield from leaves(child, (*words, name))


COMMANDS = dict(leaves(build_parser()))


def events_named_in(module: ModuleType) -> set[AuditEvent]:
    """The members of AuditEvent that the module's code names."""
    tree = ast.parse(inspect.getsource(module))
    return {
        AuditEvent[node.attr]
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "AuditEvent"
    }


def modules_of(name: str, seen: set[str]) -> Iterator[ModuleType]:
    """A command's module and the modules of the command line that it imports."""
    if name in seen:
        return
    seen.add(name)
    module = importlib.import_module(name)
    yield module
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("b2bua.cli."):
            yield from modules_of(node.module, seen)


def events_of(command: str) -> set[AuditEvent]:
    """What the code behind a command may tell."""
    run = COMMANDS[command]
    name = getattr(run, "func", run).__module__  # type: ignore[attr-defined]
    modules = [importlib.import_module("b2bua.watch")] if command in SERVED else modules_of(name, set())
    found: set[AuditEvent] = set()
    for module in modules:
        found |= events_named_in(module)
    return found


def test_the_tables_name_commands_that_exist() -> None:
    assert not TOLD.keys() & SILENT.keys()
    assert TOLD.keys() | SILENT.keys() <= set(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - SILENT.keys()))
def test_what_a_command_tells_is_in_its_code(command: str) -> None:
    found = events_of(command)
    assert found, f"{command} leaves no audit line; give it one, or say in SILENT why it needs none"
    assert TOLD.get(command, set()) <= found


def test_each_event_has_a_form_of_its_own() -> None:
    values = [event.value for event in AuditEvent]
    assert len(set(values)) == len(values)
