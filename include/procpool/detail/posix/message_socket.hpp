// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <type_traits>
#include <utility>

#include <procpool/detail/posix/system_call.hpp>
#include <procpool/detail/posix/unique_fd.hpp>

namespace procpool::detail {

/// Both ends of a connection that keeps message boundaries (`unix(7)`, SOCK_SEQPACKET), close-on-exec.
inline std::pair<unique_fd, unique_fd> make_message_sockets() {
  int ends[2];
  checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "socketpair");
  return {above_standard_streams(unique_fd(ends[0])), above_standard_streams(unique_fd(ends[1]))};
}

/// Sends one message, with a descriptor beside it unless `fd` is -1. False, with errno, if it was not sent.
template <class Message>
  requires std::is_trivially_copyable_v<Message>
bool send_message(int socket, const Message& message, int fd = -1, int flags = 0) noexcept {
  iovec bytes{const_cast<Message*>(&message), sizeof(Message)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  if (fd != -1) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(part), &fd, sizeof(int));
  }
  const ssize_t sent = retry_on_eintr([&] { return ::sendmsg(socket, &header, flags | MSG_NOSIGNAL); });
  return sent == static_cast<ssize_t>(sizeof(Message));
}

enum class received { message, nothing, closed };

/// Takes one message and the descriptor beside it, if there is one. `nothing`: none is there, or it was malformed.
template <class Message>
  requires std::is_trivially_copyable_v<Message>
received receive_message(int socket, Message& message, unique_fd& fd, int flags = MSG_DONTWAIT) noexcept {
  iovec bytes{&message, sizeof(Message)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t got = retry_on_eintr([&] { return ::recvmsg(socket, &header, flags | MSG_CMSG_CLOEXEC); });
  if (got == 0) return received::closed;
  if (got < 0) return errno == EAGAIN ? received::nothing : received::closed;
  fd.reset();
  // The control buffer holds one descriptor: the kernel closes any more that a stranger sent (recvmsg(2), MSG_CTRUNC).
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS || part->cmsg_len < CMSG_LEN(sizeof(int))) continue;
    int raw = -1;
    std::memcpy(&raw, CMSG_DATA(part), sizeof(int));
    fd = above_standard_streams(unique_fd(raw));
  }
  if (got != static_cast<ssize_t>(sizeof(Message)) || (header.msg_flags & MSG_TRUNC) != 0) {
    std::memset(static_cast<void*>(&message), 0, sizeof(Message));
  }
  return received::message;
}

}  // namespace procpool::detail
