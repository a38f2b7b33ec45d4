package hub_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barkd/server/models/hub"
	"barkd/server/models/hub/hubtest"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	id      = "suno/bark-small"
	weights = "pytorch_model.bin"
	voice   = "speaker_embeddings/v2/en_speaker_0_fine_prompt.npy"
)

// world is a hub, a client of it and what the client did with its clock and log.
type world struct {
	*hubtest.Server
	cfg  hub.Config
	opts hub.Options

	mu    sync.Mutex
	waits []time.Duration
	log   []string
}

func newWorld(t *testing.T, repos ...*hubtest.Repo) *world {
	w := &world{Server: hubtest.New(t, repos...)}
	w.cfg = hub.Config{Endpoint: w.URL, CacheDir: filepath.Join(t.TempDir(), "hub")}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	w.opts = hub.Options{
		Transport: transport,
		Now:       func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
		Sleep: func(ctx context.Context, d time.Duration) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.waits = append(w.waits, d)
			return ctx.Err()
		},
		Log: func(line string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.log = append(w.log, line)
		},
		LockPoll: time.Millisecond,
	}
	return w
}

func (w *world) client() *hub.Client { return hub.New(w.cfg, w.opts) }

func (w *world) lines() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.log, "\n")
}

func (w *world) pauses() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.waits)
}

// pull resolves and downloads everything.
func (w *world) pull(ctx context.Context) (hub.Repo, string, error) {
	c := w.client()
	repo, err := c.Resolve(ctx, id, "")
	if err != nil {
		return repo, "", err
	}
	dir, err := c.Download(ctx, repo, repo.Files, nil)
	return repo, dir, err
}

// blobs returns the names in the cache's blobs folder.
func (w *world) blobs(t *testing.T) []string {
	entries, err := os.ReadDir(filepath.Join(w.cfg.CacheDir, "models--suno--bark-small", "blobs"))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func assertSnapshot(t *testing.T, r *hubtest.Repo, dir string) {
	t.Helper()
	var got []string
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		if d.IsDir() {
			return nil
		}
		name, err := filepath.Rel(dir, p)
		require.NoError(t, err)
		got = append(got, name)
		data, err := os.ReadFile(p)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(r.Files[name], data), name)
		return nil
	}))
	want := slices.Sorted(maps.Keys(r.Files))
	want = slices.DeleteFunc(want, func(n string) bool {
		return strings.HasSuffix(n, ".pt") || n == "README.md" || n == ".gitattributes"
	})
	assert.ElementsMatch(t, want, got)
}

func TestDownloadBringsWhatBarkNeedsInTheSharedLayout(t *testing.T) {
	r := hubtest.Bark(id, 300_000)
	w := newWorld(t, r)
	repo, dir, err := w.pull(t.Context())
	require.NoError(t, err)
	assert.Equal(t, r.Commit(), repo.Commit)
	assertSnapshot(t, r, dir)

	root := filepath.Join(w.cfg.CacheDir, "models--suno--bark-small")
	assert.Equal(t, filepath.Join(root, "snapshots", r.Commit()), dir)
	ref, err := os.ReadFile(filepath.Join(root, "refs", "main"))
	require.NoError(t, err)
	assert.Equal(t, r.Commit(), string(ref))
	for name, target := range map[string]string{
		weights:       "../../blobs/" + hubtest.SHA256(r.Files[weights]),
		"config.json": "../../blobs/" + hubtest.GitSHA1(r.Files["config.json"]),
		voice:         "../../../../blobs/" + hubtest.SHA256(r.Files[voice]),
	} {
		link, err := os.Readlink(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, target, link)
	}
	for _, name := range w.blobs(t) {
		assert.NotContains(t, name, "incomplete")
	}
	for _, req := range w.Requests() {
		assert.Equal(t, http.MethodGet, req.Method, "the list told everything: no HEAD per file")
	}
	assert.Empty(t, w.pauses())
}

