// SPDX-License-Identifier: BSL-1.0
// A lane, its worker and its parent, as the explorer runs them: the steps of the protocol are the library's own
// (lane_protocol.hpp), what lies between them is as in worker_loop and lane_port, without what does not touch the lane.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <source_location>

#include <procpool/detail/shared_memory/lane_protocol.hpp>

#include "memory_model/machine.hpp"

namespace memory_model {

using procpool::detail::sleeping_for;
namespace protocol = procpool::detail::protocol;

inline constexpr std::size_t lane_slots = 4;                ///< as slot_count, with the same two to spare
inline constexpr std::size_t lane_chunks = lane_slots - 2;  ///< that can be posted; the arguments of as many have room

struct lane_slot {
  atomic_word<std::uint64_t> first;
};

struct lane_requests {
  atomic_word<std::uint64_t> limit{0};
  atomic_word<std::uint32_t> wake{1};
  atomic_word<std::uint32_t> leave{2};
  atomic_word<std::uint32_t> sleeping{3};
  atomic_word<std::uint64_t> stop{13};
  atomic_word<std::uint64_t> taken{4};
  atomic_word<std::uint64_t> taken_bytes{5};
  lane_slot slots[lane_slots]{lane_slot{atomic_word<std::uint64_t>(6)}, lane_slot{atomic_word<std::uint64_t>(7)},
                              lane_slot{atomic_word<std::uint64_t>(8)}, lane_slot{atomic_word<std::uint64_t>(9)}};
};

struct lane_replies {
  atomic_word<std::uint64_t> published{10};
  atomic_word<std::uint64_t> claimed{11};
  atomic_word<sleeping_for> asleep{12};
  atomic_word<std::uint64_t> timed{14};
  atomic_word<std::uint64_t> timed_since{15};
};

inline void fence(const lane_requests&, const std::source_location& where = std::source_location::current()) noexcept {
  atomic_fence(std::memory_order_seq_cst, where);
}
inline void sleep_while(const lane_requests& requests, std::uint32_t wake) noexcept {
  machine::running->perform({kind::sleep, requests.wake.index(), static_cast<std::uint8_t>(wake), 0, 0}, {});
}
inline void wake_sleeper(lane_requests& requests) noexcept {
  machine::running->perform({kind::wake, requests.wake.index(), 0, 0, 0}, {});
}

/// What the parent does before it has the worker leave: `operations` of any kind, in any order, with at most `elements`
/// elements. All scripts within these bounds are gone through. Who does not sleep spins.
struct lane_bounds {
  std::uint8_t operations = 3;
  std::uint8_t elements = 3;
  std::uint8_t replies = 3;        ///< that the reply ring holds
  std::uint8_t blocks = 0;         ///< that the arena holds; 0: results are small
  std::uint8_t interruptions = 0;  ///< of the worker's sleeps, by signals
  bool series = false;             ///< the elements of a chunk are run in one go, and rung for behind the last one
  bool watches = false;            ///< looks when elements started, has them stop, wakes the worker for nothing
  bool takes_back = true;
  bool worker_sleeps = true;
  bool parent_sleeps = true;
};

class lane_world {
 public:
  explicit lane_world(lane_bounds bounds) : bounds_(bounds) {}

  std::uint8_t interruptions() const { return bounds_.interruptions; }

  static constexpr std::size_t most_elements = 8;                    ///< counted from 1
  static constexpr std::uint32_t fenced_words = 1U << 3 | 1U << 12;  ///< `sleeping` and `asleep`

  // ---- the worker ------------------------------------------------------------------------------------------------

  enum class doing : std::uint8_t { looking, sleeping, deciding, claiming, beginning, making_room, replying };

  struct worker_state {
    doing now = doing::looking;
    std::uint8_t published = 0;
    std::uint8_t next_slot = 0;
    std::uint8_t first = 0;    ///< number of the chunk's first element
    std::uint8_t element = 0;  ///< which element that is
    std::uint8_t place = 0;    ///< where its arguments lie
    std::uint8_t rung = 0;
    std::uint8_t to_ring = 0;
  };

