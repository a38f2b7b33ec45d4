package models

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"barkd/server/models/convert"
	"barkd/server/models/hub"
	"barkd/server/models/hub/hubtest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const small = "suno/bark-small"

// bench is a hub, a store, and a converter that only records what it was given.
type bench struct {
	server  *hubtest.Server
	client  *hub.Client
	store   *Store
	convert func(convert.Options) error // nil: nothing more

	mu    sync.Mutex
	calls []convert.Options
	lines []string
	steps []string
}

func newBench(t *testing.T, repo *hubtest.Repo) *bench {
	b := &bench{server: hubtest.New(t, repo), store: openStore(t)}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	b.client = hub.New(hub.Config{Endpoint: b.server.URL, CacheDir: filepath.Join(t.TempDir(), "hub")},
		hub.Options{Transport: transport, LockPoll: time.Millisecond, Sleep: func(context.Context, time.Duration) error { return nil }})
	return b
}

// fake writes a model file of the wanted type.
func (b *bench) fake(t *testing.T) converter {
	return func(_ context.Context, o convert.Options) (convert.Report, error) {
		b.mu.Lock()
		b.calls = append(b.calls, o)
		b.mu.Unlock()
		if b.convert != nil {
			if err := b.convert(o); err != nil {
				return convert.Report{}, err
			}
		}
		writeModel(t, o.Out, "bark", cmp.Or(o.Type, convert.F32))
		o.Progress(10, 10)
		return convert.Report{}, nil
	}
}

func (b *bench) pull(t *testing.T, typ convert.Type) (Pulled, error) {
	return pull(t.Context(), b.store, b.client, small, "", typ,
		func(step string, done, total int64, _ string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if line := fmt.Sprintf("%s %v", step, done == total); !slices.Contains(b.steps, line) {
				b.steps = append(b.steps, line)
			}
		},
		func(line string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.lines = append(b.lines, line)
		}, b.fake(t))
}

func TestPullDownloadsAndConvertsIntoTheStore(t *testing.T) {
	repo := hubtest.Bark(small, 200_000)
	b := newBench(t, repo)
	pulled, err := b.pull(t, "q8")
	require.NoError(t, err)
	assert.True(t, pulled.Fresh)
	assert.Equal(t, repo.Commit(), pulled.Commit)
	assert.Equal(t, filepath.Join(b.store.Dir(), "suno", "bark-small.gguf"), pulled.Path)
	require.Len(t, b.calls, 1)
	assert.Equal(t, small, b.calls[0].Name)
	assert.Equal(t, convert.Type("q8"), b.calls[0].Type)
	assert.FileExists(t, filepath.Join(b.calls[0].Source, "pytorch_model.bin"))
	assert.Subset(t, b.steps, []string{"download true", "convert true"})

	src, err := b.store.Resolve(small)
	require.NoError(t, err)
	assert.Equal(t, pulled.Path, src.Path)
	entries, err := b.store.List()
	require.NoError(t, err)
	assert.Len(t, entries, 2, "locks are not models")
}

func TestPullMakesAModelOfAHuggingFaceRepository(t *testing.T) {
	b := newBench(t, hubtest.Dir(t, "org/base", filepath.Join("..", "testdata", "reference", "base")))
	pulled, err := Pull(t.Context(), b.store, b.client, "org/base", "", convert.Source, nil, nil)
	require.NoError(t, err)
	assert.True(t, pulled.Fresh)
	e, err := b.store.Find("org/base")
	require.NoError(t, err)
	assert.True(t, e.Trained)
	assert.Equal(t, "f32", e.Type)
	assert.NotEmpty(t, e.Voices)
	assert.Equal(t, pulled.Report.Voices, e.Voices)
	again, err := Pull(t.Context(), b.store, b.client, "org/base", "", convert.Source, nil, nil)
	require.NoError(t, err)
	assert.False(t, again.Fresh)
}

func TestSecondPullSaysItIsUpToDateAndDoesNothing(t *testing.T) {
	b := newBench(t, hubtest.Bark(small, 1000))
	_, err := b.pull(t, "f16")
	require.NoError(t, err)
	before := b.server.Fetches()
	for _, typ := range []convert.Type{"f16", ""} {
		pulled, err := b.pull(t, typ)
		require.NoError(t, err)
		assert.False(t, pulled.Fresh)
	}
	assert.Len(t, b.calls, 1)
	assert.Equal(t, before, b.server.Fetches())
	assert.Contains(t, strings.Join(b.lines, "\n"), "suno/bark-small is up to date")
}

func TestUpToDateModelNeedsNothingInTheHubsCache(t *testing.T) {
	b := newBench(t, hubtest.Bark(small, 1000))
	_, err := b.pull(t, "")
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(b.client.Config().CacheDir))
	_, err = b.pull(t, "")
	require.NoError(t, err)
	assert.Len(t, b.calls, 1)
	assert.Equal(t, 1, b.server.Fetches()["pytorch_model.bin"])
}

