package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/speech"
)

func TestDigestIsReadOnceForEachVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, os.WriteFile(path, []byte("one"), 0o600))
	version, opened := "v1", atomic.Int64{}
	d := newDigests(&backend{
		resolve: func(string) (cgo.Source, error) { return cgo.Source{Path: path, Version: version}, nil },
		open: func(src cgo.Source) (io.ReadCloser, error) {
			opened.Add(1)
			return os.Open(src.Path)
		},
	})
	defer d.close()
	want := sha256.Sum256([]byte("one"))
	assert.Empty(t, d.Known("m"), "nobody has asked")
	for range 3 {
		got, err := d.Digest(t.Context(), "m", "v1")
		require.NoError(t, err)
		assert.Equal(t, hex.EncodeToString(want[:]), got)
	}
	assert.Equal(t, hex.EncodeToString(want[:]), d.Known("m"))
	version = "v2"
	assert.Empty(t, d.Known("m"), "of the file that is there now")
	assert.EqualValues(t, 1, opened.Load())
	_, err := d.Digest(t.Context(), "m", "v1")
	require.NoError(t, err, "of the model that is still in memory")
	_, err = d.Digest(t.Context(), "m", "v3")
	require.ErrorContains(t, err, "replaced")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = d.Digest(gone, "m", "v2"); err != nil {
		require.ErrorIs(t, err, context.Canceled)
	}
}

func TestShortMemoryDropsKeptAudio(t *testing.T) {
	audio := speech.NewAudioCache(1 << 20)
	drop := dropAudio(audio)
	assert.Zero(t, drop.Free(t.Context(), 1, 100), "a GPU's memory holds none")
	assert.Zero(t, drop.Free(t.Context(), 0, 100))
}
