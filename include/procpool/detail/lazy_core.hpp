// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cxxabi.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <procpool/detail/chunk_pace.hpp>
#include <procpool/detail/engine.hpp>
#include <procpool/detail/lazy_job.hpp>
#include <procpool/detail/lazy_source.hpp>
#include <procpool/detail/waiting.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// A lazy range: takes inputs, keeps the pool supplied with them, and hands out results. Everything here happens in the
/// thread that iterates; what other threads deliver arrives in the job.
template <class R>
class lazy_core {
 public:
  using value_type = lazy_element<R>;

  lazy_core(std::shared_ptr<engine> home, std::unique_ptr<lazy_source<R>> source, lazy_options options)
      : home_(std::move(home)),
        source_(std::move(source)),
        progress_(std::move(options.progress)),
        job_(new lazy_job<R>(source_->code(), source_->operation(), options.ordered)) {
    home_->require_owned(source_->operation());
    home_->submit({});  // refused, like anything, by a pool that is closed: before an input is taken
    const std::size_t chunksize = std::max<std::size_t>(options.chunksize, 1);
    buffersize_ = options.buffersize != 0 ? options.buffersize : default_buffersize(chunksize);
    pace_ =
        chunk_pace(std::min(chunksize, buffersize_), std::min(source_->together(), buffersize_ / (4 * processes())));
    job_->callable.write(source_->callable.data(), source_->callable.size());
    for (const auto& block : source_->callable.attachments()) job_->callable.attach(block);
    job_->limits = options.limits;
    job_->series_size = source_->series_size();
    fill();
    if (taken_ == 0 && refused_) std::rethrow_exception(std::exchange(last_error_, nullptr));
  }
  lazy_core(const lazy_core&) = delete;
  lazy_core& operator=(const lazy_core&) = delete;

  ~lazy_core() {
    if (!home_->owned()) return;
    job_->abandon();
    home_->withdraw(*job_);
  }

  value_type& current() {
    if (!current_) throw std::logic_error("procpool: " + operation() + ": there is no element here");
    seen_ = true;
    if (current_->has_error()) std::rethrow_exception(current_->error());
    return current_->operator*();
  }

  bool ended() const noexcept { return ended_; }

  /// Where an element is at hand that nobody has looked at, stays there; else goes on to the next.
  void settle_on_current() {
    home_->require_owned(source_->operation());
    if (seen_) advance(no_deadline);
  }

  void advance() {
    home_->require_owned(source_->operation());
    advance(no_deadline);
  }

  std::optional<value_type> next(steady_time deadline) {
    home_->require_owned(source_->operation());
    if (seen_ && !advance(deadline))
      throw make_error<timeout_error>(operation() + ": the next result was not ready in time");
    if (ended_) return std::nullopt;
    seen_ = true;
    std::optional<outcome<value_type>> taken = std::exchange(current_, std::nullopt);
    return std::move(*taken).value();
  }

 private:
  std::string operation() const { return source_->operation(); }

  std::size_t processes() const noexcept { return std::max<std::size_t>(home_->processes(), 1); }

  std::size_t default_buffersize(std::size_t chunksize) const noexcept {
    // Twice what runs at a time would do; the rest is for tasks that differ in length. What is tiny takes no memory, and
    // costs less by fours.
    const std::size_t factor = processes() * (source_->together() > 1 ? 16 : 4);
    return chunksize > std::numeric_limits<std::size_t>::max() / factor ? chunksize : chunksize * factor;
  }

  // Were inputs taken as soon as there is room for one, every chunk but the first few would be of one element; were there
  // to be room for a whole chunk first, a buffer of one chunk would run dry.
  std::size_t refill_at() const noexcept { return std::min(pace_.size(), std::max<std::size_t>(buffersize_ / 2, 1)); }

  // Goes on to the next element, or to the end. False if it was not there by the deadline: then nothing has changed,
  // but for inputs taken and an element given up that was looked at.
  bool advance(steady_time deadline) {
    if (ended_) return true;
    current_.reset();
    seen_ = true;
    refill();
    for (;;) {
      report_progress();
      if (yielded_ == taken_) break;
      current_ = job_->pop();
      if (current_) {
        ++yielded_;
        seen_ = false;
        return true;
      }
      if (!wait_for_news(deadline)) return false;
    }
    // All that was taken has been yielded, so nothing more will come: refill() would have taken it.
    if (last_error_) {
      current_.emplace(boost::system::in_place_error, std::exchange(last_error_, nullptr));
      seen_ = false;
    } else {
      ended_ = true;
    }
    return true;
  }

