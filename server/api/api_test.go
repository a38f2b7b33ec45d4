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
	"time"

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
		Catalogue: catalogue{s.models}, Cache: s.cache, Log: log, Version: "1.2.3", Backend: "mock",
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

func TestSpeechIsAWAVOfTheText(t *testing.T) {
	s := newSite(t, "v2/en_speaker_6")
	r := s.speak(t, `{"model":"suno/bark","input":"Hello.","voice":"alloy","seed":18446744073709551615}`)
	require.Equal(t, 200, r.status, "%s", r.body)
	assert.Equal(t, "audio/wav", r.header.Get("Content-Type"))
	assert.Equal(t, "18446744073709551615", r.header.Get("X-Barkd-Seed"))
	assert.Equal(t, "v2/en_speaker_6", r.header.Get("X-Barkd-Voice"))
	assert.Equal(t, "1", r.header.Get("X-Barkd-Pieces"))
	assert.NotEmpty(t, r.header.Get("X-Barkd-Real-Time-Factor"))
	assert.Empty(t, r.header.Get("X-Barkd-Untrained"))
	assert.Equal(t, "RIFF", string(r.body[:4]))
	assert.Len(t, r.body, 44+2*6*speechtest.SamplesPerRune)
}

func TestPCMHasNoHeader(t *testing.T) {
	s := newSite(t)
	r := s.speak(t, `{"model":"suno/bark","input":"Hello.","response_format":"pcm"}`)
	require.Equal(t, 200, r.status)
	assert.Equal(t, "audio/pcm", r.header.Get("Content-Type"))
	assert.Equal(t, "24000", r.header.Get("X-Barkd-Sample-Rate"))
	assert.Len(t, r.body, 2*6*speechtest.SamplesPerRune)
}

func TestUntrainedModelSaysSo(t *testing.T) {
	s := newSite(t)
	r := s.speak(t, `{"model":"barkd/tiny","input":"Hello."}`)
	require.Equal(t, 200, r.status)
	assert.Equal(t, "true", r.header.Get("X-Barkd-Untrained"))
	assert.Contains(t, string(s.do(t, "GET", "/v1/models/barkd/tiny", "").body), `"trained":false`)
}

func TestDrawnSeedIsSentBackAndExactInJavaScript(t *testing.T) {
	s := newSite(t)
	r := s.speak(t, `{"model":"suno/bark","input":"Hi."}`)
	var seed uint64
	_, err := fmt.Sscan(r.header.Get("X-Barkd-Seed"), &seed)
	require.NoError(t, err)
	assert.Less(t, seed, uint64(1)<<53)
	assert.Equal(t, seed, s.model.Requests()[0].Seed)
}

func TestEverySpeechFieldReachesTheRuntime(t *testing.T) {
	s := newSite(t, "mine")
	r := s.speak(t, `{"model":"suno/bark","input":"Hi.","voice":{"id":"mine"},"speed":1.0,"instructions":"","stream_format":"audio",
		"response_format":null,"seed":3,"rules":"hf","max_tokens":7,"temperature":0,"temperature_fine":0.25,"top_k":40,"top_p":0.5,"min_eos_p":0.1}`)
	require.Equal(t, 200, r.status, "%s", r.body)
	got := s.model.Requests()[0]
	assert.Equal(t, "mine", got.Voice.(*speechtest.Voice).Name)
	got.Voice = nil
	assert.Equal(t, cgo.Request{
		Rules: cgo.RulesHF, Text: "Hi.", Seed: 3, MaxSemanticTokens: 7,
		Semantic: cgo.Sampling{TopK: 40, TopP: 0.5, MinEOSP: 0.1},
		Coarse:   cgo.Sampling{TopK: 40, TopP: 0.5},
		Fine:     cgo.Sampling{Temperature: 0.25, TopP: 1},
	}, got)
}

func TestTenKilobytesOfTextAreSpoken(t *testing.T) {
	s := newSite(t)
	text := strings.Repeat("The quick brown fox jumps over the lazy dog and walks home. ", 170)
	r := s.speak(t, `{"model":"suno/bark","input":"`+text+`"}`)
	require.Equal(t, 200, r.status, "%s", r.body)
	assert.Equal(t, "170", r.header.Get("X-Barkd-Pieces"))
}

