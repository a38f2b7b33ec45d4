package mock_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/mock"
)

// faulty returns a runtime with a plan, given as the JSON of its rules.
func faulty(t *testing.T, timeScale float64, rules string) *mock.Runtime {
	t.Helper()
	plan, err := mock.ParseFaults(fmt.Appendf(nil, `{"seed": 7, "rules": [%s]}`, rules))
	require.NoError(t, err)
	return mock.New(mock.Options{TimeScale: timeScale, Faults: plan})
}

func tryLoad(ctx context.Context, t *testing.T, rt *mock.Runtime, id string) (cgo.Model, error) {
	t.Helper()
	src, err := mock.Resolve(id)
	require.NoError(t, err)
	return rt.Load(ctx, src, cgo.LoadOptions{})
}

func mustLoad(t *testing.T, rt *mock.Runtime, id string) cgo.Model {
	t.Helper()
	m, err := tryLoad(t.Context(), t, rt, id)
	require.NoError(t, err)
	return m
}

func TestBadFaultPlansAreNamed(t *testing.T) {
	for plan, want := range map[string]string{
		`{"rules": [`:                                     "fault plan",
		`{"rules": []} {}`:                                "more than one",
		`{"rule": []}`:                                    "unknown field",
		`{"rules": [{"fault": "load_fast"}]}`:             "rule 1 (load_fast): no such fault",
		`{"rules": [{"fault": "load_slow"}]}`:             "factor is missing",
		`{"rules": [{"fault": "load_hangs", "bytes":1}]}`: "bytes means nothing here",
		`{"rules": [{"fault": "load_hangs"}, {"fault": "load_fails", "error": "bad luck"}]}`: "rule 2 (load_fails): no error \"bad luck\"",
		`{"rules": [{"fault": "load_hangs", "model": "["}]}`:                                 "syntax error",
		`{"rules": [{"fault": "load_hangs", "probability": 1.5}]}`:                           "out of range",
		`{"rules": [{"fault": "leak", "bytes": -1}]}`:                                        "out of range",
		`{"rules": [{"fault": "load_hangs", "nth": 1, "every": 2}]}`:                         "choose one",
	} {
		_, err := mock.ParseFaults([]byte(plan))
		assert.ErrorContains(t, err, want, plan)
	}
}

func TestFaultsHitTheCallsAndModelsTheyName(t *testing.T) {
	outcomes := func(rule, id string) (failed []int) {
		rt := faulty(t, 0, `{"fault": "load_fails", "error": "bad_model", `+rule+`}`)
		for n := 1; n <= 12; n++ {
			if _, err := tryLoad(t.Context(), t, rt, id); err != nil {
				assert.ErrorIs(t, err, cgo.ErrBadModel)
				failed = append(failed, n)
			}
		}
		return failed
	}
	assert.Equal(t, []int{3}, outcomes(`"nth": 3`, "suno/bark"))
	assert.Equal(t, []int{4, 8, 12}, outcomes(`"every": 4`, "suno/bark"))
	assert.Len(t, outcomes(`"model": "suno/*"`, "suno/bark"), 12)
	assert.Empty(t, outcomes(`"model": "suno/*"`, "barkd/tiny"))
	chance := outcomes(`"probability": 0.5`, "suno/bark")
	assert.NotEmpty(t, chance)
	assert.Less(t, len(chance), 12)
	assert.Equal(t, chance, outcomes(`"probability": 0.5`, "suno/bark"), "the same seed")
}

func TestFailedLoadHoldsNothing(t *testing.T) {
	rt := faulty(t, 0, `{"fault": "load_fails", "error": "out_of_memory"}`)
	_, err := tryLoad(t.Context(), t, rt, "suno/bark")
	assert.ErrorIs(t, err, cgo.ErrOutOfMemory)
	live, err := rt.Live(0)
	require.NoError(t, err)
	assert.Zero(t, live)
	assert.Zero(t, rt.LiveHandles())
}

func TestSlowFaultsStretchTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		m := mustLoad(t, faulty(t, 1, `{"fault": "load_slow", "factor": 3}`), "suno/bark-small")
		assert.InDelta(t, 3*1.06, time.Since(start).Seconds(), 0.3)
		plain := speak(t, m, "Hello, world!")
		m = mustLoad(t, faulty(t, 1, `{"fault": "synthesis_slow", "factor": 2}`), "suno/bark-small")
		assert.InEpsilon(t, 2*plain.Seconds(), speak(t, m, "Hello, world!").Seconds(), 0.01)
	})
}

