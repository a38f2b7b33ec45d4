// Package runtimetest holds what every cgo.Runtime must do. The native and the simulated runtime run the same
// tests, so that what is learned on one is true of the other.
package runtimetest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
)

// Subject is a runtime under test.
type Subject struct {
	Runtime     cgo.Runtime
	Source      cgo.Source   // a small model with at least two voices
	Device      int          // where it runs
	LiveHandles func() int64 // handles not yet freed; each test must leave none
}

// Run tests the subject.
func Run(t *testing.T, s Subject) {
	tests := []struct {
		name string
		test func(*testing.T, Subject)
	}{
		{"device 0 is the CPU", deviceZeroIsTheCPU},
		{"model describes itself", modelDescribesItself},
		{"estimate equals what is taken", estimateEqualsWhatIsTaken},
		{"account ends at zero", accountEndsAtZero},
		{"accounts do not leak", accountsDoNotLeak},
		{"components are counted once", componentsAreCountedOnce},
		{"stopped load holds nothing", stoppedLoadHoldsNothing},
		{"trim", trims},
		{"second Close is harmless", secondCloseIsHarmless},
		{"closed objects refuse calls", closedObjectsRefuseCalls},
		{"session outlives its model's Close", sessionOutlivesItsModel},
		{"Close during a request lets it finish", closeDuringRequest},
		{"sources that are not there", missingSources},
		{"load ends with its context", loadEndsWithItsContext},
		{"load reports progress", loadReportsProgress},
		{"panic in load progress reaches the caller", loadPanicReachesTheCaller},
		{"tokenizer", tokenizes},
		{"texts that cannot be spoken", unspeakableTexts},
		{"request out of range", requestsOutOfRange},
		{"events are complete and in order", eventsAreComplete},
		{"same seed, same audio", sameSeedSameAudio},
		{"greedy does not depend on the seed", greedyIgnoresTheSeed},
		{"voices", voices},
		{"voice from arrays", voiceFromArrays},
		{"ended context starts nothing", endedContextStartsNothing},
		{"cancel during each stage", cancelDuringEachStage},
		{"error of the sink comes back as it is", sinkErrorComesBack},
		{"panic of the sink reaches the caller", sinkPanicReachesTheCaller},
		{"busy session", busySession},
		{"64 goroutines", manyGoroutines},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.test(t, s)
			assert.Zero(t, s.LiveHandles(), "handles leaked")
			assert.Zero(t, s.live(t), "memory leaked")
		})
	}
}

// with loads the model and closes it when f is done, so that the handles can be counted after it.
func (s Subject) with(t *testing.T, f func(cgo.Model)) {
	t.Helper()
	m, err := s.Runtime.Load(context.Background(), s.Source, cgo.LoadOptions{Device: s.Device})
	require.NoError(t, err)
	defer func() { assert.NoError(t, m.Close()) }()
	f(m)
}

// withSession also makes a session and a request that is quickly done.
func (s Subject) withSession(t *testing.T, f func(cgo.Model, cgo.Session, cgo.Request)) {
	t.Helper()
	s.with(t, func(m cgo.Model) {
		session, err := m.NewSession(cgo.SessionOptions{})
		require.NoError(t, err)
		defer func() { assert.NoError(t, session.Close()) }()
		f(m, session, request(t, m))
	})
}

func request(t *testing.T, m cgo.Model) cgo.Request {
	t.Helper()
	req, err := m.Defaults(cgo.RulesSuno)
	require.NoError(t, err)
	req.Text = "Hello, world!"
	req.Seed = 7
	req.MaxSemanticTokens = 12
	req.Semantic.MinEOSP = 0
	return req
}

// speak returns the audio of a request that must succeed.
func speak(t *testing.T, session cgo.Session, req cgo.Request) []float32 {
	t.Helper()
	var audio []float32
	stats, err := session.Synthesize(context.Background(), req, cgo.Sink{Audio: func(pcm []float32) error {
		audio = append(audio, pcm...)
		return nil
	}})
	require.NoError(t, err)
	require.EqualValues(t, len(audio), stats.Samples)
	return audio
}
