// SPDX-License-Identifier: BSL-1.0
// Ending what runs: an element that is cancelled, or out of time, is ended by the death of its worker, while the worker
// may publish it at any time, go on to the next, or die of something else. Two threads of the parent: one collects, one
// condemns; what runs under the scheduler's mutex is one step, but for what the worker writes and reads meanwhile.
// Mirrors watchdog (cancel, condemn, tend_sentence), task_table (recall, take_started), crew (takes, kill,
// lift_sentence), lane_port (running, take_back) and scheduler (collect, ended).
//
// Never is another element hit by the kill; what was said to be cancelled ends so, whatever the worker does; and what
// was published before a death counts, unless it was overruled.
//
// nightly SENTENCES=3: one more sentence
//
// bug LIMIT_KEPT: the limit is not lowered to what is to be ended
// bug FAILURE_IGNORED: the kill is sent although the worker had got on to the next element
// bug PUBLISHED_UNSEEN: an element that was started is condemned, whether it is published already or not
// bug STILL_TAKES: a worker under sentence is given more
// bug KILLED_TAKES: a worker to which a kill is on its way is given more, once the condemned element was published
// bug TIMER_KEPT: when the grace is over the worker is killed, though the element has returned
// bug KILL_BY_INDEX: the kill does not name the generation that it is meant for
// bug RESULT_WINS: a result that was overruled counts
// bug SENTENCE_FORGOTTEN: the death of a condemned element's worker counts as a crash
// bug SENTENCE_READ_EARLY: the sentence is looked at earlier than the number that is published

#ifndef T
#define T 4  // elements
#endif
#ifndef K
#define K 3  // deaths of something else
#endif
#ifndef SENTENCES
#define SENTENCES 2
#endif
#define ROOM 2  // elements that are posted at a time

// ---- the lane -----------------------------------------------------------------------------------------------------
byte limit, claimed, published;
bool ready;

// ---- processes ----------------------------------------------------------------------------------------------------
bool killed, process, reaped;
byte orders, ordered;  // a kill is on its way, and whom it is meant for

// ---- the parent's private memory ----------------------------------------------------------------------------------
bool mutex;
byte owner[T + 1];  // which element was posted under a number
bool waits[T + 1];
byte waiting, last, settled, ended;
byte generation;
byte under;            // the sentence: the number of the element; 0: there is none
bool overrules, grace;  // also if it returns after all; it may still return
bool is_killed;        // a kill was sent to this worker

// ---- what an observer knows ---------------------------------------------------------------------------------------
byte kills, sentences, crashes;
byte runs;             // the element that the worker runs; 0: none
bool ran[T + 1], through[T + 1], promised[T + 1], condemned[T + 1];

#define step(statement) if :: statement :: die fi
#define die atomic { kills < K && !killed -> kills++; crashes++; killed = true }

proctype worker() {
  byte number;
  {
    step(ready = true);
end_idle:
    do
    :: die
    :: limit > published ->
      step(d_step { number = published + 1; claimed = number });
      if
      :: die
      :: limit < number -> step(d_step { claimed = number - 1; number = 0 })
      :: d_step {
          limit >= number ->
          assert(!ran[owner[number]]);
          ran[owner[number]] = true;
          runs = owner[number]
        };
        step(d_step { published = number; number = 0; runs = 0 })
      fi
    od
  } unless { killed };
  d_step { killed = false; process = false; reaped = true; runs = 0; number = 0 }
}

active proctype zygote() {
end:
  do
  :: atomic {
      orders > 0 ->
      orders--;
      if
#ifdef KILL_BY_INDEX
      :: process && !killed ->
#else
      :: process && !killed && ordered == generation ->
#endif
        assert(runs == 0 || condemned[runs]);  // nothing else is hit
        killed = true
      :: else
      fi;
      ordered = 0
    }
  od
}

inline settle(number) {
  assert(!through[owner[number]]);
  through[owner[number]] = true;
  ran[owner[number]] = true;  // and must not any more
  ended++;
  owner[number] = 0
}

inline cut(keep) {
  do
  :: last > keep -> waits[owner[last]] = true; waiting++; owner[last] = 0; last--
  :: else -> break
  od
}

#ifdef STILL_TAKES
#define takes (ready && !is_killed)
#else
#ifdef KILLED_TAKES
#define takes (ready && under == 0)
#else
#define takes (ready && under == 0 && !is_killed)
#endif
#endif

// task_table::dispatch
inline dispatch() {
  if
  :: takes && waiting > 0 && last - settled < ROOM ->
    element = 1;
    do
    :: waiting > 0 && last - settled < ROOM ->
      do
      :: !waits[element] -> element++
      :: else -> break
      od;
      waits[element] = false;
      waiting--;
      last++;
      owner[last] = element
    :: else -> break
    od;
    limit = last;
    element = 0
  :: else
  fi
}

