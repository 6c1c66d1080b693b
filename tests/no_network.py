"""`python -m tests.no_network ARGUMENTS`: runs Python with these arguments, and any call to the outside ends it.

The kernel ends the process with SIGSYS as soon as one of its threads, in whatever language, connects an Internet socket
or makes a datagram socket, which every look-up of a name needs. Listening and answering stay possible. Linux alone has
such filters (https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html); they ask for no privileges.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys

SYSTEM_CALLS = {"x86_64": (41, 42), "aarch64": (198, 203)}
"""Numbers of `socket` and `connect`, by processor."""
_SET_SECCOMP, _FILTER, _SET_NO_NEW_PRIVILEGES = 22, 2, 38
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_LOAD, _AND, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_CALL, _FAMILY, _TYPE, _ADDRESS_SIZE = 0, 16, 24, 32
"""Offsets in the record of a system call: its number and its first three arguments."""
_TYPE_BITS = 0xF
_LOCAL_ADDRESS_BYTES = 110
"""By which the C library asks a daemon of this machine for the user's name; Internet addresses have 16 or 28."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _instructions() -> list[tuple[int, int, int, int]]:
    """Code, jump where true, jump where false, operand."""
    make, connect = SYSTEM_CALLS[platform.machine()]
    return [
        (_LOAD, 0, 0, _CALL),
        (_JUMP_IF_EQUAL, 2, 0, make),
        (_JUMP_IF_EQUAL, 7, 0, connect),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _FAMILY),
        (_JUMP_IF_EQUAL, 1, 0, socket.AF_INET),
        (_JUMP_IF_EQUAL, 0, 5, socket.AF_INET6),
        (_LOAD, 0, 0, _TYPE),
        (_AND, 0, 0, _TYPE_BITS),
        (_JUMP_IF_EQUAL, 3, 2, socket.SOCK_DGRAM),
        (_LOAD, 0, 0, _ADDRESS_SIZE),
        (_JUMP_IF_EQUAL, 0, 1, _LOCAL_ADDRESS_BYTES),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]


def forbid() -> None:
    """Forbid this process, and what it becomes or starts, to call anybody.

    Raises:
        OSError: the kernel takes no filter.
    """
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _instructions())
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


if __name__ == "__main__":
    forbid()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
