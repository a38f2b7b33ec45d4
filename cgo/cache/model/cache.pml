// The owner of the model cache (package cgo/cache), in Promela for spin. tools/check-model runs it, and runs it again
// with planted faults, each of which must be found.
//
// What stands for what:
//
//   Asker      a goroutine that calls Acquire, perhaps ends its context, uses the value, releases it; for ever, or until
//              it likes to stop. The first NESTED of them may acquire a second value under the first lease
//              (Lease.Context).
//   Runner     the goroutines that run an instance's effects: estimate, load, free (effects.go). Each ends some time.
//              A load ends well, badly or for lack of memory, whether its context has ended or not: so one that
//              ignores its context is among them.
//   Admin      Clear, Relieve, Hold and Admit in any order, then perhaps Close (rule.go)
//   Clock      time: some time the patience of everyone in the queue is over; also of what has come back to it
//   acquire, leave, release, loaded, freedNow, clear, relieve, shut, advance, serve, makeRoom, untangle …
//              the owner's methods of those names. Each call is one step (d_step): the mutex.
//              served, coming: what serve returns. after: bits for instances.
//   e[i]       an entry; i is used again when it has left the owner
//   current, queue, loads, occupied, freeing, blocked
//              the owner's fields of those names; used is the ledger's reserved + booked
//   waits[a]   the instance whose waiters a is among; NONE when answered: with a lease (holds[a]) or an error
//   outer[a]   the instance that a holds a lease on while it acquires another
//
// What is left out: sessions, pins, shared components, true sizes (a load takes what was estimated), unreturned memory
// (freed bytes come back), changes of limits, cool-down, the journal and the curve; a third value under two leases, and
// a first lease that is released before the second is there. There is one pool, every key fits in it alone, and what
// takes room is in everyone's way; so there is no choice among places and no pool is lost: the model-based test has both
// (model_places_test.go). Which idle instance goes first is either end of their list (the code: the least
// recently used), and which of those that block each other is answered is the first or last asker (the code: the latest
// to come), so nothing here depends on it.
//
// What is checked:
//
//   safety     the asserts below and in invariants(), after each step; and that nobody is left waiting when nothing
//              more can happen (spin's invalid end states)
//   answered   who waits is answered, if estimates, loads and frees end and those who hold leases release them
//   ends       after shut the owner becomes empty
//
// With CALM, loads do not fail (with RETRIES, key 0's may run out of memory) and nobody but askers and time acts:
// without end, so that only the owner's own rules keep one asker from waiting for ever.
//
// The last two hold under weak fairness: who can go on for ever does go on. Nothing else is assumed; other askers may
// come back without end or stop at any time.

#ifndef ASKERS
#define ASKERS 3
#endif
#ifndef KEYS
#define KEYS 2
#endif
#ifndef LIMIT // instances (Options.MaxEntries)
#define LIMIT 1
#endif
#ifndef BUDGET // of the pool
#define BUDGET LIMIT
#endif
#ifndef BIG // what key 0 takes; the others take 1
#define BIG 1
#endif
#ifndef PATIENT // this many askers never give up
#define PATIENT 1
#endif
#define SIZE(k) (k == 0 -> BIG : 1)

#define INSTANCES (LIMIT + ASKERS) // those that take room, and those that somebody waits for
#define NONE 255

mtype = { Absent, Reserving, Loading, Ready, Leased, Draining, Freeing };

typedef Entry {
  mtype state = Absent;
  byte key;
  bit sized, retried, stopped, drain;
  byte after;          // a set: bit i for instance i
  bit aged;            // has waited for the patience
  byte waiters, leases;
  bit value;           // not in the code: there is a value to free
}

Entry e[INSTANCES];
byte current[KEYS] = NONE;
byte loads[KEYS];
byte queue[ASKERS];
byte queued;           // length of queue
byte occupied, used, freeing;
byte blocked = NONE;
bit closed, refusing;
bit over;              // nobody comes any more
bit young;             // somebody in the queue may not be aged yet
bit newest;            // which end of the idle list goes first, drawn for each step

byte waits[ASKERS] = NONE;
byte holds[ASKERS] = NONE;
byte outer[ASKERS] = NONE;

// Scratch of one step: no part of the state.
hidden byte i, j, n, u, w, x, y, b, at, claims, slots, laterClaims, laterSlots, bits;
hidden byte fits, nested, served, coming;

