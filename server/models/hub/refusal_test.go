package hub_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"barkd/server/models/hub"
	"barkd/server/models/hub/hubtest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
