// SPDX-License-Identifier: BSL-1.0
// Taking back and posting again: elements that have not started leave the lane, and their numbers are used again for
// others, in chunks cut otherwise, while the worker runs, or is killed between any two steps. Two threads of the
// parent: one collects and hears of deaths, one posts and takes back; what runs under the scheduler's mutex is marked.
// Mirrors lane_port (post, take_back, cut, take_all, settle), worker_loop (run, begin_chunk), task_table (withdraw,
// balance) and scheduler (collect, ended, lose_started).
//
// bug NO_REREAD: the worker does not look at the limit again once it has claimed
// bug NO_CLAIM_CHECK: the parent lowers the limit and does not look at what is claimed
// bug CLAIM_BUFFERED: the claim may still be in the worker's store buffer when it looks at the limit again
// bug LIMIT_BUFFERED: the lowered limit may still be in the parent's store buffer when it looks at the claim
// bug CLAIM_KEPT: a worker that finds the limit lowered does not take its claim back
// bug NO_RESTORE: the limit stays lowered when taking back has failed
// bug SLOT_KEPT: the slot behind a posted one keeps the number that it named
// bug SLOT_EARLY: the slot is looked at before its number is claimed
// bug SLOTS_OVERRUN: a chunk is posted into a slot that may not have been read yet
// bug SLOT_NOT_REWOUND: the next chunk does not take the slot of one that was taken back

#ifndef T
#define T 4  // elements
#endif
#ifndef K
#define K 3  // deaths
#endif
#define SLOTS 4    // as slot_count: at most SLOTS - 2 chunks are posted
#define LONGEST 2  // elements of a chunk

// ---- the lane ---------------------------------------------------------------------------------------------------
byte limit;
byte before_first, first_slot;
byte slot_first[SLOTS], slot_element[SLOTS];
byte claimed, published;
bool ready;

// ---- processes --------------------------------------------------------------------------------------------------
bool reaped;  // news from the zygote: the process is gone for certain

// ---- the parent's private memory ----------------------------------------------------------------------------------
bool waits[T + 2];             // elements in the queue, which is in order: its head is the lowest
byte owner[T + 1];             // which element was posted under a number
byte slot_of[T + 1];           // where the chunk of a number is
bool begins[T + 1];            // a chunk begins with this number
byte last, settled, next_slot, ended;
bool mutex;

// ---- what an observer knows -------------------------------------------------------------------------------------
byte kills;
bool ran[T + 1], through[T + 1];  // an element has run, or must not run any more; it has an outcome
byte doing;                       // the worker, or the last one: 0 nothing; or it has claimed, or started, an element
#define CLAIMED 1
#define STARTED 2

// What is still in a store buffer becomes visible at some time, and at the latest when its process is gone.
#ifdef CLAIM_BUFFERED
byte own_claim;
bool claim_waits;
#define claim(number) atomic { !claim_waits -> own_claim = number; claim_waits = true }
#else
#define claim(number) claimed = number
#endif
#ifdef LIMIT_BUFFERED
byte own_limit;
bool limit_waits;
#endif
#if defined(CLAIM_BUFFERED) || defined(LIMIT_BUFFERED)
active proctype store_buffers() {
end:
  do
#ifdef CLAIM_BUFFERED
  :: d_step { claim_waits -> claimed = own_claim; claim_waits = false }
#endif
#ifdef LIMIT_BUFFERED
  :: d_step { limit_waits -> limit = own_limit; limit_waits = false }
#endif
  od
}
#endif

// One step of the worker; it may be killed before it.
#define step(statement) if :: statement :: die fi
#ifdef CLAIM_BUFFERED
#define die atomic { kills < K && !claim_waits -> kills++; reaped = true; goto dead }
#else
#define die atomic { kills < K -> kills++; reaped = true; goto dead }
#endif

proctype worker() {
  byte number, first, base, slot, element;
#ifdef SLOT_EARLY
  bool fresh;
#endif
  // See lane.pml for the order of these.
  step(d_step { claimed = before_first; published = before_first; slot = first_slot; ready = true });
end_idle:
  do
  :: die
  :: limit > published ->
    number = published + 1;
#ifdef SLOT_EARLY
    fresh = slot_first[slot] == number;
#endif
    step(atomic { claim(number); doing = CLAIMED });
#ifndef NO_REREAD
    if
    :: limit < number ->
#ifndef CLAIM_KEPT
      step(claim(number - 1));
#endif
      d_step { number = 0; doing = 0 };
      goto end_idle
    :: d_step { limit >= number -> doing = STARTED }
    :: die
    fi;
#endif
    if
#ifdef SLOT_EARLY
    :: fresh ->
#else
    :: slot_first[slot] == number ->
#endif
      d_step { first = number; base = slot_element[slot]; slot = (slot + 1) % SLOTS }
    :: else
    fi;
    step(d_step {
      element = base + number - first;
      assert(owner[number] == element);  // it is what the parent posted under this number
      assert(!ran[element]);             // for the first time, and it has not ended
      ran[element] = true;
      element = 0
    });
    step(d_step { published = number; number = 0; doing = 0 })
  od;
dead:
  skip
}

inline lock() { atomic { !mutex -> mutex = true } }
inline unlock() { atomic { assert(limit == last); mutex = false } }

inline settle(e) {
  assert(!through[e]);
  through[e] = true;
  ran[e] = true;
  ended++
}

inline forget(n) {
  owner[n] = 0;
  slot_of[n] = 0;
  begins[n] = false
}