#define TAKES(i) (e[i].state != Absent && e[i].state != Reserving)
#define LEAVING(i) (e[i].state == Freeing || (e[i].state == Loading && e[i].stopped))
#define FITS(x) (occupied + slots < LIMIT && used + claims + SIZE(e[x].key) <= BUDGET)

// --- Planted faults (tools/check-model), each one place ---

#ifdef FAULT_LOAD_TWICE // a load that was stopped but still runs is not waited for
#define WAITS_FOR_LOAD(x) false
#else
#define WAITS_FOR_LOAD(x) (loads[e[x].key] > 0)
#endif

#if defined(FAULT_NO_PATIENCE) // leases overtake those who wait for room for ever
#define YIELDS(x) false
#elif defined(FAULT_YIELD_LEASED_ONLY) // two residents that are idle in turn
#define YIELDS(x) (e[x].state == Leased)
#else
#define YIELDS(x) (e[x].state == Leased || e[x].state == Ready)
#endif

#ifdef FAULT_JOIN_DRAINING // a lease on what is to be freed
#define LEASABLE(x) (e[x].state == Ready || e[x].state == Leased || e[x].state == Draining)
#else
#define LEASABLE(x) (e[x].state == Ready || e[x].state == Leased)
#endif

#ifdef NO_TIME // Options.Patience is none
#define YOUNG skip
#else
#define YOUNG young = 1
#endif

#ifdef AT_ONCE // a keep-alive of nothing
#define GOES(v) true
#else
#define GOES(v) (e[v].drain)
#endif

#ifdef SIZED // without estimates
#define IS_SIZED 1
#else
#define IS_SIZED 0
#endif

#ifdef FAULT_RETRY_OVERTAKEN // frees that began later count: there might always be one
#define COMES_AFTER(x) (e[x].retried && freeing > 0)
#else
#define COMES_AFTER(x) (e[x].after != 0)
#endif

// What the askers in bits hold.
#define KEEPS(a, i) ((bits & (1 << a)) && outer[a] == i)
#ifdef FAULT_SELF_BLOCKED_ALONE // each asker's own lease only
#define KEPT(i) KEEPS(b, i)
#elif ASKERS == 2
#define KEPT(i) (KEEPS(0, i) || KEEPS(1, i))
#else
#define KEPT(i) (KEEPS(0, i) || KEEPS(1, i) || KEEPS(2, i))
#endif

// An asker that waits for x holds a lease.
#define HOLDER(a, x) (waits[a] == x && outer[a] != NONE)
#ifdef FAULT_NESTED_IN_LINE // they are served in order of arrival
#define NESTS(x) false
#elif ASKERS == 2
#define NESTS(x) (HOLDER(0, x) || HOLDER(1, x))
#else
#define NESTS(x) (HOLDER(0, x) || HOLDER(1, x) || HOLDER(2, x))
#endif

// --- The owner ---

// forget: acquire does not find i any more.
inline forget(f) {
  if
  :: current[e[f].key] == f -> current[e[f].key] = NONE
  :: else
  fi
}

// dequeue takes d out of the queue.
inline dequeue(d) {
  j = 0;
  do
  :: j < queued && queue[j] != d -> j++
  :: else -> break
  od;
  if
  :: j < queued ->
    do
    :: j + 1 < queued -> queue[j] = queue[j + 1]; j++
    :: else -> break
    od;
    queue[j] = 0;
    queued--
  :: else
  fi
}

// end takes v out of the owner; its place can be used again.
inline end(v) {
  forget(v);
  dequeue(v);
  assert(e[v].leases == 0 && e[v].waiters == 0 && !e[v].value);
  if
  :: blocked == v -> blocked = NONE
  :: else
  fi;
  e[v].state = Absent;
  e[v].key = 0; e[v].sized = 0; e[v].retried = 0; e[v].stopped = 0; e[v].drain = 0; e[v].aged = 0; e[v].after = 0
}

// free begins v's free.
inline free(v) {
  forget(v);
#ifndef FAULT_FREE_LEASED
  assert(e[v].leases == 0);
#endif
  e[v].state = Freeing;
  freeing++
}

