"""A seccomp filter for x86-64: the system calls of a process that computes; any other answers "not permitted".

The list says what is allowed, so a call that the next kernel invents is denied. What it leaves open on purpose:
threads, executable memory (Numba compiles), futexes, clocks, and reading and writing what is open already. Nothing can
be opened for writing at all; which files can be opened for reading is Landlock's part.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence

_AUDIT_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _AND, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NR_OFFSET, _ARCH_OFFSET, _ARGS_OFFSET = 0, 4, 16

_SYS_SECCOMP = 317
_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1

# fmt: off
ALLOWED = {
    # Hot ones first: the kernel walks the filter from its start.
    "futex": 202, "clock_nanosleep": 230, "clock_gettime": 228, "read": 0, "write": 1, "sched_yield": 24,
    # Memory.
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "mremap": 25, "madvise": 28, "mincore": 27, "msync": 26,
    "mlock": 149, "munlock": 150, "mlock2": 325, "membarrier": 324, "get_mempolicy": 239,
    # What is open already.
    "readv": 19, "writev": 20, "pread64": 17, "pwrite64": 18, "preadv": 295, "pwritev": 296, "lseek": 8, "close": 3,
    "dup": 32, "dup2": 33, "dup3": 292, "close_range": 436, "pipe": 22, "pipe2": 293, "eventfd2": 290,
    "poll": 7, "ppoll": 271, "select": 23, "pselect6": 270,
    "epoll_create1": 291, "epoll_ctl": 233, "epoll_wait": 232, "epoll_pwait": 281,
    # Looking at files.
    "stat": 4, "fstat": 5, "lstat": 6, "newfstatat": 262, "statx": 332, "access": 21, "faccessat": 269,
    "faccessat2": 439, "readlink": 89, "readlinkat": 267, "getcwd": 79, "getdents64": 217, "fadvise64": 221,
    # Threads and signals of its own.
    "exit": 60, "exit_group": 231, "set_robust_list": 273, "get_robust_list": 274, "rseq": 334, "gettid": 186,
    "set_tid_address": 218, "arch_prctl": 158, "futex_waitv": 449, "futex_wake": 454, "futex_wait": 455,
    "futex_requeue": 456, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sigaltstack": 131,
    "rt_sigtimedwait": 128, "restart_syscall": 219, "nanosleep": 35,
    # Asking.
    "getpid": 39, "getppid": 110, "getuid": 102, "geteuid": 107, "getgid": 104, "getegid": 108, "getresuid": 118,
    "getresgid": 120, "gettimeofday": 96, "time": 201, "times": 100, "clock_getres": 229, "getrusage": 98,
    "getrlimit": 97, "sysinfo": 99, "uname": 63, "getrandom": 318, "getcpu": 309, "sched_getaffinity": 204,
    "sched_getscheduler": 145, "sched_getparam": 143, "sched_get_priority_max": 146, "sched_get_priority_min": 147,
    "getpriority": 140, "capget": 125,
}
# fmt: on

_CLONE_THREAD = 0x00010000
_CLONE_PTRACE_AND_NAMESPACES = 0x00002000 | 0x7E020000 | 0x00000080
_OPENS_FOR_CHANGE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | (os.O_TMPFILE & ~os.O_DIRECTORY)
_TERMINAL_SIZE, _IS_TERMINAL, _BYTES_WAITING, _CLOSE_ON_EXEC, _KEEP_ON_EXEC = 0x5413, 0x5401, 0x541B, 0x5451, 0x5450
_SET_NAME, _GET_NAME, _TIMER_SLACK, _NAME_MEMORY = 15, 16, 29, 0x53564D41

Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Whether the filter is written for this machine, and its kernel takes filters."""
    return platform.machine() == "x86_64" and os.path.exists("/proc/sys/kernel/seccomp/actions_avail")


def restrict() -> None:
    """Installs the filter on every thread of the calling process; `prctl(PR_SET_NO_NEW_PRIVS)` comes first.

    Raises:
        OSError: The kernel refuses.
    """
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in build(os.getpid()))
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    header = Program(len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SYS_SECCOMP, _SET_MODE_FILTER, _FLAG_TSYNC, ctypes.byref(header)):
        reason = ctypes.get_errno()
        raise OSError(reason, f"seccomp: {os.strerror(reason)}")


def build(pid: int) -> list[Instruction]:
    """The filter of the process `pid`, as (code, jump if true, jump if false, constant) instructions."""
    conditional: dict[int, list[Instruction]] = {
        56: _masked(0, _CLONE_THREAD | _CLONE_PTRACE_AND_NAMESPACES, [_CLONE_THREAD]),  # clone
        435: [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)],  # clone3: its flags are in memory, where no filter sees them
        437: [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)],  # openat2, likewise
        62: _masked(0, 0xFFFFFFFF, [pid]),  # kill
        234: _masked(0, 0xFFFFFFFF, [pid]),  # tgkill
        2: _masked(1, _OPENS_FOR_CHANGE, [0]),  # open
        257: _masked(2, _OPENS_FOR_CHANGE, [0]),  # openat
        16: _masked(1, 0xFFFFFFFF, [_TERMINAL_SIZE, _IS_TERMINAL, _BYTES_WAITING, _CLOSE_ON_EXEC, _KEEP_ON_EXEC]),
        # fcntl: no leases, seals, owners or signals. F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC.
        72: _masked(1, 0xFFFFFFFF, [0, 1, 2, 3, 1030]),
        157: _masked(0, 0xFFFFFFFF, [_SET_NAME, _GET_NAME, _TIMER_SLACK, _NAME_MEMORY]),  # prctl
        203: _masked(0, 0xFFFFFFFF, [0]),  # sched_setaffinity: of the calling thread
        302: _null(2),  # prlimit64: to read
        144: _both_zero(),  # sched_setscheduler: of the calling thread, to the normal policy
        141: _both_zero(),  # setpriority: of the calling thread, and the kernel lets it only become nicer
    }
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH_X86_64),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NR_OFFSET),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    for number in ALLOWED.values():
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number, block in conditional.items():
        program += [(_JUMP_EQUAL, 0, len(block), number), *block]
    return [*program, (_RETURN, 0, 0, _ERRNO | errno.EPERM)]


def _masked(argument: int, mask: int, values: Sequence[int]) -> list[Instruction]:
    """Allows the call if the low word of an argument, and-ed with `mask`, is one of `values`.

    The low word is all that the kernel reads of these arguments: they are ints, or flags below bit 32.
    """
    block = [(_LOAD, 0, 0, _ARGS_OFFSET + 8 * argument), (_AND, 0, 0, mask)]
    for value in values:
        block += [(_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*block, (_RETURN, 0, 0, _ERRNO | errno.EPERM)]


def _both_zero() -> list[Instruction]:
    """Allows the call if its first two arguments are 0."""
    return [
        (_LOAD, 0, 0, _ARGS_OFFSET),
        (_JUMP_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, _ARGS_OFFSET + 8),
        (_JUMP_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]


def _null(argument: int) -> list[Instruction]:
    """Allows the call if an argument is a null pointer."""
    low = _ARGS_OFFSET + 8 * argument
    return [
        (_LOAD, 0, 0, low),
        (_JUMP_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, low + 4),
        (_JUMP_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