func TestSecondDownloadFetchesNothing(t *testing.T) {
	w := newWorld(t, hubtest.Bark(id, 1000))
	_, _, err := w.pull(t.Context())
	require.NoError(t, err)
	before := w.Fetches()
	_, _, err = w.pull(t.Context())
	require.NoError(t, err)
	assert.Equal(t, before, w.Fetches())
}

func TestNewCommitFetchesOnlyWhatChanged(t *testing.T) {
	r := hubtest.Bark(id, 1000)
	w := newWorld(t, r)
	_, first, err := w.pull(t.Context())
	require.NoError(t, err)
	changed := hubtest.Bark(id, 1000)
	changed.Files["generation_config.json"] = []byte(`{"semantic_config": {}}`)
	w.Put(changed)
	before := len(w.Requests())
	_, second, err := w.pull(t.Context())
	require.NoError(t, err)
	assert.Len(t, w.Requests()[before:], 2, "the list and one file")
	assertSnapshot(t, changed, second)
	assertSnapshot(t, r, first)
}

func TestTokenStaysOnTheHub(t *testing.T) {
	r := hubtest.Bark(id, 1000)
	r.Gated = true
	w := newWorld(t, r)
	w.cfg.Token = w.Token
	_, _, err := w.pull(t.Context())
	require.NoError(t, err)
	storage := 0
	for _, req := range w.Requests() {
		if req.Storage {
			storage++
			assert.Empty(t, req.Authorization)
		} else {
			assert.Equal(t, "Bearer "+w.Token, req.Authorization)
		}
	}
	assert.NotZero(t, storage)
}

func TestTerseHubIsAskedFileByFile(t *testing.T) {
	r := hubtest.Bark(id, 5000)
	w := newWorld(t, r)
	w.Terse = true
	w.Fault("HEAD config.json", hubtest.Fault{Code: 503})
	repo, dir, err := w.pull(t.Context())
	require.NoError(t, err)
	assertSnapshot(t, r, dir)
	for _, f := range repo.Files {
		assert.EqualValues(t, len(r.Files[f.Path]), f.Size)
		if f.Path == weights || f.Path == voice {
			assert.Equal(t, hubtest.SHA256(r.Files[f.Path]), f.SHA256)
		}
	}
	for _, req := range w.Requests() {
		assert.False(t, req.Storage && req.Method == http.MethodHead, "the hub's own headers tell")
	}
	assert.Len(t, w.pauses(), 1)
}

func TestHubWithoutDigestsIsUsedWithAWarning(t *testing.T) {
	r := hubtest.Bark(id, 500)
	w := newWorld(t, r)
	w.Terse, w.NoDigests = true, true
	_, dir, err := w.pull(t.Context())
	require.NoError(t, err)
	assertSnapshot(t, r, dir)
	assert.Contains(t, w.lines(), "config.json: the hub gives no digest of it")
}

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
	require.ErrorContains(t, err, "503 Service Unavailable (5 attempts)")
	assert.Len(t, w.pauses(), 4)
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

func TestRefusalsSayWhatToDo(t *testing.T) {
	gated := hubtest.Bark("org/gated", 10)
	gated.Gated = true
	private := hubtest.Bark("org/private", 10)
	private.Private = true
	for name, c := range map[string]struct {
		id, revision, token string
		is                  error
		says                []string
	}{
		"gated, no token":    {"org/gated", "", "", hub.ErrDenied, []string{"is gated", "/org/gated", "HF_TOKEN"}},
		"private, no token":  {"org/private", "", "", hub.ErrDenied, []string{"org/private does not exist, or it is private", "HF_TOKEN"}},
		"wrong token":        {"org/private", "", "hf_wrong", hub.ErrDenied, []string{"the token in use is not valid", "Invalid credentials"}},
		"no such repository": {"org/none", "", "hf_test", hub.ErrNotFound, []string{"no model org/none"}},
		"no such revision":   {"org/gated", "v9", "", hub.ErrNotFound, []string{`org/gated has no revision "v9"`}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, gated, private)
			w.cfg.Token = c.token
			client := w.client()
			repo, err := client.Resolve(t.Context(), c.id, c.revision)
			if err == nil {
				_, err = client.Download(t.Context(), repo, repo.Files, nil)
			}
			require.ErrorIs(t, err, c.is)
			for _, s := range c.says {
				assert.ErrorContains(t, err, s)
			}
			if c.token != "" {
				assert.NotContains(t, err.Error(), c.token)
			}
			assert.Empty(t, w.pauses())
		})
	}
}

