"""Real processes that try each forbidden act, and the things that a guest must still be able to do."""

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from runtime.errors import SurefootError
from runtime.realtime import SINGLE_THREADED
from runtime.sandbox import Level, Limits, available_level, landlock, lock_down, spawn
from runtime.sandbox.limits import MEBIBYTE

PROBE = Path(__file__).with_name("sandbox_probe.py")
full = pytest.mark.skipif(available_level() < Level.FULL, reason="this kernel offers no Landlock or seccomp")

LIBC = """
import ctypes, errno, mmap, os, resource, signal, socket, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result
"""

FORBIDDEN = {
    "read a file": "open('/etc/passwd')",
    "read the project": f"open({landlock.__file__!r})",
    "read a gate's seeds": f"open({str(Path(landlock.__file__).parents[2] / 'pyproject.toml')!r})",
    "read its environment": "open('/proc/self/environ')",
    "read its parent's environment": "open(f'/proc/{os.getppid()}/environ')",
    "list a folder": "os.listdir('/')",
    "list home": f"os.listdir({str(Path.home())!r})",
    "write to /tmp": "open('/tmp/surefoot-guest', 'w')",
    "append to a library": "open(os.__file__, 'a')",
    "open read-write": "os.open(os.__file__, os.O_RDWR)",
    "truncate while reading": "os.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
    "temporary file": "os.open('/tmp', os.O_TMPFILE | os.O_RDWR)",
    "unlink": "os.unlink(os.__file__)",
    "make a folder": "os.mkdir('/tmp/surefoot-guest')",
    "rename": "os.rename(os.__file__, os.__file__ + 'x')",
    "symbolic link": "os.symlink('/etc/passwd', '/tmp/surefoot-guest')",
    "chmod": "os.chmod(os.__file__, 0o777)",
    "touch": "os.utime(os.__file__)",
    "truncate": "os.truncate(os.__file__, 0)",
    "chdir": "os.chdir('/')",
    "mount": "call(165, b'none', b'/tmp', b'tmpfs', 0, 0)",
    "chroot": "os.chroot('/tmp')",
    "TCP socket": "socket.socket()",
    "Unix socket": "socket.socket(socket.AF_UNIX)",
    "socket pair": "socket.socketpair()",
    "fork": "os.fork()",
    "forkpty": "os.forkpty()",
    "run a program": "subprocess.run(['/bin/true'])",
    "exec": "os.execv('/bin/true', ['true'])",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "clone without thread": "call(56, signal.SIGCHLD, 0, 0, 0, 0)",
    "clone a thread in a new namespace": "call(56, 0x10000 | 0x10000000, 0, 0, 0, 0)",
    "kill its parent": "os.kill(os.getppid(), signal.SIGKILL)",
    "probe its parent": "os.kill(os.getppid(), 0)",
    "kill its group": "os.kill(0, 0)",
    "kill everybody": "os.kill(-1, signal.SIGKILL)",
    "signal another's thread": "call(234, os.getppid(), os.getppid(), 0)",
    "signal by descriptor": "os.pidfd_open(os.getppid())",
    "own its parent's signals": "__import__('fcntl').fcntl(0, 8, os.getppid())",
    "ptrace": "call(101, 16, os.getppid(), 0, 0)",
    "read its parent's memory": "call(310, os.getppid(), 0, 0, 0, 0, 0)",
    "write its parent's memory": "call(311, os.getppid(), 0, 0, 0, 0, 0)",
    "truncate shared memory": "os.ftruncate(SHARED, 0)",
    "punch shared memory": "call(285, SHARED, 3, 0, 4096)",
    "seal shared memory": "__import__('fcntl').fcntl(SHARED, 1033, 8)",
    "new shared memory": "os.memfd_create('x')",
    "System V shared memory": "call(29, 1234, 4096, 0o1600)",
    "raise a limit": "call(302, 0, resource.RLIMIT_AS, bytes(16), 0)",
    "lower its parent's limit": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, 3))",
    "raise its priority": "os.setpriority(os.PRIO_PROCESS, 0, -5)",
    "become real-time": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(90))",
    "demote its parent": "os.sched_setscheduler(os.getppid(), os.SCHED_IDLE, os.sched_param(0))",
    "move its parent": "os.sched_setaffinity(os.getppid(), {0})",
    "outlive its parent": "call(157, 1, 0, 0, 0, 0) or 1",
    "new namespace": "call(272, 0x10000000)",
    "change user": "os.setuid(12345)",
    "io_uring": "call(425, 4, 0)",
    "bpf": "call(321, 0, 0, 0)",
    "perf events": "call(298, 0, 0, 0, 0, 0)",
    "page faults to user space": "call(323, 0)",
    "key ring": "call(250, 0, 0, 0)",
    "another process group": "os.setpgid(0, 0)",
    "new session": "os.setsid()",
    "8 GiB": "len(bytearray(8 << 30))",
}
DENIALS = {"EPERM", "EACCES", "MemoryError"}