func TestHangingLoadEndsWithItsContextAndDeafOneLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for kind, want := range map[string]time.Duration{
			`{"fault": "load_hangs"}`: time.Minute, `{"fault": "load_deaf", "seconds": 300}`: 5 * time.Minute,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			start := time.Now()
			_, err := tryLoad(ctx, t, faulty(t, 0, kind), "barkd/tiny")
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, want, time.Since(start), kind)
			cancel()
		}
		_, err := tryLoad(t.Context(), t, faulty(t, 0, `{"fault": "load_deaf", "seconds": 5}`), "barkd/tiny")
		assert.NoError(t, err, "deaf, not broken")
	})
}

func TestLeakStaysInTheAccountAndOnTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := faulty(t, 0, `{"fault": "leak", "bytes": 4096, "seconds": 60, "nth": 1}, {"fault": "leak", "bytes": 5, "nth": 2}`)
		for _, leaked := range []int64{4096, 5} {
			m := mustLoad(t, rt, "suno/bark")
			account := m.Account()
			require.NoError(t, m.Close())
			assert.Equal(t, leaked, account.Live())
			live, err := rt.Live(0)
			require.NoError(t, err)
			assert.Equal(t, leaked, live.TotalBytes)
			time.Sleep(time.Minute) // of the fake clock
			if leaked == 4096 {
				assert.Zero(t, account.Live(), "returned late")
			} else {
				assert.EqualValues(t, 5, account.Live(), "for good")
			}
		}
	})
}

func TestEstimateFaults(t *testing.T) {
	rt := faulty(t, 0, `{"fault": "estimate_off", "bytes": -1000}, {"fault": "estimate_fails", "error": "not_found", "nth": 2}`)
	src, err := mock.Resolve("suno/bark")
	require.NoError(t, err)
	estimate, err := rt.Estimate(src, cgo.LoadOptions{}, cgo.SessionOptions{})
	require.NoError(t, err)
	assert.Equal(t, mustLoad(t, rt, "suno/bark").Memory().TotalBytes-1000, estimate.Model.TotalBytes)
	_, err = rt.Estimate(src, cgo.LoadOptions{}, cgo.SessionOptions{})
	assert.ErrorIs(t, err, cgo.ErrNotFound)
}

func TestSessionOutOfMemoryTakesNothing(t *testing.T) {
	m := mustLoad(t, faulty(t, 0, `{"fault": "session_out_of_memory", "every": 2}`), "suno/bark")
	session, err := m.NewSession(cgo.SessionOptions{})
	require.NoError(t, err)
	held := m.Account().Live()
	_, err = m.NewSession(cgo.SessionOptions{})
	assert.ErrorIs(t, err, cgo.ErrOutOfMemory)
	assert.Equal(t, held, m.Account().Live())
	require.NoError(t, session.Close())
}

func TestLostDeviceFailsEverythingUntilItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := faulty(t, 0, `{"fault": "device_lost", "nth": 2, "seconds": 10}`)
		m := mustLoad(t, rt, "suno/bark")
		speak(t, m, "fine")
		session, err := m.NewSession(cgo.SessionOptions{})
		require.NoError(t, err)
		req, err := m.Defaults(cgo.RulesSuno)
		require.NoError(t, err)
		req.Text = "lost"
		for range 2 {
			_, err = session.Synthesize(t.Context(), req, cgo.Sink{})
			assert.ErrorIs(t, err, cgo.ErrDevice)
		}
		_, err = m.NewSession(cgo.SessionOptions{})
		assert.ErrorIs(t, err, cgo.ErrDevice)
		_, err = tryLoad(t.Context(), t, rt, "barkd/tiny")
		assert.ErrorIs(t, err, cgo.ErrDevice)
		time.Sleep(10 * time.Second) // of the fake clock
		speak(t, m, "back")
	})
}

func TestPublishedModelsShareTheirCodec(t *testing.T) {
	rt := mock.New(mock.Options{})
	small, large := mustLoad(t, rt, "suno/bark-small"), mustLoad(t, rt, "suno/bark")
	assert.Equal(t, small.Components(), large.Components())
	assert.NotEqual(t, small.Components(), mustLoad(t, rt, "barkd/tiny").Components())
	require.NoError(t, small.Close())
	live, err := rt.Live(0)
	require.NoError(t, err)
	assert.EqualValues(t, 4*(7_423_345+8*1024*128)+4*100_000, live.SharedBytes)
}