  /// As worker_loop::run() and what it calls. Looks that only save a sleep are left out.
  bool worker(worker_state& me) {
    const auto number = static_cast<std::uint8_t>(me.published + 1);
    const auto allowed = [&] { return protocol::allowed(requests_, number); };
    const auto wanted = [&] { return allowed() || protocol::told_to_leave(requests_); };
    const auto fits = [&] { return number <= protocol::taken_bytes(requests_) + bounds_.replies; };
    switch (me.now) {
      case doing::looking:
        me.now = allowed() ? doing::claiming : doing::sleeping;
        if (me.now == doing::sleeping || (me.to_ring != 0 && protocol::begins(requests_, me.next_slot, number)))
          ring_for_chunk(me);
        break;
      case doing::sleeping:
        if (!bounds_.worker_sleeps) {
          if (!wanted()) spin(requests_.limit, requests_.leave);
          me.now = doing::deciding;
          break;
        }
        protocol::say_again(replies_, me.published, me.published);
        protocol::sleep_unless(requests_, replies_, sleeping_for::work, wanted);
        me.now = doing::deciding;
        break;
      case doing::deciding:
        if (protocol::dismissed(requests_, number)) return leaves(), false;
        me.now = doing::looking;
        break;
      case doing::claiming:
        me.now = protocol::claim(requests_, replies_, number) ? doing::beginning : doing::looking;
        seen.stepped_back |= me.now == doing::looking;
        break;
      case doing::beginning:
        if (protocol::begins(requests_, me.next_slot, number)) {
          const std::uint8_t described = machine::running->read(descriptor(me.next_slot));
          me.next_slot = static_cast<std::uint8_t>((me.next_slot + 1U) % lane_slots);
          me.first = number;
          me.element = described / lane_chunks;
          me.place = described % lane_chunks;
        }
        check(machine::running->read(arguments(me.place)) == me.element,
              "an element is run with the arguments of another");
        if (bounds_.watches) protocol::start(replies_, number, number);
        runs(static_cast<std::uint8_t>(me.element + number - me.first));
        if (bounds_.watches && look(requests_.stop) == number)
          stops(static_cast<std::uint8_t>(me.element + number - me.first));
        me.now = fits() ? doing::replying : doing::making_room;
        break;
      case doing::making_room:
        seen.no_room = true;
        if (!bounds_.worker_sleeps) {
          if (!fits()) spin(requests_.taken_bytes, requests_.taken_bytes);
          if (fits()) me.now = doing::replying;
          break;
        }
        protocol::say_again(replies_, number, me.published);
        protocol::sleep_unless(requests_, replies_, sleeping_for::room, fits);
        if (fits()) me.now = doing::replying;
        break;
      case doing::replying: {
        const auto element = static_cast<std::uint8_t>(me.element + number - me.first);
        if (bounds_.blocks != 0) {
          // A block is free once the reply that had it is taken.
          if (number > bounds_.blocks && protocol::taken(requests_) + bounds_.blocks < number) {
            spin(requests_.taken, requests_.taken);
            break;
          }
          machine::running->write(block(number), element);
        }
        machine::running->write(reply(number), element);
        me.published = number;
        me.now = doing::looking;
        if (bounds_.series) {
          me.to_ring = 1;
          const auto next = static_cast<std::uint8_t>(number + 1);
          if (!protocol::allowed(requests_, next)) {
            protocol::publish(replies_, number);
          } else if (!protocol::publish_and_claim(requests_, replies_, number)) {
            seen.stepped_back = true;
          } else if (!protocol::begins(requests_, me.next_slot, next)) {
            seen.went_on = true;
            me.now = doing::beginning;
          }
        } else {
          protocol::publish(replies_, number);
          ring(me);
        }
        break;
      }
    }
    return true;
  }

  // ---- the parent ------------------------------------------------------------------------------------------------

  enum class step : std::uint8_t {
    choosing,
    posting_one,
    posting_two,
    taking_back_last,
    taking_back_waiting,
    watching,
    condemning,
    ticking,
    collecting,
    falling_asleep,
    awake,
    waking,
    ending,
    leaving,
    done
  };

  struct posted_element {
    std::uint8_t element = 0;
    std::uint8_t first = 0;  ///< number of the chunk's first element
    std::uint8_t chunk = 0;  ///< the how manieth of the lane
  };