ALLOWED = {
    "environment": (
        "sorted(k for k in os.environ if k != 'LC_CTYPE')",
        f"done: {sorted(SINGLE_THREADED)}",
    ),
    "a thread": ("threading.Thread(target=int).start()", "done: None"),
    "executable memory": ("len(mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))", "done: 4096"),
    "import later": ("__import__('colorsys').ONE_THIRD > 0", "done: True"),
    "random bytes": ("len(os.urandom(8))", "done: 8"),
    "the clock": ("time.monotonic() > 0", "done: True"),
    "a signal to itself": ("os.kill(os.getpid(), 0)", "done: None"),
    "privileges": (
        "(lambda held: (call(125, (ctypes.c_uint32 * 2)(0x20080522, 0), held), held[0] & ~(1 << 14), held[3]))"
        "((ctypes.c_uint32 * 6)())[1:]",
        "done: (0, 0)",
    ),
    "no core files": ("call(39) > 0 and resource.getrlimit(resource.RLIMIT_CORE)", "done: (0, 0)"),
}


def run(source, limits=None, deadline=30.0, libraries="", pass_fds=()):
    """Runs a guest's source in a probe; returns the child, and what it answered until its end."""
    source_read, source_write = os.pipe()
    answer_read, answer_write = os.pipe()
    argv = [sys.executable, "-I", str(PROBE), str(source_read), str(answer_write), libraries]
    child = spawn(argv, [source_read, answer_write, *pass_fds], limits or Limits(), deadline)
    os.close(source_read)
    os.close(answer_write)
    with open(source_write, "wb") as pipe:
        pipe.write(textwrap.dedent(source).encode())
    with open(answer_read) as pipe:
        answers = {k: v for line in pipe for k, v in json.loads(line).items()}
    child.wait()
    return child, answers


@pytest.fixture(scope="module")
def outcomes():
    """One guest tries everything, one act after another, each reported before the next."""
    shared = os.memfd_create("shared", os.MFD_ALLOW_SEALING)
    os.ftruncate(shared, 4096)
    acts = {name: code for name, code in FORBIDDEN.items()} | {name: code for name, (code, _) in ALLOWED.items()}
    lines = [f"{name!r}: lambda: {code}," for name, code in acts.items()]
    source = f"{LIBC}\nSHARED = {shared}\nacts = {{\n" + "\n".join(lines) + "\n}"
    child, answers = run(source, pass_fds=[shared])
    assert child.returncode == 0, child.printed()
    yield answers
    os.close(shared)


@full
def test_states_its_level(outcomes):
    assert outcomes["level"] == "landlock+seccomp"


@full
@pytest.mark.parametrize("act", FORBIDDEN)
def test_a_guest_may_not(outcomes, act):
    assert outcomes[act] in DENIALS


@full
@pytest.mark.parametrize("act", ALLOWED)
def test_a_guest_may(outcomes, act):
    assert outcomes[act] == ALLOWED[act][1]


