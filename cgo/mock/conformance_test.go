package mock_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"barkd/cgo/mock"
	"barkd/cgo/runtimetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMockConformsToTheRuntime(t *testing.T) {
	rt := mock.New(mock.Options{})
	src, err := mock.Resolve("suno/bark-small")
	require.NoError(t, err)
	runtimetest.Run(t, runtimetest.Subject{Runtime: rt, Source: src, LiveHandles: rt.LiveHandles})
}