inline kill() {
  is_killed = true;
  grace = false;
  orders++;
  ordered = generation
}

// ---- the thread that cancels, or finds that time is up ------------------------------------------------------------

#define still_runs(number) (claimed == number && published < number)

active proctype condemner() {
  byte number, element;
  bool cancels;
end:
  do
  :: atomic {
      sentences < SENTENCES && !mutex && ready && under == 0 && !is_killed && last > settled ->
      // lane_port::running: claimed, then published
      number = claimed;
      if
      :: number > settled && number <= last -> mutex = true
      :: else -> number = 0; goto end
      fi
    };
    if
#ifdef PUBLISHED_UNSEEN
    :: true ->
#else
    :: atomic { published >= number -> mutex = false; number = 0 }
    :: published < number ->
#endif
      sentences++;
#ifndef LIMIT_KEPT
      // lane_port::take_back
      if
      :: number < last ->
        limit = number;
        if
        :: atomic { claimed <= number -> cut(number) }
        :: claimed > number ->
          limit = last;
#ifndef FAILURE_IGNORED
          number = 0
#endif
        fi
      :: else
      fi;
#endif
      atomic {
        if
#if defined(PUBLISHED_UNSEEN) || defined(LIMIT_KEPT) || defined(FAILURE_IGNORED)
        :: number != 0 ->
#else
        :: number != 0 && still_runs(number) ->
#endif
          under = number;
          condemned[owner[number]] = true;
          if
          :: cancels = true
          :: cancels = false
          fi;
          if
          :: grace = true   // it is asked to stop, and killed some time later
          :: grace = false
          fi;
          overrules = cancels || grace;
          promised[owner[number]] = overrules;
          cancels = false;
          if
          :: !grace -> kill()
          :: else
          fi
        :: else
        fi;
        dispatch();
        mutex = false;
        number = 0
      }
    fi
  // tend_sentence
#ifdef TIMER_KEPT
  :: atomic { !mutex && grace && !is_killed -> kill() }
#else
  :: atomic {
      !mutex && under != 0 && grace ->
      grace = false;
      if
      :: still_runs(under) -> kill()
      :: else
      fi
    }
#endif
  od
}

// ---- the thread that collects -------------------------------------------------------------------------------------

inline spawn() {
  ready = false;
  under = 0;
  overrules = false;
  grace = false;
  is_killed = false;
  claimed = 0;
  published = 0;
  settled = 0;  // numbers go on in lane.pml
  last = 0;
  limit = 0;
  generation++;
  process = true;
  run worker()
}

inline collect() {
#ifdef SENTENCE_READ_EARLY
  atomic { !mutex -> overruled = (overrules -> under : 0) };
  atomic { !mutex -> seen = published };
#else
  atomic { !mutex -> seen = published; overruled = (overrules -> under : 0) };
#endif
  assert(settled <= seen && seen <= last);
  number = settled + 1;
  do
  :: atomic {
      number <= seen ->
      assert(ran[owner[number]]);
#ifdef RESULT_WINS
      assert(!promised[owner[number]]);
#else
      assert(promised[owner[number]] == (number == overruled));  // else it ends in its value
#endif
      settle(number);
      number++
    }
  :: else -> break
  od;
  atomic {
    !mutex ->
    settled = seen;
    if
    :: under != 0 && under <= settled ->
      under = 0;
      overrules = false;
#ifndef TIMER_KEPT
      grace = false
#endif
    :: else
    fi;
    dispatch();
    seen = 0;
    number = 0;
    overruled = 0
  }
}

active proctype collector() {
  byte element, seen, number, overruled;
  atomic {
    element = 1;
    do
    :: element <= T -> waits[element] = true; element++
    :: else -> break
    od;
    waiting = T;
    element = 0;
    spawn()
  };
  do
  :: ended == T -> break
  :: atomic { ended < T && !mutex && takes && waiting > 0 && last == settled -> dispatch() }
  :: ended < T && ready && published > settled -> collect()
  :: atomic { reaped -> reaped = false };
    if
    :: ready ->
      collect();
      atomic {
        !mutex ->
        // task_table::take_started
        if
        :: last > settled && (claimed > settled || under != 0) ->
          settled++;
#ifdef SENTENCE_FORGOTTEN
          under = 0;
#endif
          if
          :: settled == under -> assert(condemned[owner[settled]])
          :: else ->
            assert(crashes > 0 && !promised[owner[settled]]);
            crashes--
          fi;
          settle(settled)
        :: else
        fi;
        cut(settled);
        spawn()
      }
    :: else -> atomic { !mutex -> spawn() }
    fi
  od
}
