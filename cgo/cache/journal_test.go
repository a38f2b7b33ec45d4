package cache

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func seqs(events []Event) []uint64 {
	var out []uint64
	for _, e := range events {
		out = append(out, e.Seq)
	}
	return out
}

func TestJournalKeepsTheLatestInOrder(t *testing.T) {
	j := newJournal(3)
	assert.Empty(t, j.since(0))
	for range 7 {
		j.add(Event{Kind: EventLoaded})
	}
	assert.Equal(t, []uint64{5, 6, 7}, seqs(j.since(0)))
	assert.Equal(t, []uint64{7}, seqs(j.since(6)))
	assert.Empty(t, j.since(7))
	assert.Empty(t, j.since(99))
}

func TestListenerHearsWhatFollowsWithoutAGap(t *testing.T) {
	j := newJournal(3)
	j.add(Event{})
	l, kept := j.listen(0)
	j.add(Event{})
	assert.Equal(t, []uint64{1}, seqs(kept))
	assert.EqualValues(t, 2, (<-l.Events()).Seq)
	l.Close()
	l.Close()
	j.add(Event{})
	_, open := <-l.Events()
	assert.False(t, open)
}

func TestSlowListenerSeesTheGap(t *testing.T) {
	j := newJournal(3)
	l, _ := j.listen(0)
	for range listenerBuffer + 5 {
		j.add(Event{})
	}
	for want := range uint64(listenerBuffer) {
		require.Equal(t, want+1, (<-l.Events()).Seq)
	}
	j.add(Event{})
	assert.EqualValues(t, listenerBuffer+6, (<-l.Events()).Seq)
	l.Close()
}

func TestEvictionTellsForWhomAndWhoWasNext(t *testing.T) {
	r := newRig(t, Options[int]{MaxEntries: 2}, nil)
	r.release(r.resident("old", Ask{}))
	r.release(r.resident("next", Ask{}))
	r.resident("new", Ask{Holder: "req-1"})
	for _, e := range r.o.journal.since(0) {
		if e.Kind == EventEvicted {
			assert.Equal(t, Event{Seq: e.Seq, At: r.now, Kind: EventEvicted, Key: "old", Reason: ReasonCapacity, For: "new",
				RunnerUp: "next"}, e)
			return
		}
	}
	t.Fatal("no eviction in the journal")
}

// A mutex that is held stops a bubble's clock, so this one has none.
func TestPingFailsWhileTheOwnerIsStuck(t *testing.T) {
	s := newStore(t, 1)
	c := s.cache(Options[*thing]{})
	require.NoError(t, c.Ping(t.Context()))
	c.mu.Lock()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		assert.ErrorIs(t, c.Ping(ctx), context.DeadlineExceeded)
		cancel()
	}
	c.mu.Unlock()
	require.NoError(t, c.Ping(t.Context()))
	closed(t, c)
}

func TestForcedClearAsksLeasesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 2)
		c := s.cache(Options[*thing]{})
		a := mustAcquire(t, c, "a")
		assert.Equal(t, Cleared{Draining: []string{"a"}}, c.Clear(context.Background(), false))
		select {
		case <-a.Revoked():
			t.Error("revoked without force")
		default:
		}
		assert.Equal(t, []string{"a"}, c.Clear(context.Background(), true).Revoked)
		<-a.Revoked()
		assert.Empty(t, c.Clear(context.Background(), true).Revoked, "only once")
		assert.Empty(t, s.freed, "not before its release")
		a.Release()
		closed(t, c)
	})
}

func TestSweepBooksWhatHasComeBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 0)
		left := int64(5)
		opts := sized(7)
		opts.Free = func(key string, value *thing) (func() Bytes, error) {
			_, err := s.free(key, value)
			return func() Bytes { return In(0, left) }, err
		}
		c := s.cache(opts)
		mustAcquire(t, c, "a").Release()
		c.Clear(context.Background(), false)
		time.Sleep(time.Minute)
		assert.Equal(t, []Unreturned{{Key: "a", Bytes: 5, Since: time.Minute}}, c.Snapshot().Unreturned)
		left = 2
		c.Sweep()
		assert.EqualValues(t, 2, c.Snapshot().Pools[0].Unreturned)
		left = 0
		c.Sweep()
		assert.Empty(t, c.Snapshot().Unreturned)
		closed(t, c)
	})
}
