package runtimetest

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
)

func deviceZeroIsTheCPU(t *testing.T, s Subject) {
	devices, err := s.Runtime.Devices()
	require.NoError(t, err)
	require.NotEmpty(t, devices)
	assert.Equal(t, "cpu", devices[0].ID)
	assert.Equal(t, "cpu", devices[0].Kind)
	assert.Positive(t, devices[0].Cores)
	assert.Positive(t, devices[0].TotalBytes)
	for i, d := range devices {
		free, err := s.Runtime.Probe(i)
		require.NoError(t, err, d.ID)
		assert.Positive(t, free, d.ID)
		assert.LessOrEqual(t, free, d.TotalBytes, d.ID)
	}
	for _, i := range []int{-1, len(devices)} {
		_, err := s.Runtime.Probe(i)
		assert.ErrorIs(t, err, cgo.ErrNotFound)
	}
}

func modelDescribesItself(t *testing.T, s Subject) {
	s.with(t, func(m cgo.Model) {
		info := m.Info()
		assert.NotEmpty(t, info.Name)
		assert.Equal(t, 24000, info.SampleRate)
		assert.Positive(t, info.HopLength)
		assert.InDelta(t, float64(info.SampleRate)/float64(info.HopLength), info.CoarseRateHz, 0.5)
		assert.Positive(t, info.MaxTextTokens)
		assert.Positive(t, info.MaxSemanticTokens)
		assert.LessOrEqual(t, info.CoarseCodebooks, info.FineCodebooks)
		require.GreaterOrEqual(t, len(info.Voices), 2)
		info.Voices[0] = "scribbled"
		assert.NotEqual(t, "scribbled", m.Info().Voices[0], "the caller's copy")
	})
}

func estimateEqualsWhatIsTaken(t *testing.T, s Subject) {
	for _, kv := range []cgo.KVType{cgo.KVF16, cgo.KVF32, cgo.KVI8} {
		opts := cgo.SessionOptions{KV: kv}
		estimate, err := s.Runtime.Estimate(s.Source, cgo.LoadOptions{Device: s.Device}, opts)
		require.NoError(t, err)
		s.with(t, func(m cgo.Model) {
			opened, err := m.NewSession(opts)
			require.NoError(t, err)
			defer func() { assert.NoError(t, opened.Close()) }()
			for _, taken := range []cgo.Memory{m.Memory(), opened.Memory()} {
				assert.Positive(t, taken.TotalBytes)
				total := taken.WeightsBytes + taken.TablesBytes + taken.KVBytes + taken.ActivationsBytes
				assert.Equal(t, total, taken.TotalBytes, "the categories add up")
				assert.GreaterOrEqual(t, taken.PeakBytes, taken.TotalBytes)
			}
			assert.Equal(t, estimate.Model, m.Memory())
			assert.Equal(t, estimate.Session, opened.Memory())
			assert.Equal(t, estimate.Components, m.Components())
		})
	}
}

func secondCloseIsHarmless(t *testing.T, s Subject) {
	s.withSession(t, func(m cgo.Model, session cgo.Session, _ cgo.Request) {
		voice, err := m.Voice(m.Info().Voices[0])
		require.NoError(t, err)
		for range 2 {
			assert.NoError(t, voice.Close())
			assert.NoError(t, session.Close())
			assert.NoError(t, m.Close())
		}
	})
}

func closedObjectsRefuseCalls(t *testing.T, s Subject) {
	s.withSession(t, func(m cgo.Model, session cgo.Session, req cgo.Request) {
		voice, err := m.Voice(m.Info().Voices[0])
		require.NoError(t, err)
		require.NoError(t, voice.Close())
		req.Voice = voice
		_, err = session.Synthesize(context.Background(), req, cgo.Sink{})
		assert.ErrorIs(t, err, cgo.ErrClosed)
		require.NoError(t, session.Close())
		req.Voice = nil
		_, err = session.Synthesize(context.Background(), req, cgo.Sink{})
		assert.ErrorIs(t, err, cgo.ErrClosed)
		require.NoError(t, m.Close())
		_, err = m.NewSession(cgo.SessionOptions{})
		assert.ErrorIs(t, err, cgo.ErrClosed)
		_, err = m.Tokenize(cgo.RulesSuno, "a")
		assert.ErrorIs(t, err, cgo.ErrClosed)
		_, err = m.Voice(m.Info().Voices[0])
		assert.ErrorIs(t, err, cgo.ErrClosed)
		_, err = m.Defaults(cgo.RulesSuno)
		assert.ErrorIs(t, err, cgo.ErrClosed)
		assert.Zero(t, m.Memory())
		assert.Zero(t, session.Memory())
	})
}

