// SPDX-License-Identifier: BSL-1.0
// Workers killed, reaped and replaced: who may be killed by an order, whose end a piece of news is about, and when a
// lane may be used again. The zygote takes orders one after the other; a decision to kill and the order may be apart; a
// worker that has been told to die may live on for any time, and go on running until the order has got to it. When its
// end is not confirmed in time, its lane is put into quarantine and the replacement gets another one. Mirrors zygote
// (obey, spawn, reap), crew (spawn, kill, ended), scheduler (ended, lose_started) and forked_workers.
//
// bug KILL_BY_LANE: the zygote kills whoever is on the lane, whatever generation the order names
// bug GENERATION_KEPT: a replacement has the generation of its predecessor
// bug PID_KEPT: the zygote does not forget the number of a process that it has reaped
// bug NEWS_BY_INDEX: news of an end is taken for that of the worker that is there now
// bug REUSE_EARLY: the lane is used again when the kill is ordered, before the end is confirmed
// bug LATE_REPLY_COUNTS: what a worker in quarantine has published is settled when its end is confirmed
// bug LIMIT_KEPT: what had not started goes elsewhere, but the limit of the lane in quarantine is not lowered
// bug CLAIM_UNSEEN: it is lowered, but what the worker has claimed meanwhile goes elsewhere, too

#ifndef T
#define T 4  // elements
#endif
#ifndef K
#define K 3  // deaths
#endif
#define ROOM 2   // elements that are posted at a time
#define LANES 2

// ---- the lanes ----------------------------------------------------------------------------------------------------
byte limit[LANES], claimed[LANES], published[LANES];
bool ready[LANES];
#define OWNER(lane, number) owner[(lane) * (T + 1) + (number)]
byte owner[LANES * (T + 1)];  // which element was posted under a number

// ---- processes ----------------------------------------------------------------------------------------------------
bool killed[LANES];   // the signal is on its way to the process on the lane
bool process[LANES];  // there is one, which may write the lane
bool zombie[LANES];
byte kills;

#define SPAWN 1
#define KILL 2
chan orders = [2] of { byte, byte, byte, byte };  // to the zygote: what, the lane, the generation (and who that is)
chan news = [2] of { byte, byte };          // from it, of an end: the lane, the generation

// ---- what an observer knows ---------------------------------------------------------------------------------------
bool ran[T + 1], through[T + 1];
byte ended;

proctype worker(byte lane) {
  byte number;
  {
    ready[lane] = true;
end_idle:
    do
    :: limit[lane] > published[lane] ->
      d_step { number = published[lane] + 1; claimed[lane] = number };
      if
      :: limit[lane] < number -> d_step { claimed[lane] = number - 1; number = 0 }
      :: d_step {
          limit[lane] >= number ->
          assert(!ran[OWNER(lane, number)]);
          ran[OWNER(lane, number)] = true
        };
        d_step { published[lane] = number; number = 0 }
      fi
    od
  } unless { killed[lane] };
  d_step { killed[lane] = false; process[lane] = false; zombie[lane] = true; number = 0 }
}

active proctype zygote() {
  byte lane, generation, what, who;
  bool known[LANES];
  byte generations[LANES], lives[LANES];
end:
  do
  :: atomic {
      orders ? what, lane, generation, who ->
      if
      :: what == SPAWN ->
        assert(!known[lane]);
        known[lane] = true;
        generations[lane] = generation;
        lives[lane] = who;
        process[lane] = true;
        run worker(lane)
      :: what == KILL ->
        if
#ifdef KILL_BY_LANE
        :: known[lane] ->
#else
        :: known[lane] && generations[lane] == generation ->
#endif
          assert(process[lane] || zombie[lane]);  // it is no stranger's number
          assert(lives[lane] == who);               // and no innocent's
          killed[lane] = process[lane]
        :: else
        fi
      fi;
      what = 0;
      lane = 0;
      generation = 0;
      who = 0
    }
  :: atomic {
      zombie[0] || zombie[1] ->
      lane = (zombie[0] -> 0 : 1);
      zombie[lane] = false;
#ifndef PID_KEPT
      known[lane] = false;
#endif
      news ! lane, generations[lane];
      lane = 0
    }
  od
}

// ---- the parent ---------------------------------------------------------------------------------------------------
bool waits[T + 1];  // elements in the queue
byte waiting;       // and how many they are
byte settled[LANES], last[LANES];
byte lane, generation;     // of the worker that is there
byte life;                 // the how manieth it is
bool doomed;               // it is to be killed
bool quarantine[LANES];

// The OOM killer, an operator, the task itself.
active proctype outsider() {
end:
  do
  :: atomic { kills < K && process[lane] && !killed[lane] -> kills++; killed[lane] = true }
  od
}

// Decides that the worker is to die, and orders it some time later.
active proctype patience() {
  byte where, whom, who;
end:
  do
  :: atomic {
      kills < K && !doomed && process[lane] ->
      kills++;
      doomed = true;
      where = lane;
      whom = generation;
      who = life
    };
    atomic { orders ! KILL, where, whom, who; where = 0; whom = 0; who = 0 }
  od
}

