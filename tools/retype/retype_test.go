package main

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/models/gguf"
	"barkd/server/models/schema"
	"barkd/server/models/untrained"
)

func retyped(t *testing.T, path string, matrices schema.Type) (string, *gguf.File) {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, retype(&b, path, matrices))
	out := filepath.Join(t.TempDir(), "out.gguf")
	require.NoError(t, os.WriteFile(out, b.Bytes(), 0o600))
	f, err := gguf.Open(out)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, f.Close()) })
	return out, f
}

func values(t *testing.T, f *gguf.File, name string) []float32 {
	t.Helper()
	tensor, ok := f.Find(name)
	require.True(t, ok, name)
	require.Equal(t, gguf.F32, tensor.Type)
	v := make([]float32, tensor.Elements())
	require.NoError(t, binary.Read(f.Data(tensor), binary.LittleEndian, v))
	return v
}

func TestEightBitsAreReadInRowsAndInTiles(t *testing.T) {
	const rowMajor = "../../server/models/default/barkd-tiny.gguf"
	_, fromRows := retyped(t, rowMajor, schema.F32)
	tiled, inTiles := retyped(t, rowMajor, schema.Q8)
	_, fromTiles := retyped(t, tiled, schema.F32)
	moved := false
	for _, tensor := range fromRows.Tensors {
		if tensor.Type == gguf.F32 {
			want, got := values(t, fromRows, tensor.Name), values(t, fromTiles, tensor.Name)
			for i := range want { // a scale, peak / 127, may come out one place off
				if !(math.Abs(float64(got[i]-want[i])) <= 1e-6*math.Abs(float64(want[i]))) {
					require.Equal(t, want[i], got[i], "%s[%d]", tensor.Name, i)
				}
			}
		}
		in, ok := inTiles.Find(tensor.Name)
		require.True(t, ok, tensor.Name)
		moved = moved || in.Shape[0] != tensor.Shape[0]
	}
	assert.True(t, moved, "nothing was in tiles")
	assert.Len(t, fromTiles.Tensors, len(fromRows.Tensors))
}

func TestOtherTypesAreRefused(t *testing.T) {
	for _, kind := range []schema.Type{schema.F16, schema.Q4} {
		config := untrained.DefaultConfig()
		config.Type = kind
		path := filepath.Join(t.TempDir(), "in.gguf")
		require.NoError(t, untrained.WriteFile(path, 1, config))
		assert.ErrorContains(t, retype(&bytes.Buffer{}, path, schema.F32), "semantic.")
	}
}