  struct parent_state {
    step now = step::choosing;
    step then = step::choosing;  ///< after `collecting`
    std::uint8_t operations = 0;
    std::uint8_t elements = 0;
    std::uint8_t last = 0;
    std::uint8_t settled = 0;
    std::uint8_t chunks = 0;  ///< posted in all, without those taken back; the next one's slot and place
    std::uint8_t turn = 0;
    std::uint8_t to_wake = 0;
    std::uint8_t under = 0;  ///< the number that is asked to stop, and ends the lane until it has ended
    std::uint8_t left = 0;
    std::array<posted_element, most_elements> posted{};  ///< by number
  };

  /// As lane_port and those who call it: the scheduler wakes after it has posted or tried to take back, at the latest
  /// before it sleeps.
  bool parent(parent_state& me) {
    switch (me.now) {
      case step::choosing:
        choose(me);
        break;
      case step::posting_one:
        post(me, 1);
        break;
      case step::posting_two:
        post(me, 2);
        break;
      case step::taking_back_last:
        take_back(me, std::max(static_cast<std::uint8_t>(me.last - 1), me.under));
        break;
      case step::taking_back_waiting: {
        const auto claimed = static_cast<std::uint8_t>(protocol::claimed(replies_));
        take_back(me, std::clamp(claimed, std::max(me.settled, me.under), me.last));
        break;
      }
      case step::watching: {
        // As lane_port::started(); a number is its own time here.
        const auto number = static_cast<std::uint8_t>(protocol::timed(replies_));
        check(look(replies_.timed_since) >= number, "an element is said to have started before it did");
        me.now = step::choosing;
        break;
      }
      case step::condemning:
        condemn(me);
        break;
      case step::ticking:
        protocol::wake_in_any_case(requests_);
        me.now = step::choosing;
        break;
      case step::collecting:
        collect(me);
        break;
      case step::waking:
        wake(me);
        break;
      case step::falling_asleep:
        fall_asleep(me);
        break;
      case step::awake:
        protocol::set_sleeping(requests_, 0);
        me.now = step::collecting;
        break;
      case step::ending:
        end(me);
        break;
      case step::leaving:
        protocol::tell_to_leave(requests_);
        me.left = 1;
        protocol::wake(requests_, replies_, sleeping_for::work);
        me.now = step::ending;
        break;
      case step::done:
        return note(common->parent_done), false;
    }
    return true;
  }

  // ---- both ------------------------------------------------------------------------------------------------------

  /// One bit for each element.
  struct common_state {
    std::uint8_t posted = 0;
    std::uint8_t run = 0;
    std::uint8_t taken_back = 0;
    std::uint8_t settled = 0;
    std::uint8_t condemned = 0;
    std::uint8_t worker_left = 0;
    std::uint8_t parent_done = 0;
  };

  common_state* common = nullptr;

  /// What has come about in some schedule.
  struct happenings {
    bool stepped_back = false;  ///< the worker, from a number that it had claimed
    bool restored = false;      ///< the limit, as the worker had claimed what was to be taken back
    bool taken_back = false;
    bool posted_again = false;  ///< a number whose element was taken back
    bool no_room = false;       ///< for a reply
    bool stopped = false;       ///< an element saw that it was to stop
    bool went_on = false;       ///< the worker, with the next element of a series
  };
  happenings seen;

  static const char* verdict(const common_state& all) {
    if (all.parent_done == 0) return "the parent sleeps for ever";
    if (all.settled != all.run) return "a reply is lost";
    if ((all.settled | all.taken_back) != all.posted) return "an element is lost";
    return all.worker_left == 0 ? "the worker sleeps for ever" : nullptr;
  }

 private:
  // ---- the parent's steps ----------------------------------------------------------------------------------------

