// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <span>
#include <thread>
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

/// The most descriptors that go beside one message (the kernel's SCM_MAX_FD).
inline constexpr std::size_t most_descriptors = 253;

/// Sends one message, with descriptors beside it. False, with errno, if it was not sent.
template <class Message>
  requires std::is_trivially_copyable_v<Message>
bool send_message(int socket, const Message& message, std::span<const int> fds = {}, int flags = 0) noexcept {
  iovec bytes{const_cast<Message*>(&message), sizeof(Message)};
  alignas(cmsghdr) char control[CMSG_SPACE(most_descriptors * sizeof(int))];
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    std::memset(control, 0, header.msg_controllen);
    cmsghdr* part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(part), fds.data(), fds.size_bytes());
  }
  const ssize_t sent = retry_on_eintr([&] { return ::sendmsg(socket, &header, flags | MSG_NOSIGNAL); });
  return sent == static_cast<ssize_t>(sizeof(Message));
}

/// Whether the socket takes a message now.
inline bool has_room(int socket) noexcept {
  pollfd writable{socket, POLLOUT, 0};
  return retry_on_eintr([&] { return ::poll(&writable, 1, 0); }) == 1;
}

/// Sends what must not be lost. A system that is short of memory may refuse it for a moment (`send(2)`, ENOMEM, ENOBUFS), so
/// it is tried again for about 250 ms; then the connection is shut down, and both ends see that it carries no more. False
/// if it is still to be sent: the socket is full, and `flags` say not to wait for room (MSG_DONTWAIT).
template <class Message>
bool send_or_hang_up(int socket, const Message& message, int flags = 0) noexcept {
  using std::chrono::milliseconds;
  for (milliseconds pause(1); !send_message(socket, message, {}, flags); pause *= 2) {
    const int error = errno;
    if (error == EAGAIN && (flags & MSG_DONTWAIT) != 0 && !has_room(socket)) return false;
    if (error == EPIPE || error == ECONNRESET || pause > milliseconds(128)) {
      ::shutdown(socket, SHUT_RDWR);
      return true;
    }
    std::this_thread::sleep_for(pause);
  }
  return true;
}

enum class received { message, nothing, closed };

/// Takes one message and calls `take(unique_fd)` for each descriptor beside it. `nothing`: none is there. A message of
/// another size arrives as zeros.
template <class Message, class Take>
  requires std::is_trivially_copyable_v<Message>
received receive_message(int socket, Message& message, Take take, int flags = MSG_DONTWAIT) {
  iovec bytes{&message, sizeof(Message)};
  alignas(cmsghdr) char control[CMSG_SPACE(most_descriptors * sizeof(int))];
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const auto receive = [&] {
    return retry_on_eintr([&] { return ::recvmsg(socket, &header, flags | MSG_CMSG_CLOEXEC); });
  };
  ssize_t got = receive();
  // Told once, and before what is there to be read, if the other end was closed with something unread.
  if (got < 0 && errno == ECONNRESET) got = receive();
  if (got == 0) return received::closed;
  if (got < 0) return errno == EAGAIN ? received::nothing : received::closed;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i != count; ++i) {
      int raw = -1;
      std::memcpy(&raw, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      take(above_standard_streams(unique_fd(raw)));
    }
  }
  if (got != static_cast<ssize_t>(sizeof(Message)) || (header.msg_flags & MSG_TRUNC) != 0) {
    std::memset(static_cast<void*>(&message), 0, sizeof(Message));
  }
  return received::message;
}

}  // namespace procpool::detail
