package cache

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the predecessor and the peers get wrong, and the test that shows that this cache does not. "Model" is
// TestOwnerAgreesWithTheModel. The predecessor's defects that are not the cache's (5 pressure, 7 routes, 8, 9, 11, 12,
// 14, 15 readiness, 16, 19) are tested where they belong: cgo/memwatch, server and the runtimes.
//
//	predecessor 1   two misses load twice                     TestManyAcquirersShareOneLoad
//	predecessor 2   evicts what is in use                     TestLeasedValueIsNotEvicted
//	predecessor 3   measures after the load                   TestRoomIsReservedBeforeTheLoadBegins
//	predecessor 4   n // 2 of one model is none               TestReliefOfASingleValueEvictsIt
//	predecessor 6   a demotion is charged to no pool          TestLedgerEqualsARecount, model (pools)
//	predecessor 10  health freezes while models work          TestSnapshotAndPingDoNotWaitForALoad
//	predecessor 13  clear frees what is in use                TestClearedValueIsFreedAtItsLastRelease
//	predecessor 17  the mock is another cache                 TestLastWaitersCancelStopsTheLoad and all others: one type
//	predecessor 18  no drain                                  TestCloseAnswersWaitersAndWaitsForLeases
//	ollama 17408    a revived victim hangs the queue          TestVictimThatIsAskedForAgainHangsNobody
//	ollama 14407    a busy model deadlocks the scheduler      TestBusyModelHoldsUpNoOther
//	ollama 8398     one client's cancel kills the load        TestOneWaitersCancelAffectsNobodyElse
//	ollama 5724, 15126  loaded models wait for a load         TestResidentValueOvertakesALoad
//	ollama 7606, 7779, 2235, LocalAI 7958  memory not back    TestUnreturnedMemoryIsKeptOutOfTheBudgetUntilItIsBack
//	ollama 16739    a second limit defeats the first          TestOnlyItsContextEndsAWait
//	ollama 4443     a deleted model stays                     TestRemoveTakesOneKey
//	ollama 9168, modelmesh 312, 82  one dimension             TestOnePoolsQueueHoldsUpNoOtherPool
//	llama-swap 946  an unload races a request                 TestRequestInTheStepOfAnExpiryIsServed
//	llama-swap 727  nobody can stop a load                    TestLastWaitersCancelStopsTheLoad
//	llama.cpp 21678 kills a model that works                  TestLeasedValueIsNotEvicted
//	llama.cpp 28443 of two new models one never loads         TestTwoNewModelsAtOnceAreBothServed
//	llama.cpp 28829 health stays green                        TestPingFailsWhileTheOwnerIsStuck
//	llama.cpp 25326, 21231, 19631, LocalAI 7269, 6068  no room made   TestBytesEvictWhereTheCountWouldNot
//	llama.cpp 25528 evicts what is being loaded               TestLoadingValueIsNoVictim
//	llama.cpp 18373 all are pinned                            TestTooManyPinsAreRefusedWhenTheyAreMade
//	llama.cpp 23668 two that fit alone                        TestBytesEvictWhereTheCountWouldNot
//	llama.cpp 28998 state across evictions                    TestForgottenResidentKeepsItsBytesOnTheCurve
//	LocalAI 5328, 6484, 6994  deadlocks on the lock           TestNestedAsksThatWaitForEachOtherEndWithTheLatest, model
//	LocalAI 10719   retry storm                               TestRetryStormOnABrokenModelLoadsItOncePerCoolDown
//	LocalAI 7503    one failure blocks all                    TestFailedLoadGivesItsRoomToTheNext
//	Triton 4764, 4966, 2023, 3320, 6836, 1082  memory grows   TestCyclesOfLoadAndEvictionLeaveTheBooksEmpty
//	Triton 2659, 3565   no eviction                           TestLeastRecentlyUsedIdleValueIsEvicted
//	Triton 6230     wrong answers during shutdown             TestCloseAnswersWaitersAndWaitsForLeases
//	ray 65825       loads are serialised                      TestLoadsOfDifferentKeysRunAtTheSameTime
//	speaches 638, 672   a refused unload orphans              TestRefusedClearLosesNothing

func TestRoomIsReservedBeforeTheLoadBegins(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10)}, map[string]Footprint{"a": own(6)})
	r.ask("a", Ask{})
	r.estimate("a")
	assert.Equal(t, []string{"a:loading"}, r.states())
	assert.Equal(t, [3]int64{0, 6, 0}, r.books())
}

func TestReliefOfASingleValueEvictsIt(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10)}, map[string]Footprint{"a": own(6)})
	r.release(r.resident("a", Ask{}))
	done, _ := r.o.relieve(r.now, 0, 1)
	assert.Equal(t, []string{"a"}, done.Freed)
}

func TestSnapshotAndPingDoNotWaitForALoad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		gate := s.hold("a")
		c := s.cache(Options[*thing]{})
		a := acquire(c, "a")
		assert.Equal(t, []string{"a:loading"}, keys(c.Snapshot()))
		require.NoError(t, c.Ping(t.Context()))
		gate <- nil
		a.give(t).Release()
		closed(t, c)
	})
}

