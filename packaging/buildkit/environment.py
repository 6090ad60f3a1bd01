"""The virtual environment of the tree: made once, then only what has changed is done again."""

import configparser
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildkit.cache import exclusive
from buildkit.digest import sha256_fields, sha256_file
from buildkit.errors import BuildError
from buildkit.pjsip_prefix import Prefix
from buildkit.progress import phase, say
from buildkit.wheel_install import install_wheel

_BUILD_BACKEND = ("setuptools>=77", "wheel")
# What running needs, and what tests and checks need besides.
_STAGES: Mapping[str, tuple[str, ...]] = {"requirements": ("demo",), "development": ("test", "dev")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment and the tree it serves."""

    tree: Path
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"


def ensure_environment(tree: Path, prefix: Prefix, *, development: bool) -> Environment:
    """Bring `.venv` of the tree up to date.

    Each step keeps the hash of its inputs in `.venv`; with the same inputs it is not repeated.

    Raises:
        BuildError: A step failed.
    """
    environment = Environment(tree=tree, folder=tree / ".venv")
    with exclusive(f"venv-{sha256_fields(str(environment.folder))[:12]}"):
        _ensure_interpreter(environment)
        _ensure_requirements(environment, "requirements")
        if development:
            _ensure_requirements(environment, "development")
        wheel = prefix.required_wheel
        once_per_key(
            environment,
            "pjsua2",
            wheel.sha256,
            lambda: install_wheel(wheel.path, sha256=wheel.sha256, python=str(environment.python)),
        )
        once_per_key(
            environment, "project", _project_key(tree, prefix), lambda: _install_project(environment, prefix)
        )
    return environment


def _ensure_interpreter(environment: Environment) -> None:
    """Make the virtual environment, or make it anew if it belongs to another interpreter."""
    if environment.python.exists() and _version_of(environment.python) == sys.version:
        return
    if environment.folder.exists():
        say(f"{environment.folder} belongs to another Python; making it anew")
        shutil.rmtree(environment.folder)
    with phase(f"making {environment.folder}"):
        _call([sys.executable, "-m", "venv", str(environment.folder)])


def _version_of(python: Path) -> str:
    asked = [str(python), "-c", "import sys; print(sys.version, end='')"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout


def _ensure_requirements(environment: Environment, stage: str) -> None:
    requirements = read_requirements(environment.tree / "setup.cfg", extras=_STAGES[stage])
    once_per_key(
        environment, stage, sha256_fields(*requirements), lambda: _install(environment, requirements)
    )


def read_requirements(setup_cfg: Path, *, extras: Sequence[str]) -> tuple[str, ...]:
    """The requirements of the project and of some of its extras."""
    parser = _read_setup_cfg(setup_cfg)
    texts = [parser["options"]["install_requires"]]
    texts += [parser["options.extras_require"][extra] for extra in extras]
    return tuple(line.strip() for text in texts for line in text.splitlines() if line.strip())


def _read_setup_cfg(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(path)
    return parser


def _describes_project(section: str) -> bool:
    """Whether a section of setup.cfg is about the project, not about a development tool."""
    return section == "metadata" or section.split(".", maxsplit=1)[0] == "options"


def _install(environment: Environment, requirements: Sequence[str]) -> None:
    say(f"about to install into {environment.folder}: {', '.join(requirements)}")
    with phase(f"installing {len(requirements)} Python packages and what they need"):
        _pip(environment, *_BUILD_BACKEND, *requirements)


def _install_project(environment: Environment, prefix: Prefix) -> None:
    with phase("compiling the native extension and installing the project in place"):
        _pip(
            environment,
            "--no-deps",
            "--no-build-isolation",
            "--editable",
            str(environment.tree),
            variables={"SEALTRUNK_PJSIP_PREFIX": str(prefix.path)},
        )


def _project_key(tree: Path, prefix: Prefix) -> str:
    """Hash of what the installed project depends on: its metadata, its extension and the prefix."""
    parser = _read_setup_cfg(tree / "setup.cfg")
    described = [repr(sorted(parser[name].items())) for name in parser.sections() if _describes_project(name)]
    files = [tree / "setup.py", tree / "pyproject.toml"]
    files += sorted(path for path in (tree / "b2bua/native").glob("*.[ch]") if path.is_file())
    return sha256_fields(
        str(prefix.path), *described, *(f"{path.name} {sha256_file(path)}" for path in files)
    )


def _pip(environment: Environment, *arguments: str, variables: dict[str, str] | None = None) -> None:
    flags = (
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-compile",
        "--no-warn-script-location",
    )
    _call([str(environment.python), "-m", "pip", "install", *flags, *arguments], variables=variables)


def _call(argv: Sequence[str], *, variables: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        argv,
        env={**os.environ, **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"`{' '.join(argv)}` failed:\n{(done.stdout + done.stderr).strip()[-6000:]}")


def once_per_key(environment: Environment, name: str, key: str, action: Callable[[], None]) -> None:
    """Do a step unless it was last done with this key; a step that fails leaves no stamp."""
    stamps_file = environment.folder / "sealtrunk-stamps.json"
    stamps = json.loads(stamps_file.read_text()) if stamps_file.is_file() else {}
    if stamps.get(name) == key:
        return
    action()
    stamps[name] = key
    stamps_file.write_text(json.dumps(stamps, indent=2) + "\n")