  // Until the next element is there or, if somebody wants to know, any has ended.
  bool wait_for_news(steady_time deadline) {
    const auto news = [this] { return job_->front_is_there() || (progress_ && job_->done() != reported_); };
    std::uint32_t seen = job_->events.now();
    return help_until(
        news,
        [this, &seen] {
          seen = job_->events.now();
          return home_->help();
        },
        deadline, [this, &seen, deadline] { job_->events.wait(seen, deadline); }, [this](bool on) { home_->watch(on); },
        [](resting) { return false; }, home_->expected());
  }

  std::size_t room() const noexcept { return buffersize_ - (taken_ - yielded_); }

  void refill() {
    if (room() < refill_at()) return;
    pace_.adapt(yielded_, std::chrono::steady_clock::now);
    fill();
  }

  void fill() {
    while (!exhausted_ && room() != 0) take_chunk(std::min(room(), pace_.size()));
  }

  // Takes up to `count` inputs and submits them. An input that cannot be encoded has ended already: it parts a chunk.
  void take_chunk(std::size_t count) {
    inputs_ptr arguments(new inputs);
    std::exception_ptr unencodable;
    try {
      const encoding_for encoding(home_->memory_for_arguments());
      while (arguments->count() < count) {
        const std::size_t size = arguments->bytes.size();
        const std::size_t attachments = arguments->bytes.attachments().size();
        pulled got = source_->pull_next(arguments->bytes);
        if (got.what == pulled::kind::end) {
          exhausted_ = true;
          break;
        }
        if (got.what == pulled::kind::unencodable) {
          arguments->bytes.truncate(size, attachments);
          unencodable = std::move(got.error);
          break;
        }
        arguments->end_element();
      }
    } catch (abi::__forced_unwind&) {  // the thread ends here: pthread_exit, pthread_cancel
      throw;
    } catch (...) {
      exhausted_ = true;
      last_error_ = std::current_exception();
    }
    try {
      submit(std::move(arguments));
      if (unencodable) {
        job_->expect(1);
        job_->fail(taken_++, std::move(unencodable));
      }
    } catch (abi::__forced_unwind&) {
      throw;
    } catch (...) {
      // Closed, or broken: the inputs that were refused count as not taken, and there are no more.
      exhausted_ = true;
      refused_ = true;
      last_error_ = std::current_exception();
    }
  }

  void submit(inputs_ptr arguments) {
    const std::size_t count = arguments->count();
    if (count == 0) return;
    job_->expect(count);
    chunk one{.target = job_ptr(job_.get()), .arguments = std::move(arguments), .first = taken_, .count = count};
    try {
      home_->submit({&one, 1});
    } catch (...) {
      job_->unexpect(count);
      throw;
    }
    taken_ += count;
  }

  void report_progress() {
    if (!progress_) return;
    const std::size_t done = job_->done();
    const std::size_t total = exhausted_ ? taken_ : 0;
    if (done == reported_ && total == reported_total_) return;
    if (done == 0) return;
    reported_ = done;
    reported_total_ = total;
    progress_(done, total);
  }

  const std::shared_ptr<engine> home_;
  const std::unique_ptr<lazy_source<R>> source_;
  const std::function<void(std::size_t, std::size_t)> progress_;
  const boost::intrusive_ptr<lazy_job<R>> job_;
  std::size_t buffersize_ = 1;
  chunk_pace pace_;
  std::size_t taken_ = 0;          // inputs that the pool has accepted, or that ended in being encoded
  std::size_t yielded_ = 0;        // of these; taken_ - yielded_ <= buffersize_
  bool exhausted_ = false;         // no more inputs will be taken
  bool refused_ = false;           // as the pool refused them
  std::exception_ptr last_error_;  // what comes behind the last of these, before the end
  std::optional<outcome<value_type>> current_;
  bool seen_ = true;  // current_ was looked at or given away, or there was none yet
  bool ended_ = false;
  std::size_t reported_ = 0;
  std::size_t reported_total_ = 0;
};

}  // namespace procpool::detail
