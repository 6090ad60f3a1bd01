"""The command `b2bua`: one module per sub-command, each with `register(subparsers)` and `run(arguments) -> int`."""
