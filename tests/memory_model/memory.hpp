// SPDX-License-Identifier: BSL-1.0
// Memory as C++ sees it, for two processes: not one value for each word, but the stores that were made to it, of which
// a process may still read any that is not older than what it knows of. A store that becomes visible late, or two that
// do so out of order, is here a load that reads an old one.
//
// Covered: coherence of each word; relaxed, release, acquire and sequentially consistent accesses; fences; release
// sequences; data races on plain bytes, which stand for torn and stale reads. That takes in what x86 and arm64 do, but
// for a load that takes effect after a later store of its own process (load buffering), and the one order of
// sequentially consistent operations is taken to agree with what happens before what, as in C++11. Where load
// buffering could harm, bytes are written again that were read before, and that shows as a data race all the same.
//
// Not covered: words with more than one writer, which a lane does not have; that is checked. A parent is one process
// here, though its threads take turns at a lane: they have a mutex between them.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace memory_model {

inline constexpr std::size_t processes = 2;
inline constexpr std::size_t most_words = 16;   ///< atomic ones
inline constexpr std::size_t most_stores = 12;  ///< to one word, that can still be read
inline constexpr std::size_t most_plain = 16;   ///< places of plain bytes

/// The model is too small for what is run in it.
[[noreturn]] inline void outgrown(const char* what) {
  std::fprintf(stderr, "memory_model: %s\n", what);
  std::abort();
}

inline bool acquires(std::memory_order order) {
  return order == std::memory_order_acquire || order == std::memory_order_acq_rel || order == std::memory_order_seq_cst;
}
inline bool releases(std::memory_order order) {
  return order == std::memory_order_release || order == std::memory_order_acq_rel || order == std::memory_order_seq_cst;
}

/// The newest known store of each word, 0 the oldest that can still be read. Eight bits each, of which the highest is
/// clear, so that many words are compared at once.
class times {
 public:
  std::uint8_t of(std::size_t word) const {
    return static_cast<std::uint8_t>(parts_[word / each] >> word % each * 8 & 0xffU);
  }
  void set(std::size_t word, std::size_t time) {
    std::uint64_t& part = parts_[word / each];
    part = (part & ~(std::uint64_t{0xff} << word % each * 8)) | std::uint64_t{time} << word % each * 8;
  }
  void raise(std::size_t word, std::size_t time) { set(word, std::max<std::size_t>(of(word), time)); }
  void join(const times& other) {
    for (std::size_t i = 0; i != parts_.size(); ++i) {
      const std::uint64_t mine = not_less(parts_[i], other.parts_[i]);
      parts_[i] = (parts_[i] & mine) | (other.parts_[i] & ~mine);
    }
  }
  /// 0 for each word of which `known` knows as much.
  void remove(const times& known) {
    for (std::size_t i = 0; i != parts_.size(); ++i) parts_[i] &= ~not_less(known.parts_[i], parts_[i]);
  }

  bool operator==(const times&) const = default;

 private:
  static constexpr std::size_t each = sizeof(std::uint64_t);

  /// Eight set bits for each word whose time in `a` is not below that in `b`.
  static std::uint64_t not_less(std::uint64_t a, std::uint64_t b) {
    constexpr std::uint64_t highest = 0x8080808080808080U;
    return (((a | highest) - b) & highest) / 0x80 * 0xff;
  }
  std::array<std::uint64_t, most_words / each> parts_{};
};

/// What has happened before some point, as far as it matters.
struct view {
  times newest;
  std::uint32_t written = all_plain;  ///< places of plain bytes whose last write is among it
  std::uint32_t read = all_plain;     ///< and whose last read is

  static constexpr std::uint32_t all_plain = (1U << most_plain) - 1;

  bool operator==(const view&) const = default;

  void join(const view& other) {
    newest.join(other.newest);
    written |= other.written;
    read |= other.read;
  }
  void remove(const view& known) {
    newest.remove(known.newest);
    written &= ~known.written;
    read &= ~known.read;
  }
};

class memory {
 public:
  // ---- words -----------------------------------------------------------------------------------------------------

  /// How many different stores a load may read now; 0 is the oldest of them.
  std::size_t readable(std::size_t process, std::size_t word, std::memory_order order) const {
    return words_[word].count - oldest(process, word, order);
  }

  /// Whether a load may as well read an older store: one that gives the same, and leaves more to be read later.
  bool superseded(std::size_t process, std::size_t word, std::memory_order order, std::size_t which) const {
    const std::size_t first = oldest(process, word, order);
    const stored& chosen = words_[word].stores[first + which];
    for (std::size_t at = first; at != first + which; ++at) {
      const stored& older = words_[word].stores[at];
      if (older.value != chosen.value) continue;
      view news_of_older = news(older.carries, process);
      view news_of_chosen = news(chosen.carries, process);
      news_of_older.newest.set(word, 0);
      news_of_chosen.newest.set(word, 0);
      if (news_of_older == news_of_chosen) return true;
    }
    return false;
  }

  std::uint8_t load(std::size_t process, std::size_t word, std::memory_order order, std::size_t which) {
    const std::size_t at = oldest(process, word, order) + which;
    process_views& mine = views_[process];
    mine.now.newest.raise(word, at);
    (acquires(order) ? mine.now : mine.unacquired).join(words_[word].stores[at].carries);
    // No later load in the one order of all sequentially consistent operations reads an older one.
    if (order == std::memory_order_seq_cst) in_order_.newest.raise(word, at);
    const std::uint8_t value = words_[word].stores[at].value;
    forget(word);
    return value;
  }