def test_the_same_acts_succeed_outside():
    """The battery would prove nothing if its acts failed anyway."""
    shared = os.memfd_create("shared")
    os.ftruncate(shared, 0)
    os.close(shared)
    with open("/etc/passwd"), open("/proc/self/environ"), open(landlock.__file__):
        os.kill(os.getppid(), 0)
    assert os.listdir("/")


@full
@pytest.mark.parametrize("number", ["0x40000000 + 39", "0x40000000 + 41"])
def test_the_x32_door_is_shut(number):
    child, _ = run(f"{LIBC}\nacts = {{'x32': lambda: call({number})}}")
    assert child.returncode == -signal.SIGSYS


@full
def test_the_32_bit_door_is_shut():
    """`int 0x80` numbers its calls differently: 20 is getpid there and writev here."""
    child, answers = run(
        f"""{LIBC}
def old_call():
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("b814000000cd80c3"))
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
acts = {{'int 80': old_call}}"""
    )
    assert child.returncode in (-signal.SIGSYS, -signal.SIGSEGV)  # the latter where the kernel has no 32-bit calls
    assert "int 80" not in answers


@full
def test_numba_and_mujoco_threads_run():
    child, answers = run(
        """
        import math, mujoco, mujoco.rollout, numba, numpy as np
        MODEL = mujoco.MjModel.from_xml_string(
            "<mujoco><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>"
        )
        def compiled():
            return round(numba.njit(nogil=True, error_model="numpy")(lambda x: math.sin(x) / 2)(1.0), 3)
        def stepped():
            start = np.zeros((8, mujoco.mj_stateSize(MODEL, mujoco.mjtState.mjSTATE_FULLPHYSICS)))
            start[:, 4] = 1.0
            with mujoco.rollout.Rollout(nthread=2) as rollout:
                return rollout.rollout([MODEL] * 8, [mujoco.MjData(MODEL) for _ in range(2)], start, nstep=3)[0].shape
        acts = {"compiled": compiled, "stepped": stepped}
        """,
        libraries="numpy,numba,numba.core.typing.cffi_utils,mujoco,mujoco.rollout",
    )
    assert answers == {"level": "landlock+seccomp", "compiled": "done: 0.421", "stepped": "done: (8, 3, 14)"}
    assert child.returncode == 0


@full
def test_a_real_time_worker_keeps_its_memory_and_its_threads_their_place():
    """A process that locked its future memory by a privilege could map nothing if the privilege went."""
    _, answers = run(
        """
        import os, threading
        from real_time import refused
        def policy_of_a_thread():
            found = []
            thread = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0) == os.SCHED_OTHER))
            thread.start()
            thread.join()
            return found
        acts = {"allocate": lambda: len(bytearray(64 << 20)), "thread": policy_of_a_thread, "refused": lambda: refused}
        """,
        libraries="real_time",
    )
    assert answers["allocate"] == f"done: {64 << 20}"
    assert answers["thread"] == "done: [True]"


@full
def test_real_time_without_end_is_cut_off():
    """A hung layer under SCHED_FIFO would keep its core from everybody else."""
    child, answers = run(
        "from real_time import refused\nif not refused:\n    while True: pass\nacts = {'refused': lambda: refused}",
        Limits(real_time_seconds=0.3),
        libraries="real_time",
    )
    assert not child.overdue
    assert "refused" in answers or child.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def test_the_deadline_kills_whoever_ignores_signals():
    child, answers = run(
        """
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True: pass
        """,
        deadline=0.4,
    )
    assert child.overdue
    assert child.returncode == -signal.SIGKILL
    assert list(answers) == ["level"]


def test_the_deadline_kills_the_whole_group():
    """At level `process` a guest can fork: the pipe ends only when the grandchild is dead too."""
    source = "import os, time\nos.fork()\ntime.sleep(600)"
    child, _ = run(source, Limits(required=Level.PROCESS), 0.4, libraries="only_process")
    assert child.overdue


def test_processor_time_ends():
    child, _ = run("while True: pass", Limits(cpu_seconds=1))
    assert child.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
    assert not child.overdue


