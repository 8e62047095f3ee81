// SPDX-License-Identifier: BSL-1.0
// Sleep and wake-up of the collector, and of the leader, a thread that waits for its result: whatever a worker publishes is
// settled by somebody, though a worker rings only if one of them sleeps, for the leader if both do, at most once for each
// time, and not while a waiting thread looks for its result itself.
// Memory has store buffers (see wake_worker.pml). The worker may be killed between any two steps.
// Mirrors protocol::publish and set_sleeping, bell_watch, scheduler (run_collector, anything_published, watch, lead, rest,
// rouse, help, collect, ended), future_state_base (rest, publish), waiting.hpp and doorbell.hpp.
//
// Without HALTS nothing here waits for a clock: no wake-up is lost, not even by a death, of which there is news. With
// HALTS the worker may also stop for good at any point without news (SIGSTOP; or killed, and not reaped as long as a
// thread of it sits in the kernel). Between publishing and ringing that loses the ring, and it is the only loss that
// needs the look at the lanes every 100 ms.
//
// holds HALTS: the worker may stop without news
// holds TWO_WATCHERS: two threads look for their results themselves, of two elements and with one death
// nightly WATCHERS=2 T=3 K=2: two threads look for their results themselves
//
// bug NO_FENCE_WORKER: no fence between publishing and looking whether the collector sleeps
// bug NO_FENCE_COLLECTOR: no fence between saying that the collector sleeps and looking again
// bug CHECK_FIRST: the collector looks, and says then that it sleeps
// bug TURN_KEPT: workers ring once for all turns and not once for each
// bug NOT_HANDED_BACK: the last thread that stops watching does not have the workers ring for the collector again
// bug NO_LOOK_AFTER_WATCH: it does, and does not look for what was published before
// bug WATCHERS_UNCOUNTED: workers are told not to ring, while nobody watches any more
// bug NO_LOOK_BEFORE_REST: the leader does not look at the lanes before it sleeps
// bug LEADER_UNTOLD: nobody tells the workers to ring for the leader
// bug LEADER_ROBBED: the collector, once awake, has them not ring at all, though the leader sleeps
// bug LEADER_FORGOTTEN TWO_WATCHERS: the last thread that stops watching has them ring for nobody, though the leader sleeps
// bug NOT_ROUSED: the leader is not told that somebody else has settled what it waits for
// bug NEWS_UNHEARD: the news of a death does not wake the collector
// bug NO_BACKSTOP HALTS: nobody looks at the lanes every 100 ms

#ifdef TWO_WATCHERS
#define T 2
#define K 1
#define WATCHERS 2
#endif
#ifndef T
#define T 4  // elements
#endif
#ifndef K
#define K 3  // deaths
#endif
#ifndef WATCHERS
#define WATCHERS 1  // threads that look for their results themselves
#endif

// ---- memory -------------------------------------------------------------------------------------------------------
byte published, sleeping;  // as others see them
byte claimed;              // a seq_cst operation: it passes no buffer
chan of_worker = [1] of { byte };
#ifdef NO_FENCE_COLLECTOR
chan of_parent = [2] of { byte };
#endif

active proctype memory() {
  byte value;
end:
  do
  :: atomic { of_worker ? value -> published = value; value = 0 }
#ifdef NO_FENCE_COLLECTOR
  :: atomic { of_parent ? value -> sleeping = value; value = 0 }
#endif
  od
}

// ---- the worker ---------------------------------------------------------------------------------------------------
bool bell, leader_bell;  // eventfds
bool reaped;  // news from the zygote: the process is gone for certain
bool halted;
byte kills;
byte rung, seen_sleeping;  // the worker's own; others look at them only to name turns

#define step(statement) if :: statement :: die fi
#ifdef HALTS
#define die atomic { kills < K -> kills++; goto dead } :: atomic { !halted -> halted = true; goto halt }
#else
#define die atomic { kills < K -> kills++; goto dead }
#endif

proctype worker(byte before_first) {
  byte number = before_first;
  do
  :: number < T ->
    step(d_step { number++; claimed = number });
    step(of_worker ! number);
    // The load, and what follows from it.
    step(atomic {
#ifndef NO_FENCE_WORKER
      empty(of_worker);
#endif
      seen_sleeping = (sleeping == rung -> 0 : sleeping)
    });
    if
    :: seen_sleeping != 0 && seen_sleeping <= 2 -> step(d_step { rung = seen_sleeping; seen_sleeping = 0; bell = true })
    :: seen_sleeping > 2 -> step(d_step { rung = seen_sleeping; seen_sleeping = 0; leader_bell = true })
    :: else
    fi
  :: else -> break
  od;
end_idle:
  if
  :: die
  fi;
#ifdef HALTS
halt:
  seen_sleeping = 0;
end_halted:
  false;
#endif
dead:
  atomic { empty(of_worker) -> rung = 0; seen_sleeping = 0; reaped = true }
}