inline settle(e) {
  assert(!through[e]);
  through[e] = true;
  ended++
}

inline spawn() {
  atomic {
    assert(!process[lane]);  // nobody else writes the lane
    claimed[lane] = 0;
    published[lane] = 0;
    ready[lane] = false;
    // Numbers begin anew here, and go on in lane.pml: only their order matters.
    settled[lane] = 0;
    last[lane] = 0;
    limit[lane] = 0;
#ifndef GENERATION_KEPT
    generation++;
#endif
    doomed = false;
    life++;
    orders ! SPAWN, lane, generation, life
  }
}

inline collect(on) {
    seen = published[on];
    assert(settled[on] <= seen && seen <= last[on]);
    do
    :: settled[on] < seen ->
      settled[on]++;
      assert(ran[OWNER(on, settled[on])]);
      settle(OWNER(on, settled[on]));
      OWNER(on, settled[on]) = 0
    :: else -> break
    od;
    seen = 0
}

// Posts what waits, as far as there is room. That something is posted at any other time is in take_back.pml.
inline dispatch() {
  element = 1;
  do
  :: waiting > 0 && last[lane] - settled[lane] < ROOM ->
    do
    :: !waits[element] -> element++
    :: else -> break
    od;
    waits[element] = false;
    waiting--;
    last[lane]++;
    OWNER(lane, last[lane]) = element
  :: else -> break
  od;
  limit[lane] = last[lane];
  element = 0
}

// What is posted above `keep` waits again.
inline cut(on, keep) {
  do
  :: last[on] > keep ->
    waits[OWNER(on, last[on])] = true;
    waiting++;
    OWNER(on, last[on]) = 0;
    last[on]--
  :: else -> break
  od
}

// The element that was claimed and is not published fails.
inline lose_started(on) {
  if
  :: claimed[on] > settled[on] && last[on] > settled[on] ->
    settled[on]++;
    settle(OWNER(on, settled[on]));
    ran[OWNER(on, settled[on])] = true;  // it never will
    OWNER(on, settled[on]) = 0
  :: else
  fi
}

active proctype parent() {
  byte element, seen, where, whom;
  atomic {
    element = 1;
    do
    :: element <= T -> waits[element] = true; element++
    :: else -> break
    od;
    waiting = T;
    element = 0
  };
  spawn();
  do
  :: ended == T -> break
  :: atomic { ended < T && ready[lane] && last[lane] == settled[lane] && waiting > 0 -> dispatch() }
  :: ended < T && ready[lane] && published[lane] > settled[lane] -> atomic { collect(lane); dispatch() }
  :: news ? where, whom ->
    if
#ifdef NEWS_BY_INDEX
    :: true ->
#else
    :: where == lane && whom == generation ->
#endif
      if
      :: ready[lane] ->
        atomic { collect(lane) };
        atomic { lose_started(lane); limit[lane] = settled[lane]; cut(lane, settled[lane]) }
      :: else
      fi;
      spawn()
#ifndef NEWS_BY_INDEX
    :: else ->
      assert(quarantine[where]);
#ifdef LATE_REPLY_COUNTS
      atomic { collect(where) };
#endif
      d_step {
        quarantine[where] = false;
        claimed[where] = 0;
        published[where] = 0;
        limit[where] = 0;
        settled[where] = 0;
        last[where] = 0;
        ready[where] = false;
        seen = 1;
        do
        :: seen <= T -> OWNER(where, seen) = 0; seen++
        :: else -> break
        od;
        seen = 0
      }
#endif
    fi;
    d_step { where = 0; whom = 0 }
#ifdef REUSE_EARLY
  :: atomic { ended < T && doomed && ready[lane] -> limit[lane] = settled[lane] };
    atomic { collect(lane) };
    atomic { lose_started(lane); cut(lane, settled[lane]) };
    spawn()
#else
  // 200 ms have passed since the kill was ordered.
  :: ended < T && doomed && ready[lane] && !quarantine[1 - lane] ->
    do
    :: atomic { collect(lane) };
#ifndef LIMIT_KEPT
      limit[lane] = (claimed[lane] > settled[lane] && last[lane] > settled[lane] -> settled[lane] + 1 : settled[lane]);
#endif
      // take_back: only what the worker cannot have claimed
      if
#ifdef CLAIM_UNSEEN
      :: atomic { true ->
#else
      :: atomic { claimed[lane] <= limit[lane] ->
#endif
#ifdef LIMIT_KEPT
          seen = settled[lane] + (claimed[lane] > settled[lane] -> 1 : 0);
#else
          seen = limit[lane];
#endif
          cut(lane, seen)
        };
        break
#ifndef CLAIM_UNSEEN
      :: claimed[lane] > limit[lane] -> limit[lane] = last[lane]
#endif
      fi
    od;
    atomic {
      // What it may run yet fails, and what becomes of it there is not looked at any more.
      do
      :: settled[lane] < last[lane] ->
        settled[lane]++;
        settle(OWNER(lane, settled[lane]))
      :: else -> break
      od;
      seen = 0;
      quarantine[lane] = true;
      lane = 1 - lane
    };
    spawn()
#endif
  od
}
