package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"barkd/cgo"
	"barkd/server/api"
	"barkd/server/speech"
	"barkd/server/speech/speechtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),    // one for the process
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2")) // ends within 10 s of a server
}

// catalogue lists the fake models.
type catalogue struct{ models *speechtest.Models }

func (c catalogue) List(context.Context) ([]api.Model, error) {
	var out []api.Model
	for _, m := range c.models.All {
		out = append(out, describe(m))
	}
	return out, nil
}

func (c catalogue) Find(_ context.Context, id string) (api.Model, error) {
	m, ok := c.models.All[id]
	if !ok {
		return api.Model{}, fmt.Errorf("model %q: %w", id, cgo.ErrNotFound)
	}
	return describe(m), nil
}

func describe(m *speechtest.Model) api.Model {
	return api.Model{ID: m.Facts.Name, OwnedBy: "test", Trained: m.Facts.Trained, Voices: m.Facts.Voices, Bytes: 5}
}

// cache remembers what it was told.
type cache struct {
	mu     sync.Mutex
	loaded []string
	fail   map[string]error
}

func (c *cache) Stats() api.CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return api.CacheStats{CachedModels: append([]string{}, c.loaded...), CacheSize: len(c.loaded), MaxCacheSize: 3, Entries: []api.CacheEntry{}}
}

func (c *cache) Clear(context.Context) (api.Cleared, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	freed := c.loaded
	c.loaded = nil
	return api.Cleared{Freed: freed, Draining: []string{}}, nil
}

func (c *cache) Preload(_ context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fail[id]; err != nil {
		return err
	}
	c.loaded = append(c.loaded, id)
	return nil
}

// site is a server on a real listener.
type site struct {
	*api.Server
	url    string
	model  *speechtest.Model // suno/bark
	models *speechtest.Models
	cache  *cache
	log    *syncBuffer
	served chan error
}

type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newSite(t *testing.T, voices ...string) *site {
	t.Helper()
	tiny := speechtest.NewModel("barkd/tiny")
	tiny.Facts.Trained = false
	s := &site{model: speechtest.NewModel("suno/bark", voices...), cache: &cache{}, log: &syncBuffer{}, served: make(chan error, 1)}
	s.models = speechtest.NewModels(s.model, tiny)
	log := zerolog.New(s.log)
	s.Server = api.New(api.Options{
		Speaker:   speech.NewService(s.models, speech.NewAdmission(1, 1), log),
		Catalogue: catalogue{s.models}, Cache: s.cache, Log: log, Version: "1.2.3", Backend: "mock", DefaultModel: "suno/bark",
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.url = "http://" + listener.Addr().String()
	go func() { s.served <- s.Serve(listener) }()
	resp, err := http.Get(s.url + "/health") // it serves
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if s.served != nil {
			require.NoError(t, s.Shutdown(context.Background()))
			require.NoError(t, <-s.served)
		}
	})
	return s
}

// reply is a response read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (s *site) do(t *testing.T, method, path, body string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	require.NoError(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { assert.NoError(t, resp.Body.Close()) }()
	all, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return reply{resp.StatusCode, resp.Header, all}
}

func (s *site) speak(t *testing.T, body string) reply {
	t.Helper()
	return s.do(t, "POST", "/v1/audio/speech", body)
}

type failure struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// failure reads OpenAI's envelope and checks that all four keys are there.
func (r reply) failure(t *testing.T) failure {
	t.Helper()
	var body struct {
		Error map[string]json.RawMessage `json:"error"`
	}
	require.NoError(t, json.Unmarshal(r.body, &body), "%s", r.body)
	require.Len(t, body.Error, 4, "%s", r.body)
	var out struct {
		Error failure `json:"error"`
	}
	require.NoError(t, json.Unmarshal(r.body, &out))
	assert.NotEmpty(t, out.Error.Message)
	assert.NotEmpty(t, r.header.Get("X-Request-Id"))
	return out.Error
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
