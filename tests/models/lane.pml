// SPDX-License-Identifier: BSL-1.0
// Claim, publication, death, retry: one lane, a worker that may be killed between any two steps, and what the parent
// makes of it. Mirrors worker_loop (the constructor, run, publish), lane_port (reset, post, published, claimed,
// take_all), scheduler (collect, ended, lose_started) and task_table (take_started). Slots and taking back are in
// take_back.pml.
//
// nightly T=5 K=4: five elements and four deaths
//
// bug EARLY_PUBLISH: the number is published before the reply is written
// bug EARLY_LIMIT: the limit is raised before the slot is filled
// bug NO_CLAIM: the task runs without having been claimed
// bug LATE_CLAIM: the task is claimed when it has begun to run
// bug READY_EARLY: the worker says that it is ready before its numbers go on where the lane's are
// bug NO_RESCAN: what was published before the death is not collected once more
// bug FAIL_FIRST: what was claimed fails before what was published is collected
// bug REQUEUE_STARTED: what had started is put back with what had not
// bug RETRY_UNCOUNTED: a retry is not counted
// bug REQUEUE_NOTHING: what had not started is forgotten

#ifndef T
#define T 4  // elements
#endif
#ifndef K
#define K 3  // deaths
#endif
#define RETRIES 1
#define ROOM 3         // elements that are posted at a time
#define N (T + K)      // numbers: one for each element, and one more for each that is run again

// ---- the lane ---------------------------------------------------------------------------------------------------
byte limit;               // request half, written by the parent
byte before_first;
byte slot[N + 1];         // which element a number stands for
byte claimed, published;  // reply half, written by the worker
byte reply[N + 1];
bool ready;

// ---- processes --------------------------------------------------------------------------------------------------
bool killed;                  // the signal is on its way
bool alive;                   // the process is there
chan news = [1] of { byte };  // from the zygote: the generation that was reaped

// ---- what an observer knows -------------------------------------------------------------------------------------
byte kills;
byte ran[T + 1], started[T + 1], charged[T + 1];
byte outcome[T + 1];  // 0: none yet
#define DONE 1
#define FAILED 2
bool was_published[T + 1];

active proctype outsider() {
end:
  do
  :: atomic { alive && !killed && kills < K -> killed = true; kills++ }
  od
}

proctype worker(byte generation) {
  byte number, element;
  {
#ifdef READY_EARLY
    ready = true;
#endif
    claimed = before_first;
    published = before_first;
    ready = true;
end_idle:
    do
    :: limit > published ->
      number = published + 1;
#ifndef NO_CLAIM
#ifndef LATE_CLAIM
      d_step { claimed = number; started[slot[number]]++ }
#endif
#endif
      element = slot[number];
      ran[element]++;
#ifdef LATE_CLAIM
      d_step { claimed = number; started[slot[number]]++ }
#endif
#ifdef EARLY_PUBLISH
      d_step { published = number; was_published[element] = true }
#endif
      reply[number] = element;
#ifndef EARLY_PUBLISH
      d_step { published = number; was_published[element] = true }
#endif
    od
  } unless { killed };
  d_step { killed = false; alive = false };
  news ! generation  // the zygote reaps it and says so
}

chan queue = [T] of { byte };  // elements that wait, in order
byte owner[N + 1];             // which element was posted under a number
byte last, settled, generation, ended;

inline settle(e, how) {
  assert(outcome[e] == 0);
  outcome[e] = how;
  ended++
}

inline spawn() {
  atomic { claimed = 0; published = 0; ready = false; before_first = last; limit = last };
  atomic { alive = true; run worker(generation) }
}

// scheduler::collect: reads `published` once, then the replies up to it.
inline collect() {
  seen = published;
  assert(settled <= seen && seen <= last);  // an honest worker is never distrusted
  do
  :: settled < seen ->
    atomic {
      assert(reply[settled + 1] == owner[settled + 1]);
      settled++;
      settle(owner[settled], DONE)
    }
  :: else -> break
  od
}

// scheduler::lose_started: the one element that was claimed and is not published fails, or is to be run again.
inline lose_started() {
  seen = claimed;
  atomic {
    if
    :: seen > settled && last > settled ->
      element = owner[settled + 1];
      charged[element]++;
#ifdef REQUEUE_STARTED
      skip
#else
      settled++;
      if
      :: tries[element] < RETRIES ->
#ifndef RETRY_UNCOUNTED
        tries[element]++;
#endif
        queue !! element
      :: else -> settle(element, FAILED)
      fi
#endif
    :: else
    fi
  }
}

// task_table::abandon_posted: what had not started goes back to the head of the queue.
inline abandon_posted() {
  atomic {
    limit = settled;
    do
    :: last > settled ->
#ifndef REQUEUE_NOTHING
      queue !! owner[last];
#endif
      last--
    :: else -> break
    od
  }
}

active proctype parent() {
  byte seen, element, gone;
  byte tries[T + 1];
  atomic {
    element = 1;
    do
    :: element <= T -> queue ! element; element++
    :: else -> break
    od
  };
  spawn();
  do
  :: ended == T -> break
  :: atomic {
      ended < T && ready && len(queue) > 0 && last - settled < ROOM ->
      queue ? element;
      owner[last + 1] = element
    };
#ifdef EARLY_LIMIT
    limit = last + 1;
#endif
    slot[last + 1] = element;
    last++;
    limit = last
  :: ended < T && ready && published > settled -> collect()
  :: news ? gone ->
    assert(gone == generation);
    if
    :: ready ->
#ifdef FAIL_FIRST
      lose_started();
#endif
#ifndef NO_RESCAN
      collect();
#endif
#ifndef FAIL_FIRST
      lose_started();
#endif
      abandon_posted()
    :: else
    fi;
    generation++;
    spawn()
  od;

  // Each element has ended once. It is a success if and only if it was published; it has failed only if it was started
  // and its worker died each time; each death was charged to one element at most; and nothing ran once too often.
  atomic {
    gone = 0;
    element = 1;
    do
    :: element <= T ->
      assert(outcome[element] != 0);
      assert((outcome[element] == DONE) == was_published[element]);
      assert(outcome[element] != FAILED || charged[element] == RETRIES + 1);
      assert(charged[element] <= started[element]);
      assert(ran[element] <= charged[element] + (outcome[element] == DONE) && ran[element] <= RETRIES + 1);
      gone = gone + charged[element];
      element++
    :: else -> break
    od;
    assert(gone <= kills)
  }
}