  void choose(parent_state& me) {
    std::array<step, 12> ways{};
    std::uint8_t count = 0;
    const auto possible = [&](step what, bool whether) {
      if (whether) ways[count++] = what;
    };
    const bool more = me.operations != bounds_.operations;
    const bool room =
        me.under == 0 && (me.last == me.settled || me.chunks - me.posted[me.settled + 1U].chunk < int{lane_chunks});
    possible(step::posting_one, more && room && me.elements + 1 <= bounds_.elements);
    possible(step::posting_two, more && room && me.elements + 2 <= bounds_.elements);
    possible(step::taking_back_last, more && bounds_.takes_back && me.last > me.settled);
    possible(step::taking_back_waiting, more && bounds_.takes_back && me.last > me.settled + 1);
    possible(step::watching, more && bounds_.watches && me.last > me.settled);
    possible(step::condemning, more && bounds_.watches && me.last > me.settled && me.under == 0);
    possible(step::ticking, more && bounds_.watches && bounds_.worker_sleeps);
    possible(step::collecting, more && me.last > me.settled);
    possible(step::falling_asleep, more && bounds_.parent_sleeps && me.last > me.settled && me.to_wake == 0);
    possible(step::waking, me.to_wake != 0);
    possible(step::ending, !more && me.to_wake == 0);
    if (count == 0) {
      me.now = step::ending;
      return;
    }
    me.now = ways[count == 1 ? 0 : machine::running->perform(kind::choose, count)];
    if (me.now != step::waking && me.now != step::ending) ++me.operations;
  }

  void post(parent_state& me, std::uint8_t count) {
    const auto element = static_cast<std::uint8_t>(me.elements + 1);
    const auto first = static_cast<std::uint8_t>(me.last + 1);
    const std::size_t slot = me.chunks % lane_slots;
    const std::size_t place = me.chunks % lane_chunks;
    machine::running->write(arguments(place), element);
    machine::running->write(descriptor(slot), static_cast<std::uint8_t>(element * lane_chunks + place));
    protocol::begin(requests_, slot, first);
    for (std::uint8_t i = 0; i != count; ++i) {
      me.posted[first + i] = {static_cast<std::uint8_t>(element + i), first, me.chunks};
      note(common->posted, bit(static_cast<std::uint8_t>(element + i)));
    }
    ++me.chunks;
    me.elements = static_cast<std::uint8_t>(me.elements + count);
    me.last = static_cast<std::uint8_t>(me.last + count);
    seen.posted_again |= common->taken_back != 0;
    protocol::allow(requests_, me.last);
    me.to_wake = bounds_.worker_sleeps;
    me.now = step::choosing;
  }

  bool take_back(parent_state& me, std::uint8_t keep) {
    me.to_wake = bounds_.worker_sleeps;
    me.now = step::choosing;
    if (keep >= me.last) return true;
    const bool taken = protocol::take_back(requests_, replies_, keep, me.last);
    seen.restored |= !taken;
    seen.taken_back |= taken;
    if (taken) {
      const posted_element lowest = me.posted[keep + 1U];
      me.chunks = static_cast<std::uint8_t>(lowest.first == keep + 1 ? lowest.chunk : lowest.chunk + 1);
      for (; me.last != keep; --me.last) {
        takes(me.posted[me.last].element);
        me.posted[me.last] = {};
      }
    }
    return taken;
  }

  /// As watchdog::condemn(): the limit comes first, so that nothing can start behind what is to stop.
  void condemn(parent_state& me) {
    const auto running = [&] {
      const auto number = std::clamp(static_cast<std::uint8_t>(protocol::claimed(replies_)), me.settled, me.last);
      return number == me.settled || protocol::published(replies_) >= number ? std::uint8_t{0} : number;
    };
    me.now = step::choosing;
    const std::uint8_t number = running();
    if (number == 0 || !take_back(me, number) || running() != number) return;
    me.under = number;
    note(common->condemned, bit(me.posted[number].element));
    protocol::ask_to_stop(requests_, number);
  }

  void collect(parent_state& me) {
    const auto believed = protocol::published(replies_, me.settled, me.last);
    check(believed.has_value(), "the worker is not believed");
    const auto published = static_cast<std::uint8_t>(believed.value_or(me.settled));
    const bool any = me.settled < published;
    while (me.settled < published) {
      ++me.settled;
      const std::uint8_t element = me.posted[me.settled].element;
      if (machine::running->read(reply(me.settled)) != element ||
          (bounds_.blocks != 0 && machine::running->read(block(me.settled)) != element))
        machine::running->violate("an element is settled with the reply to another");
      settles(element);
    }
    if (me.under <= me.settled) me.under = 0;
    if (any) {
      protocol::take(requests_, me.settled, me.settled);
      protocol::wake(requests_, replies_, sleeping_for::room);
    }
    me.now = me.then;
  }

