#!/usr/bin/env python3
"""Play one scenario of scenarios.toml against a running B2BUA. README.md says how to start one.

run.py lab call          play it and say how it went
run.py --print lab call  print the commands instead
run.py --table           write the table of README.md anew
"""

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support import sipp  # noqa: E402 - the path above must be set first

MARKS = ("<!-- table: begin -->\n", "<!-- table: end -->\n")


def readme_with_table(text: str) -> str:
    """README.md with the table of scenarios.toml between its marks."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return before + MARKS[0] + sipp.readme_table(sipp.read_scenarios()) + MARKS[1] + after


def main() -> int:
    """Run the command line; 0 means that both sides played their scenario to the end."""
    rows = {row.name: row for row in sipp.read_scenarios()}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lab", nargs="?", type=Path, help="directory made by `b2bua init`")
    parser.add_argument("scenario", nargs="?", choices=[*rows], metavar="scenario", help=", ".join(rows))
    parser.add_argument("--print", action="store_true", help="print the commands, the callee's first")
    parser.add_argument("--table", action="store_true", help="write the table of README.md")
    arguments = parser.parse_args()
    if arguments.table:
        readme = HERE / "README.md"
        readme.write_text(readme_with_table(readme.read_text()))
        return 0
    if arguments.scenario is None:
        parser.error("a lab directory and a scenario are needed")
    return run(arguments.lab.absolute() / "b2bua.toml", rows[arguments.scenario], printed=arguments.print)


def run(configuration: Path, row: sipp.Scenario, *, printed: bool) -> int:
    """Play a row, or print its commands."""
    lab = sipp.read_lab(configuration)
    if printed:
        commands = [sipp.callee_command(lab, row)] if row.callee else []
        for command in (*commands, sipp.caller_command(lab, row)):
            print(sipp.command_line(command))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="sipp-"))
    try:
        sipp.play(lab, row, folder)
    except sipp.SippError as error:
        print(f"{error}\n{row.name} failed; logs are in {folder}", file=sys.stderr)
        return 1
    print(f"{row.name} passed; logs are in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
