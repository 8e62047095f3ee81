// SPDX-License-Identifier: BSL-1.0
#include <procpool/detail/shared_memory/sent_arrays.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/detail/shared_memory/worker_arrays.hpp>

#include "support/processes.hpp"

using namespace procpool;
using support::names_in;

namespace {

using detail::array_block;
constexpr std::uint64_t keep = detail::attachment_message::keep;
using block_ptr = std::shared_ptr<array_block>;

/// What the parent sends, and a request half to read it by; no worker.
class sender {
 public:
  sender() { account->reset(ours_.get()); }

  bool send(std::uint64_t number, std::uint64_t settled, const std::vector<block_ptr>& blocks) {
    return account->send(account, number, settled, {blocks});
  }
  bool keeps(std::uint64_t identity) const {
    return std::ranges::any_of(requests->kept_arrays, [=](const auto& each) { return each == identity; });
  }
  bool keeps(const block_ptr& block) const { return keeps(block->identity()); }

  struct message {
    std::uint64_t number;
    std::size_t descriptors;
    bool operator==(const message&) const = default;
  };
  /// What has been sent since.
  std::vector<message> messages() {
    std::vector<message> all;
    detail::attachment_message one{};
    std::size_t descriptors = 0;
    while (detail::receive_message(theirs.get(), one, [&](detail::unique_fd) { ++descriptors; }) ==
           detail::received::message) {
      all.push_back({one.number, std::exchange(descriptors, 0)});
    }
    return all;
  }

  std::unique_ptr<detail::request_half> requests = std::make_unique<detail::request_half>();
  std::unique_ptr<detail::reply_half> replies = std::make_unique<detail::reply_half>();
  std::shared_ptr<detail::sent_arrays> account = std::make_shared<detail::sent_arrays>(*requests, *replies);
  detail::unique_fd theirs;

 private:
  detail::unique_fd ours_ = [this] {
    auto [ours, other] = detail::make_message_sockets();
    theirs = std::move(other);
    return std::move(ours);
  }();
};

std::vector<block_ptr> blocks(std::size_t count) {
  std::vector<block_ptr> all;
  for (std::size_t i = 0; i != count; ++i) all.push_back(array_block::create(1));
  return all;
}

}  // namespace

TEST_CASE("what a worker keeps is sent once, until it is let go", "[sent_arrays]") {
  sender to;
  auto all = blocks(2);
  for (std::uint64_t number = 1; number != 1000; ++number) CHECK(to.send(number, number - 1, all));
  CHECK(to.messages() == std::vector<sender::message>{{keep, 2}});
  CHECK(to.keeps(all[0]));
  CHECK(to.send(1000, 999, {all[0], all[1], all[0]}));
  CHECK(to.messages().empty());

  const std::uint64_t gone = all[0]->identity();
  const std::uint32_t wake = to.requests->wake.load();
  to.replies->asleep = detail::sleeping_for::work;
  all.erase(all.begin());
  CHECK_FALSE(to.keeps(gone));
  CHECK(to.keeps(all[0]));
  CHECK(to.requests->wake.load() != wake);
}

TEST_CASE("another worker, or one that may have missed something, is sent all again", "[sent_arrays]") {
  sender to;
  const auto all = blocks(3);
  CHECK(to.send(1, 0, all));
  CHECK(to.messages().size() == 1);
  to.account->doubt();
  CHECK(to.keeps(all[0]));  // what is posted may name it
  CHECK(to.send(2, 0, {all[0]}));
  CHECK(to.messages() == std::vector<sender::message>{{keep, 1}});
  CHECK(to.send(3, 0, all));
  CHECK(to.messages() == std::vector<sender::message>{{keep, 2}});

  auto [ours, theirs] = detail::make_message_sockets();
  to.account->reset(ours.get());
  CHECK_FALSE(to.keeps(all[0]));
  to.theirs = std::move(theirs);
  CHECK(to.send(4, 3, all));
  CHECK(to.messages() == std::vector<sender::message>{{keep, 3}});
}

TEST_CASE("of too many arrays the one that was not named for longest goes, and none that is posted", "[sent_arrays]") {
  sender to;
  const auto all = blocks(detail::most_kept_arrays);
  for (std::size_t i = 0; i != all.size(); ++i) CHECK(to.send(i + 1, 0, {all[i]}));
  CHECK(to.messages().size() == all.size());
  const std::uint64_t last = all.size();
  const auto more = blocks(4);

  CHECK(to.send(last + 1, 0, {more[0]}));  // nothing is settled: it passes
  CHECK(to.messages() == std::vector<sender::message>{{last + 1, 1}});
  CHECK(std::ranges::all_of(all, [&](const block_ptr& each) { return to.keeps(each); }));
  CHECK_FALSE(to.keeps(more[0]));

  CHECK(to.send(last + 2, 0, {all[0]}));
  CHECK(to.send(last + 3, 2, {more[1], more[2]}));  // of the two that are settled, the first is posted again
  CHECK(to.messages() == std::vector<sender::message>{{last + 3, 1}, {keep, 1}});
  CHECK(to.keeps(all[0]));
  CHECK_FALSE(to.keeps(all[1]));
  CHECK(to.keeps(more[1]));

  CHECK(to.send(last + 4, last + 3, {more[3]}));
  CHECK(to.messages().size() == 1);
  CHECK_FALSE(to.keeps(all[2]));
  CHECK(to.keeps(more[3]));
}

