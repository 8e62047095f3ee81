// SPDX-License-Identifier: BSL-1.0
// A worker whose lane is overwritten by its own task: whatever `claimed` and `published` say, and however often that
// changes, the parent's books stay right: each element ends once, and nothing is settled that is not posted. So no word
// is modelled: each look at one gives any number. Two threads of the parent, one that collects and hears of the death
// that may come at any time, and one that takes back what has not started.
// Mirrors scheduler (collect, ended), reply_batch, lane_port (published, claimed, reading, take_back, take_all, settle)
// and task_table (take_started, abandon_posted).
//
// bug READING_UNHELD: what is being read may be taken back, if the worker now says that it has not started it
// bug CLAIM_UNCLAMPED: a claim is believed that is below what is settled
// bug RANGE_UNCHECKED: a number is believed to be published that was never posted
// bug FETCHED_TWICE: the number that was checked is read again when it is used

#ifndef T
#define T 4  // elements
#endif

bool mutex;
byte owner[T + 2];             // which element was posted under a number; numbers begin anew with each worker
bool waits[T + 1], through[T + 1];
byte last, settled, reading, ended;
bool malformed;

// A look at a word: anything up to one more than could ever be posted.
inline any(value) {
  value = 0;
  do
  :: value <= T -> value++
  :: break
  od
}

inline settle(element) {
  assert(element != 0 && !through[element]);
  through[element] = true;
  ended++
}

inline cut(keep) {
  do
  :: last > keep ->
    assert(owner[last] != 0);
    if
    :: settle(owner[last])  // cancelled
    :: waits[owner[last]] = true
    fi;
    owner[last] = 0;
    last--
  :: else -> break
  od
}

// lane_port::claimed
#ifdef READING_UNHELD
#define lowest settled
#else
#define lowest reading
#endif
inline claimed(value) {
  any(value);
  value = (value > last -> last : value);
#ifndef CLAIM_UNCLAMPED
  value = (value < lowest -> lowest : value)
#endif
}

active proctype taker() {
  byte keep, element;
end:
  do
  :: ended == T -> break
  :: atomic {
      ended < T && !mutex && last > settled ->
      claimed(keep);
      do
      :: keep < last -> keep++
      :: break
      od;
      // Whether the worker has claimed something above is again its own word.
      if
      :: cut(keep)
      :: true
      fi;
      keep = 0
    }
  :: atomic {
      ended < T && !mutex && !malformed && last < T ->
      element = 1;
      do
      :: element <= T && !waits[element] -> element++
      :: else -> break
      od;
      if
      :: element <= T -> waits[element] = false; last++; owner[last] = element
      :: else
      fi;
      element = 0
    }
  od
}

inline collect() {
  atomic {
    !mutex ->
    count = 0;
    if
    :: !malformed && last > settled ->
      any(seen);
#ifndef RANGE_UNCHECKED
      if
      :: seen < settled || seen > last -> malformed = true
      :: else ->
#endif
#ifdef FETCHED_TWICE
        any(seen);
        seen = (seen < settled -> settled : seen);
#endif
        count = (seen > settled -> seen - settled : 0);
        reading = settled + count;
        number = 0;
        do
        :: number < count -> number++; batch[number] = owner[settled + number]
        :: else -> break
        od
#ifndef RANGE_UNCHECKED
      fi
#endif
    :: else
    fi;
    seen = 0;
    number = 0
  };
  do
  :: atomic { number < count -> number++; settle(batch[number]); batch[number] = 0 }
  :: atomic { number < count -> malformed = true; break }  // the reply cannot be
  :: number == count -> break
  od;
  atomic {
    !mutex ->
    do
    :: number > 0 -> number--; settled++; owner[settled] = 0
    :: else -> break
    od;
    assert(settled <= last);
    reading = settled;
    do
    :: count > 0 -> batch[count] = 0; count--
    :: else -> break
    od
  }
}

active proctype collector() {
  byte seen, number, count;
  byte batch[T + 2];
  atomic {
    number = 1;
    do
    :: number <= T -> waits[number] = true; number++
    :: else -> break
    od;
    number = 0
  };
  do
  :: ended == T -> break
  :: ended < T && !malformed && last > settled -> collect()
  :: ended < T ->  // the worker is dead
    collect();
    atomic {
      !mutex ->
      claimed(seen);
      seen = (seen > settled + 1 -> settled + 1 : seen);
      seen = (malformed -> last : seen);
      do
      :: settled < seen -> settled++; settle(owner[settled]); owner[settled] = 0
      :: else -> break
      od;
      reading = settled;
      cut(settled);
      settled = 0;
      last = 0;
      reading = 0;
      malformed = false;
      seen = 0
    }
  od
}
