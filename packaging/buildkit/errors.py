"""What can go wrong while the native parts are prepared."""


class BuildError(Exception):
    """Set-up cannot go on; the message says what is wrong and how to mend it."""


class SuiteAbsentError(BuildError):
    """None of the machine's mirrors carries the suite that was asked for."""


class KeyringError(BuildError):
    """The machine's Debian keyring cannot vouch for a suite."""


class LockMismatchError(BuildError):
    """What the mirrors carry is not what the lock accepts."""