func TestNULInTextIsLeftToTheModel(t *testing.T) {
	s := newSite(t)
	require.Equal(t, 200, s.speak(t, `{"model":"suno/bark","input":"a\u0000b 👩‍👩‍👧 \ud83d\ude00"}`).status)
	assert.Equal(t, "a\x00b 👩‍👩‍👧 😀", s.model.Requests()[0].Text)
}

func TestWrongSpeechRequestsAreNamed(t *testing.T) {
	s := newSite(t, "mine")
	body := func(extra string) string { return `{"model":"suno/bark","input":"Hi.",` + extra + `}` }
	for name, c := range map[string]struct {
		body, param, code string
		status            int
	}{
		"empty body":        {" ", "", "invalid_json", 400},
		"not JSON":          {"{", "", "invalid_json", 400},
		"a list":            {"[]", "", "invalid_json", 400},
		"null":              {"null", "", "invalid_json", 400},
		"trailing data":     {`{"model":"suno/bark","input":"a"} x`, "", "invalid_json", 400},
		"invalid UTF-8":     {"{\"model\":\"suno/bark\",\"input\":\"a\xff\"}", "", "invalid_utf8", 400},
		"lone surrogate":    {`{"model":"suno/bark","input":"a\ud800"}`, "", "invalid_utf8", 400},
		"reversed pair":     {`{"model":"suno/bark","input":"\ude00\ud83d"}`, "", "invalid_utf8", 400},
		"no model":          {`{"input":"a"}`, "model", "missing_parameter", 400},
		"no input":          {`{"model":"suno/bark"}`, "input", "missing_parameter", 400},
		"empty input":       {`{"model":"suno/bark","input":""}`, "input", "missing_parameter", 400},
		"blank input":       {`{"model":"suno/bark","input":" \n"}`, "input", "", 400},
		"mute input":        {`{"model":"suno/bark","input":"\u0000\u0007"}`, "input", "", 400},
		"input of numbers":  {`{"model":"suno/bark","input":3}`, "input", "invalid_value", 400},
		"long input":        {`{"model":"suno/bark","input":"` + strings.Repeat("a", 100_000) + `"}`, "input", "invalid_value", 400},
		"huge input":        {`{"model":"suno/bark","input":"` + strings.Repeat("a", 1_000_000) + `"}`, "", "request_too_large", 413},
		"unknown model":     {`{"model":"suno/nope","input":"a"}`, "model", "model_not_found", 404},
		"unknown field":     {body(`"pitch":2`), "pitch", "unknown_parameter", 400},
		"field in capitals": {body(`"Seed":2`), "Seed", "unknown_parameter", 400},
		"unknown voice":     {body(`"voice":"nobody"`), "voice", "", 400},
		"voice number":      {body(`"voice":1`), "voice", "invalid_value", 400},
		"voice object":      {body(`"voice":{"name":"x"}`), "voice", "invalid_value", 400},
		"voice object more": {body(`"voice":{"id":"mine","x":1}`), "voice", "invalid_value", 400},
		"format":            {body(`"response_format":"mp3"`), "response_format", "invalid_value", 400},
		"stream":            {body(`"stream_format":"sse"`), "stream_format", "invalid_value", 400},
		"speed":             {body(`"speed":1.5`), "speed", "invalid_value", 400},
		"instructions":      {body(`"instructions":"shout"`), "instructions", "invalid_value", 400},
		"seed negative":     {body(`"seed":-1`), "seed", "invalid_value", 400},
		"seed fraction":     {body(`"seed":1.5`), "seed", "invalid_value", 400},
		"temperature":       {body(`"temperature":-0.1`), "temperature", "invalid_value", 400},
		"temperature text":  {body(`"temperature_fine":"hot"`), "temperature_fine", "invalid_value", 400},
		"top_k":             {body(`"top_k":-1`), "top_k", "invalid_value", 400},
		"top_p":             {body(`"top_p":0`), "top_p", "invalid_value", 400},
		"min_eos_p":         {body(`"min_eos_p":2`), "min_eos_p", "invalid_value", 400},
		"rules":             {body(`"rules":"none"`), "rules", "invalid_value", 400},
		"max_tokens":        {body(`"max_tokens":0`), "max_tokens", "invalid_value", 400},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.speak(t, c.body)
			assert.Equal(t, c.status, r.status, "%s", r.body)
			failure := r.failure(t)
			assert.Equal(t, "invalid_request_error", failure.Type)
			assert.Equal(t, c.param, deref(failure.Param))
			assert.Equal(t, c.code, deref(failure.Code))
		})
	}
}

