package runtimetest

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
)

func (s Subject) live(t *testing.T) cgo.Memory {
	t.Helper()
	memory, err := s.Runtime.Live(s.Device)
	require.NoError(t, err)
	memory.PeakBytes = 0 // it never falls
	return memory
}

func accountEndsAtZero(t *testing.T, s Subject) {
	m, err := s.Runtime.Load(context.Background(), s.Source, cgo.LoadOptions{Device: s.Device})
	require.NoError(t, err)
	account, own := m.Account(), m.Memory()
	assert.Equal(t, own.TotalBytes-own.SharedBytes, account.Live(), "without components")
	session, err := m.NewSession(cgo.SessionOptions{})
	require.NoError(t, err)
	voice, err := m.Voice(m.Info().Voices[0])
	require.NoError(t, err)
	all := account.Live()
	assert.Greater(t, all, own.TotalBytes-own.SharedBytes+session.Memory().TotalBytes, "and the voice")

	require.NoError(t, m.Close())
	assert.Equal(t, all, account.Live(), "its session and voice hold it")
	assert.Equal(t, all, m.Account().Live(), "asked for after Close")
	require.NoError(t, session.Close())
	assert.Positive(t, account.Live())
	require.NoError(t, voice.Close())
	assert.Zero(t, account.Live())
	assert.Zero(t, m.Account().Live())
	assert.Zero(t, s.live(t))
}

func accountsDoNotLeak(t *testing.T, s Subject) {
	m, err := s.Runtime.Load(context.Background(), s.Source, cgo.LoadOptions{Device: s.Device})
	require.NoError(t, err)
	account := m.Account()
	var all sync.WaitGroup
	for range 8 {
		session, err := m.NewSession(cgo.SessionOptions{})
		require.NoError(t, err)
		all.Go(func() {
			assert.Positive(t, account.Live())
			assert.NoError(t, session.Close())
			assert.GreaterOrEqual(t, account.Live(), int64(0))
		})
	}
	all.Go(func() { assert.NoError(t, m.Close()) })
	all.Wait()
	assert.Zero(t, account.Live())
}

func componentsAreCountedOnce(t *testing.T, s Subject) {
	s.with(t, func(first cgo.Model) {
		memory, alone := first.Memory(), s.live(t)
		require.NotEmpty(t, first.Components())
		var shared int64
		for _, c := range first.Components() {
			assert.NotEmpty(t, c.Digest)
			assert.Positive(t, c.Bytes)
			shared += c.Bytes
		}
		assert.Equal(t, memory.SharedBytes, shared)
		assert.Less(t, shared, memory.WeightsBytes, "contained in the weights")
		assert.Equal(t, memory.TotalBytes, alone.TotalBytes)
		s.with(t, func(second cgo.Model) {
			assert.Equal(t, first.Components(), second.Components())
			assert.Equal(t, memory, second.Memory(), "whoever else has the component")
			both := s.live(t)
			assert.Equal(t, shared, both.SharedBytes)
			assert.Equal(t, 2*memory.TotalBytes-shared, both.TotalBytes)
		})
		assert.Equal(t, alone, s.live(t))
	})
	assert.Zero(t, s.live(t))
}

func stoppedLoadHoldsNothing(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := s.Runtime.Load(ctx, s.Source, cgo.LoadOptions{Device: s.Device, Progress: func(done, total int64) {
		if done > total/2 {
			cancel()
		}
	}})
	assert.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, s.live(t))
}

func trims(t *testing.T, s Subject) {
	returned, err := s.Runtime.Trim(s.Device)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, returned, int64(0))
	_, err = s.Runtime.Trim(99)
	assert.ErrorIs(t, err, cgo.ErrNotFound)
	_, err = s.Runtime.Live(99)
	assert.ErrorIs(t, err, cgo.ErrNotFound)
}
