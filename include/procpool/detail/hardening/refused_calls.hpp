// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asm/ioctls.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include <procpool/detail/hardening/seccomp_filter.hpp>

namespace procpool::detail {

// What a hardened worker may not call, in groups. None of it is needed by threads, fork, exec, memory or files.

/// Numbers that headers of older systems lack; from 424 on they are the same on all processors.
namespace newer_calls {
inline constexpr long pidfd_send_signal = 424, io_uring_setup = 425, io_uring_enter = 426, io_uring_register = 427,
                      open_tree = 428, move_mount = 429, fsopen = 430, fsconfig = 431, fsmount = 432, fspick = 433,
                      clone3 = 435, openat2 = 437, pidfd_getfd = 438, process_madvise = 440, mount_setattr = 442,
                      quotactl_fd = 443, process_mrelease = 448, open_tree_attr = 467;
}

/// Memory, descriptors, limits and terminals of other processes.
inline void refuse_reaching_others(seccomp_filter& filter) {
  for (const long call : {long{SYS_ptrace}, long{SYS_process_vm_readv}, long{SYS_process_vm_writev}, long{SYS_kcmp},
                          long{SYS_perf_event_open}, newer_calls::pidfd_getfd, newer_calls::process_madvise,
                          newer_calls::process_mrelease}) {
    filter.refuse(call);
  }
  filter.refuse_unless(SYS_prlimit64, {{0, 0}, {0, static_cast<std::uint32_t>(::getpid())}});
  // Typing into the terminal; naming who gets the signal when a socket is ready.
  filter.refuse_if(SYS_ioctl, {{1, TIOCSTI}, {1, TIOCLINUX}, {1, FIOSETOWN}, {1, SIOCSPGRP}});
}

/// What gets round a filter, or has been the way into the kernel too often.
inline void refuse_attack_surface(seccomp_filter& filter) {
  for (const long call :
       {long{SYS_bpf}, long{SYS_userfaultfd}, long{SYS_keyctl}, long{SYS_add_key}, long{SYS_request_key},
        newer_calls::io_uring_setup, newer_calls::io_uring_enter, newer_calls::io_uring_register}) {
    filter.refuse(call);
  }
}

/// Mounts and namespaces, with which file names come to mean something else.
inline void refuse_namespaces(seccomp_filter& filter) {
  for (const long call : {long{SYS_mount}, long{SYS_umount2}, long{SYS_pivot_root}, long{SYS_chroot}, long{SYS_unshare},
                          long{SYS_setns}, long{SYS_open_by_handle_at}, newer_calls::open_tree, newer_calls::move_mount,
                          newer_calls::fsopen, newer_calls::fsconfig, newer_calls::fsmount, newer_calls::fspick,
                          newer_calls::mount_setattr, newer_calls::open_tree_attr}) {
    filter.refuse(call);
  }
  constexpr auto bit = [](int flag) {
    return seccomp_filter::test{0, static_cast<std::uint32_t>(flag), static_cast<std::uint32_t>(flag)};
  };
  filter.refuse_if(SYS_clone, {bit(CLONE_NEWNS), bit(CLONE_NEWCGROUP), bit(CLONE_NEWUTS), bit(CLONE_NEWIPC),
                               bit(CLONE_NEWUSER), bit(CLONE_NEWPID), bit(CLONE_NEWNET)});
  filter.refuse(newer_calls::clone3, ENOSYS);  // its flags cannot be seen; the C library then takes clone
}

/// What only root may do.
inline void refuse_administration(seccomp_filter& filter) {
  for (const long call :
       {long{SYS_init_module}, long{SYS_finit_module}, long{SYS_delete_module}, long{SYS_kexec_load},
        long{SYS_kexec_file_load}, long{SYS_reboot}, long{SYS_swapon}, long{SYS_swapoff}, long{SYS_acct},
        long{SYS_quotactl}, long{SYS_syslog}, long{SYS_vhangup}, long{SYS_settimeofday}, long{SYS_clock_settime},
        long{SYS_clock_adjtime}, long{SYS_sethostname}, long{SYS_setdomainname}, long{SYS_fanotify_init},
        newer_calls::quotactl_fd}) {
    filter.refuse(call);
  }
#if defined(__x86_64__)
  filter.refuse(SYS_iopl);
  filter.refuse(SYS_ioperm);
#endif
}

/// Signals to any but this process and its group, as far as a filter can tell: it knows numbers, and not whose they are,
/// so the processes that this one starts can reach the group only.
inline void refuse_signals(seccomp_filter& filter) {
  const auto own = static_cast<std::uint32_t>(::getpid());
  // 0 and -PGRP mean the process group, which must be this process's alone; signal 0 sends nothing.
  if (::getpgrp() == ::getpid()) {
    filter.refuse_unless(SYS_kill, {{0, own}, {0, 0}, {0, -own}, {1, 0}});
  } else {
    filter.refuse_unless(SYS_kill, {{0, own}, {1, 0}});
  }
  filter.refuse_unless(SYS_tkill, {{0, own}});
  filter.refuse_unless(SYS_tgkill, {{0, own}});
  filter.refuse_unless(SYS_rt_sigqueueinfo, {{0, own}});
  filter.refuse_unless(SYS_rt_tgsigqueueinfo, {{0, own}});
  filter.refuse(newer_calls::pidfd_send_signal);
  filter.refuse_if(SYS_fcntl, {{1, F_SETOWN}, {1, F_SETOWN_EX}});  // as FIOSETOWN
}

/// Ways to make a file shorter that the first versions of landlock let pass.
inline void refuse_truncation(seccomp_filter& filter) {
  constexpr std::uint32_t mask = O_TRUNC | O_ACCMODE;
  filter.refuse(SYS_truncate);
  filter.refuse_if(SYS_openat, {{2, O_TRUNC | O_RDONLY, mask}});
#if defined(__x86_64__)
  filter.refuse_if(SYS_open, {{1, O_TRUNC | O_RDONLY, mask}});
#endif
  filter.refuse(newer_calls::openat2, ENOSYS);
}

inline void refuse_sockets(seccomp_filter& filter) { filter.refuse(SYS_socket, EACCES); }

}  // namespace procpool::detail