func TestUnsupportedFormatListsThoseThereAre(t *testing.T) {
	s := newSite(t)
	r := s.speak(t, `{"model":"suno/bark","input":"a","response_format":"mp3"}`)
	assert.Contains(t, r.failure(t).Message, "wav, wav-f32, pcm")
}

func TestUnknownModelNamesThePullCommand(t *testing.T) {
	s := newSite(t)
	r := s.speak(t, `{"model":"suno/nope","input":"a"}`)
	assert.Contains(t, r.failure(t).Message, "barkd pull suno/nope")
	r = s.speak(t, `{"model":"x; rm -rf /","input":"a"}`)
	assert.NotContains(t, r.failure(t).Message, "barkd pull")
}

func TestBodyMustBePlainJSON(t *testing.T) {
	s := newSite(t)
	r := s.do(t, "POST", "/v1/audio/speech", `{"model":"suno/bark","input":"a"}`, "Content-Type", "application/x-www-form-urlencoded")
	assert.Equal(t, 415, r.status)
	assert.Contains(t, r.failure(t).Message, "Content-Type: application/json")
	r = s.do(t, "POST", "/v1/audio/speech", `{"model":"suno/bark","input":"a"}`, "Content-Encoding", "gzip")
	assert.Equal(t, 415, r.status)
	r = s.do(t, "POST", "/v1/audio/speech", `{"model":"suno/bark","input":"a"}`, "Content-Type", "application/json; charset=utf-8")
	assert.Equal(t, 200, r.status)
}

func TestRuntimeErrorsHaveTrueStatusCodes(t *testing.T) {
	for err, c := range map[error]struct {
		status int
		code   string
	}{
		cgo.ErrInvalidArgument: {400, ""},
		cgo.ErrOutOfMemory:     {503, "insufficient_memory"},
		cgo.ErrBusy:            {503, "overloaded"},
		cgo.ErrClosed:          {503, "shutting_down"},
		cgo.ErrDevice:          {503, "device_failed"},
		cgo.ErrUnsupported:     {501, "unsupported"},
		cgo.ErrBadModel:        {500, "model_invalid"},
		cgo.ErrInternal:        {500, "internal_error"},
		io.ErrUnexpectedEOF:    {500, "internal_error"},
	} {
		t.Run(err.Error(), func(t *testing.T) {
			s := newSite(t)
			s.model.Work = func(context.Context, cgo.Request) error { return fmt.Errorf("/secret/path: %w", err) }
			r := s.speak(t, `{"model":"suno/bark","input":"a"}`)
			assert.Equal(t, c.status, r.status)
			failure := r.failure(t)
			assert.Equal(t, c.code, deref(failure.Code))
			assert.Equal(t, c.status == 503, r.header.Get("Retry-After") != "")
			if c.status >= 500 {
				assert.NotContains(t, failure.Message, "secret")
				assert.Contains(t, s.log.String(), "secret")
				assert.Contains(t, s.log.String(), r.header.Get("X-Request-Id"))
			}
		})
	}
}

func TestPanicIsA500AndTheServerLives(t *testing.T) {
	s := newSite(t)
	s.model.Work = func(context.Context, cgo.Request) error { panic("a bug") }
	r := s.speak(t, `{"model":"suno/bark","input":"a"}`)
	assert.Equal(t, 500, r.status)
	assert.NotContains(t, r.failure(t).Message, "bug")
	assert.Contains(t, s.log.String(), "a bug")
	s.model.Work = nil
	assert.Equal(t, 200, s.speak(t, `{"model":"suno/bark","input":"a"}`).status, "the place and the lease were given back")
}

