package hub_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"barkd/server/models/hub"
	"barkd/server/models/hub/hubtest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBrokenConnectionsContinueWhereTheyBroke(t *testing.T) {
	r := hubtest.Bark(id, 1_000_000)
	w := newWorld(t, r)
	// More breaks than attempts: each brings something, so none counts against the next.
	for i := range 8 {
		w.Fault(weights, hubtest.Fault{Cut: 50_000 + i})
	}
	_, dir, err := w.pull(t.Context())
	require.NoError(t, err)
	assertSnapshot(t, r, dir)
	var ranges int
	for _, req := range w.Requests() {
		if req.File == weights && req.Storage && req.Range != "" {
			ranges++
		}
	}
	assert.Equal(t, 8, ranges)
	for _, d := range w.pauses() {
		assert.Equal(t, time.Second, d, "the wait does not grow while there is progress")
	}
}

func TestInterruptedDownloadResumesInAnotherRun(t *testing.T) {
	r := hubtest.Bark(id, 400_000)
	w := newWorld(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	w.Fault(weights, hubtest.Fault{Cut: 150_000, Stall: true})
	c := w.client()
	repo, err := c.Resolve(ctx, id, "main")
	require.NoError(t, err)
	_, err = c.Download(ctx, repo, repo.Files, func(done, total int64, file string) {
		if file == weights && done >= 150_000 {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	part := filepath.Join(w.cfg.CacheDir, "models--suno--bark-small", "blobs", hubtest.SHA256(r.Files[weights])+".incomplete")
	st, err := os.Stat(part)
	require.NoError(t, err)
	assert.Positive(t, st.Size())
	assert.NoFileExists(t, filepath.Join(w.cfg.CacheDir, "models--suno--bark-small", "refs", "main"), "not complete yet")

	_, dir, err := w.pull(t.Context())
	require.NoError(t, err)
	assertSnapshot(t, r, dir)
	last := w.Requests()
	assert.True(t, slices.ContainsFunc(last, func(q hubtest.Request) bool {
		return q.Storage && q.File == weights && strings.HasPrefix(q.Range, "bytes=")
	}))
}

func TestServerWithoutRangesStartsAgain(t *testing.T) {
	r := hubtest.Bark(id, 300_000)
	w := newWorld(t, r)
	w.Fault(weights, hubtest.Fault{Cut: 100_000}, hubtest.Fault{IgnoreRange: true})
	_, dir, err := w.pull(t.Context())
	require.NoError(t, err)
	assertSnapshot(t, r, dir)
}

func TestDamagedPartIsFetchedAgainOnce(t *testing.T) {
	r := hubtest.Bark(id, 300_000)
	for name, part := range map[string][]byte{
		"wrong bytes":      bytes.Repeat([]byte{9}, 1000),
		"wrong, full size": bytes.Repeat([]byte{9}, 300_000),
		"too long":         bytes.Repeat([]byte{9}, 300_001),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, r)
			blobs := filepath.Join(w.cfg.CacheDir, "models--suno--bark-small", "blobs")
			require.NoError(t, os.MkdirAll(blobs, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(blobs, hubtest.SHA256(r.Files[weights])+".incomplete"), part, 0o644))
			_, dir, err := w.pull(t.Context())
			require.NoError(t, err)
			assertSnapshot(t, r, dir)
		})
	}
}

func TestTruncatedBlobOfTheCacheIsReplaced(t *testing.T) {
	r := hubtest.Bark(id, 3000)
	w := newWorld(t, r)
	_, dir, err := w.pull(t.Context())
	require.NoError(t, err)
	blob, err := filepath.EvalSymlinks(filepath.Join(dir, weights))
	require.NoError(t, err)
	require.NoError(t, os.Truncate(blob, 10))
	_, dir, err = w.pull(t.Context())
	require.NoError(t, err)
	assertSnapshot(t, r, dir)
}

func TestContentThatDoesNotMatchItsDigestIsNeverKept(t *testing.T) {
	for name, fault := range map[string]hubtest.Fault{
		"one bit":  {Flip: true},
		"too long": {Longer: true},
	} {
		for _, file := range []string{weights, "config.json"} {
			t.Run(name+" "+file, func(t *testing.T) {
				r := hubtest.Bark(id, 2000)
				w := newWorld(t, r)
				w.Fault(file, fault, fault)
				_, _, err := w.pull(t.Context())
				require.ErrorIs(t, err, hub.ErrDigest)
				assert.ErrorContains(t, err, file)
				for _, blob := range w.blobs(t) {
					assert.NotContains(t, []string{hubtest.SHA256(r.Files[file]), hubtest.GitSHA1(r.Files[file])}, blob)
				}
			})
		}
	}
}

func TestWrongRangeIsRefused(t *testing.T) {
	w := newWorld(t, hubtest.Bark(id, 300_000))
	w.Fault(weights, hubtest.Fault{Cut: 100_000}, hubtest.Fault{WrongRange: true})
	_, _, err := w.pull(t.Context())
	require.ErrorIs(t, err, hub.ErrHostile)
	assert.ErrorContains(t, err, "asked for byte 100000")
}

func TestBusyServerIsTriedAgainWithGrowingWaits(t *testing.T) {
	w := newWorld(t, hubtest.Bark(id, 100))
	w.Fault("", hubtest.Fault{Code: 503}, hubtest.Fault{Code: 502}, hubtest.Fault{Code: 500}, hubtest.Fault{Code: 504})
	_, _, err := w.pull(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}, w.pauses())
	assert.Contains(t, w.lines(), "503 Service Unavailable; trying again in 1s")
}