func TestNamesThatCannotBeAreRefusedBeforeAnyRequest(t *testing.T) {
	w := newWorld(t)
	for _, bad := range []string{"", "/", "../etc", "a/../b", "a/b/c", "a//b", "a/b?x=1", "a/b#", "a--b/c", ".a/b", "a/b.", "a\\b",
		"a/b\x00", "https://x/y", strings.Repeat("a", 97), "a b", "a/ü"} {
		_, err := w.client().Resolve(t.Context(), bad, "")
		assert.ErrorContains(t, err, "is not the name of a model", "%q", bad)
	}
	for _, bad := range []string{"../main", "a/../b", "a//b", "/main", "a\\b", "a b", "main?x", "-x", strings.Repeat("a", 201)} {
		_, err := w.client().Resolve(t.Context(), id, bad)
		assert.ErrorContains(t, err, "is not a branch", "%q", bad)
	}
	assert.Empty(t, w.Requests())
}

func TestRevisionWithSlashesIsOne(t *testing.T) {
	r := hubtest.Bark(id, 100)
	w := newWorld(t, r)
	c := w.client()
	repo, err := c.Resolve(t.Context(), id, "refs/pr/1")
	require.NoError(t, err)
	_, err = c.Download(t.Context(), repo, repo.Files, nil)
	require.NoError(t, err)
	ref, err := os.ReadFile(filepath.Join(w.cfg.CacheDir, "models--suno--bark-small/refs/refs/pr/1"))
	require.NoError(t, err)
	assert.Equal(t, r.Commit(), string(ref))
}

func TestHostileFileNamesNeverReachTheDisk(t *testing.T) {
	for _, name := range []string{"../evil", "speaker_embeddings/../../evil.npy", "/etc/evil", "a//b", "a/./b", "a\\..\\evil",
		"C:evil", "nul\x00", "bell\x07", strings.Repeat("x", 256), "speaker_embeddings/" + strings.Repeat("y/", 600) + "z.npy"} {
		r := hubtest.Bark(id, 10)
		r.Files[name] = []byte("evil")
		w := newWorld(t, r)
		_, _, err := w.pull(t.Context())
		assert.ErrorIs(t, err, hub.ErrHostile, "%q", name)
		assert.NoDirExists(t, w.cfg.CacheDir)
	}
}

func TestFileAndFolderOfOneNameIsAnError(t *testing.T) {
	r := hubtest.Bark(id, 10)
	r.Files["speaker_embeddings/a.npy"] = []byte("file")
	r.Files["speaker_embeddings/a.npy/b.npy"] = []byte("in it")
	w := newWorld(t, r)
	_, _, err := w.pull(t.Context())
	assert.ErrorContains(t, err, "hub cache")
}

func TestFullDiskIsNoticedBeforeTheDownload(t *testing.T) {
	w := newWorld(t, hubtest.Bark(id, 1_000_000))
	w.opts.FreeBytes = func(string) (int64, error) { return 900_000, nil }
	_, _, err := w.pull(t.Context())
	require.ErrorIs(t, err, hub.ErrNoSpace)
	assert.ErrorContains(t, err, "0.001 GB are still to be downloaded")
	assert.Empty(t, w.Fetches())
}

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
