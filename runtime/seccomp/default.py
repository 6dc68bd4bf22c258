"""The default profile: what Docker's allows and refuses, for 64-bit x86 and ARM.

Ours to keep up with Docker's (profiles/seccomp of its sources), in the same format, so that it can be written out and
adapted: `python -m nbhull.runtime.seccomp.default > profile.json`. Two things differ, both stricter:
32-bit programs are not run, so there are no rules for them, and what no 64-bit machine has is left out.
"""

from __future__ import annotations

import errno
import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALLOWED = """
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown clock_adjtime clock_getres
clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve
execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync
ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu
getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid
getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule
landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listmount listxattr listxattrat
llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier memfd_create memfd_secret
mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages
removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid
setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt
setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice
stat statfs statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times
tkill truncate umask uname unlink unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write
writev
""".split()
"""whatever the arguments are"""

X86_ONLY = ("arch_prctl", "modify_ldt")
WITH_CAPABILITY = {
    "DAC_READ_SEARCH": "open_by_handle_at",
    "SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
    "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd "
    "setdomainname sethostname setns syslog umount2 unshare",
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module finit_module init_module",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "SYS_RAWIO": "ioperm iopl",
    "SYS_TIME": "clock_settime settimeofday",
    "SYS_TTY_CONFIG": "vhangup",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYSLOG": "syslog",
    "BPF": "bpf",
    "PERFMON": "perf_event_open",
}
"""what the kernel itself asks a capability for, allowed to containers that have it"""

NAMESPACE_FLAGS = 0x7E020000
"""all of clone(2)'s CLONE_NEW* flags"""
FAMILIES = (13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45)
"""of socket(2), beside those below 12. AF_ALG (38) and AF_VSOCK (40) are not among them: the one hands hostile
input to the kernel's ciphers, the other reaches the machine's hypervisor"""
PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
"""of personality(2): Linux, also as an older release, and the question what it is"""


def document() -> dict[str, Any]:
    """The profile in Docker's format."""
    rules = [
        rule(ALLOWED),
        rule(["ptrace", "process_vm_readv", "process_vm_writev"], includes={"minKernel": "4.8"}),
        rule(X86_ONLY, includes={"arches": ["amd64"]}),
        rule(["socket"], args=[argument(0, "LT", 12)]),
        *(rule(["socket"], args=[argument(0, "EQ", family)]) for family in FAMILIES),
        *(rule(["personality"], args=[argument(0, "EQ", persona)]) for persona in PERSONALITIES),
        rule(["clone"], args=[argument(0, "MASKED_EQ", NAMESPACE_FLAGS)], excludes={"caps": ["CAP_SYS_ADMIN"]}),
        # Its flags lie in memory, where a filter cannot look. Programs then take clone, as on kernels without it.
        rule(["clone3"], "SCMP_ACT_ERRNO", errnoRet=errno.ENOSYS, excludes={"caps": ["CAP_SYS_ADMIN"]}),
        *(rule(names.split(), includes={"caps": [f"CAP_{name}"]}) for name, names in WITH_CAPABILITY.items()),
    ]
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.EPERM, "syscalls": rules}


def rule(names: list[str] | tuple[str, ...], action: str = "SCMP_ACT_ALLOW", **fields: Any) -> dict[str, Any]:
    """One entry of `syscalls`."""
    return {"names": list(names), "action": action, **fields}


def argument(index: int, operator: str, value: int) -> dict[str, Any]:
    """One entry of `args`."""
    return {"index": index, "value": value, "op": f"SCMP_CMP_{operator}"}


if __name__ == "__main__":
    print(json.dumps(document(), indent=2))