// ---- the parent ---------------------------------------------------------------------------------------------------
byte settled;
// Under bell_watch's mutex: whoever holds it makes one store that others see, in one step.
byte collector_turn, leader_turn, watchers;
bool led;

// Under the role, by one thread at a time. That a thread does not get the role, and looks at nothing, is left to
// chance.
#define collect() settled = published

inline set_sleeping(turn) {
#ifdef NO_FENCE_COLLECTOR
  of_parent ! turn
#else
  sleeping = turn
#endif
}

// A turn is a number that was not used before. Only whether two are equal matters, so two numbers will do for each who
// sleeps: one that the worker may still be about to ring for, and a new one, for which it has not rung.
inline next_turn(turn, least) {
  turn = (seen_sleeping == least -> least + 1 : least);
  rung = (rung == turn -> 0 : rung)
}

inline fall_asleep() {
  collector_turn = turn;
  if
  :: watchers == 0 && leader_turn == 0 -> set_sleeping(turn)
  :: else
  fi
}

inline wake_up() {
  collector_turn = 0;
  if
#ifndef LEADER_ROBBED
  :: leader_turn == 0 -> set_sleeping(0)
  :: else
#else
  :: true -> set_sleeping(0)
#endif
  fi
}

active proctype collector() {
  byte turn = 1;
  bool rang, ended;
#ifdef HALTS
  bool looked;
#endif
  run worker(0);
  do
  :: collect();
    if
    :: settled == T -> break
    :: else
    fi;
#ifdef CHECK_FIRST
    rang = published != settled;
#endif
    atomic {
#ifndef TURN_KEPT
      next_turn(turn, 1);
#endif
      fall_asleep()
    };
    if
#ifdef CHECK_FIRST
    :: rang -> skip
    :: !rang ->
#else
    :: published != settled -> skip
    :: published == settled ->
#endif
      // epoll_wait. When all is settled, finish() rings.
      if
      :: bell || settled == T
#ifndef NEWS_UNHEARD
      :: reaped
#endif
#ifdef HALTS
      :: timeout ->
        if
#ifndef NO_BACKSTOP
        :: !looked -> looked = true  // 100 ms have passed
#endif
        :: else ->
          assert(settled == published);  // nothing is forgotten, whatever the worker does from now on
          goto end_forgotten
        fi
#endif
      fi
    fi;
    d_step { rang = bell; ended = reaped };
    atomic { wake_up() };
    atomic {
      if
      :: rang -> bell = false
      :: else
      fi;
      if
      :: ended ->
        collect();
        reaped = false;
        settled = claimed;    // fails what was started
        published = claimed;  // as the new worker says before it is ready
        run worker(settled)
      :: else
      fi;
      rang = false;
      ended = false
    }
  od;
#ifdef HALTS
end_forgotten:
  skip
#endif
}

// A thread that waits for two elements, one after the other: help_until, with scheduler::watch, help and rest.
active [WATCHERS] proctype watcher() {
  byte awaited = 1;
  byte turn;
  do
  :: settled < awaited ->
    atomic {
      watchers++;
      if
      :: watchers == 1 -> set_sleeping(0)
      :: else
      fi
    };
    do
    :: atomic { settled < awaited && published > settled -> collect() }
    :: atomic { settled < awaited && !led -> led = true };
      // What it waits for is marked as the leader's: whoever settles that from now on rouses it.
      if
      :: settled >= awaited -> skip
      :: else ->
        atomic {
          watchers--;
          next_turn(turn, 3);
          leader_turn = turn;
          turn = 0;
          if
#ifndef LEADER_UNTOLD
          :: watchers == 0 -> set_sleeping(leader_turn)
          :: else
#else
          :: true
#endif
          fi
        };
        if
#ifndef NO_LOOK_BEFORE_REST
        :: published != settled
        :: published == settled ->
#else
        :: true ->
#endif
          // ppoll
#ifdef HALTS
end_rests:
#endif
          if
          :: leader_bell
#ifndef NOT_ROUSED
          :: settled >= awaited
#endif
          fi
        fi;
        leader_bell = false;
        atomic { watchers++; leader_turn = 0; set_sleeping(0) }
      fi;
      led = false
    :: break  // the element is settled, or the thread has looked for long enough
    od;
    atomic {
#ifndef WATCHERS_UNCOUNTED
      watchers--;
#endif
      if
      :: watchers == 0 && leader_turn != 0 ->
#ifndef LEADER_FORGOTTEN
        set_sleeping(leader_turn)
#else
        skip
#endif
      :: watchers == 0 && leader_turn == 0 && collector_turn != 0 ->
#ifndef NOT_HANDED_BACK
        set_sleeping(collector_turn)
#else
        skip
#endif
      :: else -> goto sleeps
      fi
    };
#ifndef NO_LOOK_AFTER_WATCH
    do
    :: atomic { published != settled -> collect() }
    :: published == settled -> break
    od;
#endif
sleeps:
#ifdef HALTS
end_sleeps:
#endif
    settled >= awaited
  :: atomic { settled >= awaited && awaited < T -> awaited = T }
  :: settled == T -> break
  od
}