  void store(std::size_t process, std::size_t word, std::memory_order order, std::uint8_t value) {
    add(process, word, order, value, false);
  }
  std::uint8_t fetch_add(std::size_t process, std::size_t word, std::memory_order order, std::uint8_t more) {
    const history& past = words_[word];
    const std::uint8_t before = past.stores[past.count - 1U].value;
    add(process, word, order, static_cast<std::uint8_t>(before + more), true);
    return before;
  }

  void fence(std::size_t process, std::memory_order order) {
    process_views& mine = views_[process];
    if (acquires(order)) mine.now.join(mine.unacquired);
    if (order == std::memory_order_seq_cst) {
      // Orders words, and is no happening-before of plain bytes.
      mine.now.newest.join(in_order_.newest);
      in_order_.newest.join(mine.now.newest);
    }
    if (releases(order)) mine.released = mine.now;
  }

  /// The process reads the word only after a sequentially consistent fence that is still to come: what that will hide
  /// is no difference between two states.
  void expect_fence(std::size_t process, std::size_t word) {
    views_[process].now.newest.raise(word, in_order_.newest.of(word));
    forget(word);
  }

  // ---- plain bytes -----------------------------------------------------------------------------------------------

  /// The write does not race with what was done before there.
  bool write(std::size_t process, std::size_t place, std::uint8_t value) {
    const std::uint32_t bit = bit_of(place);
    const bool ordered = (views_[process].now.written & bit) != 0 && (views_[process].now.read & bit) != 0;
    for_each_view([&](view& each) { each.written &= ~bit; });
    views_[process].now.written |= bit;
    plain_[place] = value;
    return ordered;
  }

  /// The read does not race with the last write.
  bool read(std::size_t process, std::size_t place, std::uint8_t& value) {
    const std::uint32_t bit = bit_of(place);
    for_each_view([&](view& each) { each.read &= ~bit; });
    views_[process].now.read |= bit;
    value = plain_[place];
    return (views_[process].now.written & bit) != 0;
  }

  // ---- comparing -------------------------------------------------------------------------------------------------

  template <class Hash>
  void hash(Hash& into) const {
    for (const history& each : words_) {
      into.add(each.count);
      for (std::size_t i = 0; i != each.count; ++i) {
        into.add(each.stores[i].value);
        into.add(news(each.stores[i].carries, 1U - each.writer));
      }
    }
    for (std::size_t i = 0; i != processes; ++i) {
      into.add(views_[i].now);
      into.add(news(views_[i].unacquired, i));
      into.add(news(views_[i].released, 1 - i));
      into.add(news(in_order_, i));
    }
    into.add(plain_);
  }

 private:
  struct stored {
    std::uint8_t value = 0;
    view carries;  ///< what a load that reads it, and acquires, knows of
  };
  struct history {
    std::uint8_t count = 1;  ///< the word is 0 at first
    std::uint8_t writer = processes;
    std::array<stored, most_stores> stores{};
  };
  struct process_views {
    view now;         ///< what this process knows of
    view unacquired;  ///< what it would, had its relaxed loads acquired
    view released;    ///< what it knew of at its last release fence
  };

  static std::uint32_t bit_of(std::size_t place) { return 1U << place; }

  std::size_t oldest(std::size_t process, std::size_t word, std::memory_order order) const {
    const std::uint8_t known = views_[process].now.newest.of(word);
    return order == std::memory_order_seq_cst ? std::max(known, in_order_.newest.of(word)) : known;
  }

  /// What a process would learn from a view: all by which views that it may yet meet differ.
  view news(view from, std::size_t process) const {
    if (process >= processes) return {};
    from.remove(views_[process].now);
    return from;
  }

  void add(std::size_t process, std::size_t word, std::memory_order order, std::uint8_t value, bool continues) {
    history& past = words_[word];
    if (past.writer == processes) past.writer = static_cast<std::uint8_t>(process);
    if (past.writer != process) outgrown("a word has two writers");
    forget(word);
    if (past.count == most_stores) outgrown("a word has too many stores");
    const std::uint8_t time = past.count++;
    process_views& mine = views_[process];
    mine.now.newest.set(word, time);
    view carries = releases(order) ? mine.now : mine.released;
    if (continues) carries.join(past.stores[time - 1U].carries);
    carries.newest.set(word, time);
    past.stores[time] = {value, carries};
    if (order == std::memory_order_seq_cst) in_order_.newest.raise(word, time);
  }

  /// Stores that nobody can read any more are no difference between two states.
  void forget(std::size_t word) {
    history& past = words_[word];
    const std::size_t gone = std::min(views_[0].now.newest.of(word), views_[1].now.newest.of(word));
    if (gone == 0) return;
    std::move(past.stores.begin() + static_cast<std::ptrdiff_t>(gone), past.stores.begin() + past.count,
              past.stores.begin());
    past.count = static_cast<std::uint8_t>(past.count - gone);
    for_each_view([&](view& each) {
      each.newest.raise(word, gone);
      each.newest.set(word, each.newest.of(word) - gone);
    });
  }

  template <class Action>
  void for_each_view(Action action) {
    for (process_views& each : views_) {
      action(each.now);
      action(each.unacquired);
      action(each.released);
    }
    action(in_order_);
    for (history& past : words_) {
      for (std::size_t i = 0; i != past.count; ++i) action(past.stores[i].carries);
    }
  }

  std::array<history, most_words> words_{};
  std::array<process_views, processes> views_{};
  view in_order_;  ///< what the sequentially consistent operations so far have fixed
  std::array<std::uint8_t, most_plain> plain_{};
};

}  // namespace memory_model