func TestFiveFailuresInARowAreTheEnd(t *testing.T) {
	w := newWorld(t, hubtest.Bark(id, 100))
	for range 5 {
		w.Fault(weights, hubtest.Fault{Code: 503})
	}
	_, _, err := w.pull(t.Context())
	require.ErrorContains(t, err, "the hub's storage answers 503 Service Unavailable (5 attempts)")
	assert.Len(t, w.pauses(), 4)
}

func TestExpiredAddressOfTheStorageIsAskedForAgain(t *testing.T) {
	r := hubtest.Bark(id, 100)
	w := newWorld(t, r)
	w.Fault(weights, hubtest.Fault{Code: 403})
	_, dir, err := w.pull(t.Context())
	require.NoError(t, err)
	assertSnapshot(t, r, dir)
	assert.Contains(t, w.lines(), "the hub's storage answers 403 Forbidden")
}

func TestServerSaysHowLongToWait(t *testing.T) {
	for name, c := range map[string]struct {
		header map[string]string
		want   time.Duration
	}{
		"seconds":   {map[string]string{"Retry-After": "30"}, 30 * time.Second},
		"date":      {map[string]string{"Retry-After": "Fri, 02 Jan 2026 03:05:00 GMT"}, 55 * time.Second},
		"past":      {map[string]string{"Retry-After": "Fri, 02 Jan 2026 03:00:00 GMT"}, time.Second},
		"ratelimit": {map[string]string{"RateLimit": `"resolvers";r=0;t=52`}, 52 * time.Second},
		"nonsense":  {map[string]string{"Retry-After": "-5"}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, hubtest.Bark(id, 100))
			w.Fault(weights, hubtest.Fault{Code: 429, Header: c.header})
			_, _, err := w.pull(t.Context())
			require.NoError(t, err)
			assert.Equal(t, []time.Duration{c.want}, w.pauses())
		})
	}
}

func TestWaitThatIsTooLongIsAnError(t *testing.T) {
	w := newWorld(t, hubtest.Bark(id, 100))
	w.Fault("", hubtest.Fault{Code: 429, Header: map[string]string{"Retry-After": "3600"}})
	_, _, err := w.pull(t.Context())
	require.ErrorContains(t, err, "come back in 1h0m0s")
	assert.ErrorContains(t, err, "HF_TOKEN raises the limit")
	assert.Empty(t, w.pauses())
}

func TestSilentServerIsTriedAgain(t *testing.T) {
	r := hubtest.Bark(id, 100_000)
	w := newWorld(t, r)
	w.opts.StallTimeout = 400 * time.Millisecond // long for a local server, even a busy one
	w.Fault(weights, hubtest.Fault{Cut: 10_000, Stall: true})
	_, dir, err := w.pull(t.Context())
	require.NoError(t, err)
	assertSnapshot(t, r, dir)
	assert.Contains(t, w.lines(), "no data arrived any more")
}

func TestUnreachableHubNamesItself(t *testing.T) {
	w := newWorld(t, hubtest.Bark(id, 100))
	_, _, err := w.pull(t.Context())
	require.NoError(t, err)
	dead := hubtest.New(t)
	w.cfg.Endpoint = dead.URL
	w.opts.Transport = roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
	_, _, err = w.pull(t.Context())
	require.ErrorContains(t, err, "cannot reach "+strings.TrimPrefix(dead.URL, "http://")+": connection refused (5 attempts)")
	assert.ErrorContains(t, err, "HF_HUB_OFFLINE=1 uses the copy")
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
