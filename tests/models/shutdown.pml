// SPDX-License-Identifier: BSL-1.0
// The end of a pool: close() and join(), or terminate(), while another thread submits, workers start, run, retire after
// some elements, leave in good order, or die. Nothing accepted is dropped, nobody waits for ever, no process is left,
// and nobody touches the lanes when they are given up. Mirrors scheduler (submit, visit, finish, terminate, collect,
// ended, run_collector), crew (takes, spawn, notice_ready, retire_if_due, send_away, depart, ended, none_left) and
// worker_loop (wait_for). Claims and wake-ups are in other models.
//
// holds TERMINATE: a third thread terminates the pool, and the kernel may be unable to kill the worker
//
// bug VISITORS_IGNORED: the lanes are given up while another thread is inside of submit()
// bug LEFT_UNHEARD: the last visitor of a closed pool tells nobody that it leaves
// bug CLOSED_LATE: the pool is closed only after it was looked for visitors
// bug DROPS: it is not waited for what is queued or runs
// bug PROGRESS_UNHEARD: that an element has ended is not told to who waits for the end of all
// bug STARTING_FORGOTTEN: a worker that gets ready after the others were sent away is not sent away
// bug STILL_REPLACES: workers that leave are replaced when the pool ends
// bug NOT_REPLACED: a worker that died is not replaced, because the pool is closed
// bug GONE_UNAWAITED: it is not waited for the workers to be gone
// bug COLLECTOR_UNAWAITED: the lanes are given up while the collector is at work
// bug COLLECTOR_LEAVES_EARLY: the collector ends as soon as the workers are sent away
// bug NOT_ABANDONED TERMINATE: what is posted to a worker that cannot be killed is waited for
// bug GONE_AWAITED TERMINATE: it is waited for ever for a worker that cannot be killed
// bug DECIDED_EARLY TERMINATE: who waits for the workers to be gone decides before for how long

#ifdef TERMINATE
#define T 2
#define K 1
#endif
#ifndef T
#define T 4  // elements: the first half is submitted before the pool is closed, the others meanwhile
#endif
#ifndef K
#define K 3  // deaths
#endif
#define BUDGET 2  // max_tasks_per_child

// ---- the lane; numbers begin anew with each worker ----------------------------------------------------------------
byte limit, published, claimed;
bool leave, initialized;

// ---- processes ----------------------------------------------------------------------------------------------------
bool process, killed, stuck;
chan news = [1] of { bit };  // from the zygote: the worker's end

// ---- the parent ---------------------------------------------------------------------------------------------------
#define VACANT 0
#define STARTING 1
#define READY 2
#define LEAVING 3
byte phase, settled, last, waiting;  // `waiting`: elements in the queue
byte in_flight, visitors;
bool mutex, role, replaces = true, departing, closed, terminated, finished, released, collector_gone;
bool finisher_sleeps, terminator_sleeps;  // on `changed_`

// ---- what an observer knows ---------------------------------------------------------------------------------------
byte kills, accepted, outcomes;

#define lock() atomic { !mutex -> mutex = true }
#define unlock() mutex = false
#define notify() finisher_sleeps = false; terminator_sleeps = false
#define none_left (phase == VACANT)
#define touch_lanes() assert(!released)

#define step(statement) if :: statement :: die fi
#ifdef TERMINATE
#define die atomic { kills < K -> kills++; goto dead } :: killed -> goto dead :: hang
#define hang atomic { !stuck -> stuck = true; goto hangs }
#else
#define die atomic { kills < K -> kills++; goto dead }
#endif

proctype worker() {
  step(initialized = true);
  do
  :: die
  :: limit > published ->
    step(claimed = published + 1);
    step(published = claimed)
  :: leave && limit == published -> break
  od;
  step(assert(published == limit));  // the finalizer; nothing is left behind
dead:
  atomic { process = false; killed = false; news ! 0; goto gone };
#ifdef TERMINATE
hangs:
end_hangs:
  false;
#endif
gone:
  skip
}

// ---- what is done under the mutex ---------------------------------------------------------------------------------

inline spawn() {
  assert(!process && !departing);
  limit = 0;
  published = 0;
  claimed = 0;
  leave = false;
  initialized = false;
  phase = STARTING;
  process = true;
  run worker()
}

inline dispatch() {
  if
  :: phase == READY ->
    do
    :: waiting > 0 && last < BUDGET -> waiting--; last++
    :: else -> break
    od;
    limit = last
  :: else
  fi
}

inline send_away() {
  phase = LEAVING;
  leave = true
}

inline end_elements(count) {
  in_flight = in_flight - (count);
  outcomes = outcomes + (count)
}

// condition_variable::wait. What is asked may become true by a thread that does not hold the mutex.
inline wait(condition, sleeps) {
  do
  :: condition -> break
  :: !(condition) ->
    atomic { sleeps = true; unlock() };
    !sleeps;
    lock()
  od
}

// ---- the collector ------------------------------------------------------------------------------------------------