// Nothing is remembered of a settled number: what a slot says of it the worker never looks for again. (This is not in
// the code; it keeps states apart that cannot differ.)
inline tidy() {
  number = 0;
  do
  :: number < SLOTS ->
    if
    :: slot_first[number] <= settled -> slot_first[number] = 0; slot_element[number] = 0
    :: else
    fi;
    number++
  :: else -> break
  od;
  number = 0
}

// lane_port::cut: all above `keep` is handed out; the lane goes on behind it.
inline cut(keep) {
  do
  :: last > keep ->
    if
    :: assert(!ran[owner[last]]); settle(owner[last])  // another worker runs it
    :: waits[owner[last]] = true                       // it waits for its turn to be posted here
    fi;
    if
    :: begins[last] ->
#ifndef SLOT_NOT_REWOUND
      next_slot = slot_of[last]
#else
      skip
#endif
    :: else
    fi;
    forget(last);
    last--
  :: else -> break
  od
}

// ---- the thread that submits and cancels --------------------------------------------------------------------------

inline count_chunks(chunks) {
  chunks = (last > settled -> 1 : 0);
  number = settled + 2;
  do
  :: number <= last -> chunks = chunks + begins[number]; number++
  :: else -> break
  od;
  number = 0
}

// lane_port::post, of `count` elements in a row
inline post(count) {
  d_step {
    number = 0;
    do
    :: number < count ->
      owner[last + 1 + number] = element + number;
      slot_of[last + 1 + number] = next_slot;
      begins[last + 1 + number] = (number == 0);
      waits[element + number] = false;
      number++
    :: else -> break
    od;
    number = 0
  };
#ifndef SLOT_KEPT
  slot_first[(next_slot + 1) % SLOTS] = 0;
#endif
  d_step {
    slot_element[next_slot] = element;
    slot_first[next_slot] = last + 1;
    last = last + count;
    next_slot = (next_slot + 1) % SLOTS;
    element = 0
  };
  limit = last
}

// lane_port::take_back
inline take_back(keep) {
#ifdef LIMIT_BUFFERED
  d_step { own_limit = keep; limit_waits = true };
#else
  limit = keep;
#endif
  if
#ifdef NO_CLAIM_CHECK
  :: true ->
#else
  :: claimed <= keep ->
#endif
    atomic { cut(keep) }
#ifndef NO_CLAIM_CHECK
  :: claimed > keep ->
#ifndef NO_RESTORE
#ifdef LIMIT_BUFFERED
    !limit_waits;
#endif
    limit = last
#endif
#endif
  fi;
#ifdef LIMIT_BUFFERED
  !limit_waits
#endif
}

active proctype submitter() {
  byte number, element, keep, chunks;
end:
  do
  :: ended == T -> break
  :: atomic {
      ended < T && !mutex && ready ->
      element = 1;
      do
      :: element <= T && !waits[element] -> element++
      :: else -> break
      od;
      count_chunks(chunks);
      if
#ifndef SLOTS_OVERRUN
      :: element <= T && chunks < SLOTS - 2 ->
#else
      :: element <= T ->
#endif
        mutex = true;
        chunks = 0
      :: else -> element = 0; chunks = 0; goto end
      fi
    };
    if
    :: post(1)
    :: waits[element + 1] -> post(2)
    fi;
    unlock()
  :: atomic {
      ended < T && !mutex && last > settled ->
      mutex = true;
      keep = settled;  // task_table looks at what is claimed and does not ask for it; it may look too early
      do
      :: keep + 1 < last -> keep++
      :: break
      od
    };
    take_back(keep);
    atomic { keep = 0; unlock() }
  od
}

// ---- the thread that collects -------------------------------------------------------------------------------------

inline spawn() {
  atomic {
    claimed = 0;
    published = 0;
    ready = false;
    before_first = last;
    first_slot = next_slot;
    limit = last;
    doing = 0;
    tidy();
    run worker()
  }
}

// scheduler::collect: what is settled is decided under the mutex, and settled without it.
inline collect() {
  atomic { !mutex -> seen = published; assert(settled <= seen && seen <= last) };
  number = settled + 1;
  do
  :: atomic {
      number <= seen ->
      assert(ran[owner[number]]);  // its reply is there
      settle(owner[number]);
      number++
    }
  :: else -> break
  od;
  atomic {
    !mutex ->
    do
    :: settled < seen -> settled++; forget(settled)
    :: else -> break
    od;
    seen = 0;
    tidy()
  }
}

active proctype collector() {
  byte number, element, seen;
  atomic {
    element = 1;
    do
    :: element <= T -> waits[element] = true; element++
    :: else -> break
    od;
    element = 0
  };
  spawn();
  do
  :: ended == T -> break
  :: ended < T && ready && published > settled -> collect()
  :: atomic { reaped -> reaped = false };
    if
    :: ready ->
      collect();
      // scheduler::lose_started: the one element that was claimed and is not published. The claim of a worker that died
      // before it looked at the limit again may be for an element that was taken back: then another one that was posted
      // under the number meanwhile fails. That is still one element for one death.
      atomic {
        !mutex ->
        if
        :: claimed > settled && last > settled -> assert(doing != 0); settled++; number = settled
        :: else
        fi
      };
      if
      :: atomic { number != 0 -> settle(owner[number]); forget(number); number = 0 }
      :: else
      fi;
      // task_table::abandon_posted, crew::ended
      atomic { !mutex -> limit = settled; cut(settled); spawn() }
    :: else -> atomic { !mutex -> spawn() }
    fi
  od
}
