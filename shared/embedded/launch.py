"""Becomes a child's program: drops root, ties itself to its parent's life, then executes.

Run by path in an interpreter of its own: Python code between fork and exec (`preexec_fn`) may deadlock where the parent
has threads, and uvloop cannot change the user. Imports nothing of Sluice, so that it starts in a few milliseconds.

Arguments: the signal that the parent's death sends, the parent's pid, `uid:gid` or nothing, then the program and its
own arguments. The program is a path: a search would import more of Python, which that user may not be able to read.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(orphan_signal: str, parent: str, user: str, *argv: str) -> None:
    """Execute `argv`; never returns."""
    if user:
        uid, gid = map(int, user.split(":"))
        os.chdir("/")  # ours may be closed to that user
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of user, which clears it. The kernel keeps it across exec.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(orphan_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent died first")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would pass that on
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(argv[0], argv)  # noqa: S606
    except OSError as error:
        sys.exit(f"{argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