// fail answers everyone who waits for v with an error.
inline fail(v) {
  forget(v);
  j = 0;
  do
  :: j < ASKERS ->
    if
    :: waits[j] == v -> waits[j] = NONE; e[v].waiters--
    :: else
    fi;
    j++
  :: else -> break
  od
}

// retire takes v out of use: at once, or at the last release.
inline retire(v) {
  if
  :: e[v].state == Reserving || e[v].state == Freeing || e[v].drain -> skip
  :: else ->
#ifndef FAULT_JOIN_DRAINING
    forget(v);
#endif
    if
    :: e[v].state == Ready -> free(v)
#ifdef FAULT_FREE_LEASED
    :: e[v].state == Leased -> free(v)
#endif
    :: else ->
      e[v].drain = 1;
      if
      :: e[v].state == Leased -> e[v].state = Draining
      :: else
      fi
    fi
  fi
}

// weigh says in fits whether v has room when the instances i for which goes holds have left.
inline weigh(v, goes) {
  n = occupied; u = used; i = 0;
  do
  :: i < INSTANCES ->
    if
    :: TAKES(i) && (goes) -> n--; u = u - SIZE(e[i].key)
    :: else
    fi;
    i++
  :: else -> break
  od;
  fits = n + slots < LIMIT && u + claims + SIZE(e[v].key) <= BUDGET
}

// evictOne evicts the idle instance at one end of the list.
inline evictOne() {
  y = NONE; i = 0;
  do
  :: i < INSTANCES ->
    if
    :: e[i].state == Ready && (y == NONE || newest) -> y = i
    :: else
    fi;
    i++
  :: else -> break
  od;
  if
  :: y != NONE -> free(y)
  :: else
  fi
}

// dismiss answers c's wait with an error.
inline dismiss(c) {
  y = waits[c];
  waits[c] = NONE;
  e[y].waiters--;
  if
  :: e[y].waiters == 0 -> end(y)
  :: else
  fi
}

// stuck finds in bits the askers that cannot be served in any order, if each releases its lease only after it was
// served and all other leases are released in time.
inline stuck() {
  bits = 0; b = 0;
  do
  :: b < ASKERS ->
    if
    :: waits[b] != NONE && outer[b] != NONE && e[waits[b]].state == Reserving && e[waits[b]].sized ->
      bits = bits | (1 << b)
    :: else
    fi;
    b++
  :: else -> break
  od;
  b = 0;
  do
  :: b < ASKERS && (bits & (1 << b)) ->
    weigh(waits[b], !KEPT(i));
    if
    :: fits -> bits = bits & ~(1 << b); b = 0
    :: else -> b++
    fi
  :: b < ASKERS && !(bits & (1 << b)) -> b++
  :: else -> break
  od
}

// untangle answers askers until the others can all be served.
inline untangle() {
  do
  :: stuck();
    if
    :: bits == 0 -> break
    :: else
    fi;
    y = NONE; b = 0;
    do
    :: b < ASKERS ->
      if
      :: (bits & (1 << b)) && (y == NONE || newest) -> y = b
      :: else
      fi;
      b++
    :: else -> break
    od;
    b = y;
    dismiss(b)
  od
}

// makeRoom evicts for x, the first of those whose claims are not met, or finds that only busy residents could.
inline makeRoom() {
  weigh(x, LEAVING(i) || e[i].state == Ready);
  coming = fits;
  if
  :: fits ->
    do
    :: weigh(x, LEAVING(i));
      if
      :: fits -> break
      :: else -> evictOne()
      fi
    od
  :: blocked == NONE && !fits -> blocked = x
  :: else
  fi
}

// start begins x's load.
inline start() {
  dequeue(x);
  e[x].state = Loading;
  e[x].aged = 0;
  occupied++;
  used = used + SIZE(e[x].key);
  loads[e[x].key]++
}

// serve does what can be done for x: served, coming, or else it waits for leases.
inline serve() {
  served = 0; coming = 0;
  if
  :: !e[x].sized || WAITS_FOR_LOAD(x) -> served = 1; at++ // it waits for itself; those behind pass
  :: else ->
    if
    :: refusing -> fail(x); end(x); served = 1
    :: else ->
      if
      :: COMES_AFTER(x) -> coming = 1
      :: else ->
        if
        :: FITS(x) -> start(); served = 1
        :: else -> makeRoom()
        fi
      fi
    fi
  fi
}

