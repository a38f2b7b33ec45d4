package api_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"barkd/cgo"
	"barkd/cgo/memwatch"
	"barkd/cgo/mock"
	"barkd/server/api"
	"barkd/server/audio/sndfile"
	"barkd/server/metrics"
	"barkd/server/speech"
	"barkd/server/speech/speechtest"
	"barkd/server/voices"
)

func TestMain(m *testing.M) {
	if !sndfile.Available {
		fmt.Println("skipped: these tests ask for mp3, the API's default, which a build without cgo cannot write")
		return
	}
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

// quietMachine is a machine with memory enough, unless a test says otherwise.
type quietMachine struct{ pressure *atomic.Int32 }

func (quietMachine) Memory() (used, total int64) { return 1 << 30, 4 << 30 }
func (quietMachine) ThresholdGB() float64        { return 12 }
func (m quietMachine) Level(int) memwatch.Level  { return memwatch.Level(m.pressure.Load()) }
func (quietMachine) Cleanups() uint64            { return 7 }

// site is a server on a real listener.
type site struct {
	*api.Server
	url string
	// adminURL is where /cache/* is served when that is apart.
	adminURL string
	model    *speechtest.Model // suno/bark
	models   *speechtest.Models
	audio    *speech.AudioCache
	pool     *cgo.Pool // of simulated models, which are those of the catalogue by name
	warmup   *cgo.Warmup
	pressure atomic.Int32 // on the machine's memory, a memwatch.Level
	log      *syncBuffer
	served   chan error
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

// settings of a site; the zero value is the usual one.
type settings struct {
	voices   []string
	faults   string // of the simulated runtime, as MOCK_FAULTS
	budget   int64
	warmup   []string // models whose warm-up never runs
	rules    api.Rules
	queued   int // requests that may wait; 0 is one
	perModel int // of them for one model; 0 is all
	origins  []string
	apart    bool // /cache/* on a listener of its own
	jobs     api.Jobs
	voiceDir string // "" for one of its own
	noVoices bool
	// generations bounds the tokens of recent speech; 0 is 1 MiB.
	generations int64
	kv          cgo.KVType
}

func newSite(t *testing.T, voices ...string) *site { return openSite(t, settings{voices: voices}) }

func openSite(t *testing.T, with settings) *site {
	t.Helper()
	tiny := speechtest.NewModel("barkd/tiny")
	tiny.Facts.Trained = false
	s := &site{model: speechtest.NewModel("suno/bark", with.voices...), log: &syncBuffer{}, served: make(chan error, 2)}
	s.models = speechtest.NewModels(s.model, tiny)
	log := zerolog.New(s.log)
	s.openPool(t, with)
	queued := max(with.queued, 1)
	with.rules.QueueLimit = queued
	if with.voiceDir == "" {
		with.voiceDir = t.TempDir()
	}
	made, err := voices.Open(with.voiceDir, voices.Limits{Voices: 3, Bytes: 1 << 20})
	require.NoError(t, err)
	if with.noVoices {
		made = nil
	}
	with.rules.MaxInputChars = 1 << 16
	s.audio = speech.NewAudioCache(1 << 30)
	service := speech.NewService(s.models, speech.NewAdmission(speech.Limits{Running: 1, Queued: queued, PerModel: cmp.Or(with.perModel, queued)}), log)
	s.Server = api.New(api.Options{
		Speaker: speech.NewSharing(service, s.identify, s.audio), Audio: s.audio, Digest: s.digest, KnownDigest: func(model string) string { return "digest-of-" + model }, Build: "a build", KV: with.kv,
		Catalogue: catalogue{s.models}, Cache: s.pool, Machine: quietMachine{&s.pressure}, Warmup: s.warmup, Metrics: metrics.New(),
		Log: log, Version: "1.2.3", Backend: "mock", DefaultModel: "suno/bark", OpenAPI: document(t), ReadyPatience: time.Hour,
		AdminApart: with.apart, Jobs: with.jobs, MaxBodyBytes: 512 << 10, CORSOrigins: with.origins, Rules: with.rules, Voices: made, GenerationBytes: cmp.Or(with.generations, 1<<20),
	})
	s.url = s.listen(t, s.Serve)
	listeners := 1
	if with.apart {
		s.adminURL = s.listen(t, s.ServeAdmin)
		listeners++
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if s.served != nil {
			require.NoError(t, s.Shutdown(context.Background()))
			for range listeners {
				require.NoError(t, <-s.served)
			}
		}
	})
	return s
}

// identify tells the version of a fake model's file.
func (s *site) identify(_ context.Context, id string) (string, []string, error) {
	m, ok := s.models.All[id]
	if !ok {
		return "", nil, cgo.ErrNotFound
	}
	return m.Version, m.Facts.Voices, nil
}

func (s *site) digest(_ context.Context, id, version string) (string, error) {
	if version != s.models.All[id].Version {
		return "", errors.New("it was replaced")
	}
	return "digest-of-" + version, nil
}

func (s *site) openPool(t *testing.T, with settings) {
	t.Helper()
	var plan *mock.Faults
	if with.faults != "" {
		var err error
		plan, err = mock.ParseFaults([]byte(with.faults))
		require.NoError(t, err)
	}
	pool, err := cgo.NewPool(mock.New(mock.Options{Faults: plan}), mock.Resolve, cgo.PoolOptions{MaxModels: 2, Budgets: []int64{with.budget}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close(context.Background())) })
	s.pool = pool
	s.warmup = cgo.NewWarmup(with.warmup)
	if len(with.warmup) == 0 {
		s.warmup.Run(t.Context(), pool, nil, nil)
	}
}

// listen serves on a port of its own and returns its address once it answers.
func (s *site) listen(t *testing.T, serve func(net.Listener) error) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url := "http://" + listener.Addr().String()
	go func() { s.served <- serve(listener) }()
	resp, err := http.Get(url + "/health")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return url
}

// reply is a response read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (s *site) do(t *testing.T, method, path, body string, header ...string) reply {
	t.Helper()
	return do(t, method, s.url+path, body, header...)
}

func do(t *testing.T, method, url, body string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
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

// awaitLoad waits until so many requests run and so many wait.
func (s *site) awaitLoad(t *testing.T, running, waiting int) {
	t.Helper()
	require.Eventually(t, func() bool {
		r, w := s.Speaker.Load()
		return r == running && w == waiting
	}, 10*time.Second, time.Millisecond)
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
