package hub_test

import (
	"bytes"
	"context"
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