// advance starts what can start: first what askers that hold leases wait for, both in the order of the queue.
inline advance() {
  claims = 0; slots = 0; blocked = NONE; at = 0; laterClaims = 0; laterSlots = 0;
#ifdef NESTED
  untangle();
  nested = 1; at = 0;
#else
  nested = 0;
#endif
  do
  :: at < queued ->
    x = queue[at];
    if
    :: NESTS(x) != nested -> at++
    :: else ->
      serve();
      if
      :: served
#ifndef FAULT_NESTED_CLAIM
      :: !served && nested && !coming -> // no claim on those like it: they might hold what it waits for
        laterClaims = laterClaims + SIZE(e[x].key); laterSlots++; at++
#endif
      :: else -> claims = claims + SIZE(e[x].key); slots++; at++
      fi
    fi
  :: at >= queued && nested ->
    claims = claims + laterClaims; slots = slots + laterSlots;
    nested = 0; at = 0
  :: else -> break
  od
}

// lease gives a lease on v to asker c.
inline lease(c, v) {
  e[v].state = (e[v].drain -> Draining : Leased);
  e[v].leases++;
  holds[c] = v
}

// acquire is called by asker c for key k.
inline acquire(c, k) {
  if
  :: closed -> skip // ErrClosed
  :: else ->
    x = current[k];
    if
    :: x != NONE && YIELDS(x) && outer[c] == NONE && blocked != NONE && e[blocked].aged ->
      y = blocked; claims = 0; slots = 0;
      weigh(y, LEAVING(i) || e[i].drain || e[i].state == Ready);
      if
      :: !fits -> retire(x); x = NONE
      :: else
      fi
    :: else
    fi;
    if
    :: x != NONE && LEASABLE(x) -> lease(c, x)
    :: else ->
      if
      :: x == NONE ->
        i = 0;
        do
        :: e[i].state != Absent -> i++
        :: else -> break
        od;
        x = i;
        e[x].state = Reserving;
        e[x].key = k;
        e[x].sized = IS_SIZED;
        YOUNG;
        current[k] = x;
        queue[queued] = x;
        queued++
      :: else
      fi;
      e[x].waiters++;
      waits[c] = x;
      advance()
    fi
  fi
}


// release takes back asker c's lease on v.
inline release(v) {
  e[v].leases--;
  if
  :: e[v].leases == 0 && e[v].state != Freeing ->
    if
    :: GOES(v) -> free(v)
    :: else -> e[v].state = Ready
    fi
  :: else
  fi;
#ifndef FAULT_RELEASE_UNSEEN
  advance()
#endif
}

// abandon gives up v, for which nobody waits any more.
inline abandon(v) {
#ifndef FAULT_JOIN_STOPPED
  forget(v);
#endif
  e[v].stopped = 1;
  if
  :: e[v].state == Reserving -> end(v)
  :: else
  fi;
  advance()
}

// leave takes back c's wait. It may have been answered meanwhile.
inline leave(c) {
  w = waits[c];
  if
  :: w != NONE ->
    waits[c] = NONE;
    e[w].waiters--;
    if
    :: e[w].waiters == 0 -> abandon(w)
    :: e[w].waiters > 0 && outer[c] != NONE -> advance()
    :: else
    fi
  :: else ->
    w = holds[c];
    holds[c] = NONE;
#ifndef FAULT_ANSWER_LOST
    if
    :: w != NONE -> release(w)
    :: else
    fi
#endif
  fi
}

// failed ends w, which has no value.
inline failed() {
  assert(!e[w].stopped || e[w].waiters == 0); // a cancel affects nobody else
  fail(w);
  end(w)
}

// unreserve is what every load that fails does first.
inline unreserve() {
  loads[e[w].key]--;
  used = used - SIZE(e[w].key);
  occupied--
}

// loaded ends w's load well.
inline loaded() {
  loads[e[w].key]--;
  e[w].retried = 0; // it does not matter any more
  e[w].value = 1;
  e[w].state = Leased;
  b = 0;
  do
  :: b < ASKERS ->
    if
    :: waits[b] == w ->
      waits[b] = NONE;
      e[w].waiters--;
      lease(b, w)
    :: else
    fi;
    b++
  :: else -> break
  od;
  if
  :: e[w].leases == 0 -> free(w) // everyone left while it was being loaded
  :: else -> e[w].state = (e[w].drain -> Draining : Leased)
  fi
}

