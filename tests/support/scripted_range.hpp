// SPDX-License-Identifier: BSL-1.0
// What the tests of lazy ranges share: ranges of a fake engine, whose input does what a script says.
#pragma once

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/codec/exception_codec.hpp>
#include <procpool/lazy_results.hpp>

#include "fake_engine.hpp"

using procpool::lazy_results;
using procpool::detail::call_frame;
using procpool::detail::lazy_options;
using procpool::detail::lazy_source;
using procpool::detail::pulled;
using procpool::detail::reply_kind;

using result_range = lazy_results<int>;

// Tasks; ints are their own encoding.
inline reply_kind times_ten(call_frame& frame) {
  frame.result.put(frame.arguments.get<int>() * 10);
  return reply_kind::value;
}

inline reply_kind throws_by_number(call_frame& frame) {
  procpool::detail::encode_exception(
      frame.result, std::make_exception_ptr(std::out_of_range(std::to_string(frame.arguments.get<int>()))));
  return reply_kind::exception;
}

// Inputs 0, 1, 2, …, and what goes wrong with some of them.
struct script {
  int count = 0;         // how many there are; -1: no end
  int unencodable = -1;  // this one cannot be encoded
  int throws_at = -1;    // taking this one throws
  procpool::detail::task_code code = times_ten;
  std::function<void(int)> on_pull{};
  std::size_t together = 1;  // inputs that cost little more than one
};

template <class R>
class scripted final : public lazy_source<R> {
 public:
  scripted(script what, std::shared_ptr<int> taken)
      : lazy_source<R>(what.code, "imap", 0, what.together), what_(what), taken_(taken) {
    this->callable.put(1000);
  }

  pulled pull_next(procpool::detail::byte_writer& arguments) override {
    if (ended_) throw std::logic_error("pulled after the end");
    const int next = *taken_;
    if (what_.on_pull) what_.on_pull(next);
    if (next == what_.throws_at) {
      ended_ = true;
      throw std::out_of_range("the input threw");
    }
    if (next == what_.count) {
      ended_ = true;
      return {pulled::kind::end};
    }
    ++*taken_;
    arguments.put(next);
    if (next == what_.unencodable)
      return {pulled::kind::unencodable, std::make_exception_ptr(std::domain_error("unencodable"))};
    return {pulled::kind::element};
  }

 private:
  const script what_;
  const std::shared_ptr<int> taken_;
  bool ended_ = false;
};

template <class R = int>
struct lazy {
  explicit lazy(script what, lazy_options options = {.buffersize = 4}) : lazy(what, options, [](fake_engine&) {}) {}
  lazy(script what, lazy_options options, const std::function<void(fake_engine&)>& prepare)
      : engine((prepare(*shared), shared)),
        results(engine, std::make_unique<scripted<R>>(what, taken), std::move(options)) {}

  const std::shared_ptr<fake_engine> shared = std::make_shared<fake_engine>();
  const std::shared_ptr<int> taken = std::make_shared<int>(0);
  const std::shared_ptr<fake_engine> engine;
  lazy_results<R> results;
};

inline std::vector<int> rest_of(result_range& results) {
  std::vector<int> all;
  for (int& each : results) all.push_back(each);
  return all;
}

inline void run_while_waiting(fake_engine& engine) { engine.run_in_help = true; }
