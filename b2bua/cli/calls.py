"""`b2bua calls`: look at the live calls of a serving process, pause and resume their recordings, end them."""

from __future__ import annotations

import argparse
import functools
from typing import TYPE_CHECKING, Any

from b2bua import config
from b2bua.cli import output
from b2bua.cli.parser import add_command, add_configuration, add_group, add_json, configuration_path
from b2bua.control.client import ask
from b2bua.control.protocol import Answer, Command, Request, is_call_uid, is_reason
from b2bua.errors import CommandError

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

_COLUMNS = ("call_uid", "state", "trunk_a", "trunk_b", "seconds", "recording", "held_by")
_EXAMPLE_UID = "5f3c0a1b2d4e6f708192a3b4c5d6e7f8"
_CHANGES = {
    Command.PAUSE: (
        "pause",
        "Record silence from now on, both sides; the answer comes when it has taken effect.",
        "card_number",
    ),
    Command.RESUME: ("resume", "Record again, half a second after the command.", "card_taken"),
    Command.HANG_UP: ("hang-up", "End a call; its recording is completed.", "abuse"),
}


def register(subparsers: Subparsers) -> None:
    """Add the group and its commands."""
    group = add_group(
        subparsers,
        "calls",
        summary="Look at live calls, pause and resume their recordings, end them.",
        example="b2bua calls list -c lab/b2bua.toml",
    )
    parser = add_command(
        group,
        "list",
        summary="List the live calls: ids, trunks and states, no numbers.",
        example="b2bua calls list -c lab/b2bua.toml --json",
        run=run_list,
    )
    add_configuration(parser)
    add_json(parser)
    show = add_command(
        group,
        "show",
        summary="Show one call and its legs.",
        example=f"b2bua calls show {_EXAMPLE_UID} -c lab/b2bua.toml",
        run=run_show,
    )
    _add_call(show)
    for command, (name, summary, reason) in _CHANGES.items():
        each = add_command(
            group,
            name,
            summary=summary,
            example=f"b2bua calls {name} {_EXAMPLE_UID} --reason {reason} -c lab/b2bua.toml",
            run=functools.partial(run_change, command),
        )
        _add_call(each)
        each.add_argument(
            "--reason",
            required=True,
            metavar="LABEL",
            help="why, for the audit log: lower-case letters, digits, _ . and -, no number of five digits",
        )


def _add_call(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("call_uid", metavar="UID", help="32 hex digits, as `b2bua calls list` shows them")
    add_configuration(parser)
    add_json(parser)


def run_list(arguments: argparse.Namespace) -> int:
    """Print a row a call."""
    answer = _ask(arguments, Request(command=Command.LIST))
    if arguments.json:
        output.print_json({"calls": answer["calls"]})
    else:
        output.print_table(
            _COLUMNS, [[_cell(call.get(name)) for name in _COLUMNS] for call in answer["calls"]]
        )
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print one call, a row a fact."""
    answer = _ask(arguments, Request(command=Command.SHOW, call_uid=_uid(arguments)))
    _print_call(arguments, answer)
    return 0


def run_change(command: Command, arguments: argparse.Namespace) -> int:
    """Pause, resume or hang up."""
    if not is_reason(arguments.reason):
        raise CommandError(
            "--reason is a label: a lower-case letter, then letters, digits, _ . or -, and no number of five digits"
        )
    answer = _ask(arguments, Request(command=command, call_uid=_uid(arguments), reason=arguments.reason))
    _print_call(arguments, answer)
    return 0


def _uid(arguments: argparse.Namespace) -> str:
    uid: str = arguments.call_uid
    if not is_call_uid(uid):
        raise CommandError("a call's uid has 32 hex digits; `b2bua calls list` shows those there are")
    return uid


def _ask(arguments: argparse.Namespace, request: Request) -> Answer:
    path = configuration_path(arguments)
    settings = config.load(path)
    if settings.control is None:
        raise CommandError(f'{path} has no control socket; add [control] with socket = "run/control.sock"')
    return ask(settings.control.socket, request)


def _print_call(arguments: argparse.Namespace, answer: Answer) -> None:
    facts = {name: value for name, value in answer.items() if name != "ok"}
    if arguments.json:
        output.print_json(facts)
        return
    call: dict[str, Any] = dict(facts.pop("call"))
    legs: dict[str, dict[str, Any]] = call.pop("legs", {})
    rows = [[name, _cell(value)] for name, value in (call | facts).items() if name != "call_uid"]
    rows += [
        [f"leg {leg} {name}", _cell(value)] for leg, values in legs.items() for name, value in values.items()
    ]
    output.print_table(["call", str(call["call_uid"])], rows)


def _cell(value: object) -> object:
    return (", ".join(str(each) for each in value) or None) if isinstance(value, list) else value
