"""The error tree: one exit code each, as its table says, and messages that name what is wrong."""

from __future__ import annotations

import importlib
import pkgutil
import re

import recording
from recording import errors
from recording.errors import CorruptRecordingError, FormatError, RecordingError, TruncatedRecordingError


def every_error() -> list[type[RecordingError]]:
    for module in pkgutil.walk_packages(recording.__path__, "recording."):
        importlib.import_module(module.name)
    found, left = [], [RecordingError]
    while left:
        found.append(left.pop())
        left.extend(found[-1].__subclasses__())
    return [error for error in found if error.__module__.startswith("recording.")]


def test_each_error_has_an_exit_code_of_its_own_within_the_package() -> None:
    codes: dict[int, str] = {}
    for error in every_error():
        assert "exit_code" in vars(error), f"{error.__name__} borrows its exit code"
        assert error.exit_code not in codes, (
            f"{error.__name__} and {codes[error.exit_code]} share an exit code"
        )
        assert error.exit_code in (*range(20, 50), *range(100, 120))
        codes[error.exit_code] = error.__name__
    assert len(codes) >= 14


def test_the_table_lists_each_error_of_the_module() -> None:
    assert errors.__doc__ is not None
    listed = {
        name: int(code) for name, code in re.findall(r"^ +(\w+Error) +(\d+)  ", errors.__doc__, re.MULTILINE)
    }
    assert listed == {
        error.__name__: error.exit_code for error in every_error() if error.__module__ == errors.__name__
    }


def test_a_format_error_names_field_and_offset() -> None:
    assert (
        str(FormatError("0 is not allowed", field="chunk_size", offset=80))
        == "chunk_size at byte 80: 0 is not allowed"
    )


def test_reading_errors_say_how_much_is_good() -> None:
    assert str(CorruptRecordingError(3, "a reason")) == "corrupt after 3 good records: a reason"
    assert str(TruncatedRecordingError(3, "a reason")) == "cut off after 3 good records: a reason"
