//go:build cgo

package native

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"barkd/cgo"
	"barkd/cgo/runtimetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNativeConformsToTheRuntime(t *testing.T) {
	rt, err := New(func(_ int, text string) { t.Log(text) })
	require.NoError(t, err)
	runtimetest.Run(t, runtimetest.Subject{
		Runtime: rt, Source: cgo.Source{Name: "barkd/tiny", Embedded: true}, LiveHandles: LiveHandles,
	})
}