TEST_CASE("of what was sent for elements that were taken back a worker that sleeps is told", "[sent_arrays]") {
  sender to;
  const auto all = blocks(detail::most_kept_arrays + 2);
  CHECK(to.send(10, 0, all));
  CHECK(to.messages().size() == 2);
  to.replies->asleep = detail::sleeping_for::work;
  auto told = [&, before = to.requests->wake.load()]() mutable {
    const std::uint32_t now = to.requests->wake.load();
    return now != std::exchange(before, now);
  };
  to.account->taken_back(10);
  CHECK_FALSE(told());
  to.account->taken_back(4);
  CHECK(told());
  to.account->taken_back(4);
  CHECK_FALSE(told());
  CHECK(to.messages().empty());
}

TEST_CASE("what was sent for elements that were taken back goes though the socket was full", "[sent_arrays]") {
  sender to;
  detail::worker_arrays worker(to.theirs.get(), *to.requests);
  const auto descriptors = [] { return names_in("/proc/self/fd").size(); };
  const auto kept = blocks(detail::most_kept_arrays);
  const auto passes = blocks(1);
  const std::size_t before = descriptors();
  CHECK(to.send(1, 0, kept));
  std::uint64_t number = 1;
  while (to.send(++number, 0, passes)) {
  }
  CHECK(errno == EAGAIN);
  worker.discard(1);
  to.account->taken_back(1);
  CHECK(worker.news());
  worker.hear();
  CHECK(descriptors() == before + kept.size());
  CHECK(worker.take(kept[0]->identity()) == kept[0]);
}

TEST_CASE("in a worker, what is for elements that were not taken back goes with these", "[sent_arrays]") {
  sender to;
  detail::worker_arrays worker(to.theirs.get(), *to.requests);
  const auto all = blocks(detail::most_kept_arrays);
  const auto passes = blocks(1);
  CHECK(to.send(10, 0, all));
  CHECK(to.send(10, 0, passes));
  to.account->taken_back(4);
  CHECK(worker.news());
  worker.hear();
  CHECK_FALSE(worker.news());
  worker.discard(3);
  CHECK(worker.take(all[0]->identity()) == all[0]);
  CHECK(worker.take(passes[0]->identity()) == passes[0]);
  worker.discard(4);
  CHECK(worker.take(passes[0]->identity()) == nullptr);
  CHECK(worker.take(all[0]->identity()) == all[0]);

  CHECK(to.send(5, 0, passes));
  to.account->taken_back(4);
  worker.hear();  // and no element follows
  CHECK(worker.take(passes[0]->identity()) == nullptr);
  CHECK(worker.take(all[0]->identity()) == all[0]);
}

TEST_CASE("a full socket loses nothing that is kept", "[sent_arrays]") {
  sender to;
  const auto all = blocks(detail::most_kept_arrays);
  std::uint64_t number = 0;
  const auto more = blocks(1);
  REQUIRE(to.send(++number, 0, all));
  while (to.send(++number, 0, more)) {  // passes, again and again
  }
  CHECK(errno == EAGAIN);
  const auto late = blocks(1);
  CHECK_FALSE(to.send(number, number - 1, late));
  static_cast<void>(to.messages());
  CHECK(to.send(number, number - 1, late));
  CHECK(to.messages() == std::vector<sender::message>{{keep, 1}});
  CHECK(to.keeps(late[0]));
}

TEST_CASE("an array that comes again takes the place of what it was before", "[sent_arrays]") {
  sender to;
  detail::worker_arrays worker(to.theirs.get(), *to.requests);
  const auto descriptors = [] { return names_in("/proc/self/fd").size(); };
  const auto all = blocks(1);
  const std::size_t before = descriptors();
  for (std::uint64_t number = 1; number != 10; ++number) {
    to.account->doubt();
    CHECK(to.send(number, number - 1, all));
    worker.hear();
    CHECK(descriptors() == before + 1);
  }
  CHECK(worker.take(all[0]->identity()) == all[0]);
  CHECK(descriptors() == before);  // mapped already in this process
}