func TestVictimThatIsAskedForAgainHangsNobody(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 1}, nil)
	r.release(r.resident("victim", Ask{}))
	next := r.ask("next", Ask{})
	r.estimate("next")
	again := r.ask("victim", Ask{}) // its free has begun
	r.settle()
	r.release(r.served(next))
	r.settle()
	r.release(r.served(again))
}

func TestBusyModelHoldsUpNoOther(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 2}, nil)
	r.resident("busy", Ask{})
	r.o.clear(r.now, func(string) bool { return true }, false, ReasonConfig)
	r.release(r.resident("other", Ask{}))
	r.release(r.resident("third", Ask{}))
}

func TestResidentValueOvertakesALoad(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 2}, nil)
	first := r.resident("resident", Ask{})
	r.ask("loading", Ask{})
	r.estimate("loading")
	r.ask("waiting", Ask{})
	r.estimate("waiting")
	r.release(r.served(r.ask("resident", Ask{})), first)
}

func TestOnlyItsContextEndsAWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		gate := s.hold("slow")
		c := s.cache(Options[*thing]{Patience: time.Second, KeepAlive: time.Second})
		slow := acquire(c, "slow")
		time.Sleep(100 * time.Hour)
		gate <- nil
		slow.give(t).Release()
		closed(t, c)
	})
}

func TestRequestInTheStepOfAnExpiryIsServed(t *testing.T) {
	for _, requestFirst := range []bool{false, true} {
		r := newRig(t, Options[int]{MaxEntries: 1, KeepAlive: time.Minute}, nil)
		r.release(r.resident("a", Ask{}))
		r.now = r.now.Add(time.Minute)
		var q *request
		if requestFirst {
			q = r.ask("a", Ask{})
		}
		r.o.expire(r.now)
		if !requestFirst {
			q = r.ask("a", Ask{})
		}
		r.settle()
		r.release(r.served(q))
		r.release(r.resident("b", Ask{}))
	}
}

func TestTwoNewModelsAtOnceAreBothServed(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 1}, nil)
	a, b := r.ask("a", Ask{}), r.ask("b", Ask{})
	r.settle()
	r.release(r.served(a))
	r.settle()
	r.release(r.served(b))
}

func TestBytesEvictWhereTheCountWouldNot(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10), MaxEntries: 4}, map[string]Footprint{"a": own(8), "b": own(8)})
	r.release(r.resident("a", Ask{}))
	r.release(r.resident("b", Ask{}))
	assert.Equal(t, []string{"b:ready"}, r.states())
}

func TestLoadingValueIsNoVictim(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 1}, nil)
	first := r.ask("first", Ask{})
	r.estimate("first")
	second := r.ask("second", Ask{})
	r.estimate("second")
	assert.ElementsMatch(t, []string{"first:loading", "second:reserving"}, r.states())
	r.settle()
	r.release(r.served(first))
	r.settle()
	r.served(second)
}

func TestRetryStormOnABrokenModelLoadsItOncePerCoolDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 0)
		loads := 0
		c := s.cache(Options[*thing]{CoolDown: time.Minute, MaxCoolDown: time.Minute,
			Load: func(context.Context, string, int, func(int64, int64)) (*thing, error) {
				loads++
				return nil, errors.New("broken")
			}})
		for range 600 {
			_, err := c.Acquire(t.Context(), "a", Ask{})
			assert.Error(t, err)
			time.Sleep(time.Second)
		}
		assert.Equal(t, 10, loads)
		assert.Empty(t, c.Snapshot().Entries)
		closed(t, c)
	})
}

func TestCyclesOfLoadAndEvictionLeaveTheBooksEmpty(t *testing.T) {
	r := newRig(t, Options[int]{Pools: pool(10), MaxEntries: 1}, map[string]Footprint{})
	for i := range 500 {
		key := fmt.Sprint(i % 3)
		r.sizes[key] = with(own(int64(1+i%5)), "codec", 3)
		r.release(r.resident(key, Ask{}))
	}
	r.o.clear(r.now, func(string) bool { return true }, false, ReasonAdmin)
	r.settle()
	assert.Equal(t, [3]int64{}, r.books())
	assert.Empty(t, r.o.ledger.components)
	assert.Empty(t, r.o.entries)
}

func TestLoadsOfDifferentKeysRunAtTheSameTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		a, b := s.hold("a"), s.hold("b")
		c := s.cache(Options[*thing]{})
		first, second := acquire(c, "a"), acquire(c, "b")
		b <- nil
		second.give(t).Release()
		a <- nil
		first.give(t).Release()
		closed(t, c)
	})
}

func TestRefusedClearLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		c := s.cache(Options[*thing]{})
		used := mustAcquire(t, c, "a")
		assert.Equal(t, []string{"a"}, c.Remove(context.Background(), "a", false).Draining)
		synctest.Wait()
		assert.Equal(t, []string{"a:draining"}, keys(c.Snapshot()), "it is still shown")
		used.Release()
		synctest.Wait()
		assert.Equal(t, []string{"a"}, s.freed)
		closed(t, c)
	})
}
