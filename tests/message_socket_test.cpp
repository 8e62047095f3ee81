// SPDX-License-Identifier: BSL-1.0
#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <procpool/detail/posix/message_socket.hpp>

using namespace procpool::detail;

namespace {

/// How many descriptors came with the next message; -1 at the end of the connection, -2 if there is none yet.
int next(int socket, int& message) {
  int descriptors = 0;
  switch (receive_message(socket, message, [&](unique_fd fd) { descriptors += fd ? 1 : 0; })) {
    case received::message:
      return descriptors;
    case received::closed:
      return -1;
    case received::nothing:
      break;
  }
  return -2;
}

}  // namespace

TEST_CASE("messages arrive in order, with what is beside them", "[message_socket]") {
  auto [here, there] = make_message_sockets();
  int message = 0;
  CHECK(next(here.get(), message) == -2);
  const int fds[] = {here.get(), there.get()};
  REQUIRE(send_message(there.get(), 1, fds));
  REQUIRE(send_message(there.get(), 2));
  CHECK(next(here.get(), message) == 2);
  CHECK(message == 1);
  CHECK(next(here.get(), message) == 0);
  CHECK(message == 2);
  CHECK(next(here.get(), message) == -2);
  there.reset();
  CHECK(next(here.get(), message) == -1);
}

TEST_CASE("what was sent arrives, also if the sender ended without reading what was sent to it", "[message_socket]") {
  auto [here, there] = make_message_sockets();
  const int fds[] = {STDERR_FILENO};
  REQUIRE(send_message(there.get(), 1, fds));
  REQUIRE(send_message(there.get(), 2));
  REQUIRE(send_message(here.get(), 7));
  there.reset();
  int message = 0;
  CHECK(next(here.get(), message) == 1);
  CHECK(message == 1);
  CHECK(next(here.get(), message) == 0);
  CHECK(message == 2);
  CHECK(next(here.get(), message) == -1);
  CHECK(next(here.get(), message) == -1);
}
