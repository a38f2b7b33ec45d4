package cgo_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/cache"
)

func TestTraceIsReadAsItWasWritten(t *testing.T) {
	want := []cache.TraceEvent{
		{At: time.Unix(1_800_000_000, 0), Key: "suno/bark", Load: 2 * time.Second, Footprint: &cache.Footprint{
			Own: cache.In(1, 7), Session: cache.In(0, 3), Shared: []cache.Component{{ID: "codec", Bytes: cache.In(0, 9)}}}},
		{At: time.Unix(1_800_000_002, 500_000_000), Key: "suno/bark", Waited: time.Millisecond, Held: time.Minute},
	}
	var file bytes.Buffer
	w := cgo.NewTraceWriter(&file)
	for _, e := range want {
		w.Add(e)
	}
	require.NoError(t, w.Close())
	got, err := cgo.ReadTrace(&file)
	require.NoError(t, err)
	require.Len(t, got, 2)
	for i := range want {
		assert.True(t, want[i].At.Equal(got[i].At))
		got[i].At = want[i].At
	}
	assert.Equal(t, want, got)
}

func TestBadTraceLinesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"{":                            "line 1",
		"\n\n{}":                       `line 3: it has no "model"`,
		`{"model":"a","t":-1}`:         "out of range",
		`{"model":"a","held_s":1e300}`: "out of range",
		`{"model":"a","own":[-1]}`:     "-1 bytes",
		`{"model":"a","own":[100000000000000000]}`:                "bytes",
		`{"model":"a","own":[1` + strings.Repeat(",1", 17) + `]}`: "18 pools",
	} {
		_, err := cgo.ReadTrace(strings.NewReader(text))
		assert.ErrorContains(t, err, want, text)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestAFullDiskIsToldWhenTheTraceEnds(t *testing.T) {
	w := cgo.NewTraceWriter(full{})
	w.Add(cache.TraceEvent{Key: "a"})
	assert.ErrorContains(t, w.Close(), "disk full")
}

func TestAPoolsTraceReplaysToTheSameCounts(t *testing.T) {
	var file bytes.Buffer
	w := cgo.NewTraceWriter(&file)
	pool := newPool(t, cgo.PoolOptions{MaxModels: 1, Trace: w.Add})
	for _, id := range []string{"suno/bark", "suno/bark", "barkd/tiny", "suno/bark"} {
		lease, err := pool.Acquire(t.Context(), id, cache.Ask{})
		require.NoError(t, err)
		lease.Release()
	}
	require.NoError(t, w.Close())
	trace, err := cgo.ReadTrace(&file)
	require.NoError(t, err)
	for i := range trace { // apart, for a load and the next request may have met in the clock's last digit
		trace[i].At = trace[0].At.Add(time.Duration(i) * time.Second)
	}
	one := cache.Replay(trace, cache.ReplayOptions{MaxEntries: 1})
	assert.Equal(t, 4, one.Requests)
	assert.EqualValues(t, 1, one.Hits)
	assert.EqualValues(t, 3, one.Loads)
	assert.EqualValues(t, 2, one.Evictions)
	two := cache.Replay(trace, cache.ReplayOptions{MaxEntries: 2})
	assert.EqualValues(t, 2, two.Hits)
	assert.EqualValues(t, 2, two.Loads)
}

func FuzzReadTrace(f *testing.F) {
	f.Add([]byte(`{"t":1,"model":"a","held_s":1}` + "\n" + `{"t":1,"model":"a","load_s":1,"own":[5],"shared":[{"id":"c","bytes":[1]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		trace, err := cgo.ReadTrace(bytes.NewReader(text))
		if err == nil && len(trace) < 1000 {
			cache.Replay(trace, cache.ReplayOptions{MaxEntries: 2, Pools: []cache.Pool{{Name: "cpu", Budget: 100}}})
		}
	})
}