func TestUnknownRoutesAndMethodsAreJSONErrors(t *testing.T) {
	s := newSite(t)
	r := s.do(t, "GET", "/nope", "")
	assert.Equal(t, 404, r.status)
	assert.Equal(t, "unknown_url", deref(r.failure(t).Code))
	r = s.do(t, "DELETE", "/v1/audio/speech", "")
	assert.Equal(t, 405, r.status)
	assert.Equal(t, "POST", r.header.Get("Allow"))
	r.failure(t)
	r = s.do(t, "POST", "/health", "")
	assert.Equal(t, 405, r.status)
	assert.Contains(t, r.header.Get("Allow"), "GET")
	assert.Equal(t, 200, s.do(t, "HEAD", "/health", "").status)
}

func TestRequestIDIsKeptIfFit(t *testing.T) {
	s := newSite(t)
	assert.Equal(t, "abc-1", s.do(t, "GET", "/health", "", "X-Request-Id", "abc-1").header.Get("X-Request-Id"))
	got := s.do(t, "GET", "/health", "", "X-Request-Id", "a b").header.Get("X-Request-Id")
	assert.Len(t, got, 36)
}

func TestModelsAreListedAndFoundByIDsWithASlash(t *testing.T) {
	s := newSite(t, "a", "b")
	var list struct {
		Object string
		Data   []struct {
			ID, Object string
			Voices     int
		}
	}
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v1/models", "").body, &list))
	assert.Equal(t, "list", list.Object)
	assert.Len(t, list.Data, 2)
	for _, path := range []string{"suno/bark", "suno%2Fbark"} {
		r := s.do(t, "GET", "/v1/models/"+path, "")
		assert.Equal(t, 200, r.status)
		assert.Contains(t, string(r.body), `"id":"suno/bark"`)
	}
	assert.Equal(t, "model_not_found", deref(s.do(t, "GET", "/v1/models/suno/nope", "").failure(t).Code))
	assert.Equal(t, 400, s.do(t, "GET", "/v1/models/%FF", "").status)
}

func TestVoicesAreListedWithDefaultAndAliases(t *testing.T) {
	s := newSite(t, "v2/en_speaker_6", "v2/en_speaker_9")
	var got struct {
		Voices  []string
		Default string
		Aliases map[string]string
	}
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v1/audio/voices?model=suno%2Fbark", "").body, &got))
	assert.Equal(t, []string{"v2/en_speaker_6", "v2/en_speaker_9"}, got.Voices)
	assert.Equal(t, "v2/en_speaker_6", got.Default)
	assert.Equal(t, "v2/en_speaker_9", got.Aliases["nova"])
	assert.Contains(t, string(s.do(t, "GET", "/v1/audio/voices?model=barkd/tiny", "").body), `"voices":[]`)
	assert.Equal(t, 404, s.do(t, "GET", "/v1/audio/voices?model=x", "").status)
	assert.Equal(t, 400, s.do(t, "GET", "/v1/audio/voices", "").status)
}

func TestCacheRoutes(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"suno/bark", "suno%2Fbark"} {
		assert.Equal(t, 200, s.do(t, "POST", "/cache/preload/"+path, "").status)
	}
	assert.Equal(t, []string{"suno/bark", "suno/bark"}, s.cache.Stats().CachedModels)
	r := s.do(t, "POST", "/cache/clear", "")
	assert.JSONEq(t, `{"freed":["suno/bark","suno/bark"],"draining":[],"freed_bytes":0}`, string(r.body))

	assert.Equal(t, 200, s.do(t, "POST", "/cache/warmup", `["barkd/tiny","suno/bark"]`).status)
	assert.Equal(t, []string{"barkd/tiny", "suno/bark"}, s.cache.Stats().CachedModels)
	assert.Equal(t, 404, s.do(t, "POST", "/cache/warmup", `["suno/bark","suno/nope"]`).status)
	assert.Equal(t, 400, s.do(t, "POST", "/cache/warmup", `{"models":[]}`).status)
	assert.Equal(t, 400, s.do(t, "POST", "/cache/warmup", `["a"`+strings.Repeat(`,"a"`, 64)+`]`).status)
	assert.Equal(t, 400, s.do(t, "POST", "/cache/preload/", "").status)
}

func TestWarmupTriesAllAndReportsTheFirstFailure(t *testing.T) {
	s := newSite(t)
	s.cache.fail = map[string]error{"suno/bark": cgo.ErrOutOfMemory}
	r := s.do(t, "POST", "/cache/warmup", `["suno/bark","barkd/tiny"]`)
	assert.Equal(t, 503, r.status)
	assert.Contains(t, string(r.body), "not enough memory")
	assert.Equal(t, []string{"barkd/tiny"}, s.cache.Stats().CachedModels)
}

