"""Becomes another program that ends when its parent ends, as another user if asked.

    python -I -S child.py PARENT_PID DEATH_SIGNAL UID GID DIRECTORY PROGRAM [ARGUMENT ...]

UID, GID and DIRECTORY may be `-` for "leave it". Run as a file of its own, with the standard library only: it
replaces `preexec_fn`, which is unsafe beside threads, and `subprocess(user=…)`, under which the interpreter
itself would have to be reachable for the other user. Exits 126 when the program cannot be run.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _become(uid: str, gid: str) -> None:
    if gid != "-":
        os.setgroups([int(gid)])
        os.setgid(int(gid))
    if uid != "-":
        os.setuid(int(uid))


def _die_with(parent: int, death_signal: int) -> None:
    """Linux only; elsewhere the supervisor's clean-up has to do. Call it last: a change of user resets it."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def main(arguments: list[str]) -> None:
    """Set up, then exec the program; never returns."""
    parent, death_signal, uid, gid, directory, *command = arguments
    # A shell that starts us in the background hands down SIGINT ignored, and Postgres would never stop.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    try:
        _become(uid, gid)
        _die_with(int(parent), int(death_signal))
        if directory != "-":
            os.chdir(directory)
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error}\n")
        sys.exit(126)


if __name__ == "__main__":
    main(sys.argv[1:])