// scheduler::collect. Settling is done without the mutex.
inline collect() {
  atomic {
    !mutex ->
    touch_lanes();
    if
    :: phase == STARTING && initialized ->
      phase = READY;
      if
#ifndef STARTING_FORGOTTEN
      :: departing -> send_away()
#endif
      :: else -> dispatch()
      fi;
      notify()
    :: else
    fi;
    seen = ((phase == READY || phase == LEAVING) && last > settled -> published : settled)
  };
  if
  :: seen > settled ->
    atomic {
      !mutex ->
      touch_lanes();
      end_elements(seen - settled);
      settled = seen;
      if
      :: phase == READY && settled == BUDGET -> send_away()  // retire_if_due
      :: else
      fi;
      // Nothing is left to post here: what waits has been posted as far as the worker takes it.
#ifndef PROGRESS_UNHEARD
      if
      :: visitors != 0 || closed -> notify()
      :: else
      fi;
#endif
      seen = 0
    }
  :: else -> seen = 0
  fi
}

active proctype collector() {
  byte seen;
  atomic { accepted = T / 2; in_flight = T / 2; waiting = T / 2; spawn() };
  do
  :: atomic { !role -> role = true };
    collect();
    role = false;
    if
#ifdef COLLECTOR_LEAVES_EARLY
    :: finished || departing -> break
#else
    :: finished || (departing && none_left) -> break
#endif
    :: else
    fi;
    if
    :: news ? _ ->
      atomic { !role -> role = true };
      collect();
      atomic {
        !mutex ->
        touch_lanes();
        if
        :: phase == READY || phase == LEAVING ->
          // lose_started, then abandon_posted
          if
          :: claimed > settled && last > settled -> settled++; end_elements(1)
          :: else
          fi;
          if
          :: terminated -> end_elements(last - settled)
          :: else -> waiting = waiting + last - settled
          fi
        :: else
        fi;
        last = 0;
        settled = 0;
        phase = VACANT;
        if
#ifdef NOT_REPLACED
        :: replaces && !closed -> spawn()
#else
        :: replaces -> spawn()
#endif
        :: else
        fi;
        notify();
        role = false
      }
    :: (phase == READY || phase == LEAVING) && last > settled && published > settled
    :: phase == STARTING && initialized
    :: finished
    fi
  od;
  collector_gone = true
}

// ---- a thread that submits ----------------------------------------------------------------------------------------

inline leave_visit() {
  d_step { visitors--; last_one = visitors == 0 };
#ifndef LEFT_UNHEARD
  if
  :: last_one && closed -> lock(); atomic { notify(); unlock() }
  :: else
  fi;
#endif
  last_one = false
}

active proctype submitter() {
  bool last_one, visits;
  byte submitted;
  accepted > 0;  // the pool is constructed
  do
  :: submitted < T / 2 ->
    atomic {
      !mutex ->
      submitted++;
      if
      :: closed  // it throws pool_closed
      :: else ->
        accepted++;
        in_flight++;
        waiting++;
        touch_lanes();
        dispatch();
        if
        :: visitors++; visits = true  // somebody sleeps whom it has to wake
        :: skip
        fi
      fi
    };
    if
    :: visits ->
      touch_lanes();
      visits = false;
      leave_visit()
    :: else
    fi
  :: else -> break
  od
}

// ---- close() and join() -------------------------------------------------------------------------------------------

#ifdef VISITORS_IGNORED
#define nothing_left (in_flight == 0)
#else
#ifdef DROPS
#define nothing_left (visitors == 0)
#else
#define nothing_left (visitors == 0 && in_flight == 0)
#endif
#endif

active proctype finisher() {
  accepted > 0;
  lock();
#ifndef CLOSED_LATE
  closed = true;
#endif
  wait(nothing_left, finisher_sleeps);
#ifdef CLOSED_LATE
  closed = true;
#endif
  // crew::depart
  atomic {
#ifndef STILL_REPLACES
    replaces = false;
#endif
    departing = true;
    assert(in_flight == 0 && waiting == 0);
    if
    :: phase == READY -> send_away()
    :: else
    fi
  };
#ifndef GONE_UNAWAITED
#ifdef DECIDED_EARLY
  if
  :: terminated
  :: else -> wait(none_left, finisher_sleeps)
  fi;
#elif defined(TERMINATE) && !defined(GONE_AWAITED)
  wait(none_left || terminated, finisher_sleeps);  // half a second at most, once it is terminated
#else
  wait(none_left, finisher_sleeps);
#endif
#endif
  atomic { finished = true; unlock() };
#ifndef COLLECTOR_UNAWAITED
  collector_gone;
#endif
  assert(!process || terminated);  // then the zygote kills it
  atomic { !role -> role = true };
  atomic { !mutex -> released = true; role = false };
  assert(in_flight == 0 && outcomes == accepted)
}

// ---- terminate() --------------------------------------------------------------------------------------------------
#ifdef TERMINATE
active proctype terminator() {
  bool last_one;
  accepted > 0;
  visitors++;
  lock();
  if
  :: finished -> unlock()
  :: else ->
    atomic {
      closed = true;
      terminated = true;
      end_elements(waiting);
      waiting = 0;
      replaces = false;
      killed = process;
      notify();
      unlock()
    };
    // It waits for the workers to be gone, for half a second at most.
    atomic { !role -> role = true };
    atomic {
      !mutex ->
#ifndef NOT_ABANDONED
      if
      :: !finished -> end_elements(last - settled); last = settled; limit = settled
      :: else
      fi;
#endif
      notify();
      role = false
    }
  fi;
  leave_visit()
}
#endif
