package cache

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMeasureThatEndsItsGoroutineLeavesTheEstimate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for name, fail := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
			var reported error
			s := newStore(t, 1)
			opts := sized(7)
			opts.Measure = func(*thing) Footprint { fail(); return Footprint{} }
			opts.Report = func(_ string, err error) { reported = err }
			c := s.cache(opts)
			mustAcquire(t, c, "a").Release()
			assert.ErrorContains(t, reported, `measure "a"`, name)
			assert.EqualValues(t, 7, c.Snapshot().Pools[0].Booked, name)
			closed(t, c)
		}
	})
}

func TestResidueThatCannotBeReadCountsAsNotReturned(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for name, fail := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
			s := newStore(t, 1)
			broken := true
			var reported error
			opts := sized(7)
			opts.Report = func(_ string, err error) { reported = err }
			opts.Free = func(key string, value *thing) (func() Bytes, error) {
				_, err := s.free(key, value)
				return func() Bytes {
					if broken {
						fail()
					}
					return Bytes{}
				}, err
			}
			c := s.cache(opts)
			mustAcquire(t, c, "a").Release()
			c.Clear(context.Background(), false)
			synctest.Wait()
			assert.EqualValues(t, 7, c.Snapshot().Pools[0].Unreturned, name)
			assert.ErrorContains(t, reported, `free "a"`, name)
			if name == "panic" {
				assert.NotPanics(t, c.Sweep)
			}
			broken = false
			c.Sweep()
			assert.Zero(t, c.Snapshot().Pools[0].Unreturned, name)
			closed(t, c)
		}
	})
}

func TestResidueBelowZeroCountsAsNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		opts := sized(7)
		opts.Free = func(key string, value *thing) (func() Bytes, error) {
			_, err := s.free(key, value)
			return func() Bytes { return In(0, -5) }, err
		}
		c := s.cache(opts)
		mustAcquire(t, c, "a").Release()
		c.Clear(context.Background(), false)
		assert.Zero(t, c.Snapshot().Pools[0].Unreturned)
		closed(t, c)
	})
}

func TestEstimatesPanicIsTheLoadsError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		c := s.cache(Options[*thing]{Estimate: func(context.Context, string) ([]Footprint, error) { panic(errors.New("boom")) }})
		_, err := c.Acquire(t.Context(), "a", Ask{})
		var panicked *PanicError
		require.ErrorAs(t, err, &panicked)
		assert.EqualError(t, panicked.Unwrap(), "boom")
		closed(t, c)
	})
}

func TestImpossibleFootprintIsAnError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStore(t, 1)
		c := s.cache(Options[*thing]{Estimate: func(context.Context, string) ([]Footprint, error) { return []Footprint{own(-1)}, nil }})
		_, err := c.Acquire(t.Context(), "a", Ask{})
		assert.ErrorContains(t, err, "out of range")
		closed(t, c)
	})
}
