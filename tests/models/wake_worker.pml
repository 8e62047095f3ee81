// SPDX-License-Identifier: BSL-1.0
// Sleep and wake-up of a worker, for work, for room and for leaving, on memory with store buffers: a store is seen by
// others some time after it was made, unless a fence or a seq_cst operation follows. Nothing here waits for a clock, so
// a wake-up that is lost is a state in which nobody can go on. Mirrors worker_loop (run, wait_for, sleep_until, place),
// lane_port (post, take_back, leave, taken, wake) and futex.hpp.
//
// nightly TAKES=2: two attempts at taking an element back
//
// bug NO_FENCE_PARENT: no fence between raising the limit and looking whether the worker sleeps
// bug NO_FENCE_WORKER: no fence between saying that it sleeps and looking again
// bug CHECK_FIRST: the worker looks, and says then that it sleeps
// bug SEEN_LATE: the futex word is read after the last look and not before it
// bug WORD_UNCHANGED: the futex word is not changed when the worker is woken
// bug NO_WAKE_AFTER_RESTORE: the worker is not woken when the limit was lowered in vain
// bug NO_WAKE_FOR_ROOM: the worker is not woken when replies have been taken
// bug NO_WAKE_FOR_LEAVING: the worker is not woken when it is to leave
// bug ROOM_AS_WORK: the worker says that it sleeps for work when it sleeps for room
// bug LEAVE_SEEN_LATE: the worker looks at the limit first and then whether it is to leave

#ifndef T
#define T 4  // elements
#endif
#ifndef TAKES
#define TAKES 1  // attempts at taking the last element back
#endif
#define ROOM 1  // replies that fit into the ring

// ---- memory: each word has one writer; a store waits in the buffer of the thread that made it ---------------------
#define LIMIT 0
#define LEAVE 1
#define TAKEN 2
#define PUBLISHED 3
#define ASLEEP 4
byte word[5];
byte claimed, wake_word;  // seq_cst operations only: they pass no buffer
chan of_worker = [2] of { byte, byte };
chan of_poster = [3] of { byte, byte };
chan of_collector = [2] of { byte, byte };

#define store(buffer, which, value) buffer ! which, value
#define fence(buffer) empty(buffer)
// A seq_cst store: all earlier ones, and it, are seen before anything else happens.
#define store_seq_cst(buffer, which, value) atomic { empty(buffer) -> word[which] = value }

active proctype memory() {
  byte which, value;
end:
  do
  :: atomic { of_worker ? which, value -> word[which] = value; which = 0; value = 0 }
  :: atomic { of_poster ? which, value -> word[which] = value; which = 0; value = 0 }
  :: atomic { of_collector ? which, value -> word[which] = value; which = 0; value = 0 }
  od
}

// ---- futex(2) -----------------------------------------------------------------------------------------------------
bool sleeps;  // the worker is in the kernel

inline futex_wait(expected) {
  atomic {
    if
    :: wake_word == expected -> sleeps = true
    :: else
    fi
  };
  !sleeps
}
#define futex_wake() sleeps = false

// ---- the worker ---------------------------------------------------------------------------------------------------
#define NOTHING 0
#define FOR_WORK 1
#define FOR_ROOM 2
bool left;
byte elsewhere, executed;

#define allowed (word[LIMIT] >= number)
#define told_to_leave (word[LEAVE] != 0)
#define fits (published - word[TAKEN] < ROOM)

// Whether one of both holds; each load is a step of its own.
inline look(first, second) {
  if
  :: first -> enough = true
  :: !(first) -> enough = second
  fi
}

// worker_loop::sleep_until. How long it looks before it sleeps makes no difference to what can happen.
inline sleep_until(first, second, says) {
  do
  :: look(first, second);
    if
    :: enough -> enough = false; break
    :: else
    fi;
#ifndef SEEN_LATE
    seen = wake_word;
#endif
#ifdef CHECK_FIRST
    look(first, second);
    store_seq_cst(of_worker, ASLEEP, says);
    if
    :: enough -> skip
    :: else -> futex_wait(seen)
    fi;
#else
#ifdef NO_FENCE_WORKER
    store(of_worker, ASLEEP, says);
#else
    store_seq_cst(of_worker, ASLEEP, says);
#endif
    look(first, second);
    if
    :: enough -> skip
    :: else ->
#ifdef SEEN_LATE
      seen = wake_word;
#endif
      futex_wait(seen)
    fi;
#endif
    d_step { seen = 0; enough = false };
    store(of_worker, ASLEEP, NOTHING)
  od
}

active proctype worker() {
  byte number, published, seen;
  bool leaving, enough;
  do
  :: number = published + 1;
    if
    :: allowed -> skip
    :: !allowed ->
      do
      :: sleep_until(allowed, told_to_leave, FOR_WORK);
#ifdef LEAVE_SEEN_LATE
        if
        :: allowed -> break
        :: !allowed -> leaving = told_to_leave
        fi;
        if
        :: leaving -> goto leaves
        :: else
        fi
#else
        leaving = told_to_leave;
        if
        :: allowed -> leaving = false; break
        :: !allowed ->
          if
          :: leaving -> goto leaves
          :: else
          fi
        fi
#endif
      od
    fi;
    atomic { empty(of_worker) -> claimed = number };
    if
    :: !allowed -> claimed = number - 1
    :: allowed ->
#ifdef ROOM_AS_WORK
      sleep_until(fits, false, FOR_WORK);
#else
      sleep_until(fits, false, FOR_ROOM);
#endif
      published = number;
      store(of_worker, PUBLISHED, number);
      fence(of_worker)
    fi
  od;
leaves:
  fence(of_worker);
  atomic { executed = published; left = true }
}

// ---- the parent ---------------------------------------------------------------------------------------------------

// lane_port::wake
inline wake(buffer, what) {
#ifndef NO_FENCE_PARENT
  fence(buffer);
#endif
  if
  :: word[ASLEEP] == what ->
    fence(buffer);  // a read-modify-write
#ifndef WORD_UNCHANGED
    wake_word++;
#endif
    futex_wake()
  :: word[ASLEEP] != what
  fi
}

byte settled;

active proctype poster() {
  byte last, posted, takes;
  do
  :: posted < T ->
    atomic { posted++; last++; store(of_poster, LIMIT, last) };
    wake(of_poster, FOR_WORK)
  :: takes < TAKES && last > 0 ->
    takes++;
    store_seq_cst(of_poster, LIMIT, last - 1);
    if
    :: atomic { claimed < last -> last--; elsewhere++ }
    :: claimed >= last ->
      store_seq_cst(of_poster, LIMIT, last);
#ifdef NO_WAKE_AFTER_RESTORE
      goto next
#endif
    fi;
    wake(of_poster, FOR_WORK);
next:
    skip
  :: posted == T -> break
  od;
  // It may be told to leave when it has run all, or at any time before.
  if
  :: true -> settled == last
  :: true
  fi;
  store(of_poster, LEAVE, 1);
#ifndef NO_WAKE_FOR_LEAVING
  wake(of_poster, FOR_WORK);
#endif
  left;
  assert(executed == last && last + elsewhere == T)
}

active proctype collector() {
  do
  :: word[PUBLISHED] > settled ->
    settled = word[PUBLISHED];
    store(of_collector, TAKEN, settled);
#ifndef NO_WAKE_FOR_ROOM
    wake(of_collector, FOR_ROOM)
#endif
  :: left -> break
  od
}