func sessionOutlivesItsModel(t *testing.T, s Subject) {
	s.withSession(t, func(m cgo.Model, session cgo.Session, req cgo.Request) {
		require.NoError(t, m.Close())
		assert.NotEmpty(t, speak(t, session, req))
	})
}

func closeDuringRequest(t *testing.T, s Subject) {
	s.withSession(t, func(m cgo.Model, session cgo.Session, req cgo.Request) {
		voice, err := m.Voice(m.Info().Voices[0])
		require.NoError(t, err)
		req.Voice = voice
		samples := 0
		stats, err := session.Synthesize(context.Background(), req, cgo.Sink{
			Progress: func(cgo.Stage, int64, int64) error {
				assert.NoError(t, session.Close())
				assert.NoError(t, voice.Close())
				assert.NoError(t, m.Close())
				return nil
			},
			Audio: func(pcm []float32) error {
				samples += len(pcm)
				return nil
			},
		})
		require.NoError(t, err)
		assert.EqualValues(t, samples, stats.Samples)
		assert.Positive(t, samples)
	})
}

func missingSources(t *testing.T, s Subject) {
	absent := filepath.Join(t.TempDir(), "absent.gguf")
	for name, tt := range map[string]struct {
		source cgo.Source
		opts   cgo.LoadOptions
		want   error
	}{
		"no file":        {cgo.Source{Name: "a", Path: absent}, cgo.LoadOptions{}, cgo.ErrNotFound},
		"no path":        {cgo.Source{Name: "a"}, cgo.LoadOptions{}, cgo.ErrInvalidArgument},
		"both":           {cgo.Source{Name: "a", Path: absent, Embedded: true}, cgo.LoadOptions{}, cgo.ErrInvalidArgument},
		"NUL in path":    {cgo.Source{Name: "a", Path: "a\x00b"}, cgo.LoadOptions{}, cgo.ErrInvalidArgument},
		"no such device": {s.Source, cgo.LoadOptions{Device: 99}, cgo.ErrNotFound},
	} {
		_, err := s.Runtime.Load(context.Background(), tt.source, tt.opts)
		assert.ErrorIs(t, err, tt.want, name)
		_, err = s.Runtime.Estimate(tt.source, tt.opts, cgo.SessionOptions{})
		assert.ErrorIs(t, err, tt.want, name)
	}
}

func loadEndsWithItsContext(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(context.Background())
	_, err := s.Runtime.Load(ctx, s.Source, cgo.LoadOptions{Device: s.Device, Progress: func(int64, int64) { cancel() }})
	assert.ErrorIs(t, err, context.Canceled)
	called := false
	_, err = s.Runtime.Load(ctx, s.Source, cgo.LoadOptions{Device: s.Device, Progress: func(int64, int64) { called = true }})
	assert.ErrorIs(t, err, context.Canceled)
	assert.False(t, called, "nothing starts")
}

func loadReportsProgress(t *testing.T, s Subject) {
	last, end := int64(-1), int64(math.MinInt64)
	m, err := s.Runtime.Load(context.Background(), s.Source, cgo.LoadOptions{Device: s.Device, Progress: func(done, total int64) {
		assert.GreaterOrEqual(t, done, last)
		assert.LessOrEqual(t, done, total)
		last, end = done, total
	}})
	require.NoError(t, err)
	assert.Equal(t, end, last)
	require.NoError(t, m.Close())
}

func loadPanicReachesTheCaller(t *testing.T, s Subject) {
	for _, late := range []bool{false, true} { // at once, and in the last call
		assert.PanicsWithValue(t, "boom", func() {
			_, _ = s.Runtime.Load(context.Background(), s.Source, cgo.LoadOptions{Device: s.Device, Progress: func(done, total int64) {
				if !late || done == total {
					panic("boom")
				}
			}})
		})
	}
}