// loadRanOut ends w's load for lack of memory: it is tried once more, before all others, when what is idle or being
// freed now has been freed.
inline loadRanOut() {
  unreserve();
  if
  :: !e[w].retried && e[w].waiters > 0 && !closed ->
    e[w].retried = 1;
    e[w].state = Reserving;
    YOUNG;
    j = queued;
    do
    :: j > 0 -> queue[j] = queue[j - 1]; j--
    :: else -> break
    od;
    queue[0] = w;
    queued++;
    clearIdle();
    i = 0;
    do
    :: i < INSTANCES ->
      if
      :: e[i].state == Freeing -> e[w].after = e[w].after | (1 << i)
      :: else
      fi;
      i++
    :: else -> break
    od
  :: else -> failed()
  fi
}

inline clearIdle() {
  do
  :: evictOne();
    if
    :: y == NONE -> break
    :: else
    fi
  od
}

inline freedNow() {
  assert(e[w].value); // it is freed once
  e[w].value = 0;
  used = used - SIZE(e[w].key);
  occupied--;
  freeing--;
  i = 0;
  do
  :: i < INSTANCES -> e[i].after = e[i].after & ~(1 << w); i++
  :: else -> break
  od;
  end(w)
}

// clear takes everything out of use.
inline clear() {
  w = 0;
  do
  :: w < INSTANCES ->
    if
    :: TAKES(w) -> retire(w)
    :: else
    fi;
    w++
  :: else -> break
  od;
  advance()
}

// relieve evicts an idle instance.
inline relieve() {
  evictOne();
  advance()
}

inline shut() {
  w = 0;
  do
  :: w < INSTANCES ->
    if
    :: e[w].state == Absent -> skip
    :: e[w].state == Reserving -> fail(w); end(w)
    :: e[w].state == Loading -> e[w].stopped = 1; fail(w)
    :: else -> retire(w)
    fi;
    w++
  :: else -> break
  od;
  closed = 1
}

// invariants are recounted after each step.
inline invariants() {
  n = 0; u = 0; b = 0; slots = 0; bits = 0;
  w = 0;
  do
  :: w < INSTANCES ->
    if
    :: TAKES(w) -> n++; u = u + SIZE(e[w].key)
    :: else
    fi;
    if
    :: e[w].state == Freeing -> b++
    :: else
    fi;
    x = 0; y = 0; j = 0;
    do
    :: j < ASKERS ->
      x = x + (holds[j] == w -> 1 : 0) + (outer[j] == w -> 1 : 0);
      y = y + (waits[j] == w -> 1 : 0);
      j++
    :: else -> break
    od;
    assert(e[w].leases == x && e[w].waiters == y); // no lease and no waiter is lost
    assert(x == 0 || ((e[w].state == Leased || e[w].state == Draining) && e[w].value)); // no leased value is freed
    assert(y == 0 || e[w].state == Reserving || e[w].state == Loading);
    assert(e[w].state != Reserving || y > 0);
    assert(e[w].state == Reserving || e[w].state == Loading || e[w].state == Absent || e[w].value);
    assert(e[w].state != Ready || (!e[w].drain && current[e[w].key] == w));
    assert(e[w].state != Leased || (x > 0 && !e[w].drain && current[e[w].key] == w));
    assert(e[w].state != Draining || (x > 0 && e[w].drain && current[e[w].key] != w));
    assert(e[w].after == 0 || (e[w].state == Reserving && e[w].retried));
    bits = bits | e[w].after;
    slots = slots + (e[w].state == Reserving -> 1 : 0);
    w++
  :: else -> break
  od;
  assert(n == occupied && u == used && b == freeing && slots == queued); // the books are exact
  assert(n <= LIMIT && u <= BUDGET);
  w = 0;
  do
  :: w < INSTANCES -> assert(!(bits & (1 << w)) || e[w].state == Freeing); w++ // nobody waits for what has left
  :: else -> break
  od;
  w = 0;
  do
  :: w < KEYS ->
    x = 0; j = 0;
    do
    :: j < INSTANCES ->
      x = x + (e[j].state == Loading && e[j].key == w -> 1 : 0);
      j++
    :: else -> break
    od;
    assert(x == loads[w] && x <= 1); // one load per key
    w++
  :: else -> break
  od;
  assert(blocked == NONE || e[blocked].state == Reserving)
}