  void wake(parent_state& me) {
    protocol::wake(requests_, replies_, sleeping_for::work);
    me.to_wake = 0;
    me.now = step::choosing;
  }

  void fall_asleep(parent_state& me) {
    if (!bounds_.parent_sleeps) {
      if (protocol::published(replies_) == me.settled) spin(replies_.published, replies_.published);
      me.now = step::collecting;
      return;
    }
    protocol::set_sleeping(requests_, ++me.turn);
    if (protocol::published(replies_) == me.settled) machine::running->perform(kind::await_ring);
    me.now = step::awake;
  }

  /// Has the worker leave, after all has been settled or before.
  void end(parent_state& me) {
    me.then = step::ending;
    if (me.last == me.settled) {
      me.now = me.left != 0 ? step::done : step::leaving;
    } else {
      me.now = me.left != 0 || machine::running->perform(kind::choose, 2) != 0 ? step::falling_asleep : step::leaving;
    }
  }

  // ---- what is noted of the elements -----------------------------------------------------------------------------

  void ring(worker_state& me) {
    const std::uint32_t sleeping = protocol::sleeping(requests_);
    if (sleeping == 0 || sleeping == me.rung) return;
    me.rung = static_cast<std::uint8_t>(sleeping);
    machine::running->perform(kind::ring);
  }
  void ring_for_chunk(worker_state& me) {
    if (me.to_ring == 0) return;
    me.to_ring = 0;
    ring(me);
  }

  static std::uint8_t bit(std::uint8_t element) { return static_cast<std::uint8_t>(1U << element); }

  static void note(std::uint8_t& where, std::uint8_t bits = 1) {
    machine::running->once([&] { return where = static_cast<std::uint8_t>(where | bits); });
  }
  /// What the library looks at without an order.
  template <class Word>
  static std::uint8_t look(const Word& word) {
    return machine::running->perform(
        {kind::load, word.index(), 0, static_cast<std::uint8_t>(std::memory_order_relaxed), 0}, {});
  }
  template <class First, class Second>
  static void spin(const First& first, const Second& second) {
    machine::running->perform({kind::spin, first.index(), second.index(), 0, 0}, {});
  }
  static void check(bool whether, const char* what) {
    if (!whether) machine::running->violate(what);
  }

  void runs(std::uint8_t element) {
    machine::running->once([&] {
      check((common->posted & bit(element)) != 0, "an element is run that was not posted");
      check((common->run & bit(element)) == 0, "an element is run twice");
      check((common->taken_back & bit(element)) == 0, "an element is run that was taken back");
      return common->run = static_cast<std::uint8_t>(common->run | bit(element));
    });
  }
  void leaves() {
    machine::running->once([&] {
      check((common->run | common->taken_back) == common->posted, "the worker leaves with work undone");
      return common->worker_left = 1;
    });
  }
  void takes(std::uint8_t element) {
    machine::running->once([&] {
      check((common->run & bit(element)) == 0, "an element is taken back that was run");
      check((common->condemned & bit(element)) == 0, "an element is taken back that was asked to stop");
      return common->taken_back = static_cast<std::uint8_t>(common->taken_back | bit(element));
    });
  }
  void stops(std::uint8_t element) {
    machine::running->once([&] {
      check((common->condemned & bit(element)) != 0, "an element stops that was not asked to");
      seen.stopped = true;
      return 0;
    });
  }
  void settles(std::uint8_t element) {
    machine::running->once([&] {
      check((common->run & bit(element)) != 0, "an element is settled that was not run");
      check((common->settled & bit(element)) == 0, "an element is settled twice");
      return common->settled = static_cast<std::uint8_t>(common->settled | bit(element));
    });
  }

  // ---- where plain bytes lie -------------------------------------------------------------------------------------

  static std::size_t descriptor(std::size_t slot) { return slot; }
  static std::size_t arguments(std::size_t place) { return lane_slots + place; }
  std::size_t reply(std::size_t number) const { return lane_slots + lane_chunks + number % bounds_.replies; }
  std::size_t block(std::size_t number) const {
    return lane_slots + lane_chunks + bounds_.replies + number % bounds_.blocks;
  }

  lane_bounds bounds_;
  lane_requests requests_;
  lane_replies replies_;
};

}  // namespace memory_model
