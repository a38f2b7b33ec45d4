//go:build cgo && emulated

package native

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/runtimetest"
	"barkd/server/models/untrained"
)

func TestEmulatedDevicesConformToTheRuntime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "small.gguf")
	require.NoError(t, untrained.WriteFile(path, 1, untrained.SmallConfig()))
	rt, err := New(func(_ int, text string) { t.Log(text) })
	require.NoError(t, err)
	devices, err := rt.Devices()
	require.NoError(t, err)
	require.Len(t, devices, 3, "the CPU and two emulated GPUs")
	runtimetest.Run(t, runtimetest.Subject{
		Runtime: rt, Source: cgo.Source{Name: "test/small", Path: path}, Device: 2, LiveHandles: LiveHandles,
	})
}