func TestPullConvertsAgainWhenSomethingDiffers(t *testing.T) {
	for name, change := range map[string]func(b *bench) convert.Type{
		"another type": func(*bench) convert.Type { return "q8" },
		"weights": func(b *bench) convert.Type {
			b.server.Put(hubtest.Bark(small, 1001))
			return ""
		},
		"small file": func(b *bench) convert.Type {
			r := hubtest.Bark(small, 1000)
			r.Files["generation_config.json"] = []byte(`{"x": 1}`)
			b.server.Put(r)
			return ""
		},
		"another voice": func(b *bench) convert.Type {
			r := hubtest.Bark(small, 1000)
			r.Files["speaker_embeddings/new_fine_prompt.npy"] = []byte("new")
			b.server.Put(r)
			return ""
		},
		"safetensors": func(b *bench) convert.Type {
			r := hubtest.Bark(small, 1000)
			r.Files["model.safetensors"] = []byte("weights")
			b.server.Put(r)
			return ""
		},
		"file of another origin": func(b *bench) convert.Type {
			path, _ := b.store.Path(small)
			_ = os.Chtimes(path, time.Time{}, time.Unix(1e9, 0))
			return ""
		},
		"removed": func(b *bench) convert.Type {
			_ = b.store.Remove(small)
			return ""
		},
		"damaged file": func(b *bench) convert.Type {
			path, _ := b.store.Path(small)
			_ = os.Truncate(path, 100)
			return ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, hubtest.Bark(small, 1000))
			_, err := b.pull(t, "")
			require.NoError(t, err)
			pulled, err := b.pull(t, change(b))
			require.NoError(t, err)
			assert.True(t, pulled.Fresh)
			assert.Len(t, b.calls, 2)
		})
	}
}

func TestFailedConversionKeepsTheOldModel(t *testing.T) {
	b := newBench(t, hubtest.Bark(small, 1000))
	pulled, err := b.pull(t, "")
	require.NoError(t, err)
	before, err := os.ReadFile(pulled.Path)
	require.NoError(t, err)
	b.convert = func(convert.Options) error { return &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC} }
	_, err = b.pull(t, "q8")
	require.ErrorIs(t, err, syscall.ENOSPC)
	assert.ErrorContains(t, err, "BARKD_MODELS")
	after, err := os.ReadFile(pulled.Path)
	require.NoError(t, err)
	assert.Equal(t, before, after)
}

func TestPartsOfKilledConversionsAreRemoved(t *testing.T) {
	b := newBench(t, hubtest.Bark(small, 1000))
	folder := filepath.Join(b.store.Dir(), "suno")
	require.NoError(t, os.MkdirAll(folder, 0o755))
	mine, other := filepath.Join(folder, ".bark-small.gguf.77.0.part"), filepath.Join(folder, ".bark.gguf.77.0.part")
	require.NoError(t, os.WriteFile(mine, nil, 0o644))
	require.NoError(t, os.WriteFile(other, nil, 0o644))
	_, err := b.pull(t, "")
	require.NoError(t, err)
	assert.NoFileExists(t, mine)
	assert.FileExists(t, other)
}

func TestTwoPullsOfOneModelConvertOnce(t *testing.T) {
	b := newBench(t, hubtest.Bark(small, 1000))
	entered, waiting := make(chan struct{}), make(chan struct{})
	b.convert = func(convert.Options) error {
		close(entered)
		<-waiting // the other one has met the lock
		return nil
	}
	first := make(chan error, 1)
	go func() {
		_, err := b.pull(t, "")
		first <- err
	}()
	<-entered
	pulled, err := pull(t.Context(), b.store, b.client, small, "", "", nil, func(line string) {
		if strings.Contains(line, "another program is pulling it") {
			close(waiting)
		}
	}, b.fake(t))
	require.NoError(t, err)
	require.NoError(t, <-first)
	assert.False(t, pulled.Fresh)
	assert.Len(t, b.calls, 1)
}

func TestPullErrorsNameTheirCause(t *testing.T) {
	b := newBench(t, hubtest.Bark(small, 1000))
	for id, want := range map[string]error{"../x": ErrBadID, "suno/none": hub.ErrDenied} {
		_, err := Pull(t.Context(), b.store, b.client, id, "", "", nil, nil)
		assert.ErrorIs(t, err, want)
	}
	_, err := Pull(t.Context(), b.store, b.client, DefaultID, "", "", nil, nil)
	assert.ErrorContains(t, err, "part of the program")
	b.convert = func(convert.Options) error { return errors.New("not a Bark model") }
	_, err = b.pull(t, "")
	assert.ErrorContains(t, err, "suno/bark-small: not a Bark model")
}