#define EMPTY (occupied == 0 && queued == 0)

// draw picks which end of the idle list goes first in the next call.
inline draw() {
  if
  :: newest = 0
#if LIMIT > 1
  :: newest = 1
#endif
  fi
}

// --- Who calls it ---

// draw picks what the environment decides about an acquire.
inline drawKey() {
#ifdef OWN_KEY
  k = _pid;
#else
  if
  :: k = 0
  :: k = 1
#if KEYS > 2
  :: k = 2
#endif
#if KEYS > 3
  :: k = 3
#endif
  fi
#endif
}

// CALL is one call of the owner once that holds.
#define CALL(when, what) atomic { when -> draw(); d_step { what; invariants(); newest = 0 } }

#define RELEASE(lease) w = lease; lease = NONE; release(w)

// wait waits for the answer, or until the context ends.
inline wait() {
  if
  :: waits[_pid] == NONE
  :: CALL(_pid >= PATIENT, leave(_pid))
  fi
}

active [ASKERS] proctype Asker() {
  byte k;
  do
  :: atomic { !over -> drawKey(); draw(); d_step { acquire(_pid, k); k = 0; invariants(); newest = 0 } };
    wait();
    if
    :: holds[_pid] == NONE
    :: CALL(holds[_pid] != NONE, RELEASE(holds[_pid]))
#ifdef NESTED
    :: atomic {
        holds[_pid] != NONE && _pid < NESTED -> drawKey(); draw();
        d_step { outer[_pid] = holds[_pid]; holds[_pid] = NONE; acquire(_pid, k); k = 0; invariants(); newest = 0 }
      };
      wait();
      if
      :: holds[_pid] == NONE
      :: CALL(holds[_pid] != NONE, RELEASE(holds[_pid]))
      fi;
      CALL(true, RELEASE(outer[_pid]))
#endif
    fi
  :: over -> break
  od
}

#define ME (_pid - ASKERS)

#define REPORTED(when, n) :: when -> report = n

active [INSTANCES] proctype Runner() {
  byte report;
endless:
  do
  :: atomic {
      if
      REPORTED(e[ME].state == Reserving && !e[ME].sized, 1)
      REPORTED(e[ME].state == Reserving && !e[ME].sized, 2)
      REPORTED(e[ME].state == Loading, 3)
#ifndef CALM
      REPORTED(e[ME].state == Loading, 4)
      REPORTED(e[ME].state == Loading, 5)
#elif defined(RETRIES)
      REPORTED(e[ME].state == Loading && e[ME].key == 0, 5)
#endif
      REPORTED(e[ME].state == Freeing, 6)
      fi;
      draw();
      d_step {
        w = ME;
        if
        :: report == 1 -> e[w].sized = 1
        :: report == 2 -> failed()
        :: report == 3 -> loaded()
        :: report == 4 -> unreserve(); failed()
        :: report == 5 -> loadRanOut()
        :: report == 6 -> freedNow()
        fi;
        report = 0;
        advance(); // as every report ends
        invariants();
        newest = 0
      }
    }
  od
}

#ifndef NO_TIME
active proctype Clock() {
endless:
  do
  :: d_step { young ->
      i = 0;
      do
      :: i < INSTANCES ->
        if
        :: e[i].state == Reserving -> e[i].aged = 1
        :: else
        fi;
        i++
      :: else -> break
      od;
      young = 0 }
  od
}
#endif

#ifndef CALM
active proctype Admin() {
  do
#ifndef NO_CLEAR
  :: CALL(true, clear())
#endif
  :: CALL(true, relieve())
#ifdef HOLD
  :: CALL(true, refusing = !refusing; advance())
#endif
  :: CALL(true, shut(); over = 1); break
  :: over = 1; break
  od
}
#endif

#ifdef ANSWERED // 1 for the first asker …
ltl answered { [] (waits[ANSWERED - 1] != NONE -> <> (waits[ANSWERED - 1] == NONE)) }
#endif
#ifdef ENDS
ltl ends { [] (closed -> <> EMPTY) }
#endif