def test_a_flood_of_output_is_bounded():
    child, answers = run(
        "acts = {'flood': lambda: [print('x' * 1024, flush=True) for _ in range(4096)]}", Limits(output=MEBIBYTE)
    )
    assert answers["flood"] == "EFBIG"
    assert set(child.printed()) <= {"x", "\n"}
    assert len(child.printed()) <= 16_384


def test_the_last_words_of_a_crash_are_kept():
    child, _ = run("raise KeyError('torso')")
    assert child.returncode == 1
    assert "KeyError: 'torso'" in child.printed()


def test_the_child_dies_with_its_host():
    """SIGKILL of the host leaves no guest behind: the pipe that only the guest holds comes to its end."""
    host = """
        import os, sys
        from runtime.sandbox import Limits, spawn
        source, write = os.pipe()
        answer = int(sys.argv[2])
        argv = [sys.executable, "-I", sys.argv[1], str(source), str(answer), ""]
        child = spawn(argv, [source, answer], Limits(), None)
        os.write(write, b"import time\\ntime.sleep(600)")
        os.close(write)
        child.wait()
    """
    read, write = os.pipe()
    argv = [sys.executable, "-c", textwrap.dedent(host), str(PROBE), str(write)]
    process = subprocess.Popen(argv, pass_fds=[write])
    os.close(write)
    with open(read) as pipe:
        assert "level" in pipe.readline()
        process.kill()
        assert pipe.read() == ""
    process.wait()


def test_kill_is_final_and_harmless_twice():
    read, write = os.pipe()
    with spawn([sys.executable, "-I", "-c", "input()"], [read], Limits(), None) as child:
        child.kill()
        child.kill()
    assert child.returncode == -signal.SIGKILL
    os.close(read)
    os.close(write)


def test_a_program_that_does_not_exist_is_an_error():
    with pytest.raises(SurefootError, match=r"/no/such/program: cannot be started: .*No such file"):
        spawn(["/no/such/program"], [], Limits(), None)


def test_a_child_that_cannot_be_watched_is_an_error_and_is_gone(monkeypatch):
    """Its starter waited for ever."""
    started = []

    def refuse(pid):
        started.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    open_before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(SurefootError, match=r"cannot be started: .*Too many open files"):
        spawn([sys.executable, "-c", "input()"], [], Limits(required=Level.PROCESS), None)
    assert not Path(f"/proc/{started[0]}").exists()
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_host_without_threads_left_is_an_error(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(SurefootError, match="cannot be started: can't start new thread"):
        spawn([sys.executable, "-c", ""], [], Limits(required=Level.PROCESS), None)


def test_less_than_asked_for_is_refused(monkeypatch):
    monkeypatch.setattr("runtime.sandbox.landlock.abi", lambda: 0)
    with pytest.raises(SurefootError, match=r"offers process, foreign code needs landlock\+seccomp.*--sandbox process"):
        spawn([sys.executable, "-c", ""], [], Limits(), None)
    with spawn([sys.executable, "-c", ""], [], Limits(required=Level.PROCESS), None) as child:
        assert child.wait(30) == 0


def test_lock_down_refuses_less_and_touches_nothing(monkeypatch):
    monkeypatch.setattr("runtime.sandbox.seccomp.supported", lambda: False)
    with pytest.raises(SurefootError, match="offers process"):
        lock_down(Limits())
    assert Path("/etc/passwd").read_text()


def test_lock_down_refuses_a_process_with_threads():
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        with pytest.raises(SurefootError, match="threads are running, expected 1"):
            lock_down(Limits(required=Level.PROCESS))
    finally:
        release.set()
        thread.join()


def test_limits_travel_as_json():
    limits = Limits(required=Level.PROCESS, cpu_seconds=3, readable=("/a", "/b"))
    assert Limits.from_json(limits.to_json()) == limits


def test_no_writable_path_is_ever_granted():
    """Landlock's rules carry reading rights only; Python's ctypes structure is packed as the kernel wants it."""
    assert ctypes.sizeof(landlock._PathBeneathAttr) == 12
    assert not any(Path(landlock.__file__).is_relative_to(path) for path in landlock.library_paths())
