package hub_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"barkd/server/models/hub"
	"barkd/server/models/hub/hubtest"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOfflineUsesTheCacheOrSaysWhatIsMissing(t *testing.T) {
	r := hubtest.Bark(id, 1000)
	w := newWorld(t, r)
	online, dir, err := w.pull(t.Context())
	require.NoError(t, err)
	before := len(w.Requests())
	w.cfg.Offline = true

	repo, got, err := w.pull(t.Context())
	require.NoError(t, err)
	assert.Equal(t, dir, got)
	assert.Equal(t, online.Files, repo.Files)
	byCommit, err := w.client().Resolve(t.Context(), id, r.Commit())
	require.NoError(t, err)
	assert.Equal(t, online.Files, byCommit.Files)

	_, err = w.client().Resolve(t.Context(), "suno/bark", "")
	require.ErrorIs(t, err, hub.ErrOffline)
	assert.ErrorContains(t, err, `suno/bark at revision "main" is not in`)

	blob, err := filepath.EvalSymlinks(filepath.Join(dir, weights))
	require.NoError(t, err)
	require.NoError(t, os.Remove(blob))
	_, _, err = w.pull(t.Context())
	require.ErrorIs(t, err, hub.ErrOffline)
	assert.ErrorContains(t, err, "has no weights")
	assert.Len(t, w.Requests(), before, "offline means no request")
}

func TestTwoDownloadsOfOneRepositoryShareTheWork(t *testing.T) {
	r := hubtest.Bark(id, 500_000)
	w := newWorld(t, r)
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			_, dir, err := w.pull(t.Context())
			if assert.NoError(t, err) {
				assertSnapshot(t, r, dir)
			}
		})
	}
	group.Wait()
	for file, n := range w.Fetches() {
		assert.Equal(t, 1, n, file)
	}
}

func TestDownloadWaitsForAnotherProgram(t *testing.T) {
	r := hubtest.Bark(id, 1000)
	w := newWorld(t, r)
	locks := filepath.Join(w.cfg.CacheDir, ".locks", "models--suno--bark-small")
	require.NoError(t, os.MkdirAll(locks, 0o755))
	other := flock.New(filepath.Join(locks, hubtest.SHA256(r.Files[weights])+".lock"))
	require.NoError(t, other.Lock())
	w.opts.Log = func(line string) {
		assert.Contains(t, line, "another program is downloading it")
		assert.NoError(t, other.Unlock())
	}
	_, dir, err := w.pull(t.Context())
	require.NoError(t, err)
	assertSnapshot(t, r, dir)

	require.NoError(t, os.RemoveAll(filepath.Join(w.cfg.CacheDir, "models--suno--bark-small")))
	require.NoError(t, other.Lock())
	ctx, cancel := context.WithCancel(t.Context())
	w.opts.Log = func(string) { cancel() }
	_, _, err = w.pull(ctx)
	assert.ErrorIs(t, err, context.Canceled)
	assert.NoError(t, other.Unlock()) // nobody's lock would be collected, and released, meanwhile
}

func TestCancelledDownloadStops(t *testing.T) {
	w := newWorld(t, hubtest.Bark(id, 100_000))
	ctx, cancel := context.WithCancel(t.Context())
	w.opts.Sleep = func(ctx context.Context, _ time.Duration) error {
		cancel()
		return ctx.Err()
	}
	w.Fault(weights, hubtest.Fault{Code: 500})
	_, _, err := w.pull(ctx)
	assert.ErrorIs(t, err, context.Canceled)
}

func TestProgressEndsAtTheTotal(t *testing.T) {
	r := hubtest.Bark(id, 300_000)
	w := newWorld(t, r)
	w.Fault(weights, hubtest.Fault{Cut: 100_000}, hubtest.Fault{IgnoreRange: true})
	c := w.client()
	repo, err := c.Resolve(t.Context(), id, "")
	require.NoError(t, err)
	for range 2 { // from the hub, then from the cache
		var done, total int64
		files := map[string]bool{}
		_, err = c.Download(t.Context(), repo, repo.Files, func(d, n int64, file string) {
			done, total, files[file] = d, n, true
		})
		require.NoError(t, err)
		assert.Equal(t, repo.TotalBytes(), total)
		assert.Equal(t, total, done)
		assert.Len(t, files, len(repo.Files))
	}
}