func TestCacheStatsHaveTheContractsKeys(t *testing.T) {
	s := newSite(t)
	var got map[string]any
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/cache/stats", "").body, &got))
	for _, key := range strings.Fields(`cached_models cache_size max_cache_size cache_memory_mb system_memory_gb memory_threshold_gb hits misses
		hit_rate evictions memory_cleanups total_loads system_memory_total_gb system_memory_percent`) {
		assert.Contains(t, got, key)
	}
	assert.Equal(t, []any{}, got["cached_models"])
}

// busy makes the one running request wait until the returned function is called.
func (s *site) busy(t *testing.T) (entered <-chan struct{}, release func()) {
	t.Helper()
	in, out := make(chan struct{}, 9), make(chan struct{})
	s.model.Work = func(ctx context.Context, _ cgo.Request) error {
		in <- struct{}{}
		select {
		case <-out:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return in, sync.OnceFunc(func() { close(out) })
}

func TestFullQueueAnswers503WithRetryAfter(t *testing.T) {
	s := newSite(t)
	entered, release := s.busy(t)
	defer release()
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() { assert.Equal(t, 200, s.speak(t, `{"model":"suno/bark","input":"a"}`).status) })
	}
	<-entered
	require.Eventually(t, func() bool {
		return strings.Contains(string(s.do(t, "GET", "/health", "").body), `"waiting":1`)
	}, 10*time.Second, time.Millisecond)
	r := s.speak(t, `{"model":"suno/bark","input":"a"}`)
	assert.Equal(t, 503, r.status)
	assert.Equal(t, "overloaded", deref(r.failure(t).Code))
	assert.NotEmpty(t, r.header.Get("Retry-After"))
	release()
	clients.Wait()
}

func TestVanishedClientCancelsItsRequest(t *testing.T) {
	s := newSite(t)
	entered, release := s.busy(t)
	defer release()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	body := `{"model":"suno/bark","input":"a"}`
	_, err = fmt.Fprintf(conn, "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	require.NoError(t, err)
	<-entered
	require.NoError(t, conn.Close())
	require.Eventually(t, func() bool { return strings.Contains(s.log.String(), `"status":499`) }, 10*time.Second, 5*time.Millisecond)
	assert.Zero(t, s.models.Leases())
}

func TestShutdownLetsRequestsFinishAndRefusesNewOnes(t *testing.T) {
	s := newSite(t)
	entered, release := s.busy(t)
	answered := make(chan reply, 1)
	go func() { answered <- s.speak(t, `{"model":"suno/bark","input":"a"}`) }()
	<-entered
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	require.NoError(t, <-s.served)
	_, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.Error(t, err, "it accepts no more")
	release()
	assert.Equal(t, 200, (<-answered).status)
	require.NoError(t, <-down)
	s.served = nil
}

func TestShutdownCancelsRequestsAfterTheGrace(t *testing.T) {
	s := newSite(t)
	entered, release := s.busy(t)
	defer release()
	answered := make(chan reply, 1)
	go func() { answered <- s.speak(t, `{"model":"suno/bark","input":"a"}`) }()
	<-entered
	grace, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, s.Shutdown(grace))
	r := <-answered
	assert.Equal(t, 503, r.status)
	assert.Equal(t, "shutting_down", deref(r.failure(t).Code))
	require.NoError(t, <-s.served)
	s.served = nil
}

func TestManyClientsAtOnce(t *testing.T) {
	s := newSite(t, "mine")
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for range 4 {
				r := s.speak(t, fmt.Sprintf(`{"model":"suno/bark","input":"%s","voice":"mine","response_format":"pcm"}`, strings.Repeat("a", i+1)))
				if r.status == 200 {
					assert.Len(t, r.body, 2*(i+1)*speechtest.SamplesPerRune)
				} else {
					assert.Equal(t, 503, r.status)
				}
				s.do(t, "GET", "/cache/stats", "")
				s.do(t, "POST", "/cache/preload/suno%2Fbark", "")
			}
		})
	}
	clients.Wait()
	sessions, voices := s.model.Live()
	assert.Zero(t, sessions+voices+s.models.Leases())
}
