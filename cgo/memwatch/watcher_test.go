package memwatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fake is a pool whose memory the test sets.
type fake struct {
	mu      sync.Mutex
	reading Reading
	err     error
	hang    chan struct{} // readings wait for it, nil for not
}

func (f *fake) set(bytes int64) { f.change(func() { f.reading, f.err = left(bytes), nil }) }
func (f *fake) fail(err error)  { f.change(func() { f.err = err }) }
func (f *fake) change(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
}

func (f *fake) Read() (Reading, error) {
	f.mu.Lock()
	r, err, hang := f.reading, f.err, f.hang
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	return r, err
}

// wakingFake can also tell of pressure.
type wakingFake struct {
	fake
	notify func(cause string)
	absent error
}

func (f *wakingFake) Wake(ctx context.Context, notify func(string), missing func(error)) {
	if f.absent != nil {
		missing(f.absent)
	}
	f.change(func() { f.notify = notify })
	<-ctx.Done()
}

func (f *wakingFake) tell(cause string) {
	f.mu.Lock()
	notify := f.notify
	f.mu.Unlock()
	notify(cause)
}

// log records what a Watcher told, one line each, with the seconds since the start.
type log struct {
	mu    sync.Mutex
	start time.Time
	lines []string
}

func (l *log) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf("%vs ", time.Since(l.start).Seconds())+fmt.Sprintf(format, args...))
}

func (l *log) take() []string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

func (l *log) event(_ context.Context, e Event) {
	l.add("%s %v to %v, need %d, %s", e.Pool, e.Before, e.After, e.NeedBytes, e.Cause)
}

func (l *log) trouble(pool string, err error) { l.add("%s trouble: %v", pool, err) }

var marks = Marks{HighAvailableBytes: 300, CriticalAvailableBytes: 100, ClearMarginBytes: 50}

// watching runs a test in fake time with a watcher of one pool, read each minute.
func watching(t *testing.T, memory Reader, f func(t *testing.T, w *Watcher, l *log)) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{start: time.Now()}
		w, err := Watch(Config{Pools: []Pool{{Name: "host", Memory: memory, Marks: marks}}, Interval: time.Minute,
			OnEvent: l.event, OnTrouble: l.trouble})
		require.NoError(t, err)
		synctest.Wait()
		f(t, w, l)
		require.NoError(t, w.Close())
	})
}

func TestIntervalFindsPressureAndTriesAgainWhileItLasts(t *testing.T) {
	f := &fake{reading: left(1000)}
	watching(t, f, func(t *testing.T, w *Watcher, l *log) {
		assert.Empty(t, l.take())
		f.set(250)
		time.Sleep(3*time.Minute + time.Second)
		assert.Equal(t, []string{"60s host none to high, need 100, interval", "120s host high to high, need 100, interval",
			"180s host high to high, need 100, interval"}, l.take())
	})
}

func TestEndOfPressureIsSeenWithinASecond(t *testing.T) {
	f := &fake{reading: left(250)}
	watching(t, f, func(t *testing.T, w *Watcher, l *log) {
		assert.Equal(t, []string{"0s host none to high, need 100, start"}, l.take())
		time.Sleep(500 * time.Millisecond)
		f.set(350)
		time.Sleep(2 * time.Minute)
		assert.Equal(t, []string{"1s host high to none, need 0, recheck"}, l.take())
		assert.Equal(t, LevelNone, w.Level("host"))
	})
}

func TestLevelsRiseBetweenIntervals(t *testing.T) {
	f := &fake{reading: left(250)}
	watching(t, f, func(t *testing.T, w *Watcher, l *log) {
		l.take()
		f.set(99)
		time.Sleep(time.Second)
		assert.Equal(t, []string{"1s host high to critical, need 251, recheck"}, l.take())
		assert.Equal(t, LevelCritical, w.Level("host"))
	})
}

func TestKernelEventWakesAtOnce(t *testing.T) {
	f := &wakingFake{fake: fake{reading: left(1000)}}
	watching(t, f, func(t *testing.T, w *Watcher, l *log) {
		time.Sleep(10 * time.Second)
		f.set(200)
		f.tell("/proc/pressure/memory")
		assert.Equal(t, []string{"10s host none to high, need 150, /proc/pressure/memory"}, l.take())
	})
}

func TestStormOfEventsIsCoalesced(t *testing.T) {
	f := &wakingFake{fake: fake{reading: left(200)}}
	watching(t, f, func(t *testing.T, w *Watcher, l *log) {
		l.take()
		for range 500 { // five seconds
			f.tell("memory.events")
			time.Sleep(10 * time.Millisecond)
		}
		assert.InDelta(t, 5, len(l.take()), 1)
	})
}

func TestEventDuringAReactionIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &wakingFake{fake: fake{reading: left(200)}}
		l := &log{start: time.Now()}
		w, err := Watch(Config{Pools: []Pool{{Name: "host", Memory: f, Marks: marks}}, Interval: time.Hour,
			OnEvent: func(ctx context.Context, e Event) {
				l.event(ctx, e)
				if e.After > LevelNone {
					f.set(e.Reading.AvailableBytes + 75) // half of the first need
					time.Sleep(20 * time.Second)
				}
			}})
		require.NoError(t, err)
		time.Sleep(time.Second)
		f.tell("first")
		f.tell("second")
		time.Sleep(time.Minute)
		lines := l.take()
		require.Len(t, lines, 3)
		assert.Equal(t, "0s host none to high, need 150, start", lines[0])
		// A fresh reading, not one of before the reaction; a second after its end.
		assert.Equal(t, "21s host high to high, need 75, first", lines[1])
		assert.Contains(t, lines[2], "host high to none, need 0")
		require.NoError(t, w.Close())
	})
}

func TestFailureAndRecoveryAreToldOnceAndNoLevelSticks(t *testing.T) {
	f := &fake{reading: left(50)}
	watching(t, f, func(t *testing.T, w *Watcher, l *log) {
		assert.Equal(t, []string{"0s host none to critical, need 300, start"}, l.take())
		f.fail(errors.New("no such file"))
		time.Sleep(5 * time.Minute)
		assert.Equal(t, []string{"1s host trouble: read memory: no such file",
			"1s host critical to none, need 0, recheck"}, l.take())
		assert.ErrorContains(t, w.States()[0].Err, "no such file")
		f.set(50)
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"360s host trouble: <nil>", "360s host none to critical, need 300, interval"}, l.take())
	})
}

func TestMissingEventsAreToldOnce(t *testing.T) {
	f := &wakingFake{fake: fake{reading: left(1000)}, absent: errors.New("no PSI")}
	watching(t, f, func(t *testing.T, w *Watcher, l *log) {
		time.Sleep(time.Hour)
		assert.Equal(t, []string{"0s host trouble: some memory pressure is noticed at the interval only: no PSI"}, l.take())
	})
}

func TestHangingSourceDoesNotHideTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gpu := &fake{reading: left(1000), hang: make(chan struct{})}
		host := &fake{reading: left(200)}
		l := &log{start: time.Now()}
		w, err := Watch(Config{Interval: time.Minute, OnEvent: l.event, OnTrouble: l.trouble,
			Pools: []Pool{{Name: "cuda:0", Memory: gpu, Marks: marks}, {Name: "host", Memory: host, Marks: marks}}})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		lines := l.take()
		require.Len(t, lines, 2)
		assert.Equal(t, "2s cuda:0 trouble: read memory: the source does not answer within 2s", lines[0])
		assert.Equal(t, "2s host none to high, need 150, start", lines[1])
		close(gpu.hang) // it answers at last
		gpu.change(func() { gpu.hang = nil })
		time.Sleep(2 * time.Minute)
		assert.Contains(t, l.take(), "62s cuda:0 trouble: <nil>")
		require.NoError(t, w.Close())
	})
}

func TestCloseDoesNotWaitForeverForAReaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w, err := Watch(Config{Pools: []Pool{{Name: "host", Memory: &fake{reading: left(1)}, Marks: marks}},
			Interval: time.Minute, OnEvent: func(context.Context, Event) { <-release }})
		require.NoError(t, err)
		synctest.Wait()
		start := time.Now()
		assert.ErrorContains(t, w.Close(), "has not ended")
		assert.Equal(t, closeLimit, time.Since(start))
		close(release)
		assert.NoError(t, w.Close())
	})
}

func TestCloseEndsTheContextOfAReaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := Watch(Config{Pools: []Pool{{Name: "host", Memory: &fake{reading: left(1)}, Marks: marks}},
			Interval: time.Minute, OnEvent: func(ctx context.Context, _ Event) { <-ctx.Done() }})
		require.NoError(t, err)
		synctest.Wait()
		start := time.Now()
		require.NoError(t, w.Close())
		assert.Zero(t, time.Since(start))
	})
}

func TestCheckReadsAllPoolsSoon(t *testing.T) {
	f := &fake{reading: left(1000)}
	watching(t, f, func(t *testing.T, w *Watcher, l *log) {
		f.set(10)
		w.Check("a load failed")
		assert.Equal(t, []string{"0s host none to critical, need 340, a load failed"}, l.take())
	})
}

func TestAllBadSettingsAreNamed(t *testing.T) {
	_, err := Watch(Config{Pools: []Pool{{Name: "a"}, {Name: "a", Memory: &fake{}, Marks: Marks{ClearMarginBytes: -1}}}})
	for _, part := range []string{"interval of 0s", "nobody to tell", `two pools "a"`, "no source", "-1 bytes"} {
		assert.ErrorContains(t, err, part)
	}
}

// For the race detector: every method at once, with real time.
func TestMethodsMayBeCalledAtOnce(t *testing.T) {
	f := &wakingFake{fake: fake{reading: left(1000)}}
	w, err := Watch(Config{Pools: []Pool{{Name: "host", Memory: f, Marks: marks}}, Interval: time.Millisecond,
		OnEvent: func(_ context.Context, e Event) { f.set(1000) }})
	require.NoError(t, err)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 200 {
				w.Check("test")
				f.set(int64(i * 100))
				_ = w.States()
				_ = w.Level("host")
			}
		})
	}
	all.Wait()
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
}
