package api_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/api"
)

const hello = `{"model":"suno/bark","input":"Hi."}`

// change puts rules in force, with the site's limit of a text.
func (s *site) change(rules api.Rules) {
	rules.MaxInputChars = 1 << 16
	s.SetRules(rules)
}

// keyed are rules with one key for each name, which is the key, too.
func keyed(names ...string) api.Rules {
	var rules api.Rules
	for _, name := range names {
		rules.Keys = append(rules.Keys, api.Key{Name: name, Digest: api.DigestOf(name)})
	}
	return rules
}

// open are the routes that ask for no key.
var open = map[string]bool{"/docs": true, "/openapi.yaml": true, "/openapi.json": true, "/": true, "/web/*": true, "/health": true, "/livez": true, "/readyz": true, "/metrics": true}

func TestOnlyWhatMonitorsAndBrowsersAskForIsOpen(t *testing.T) {
	s := openSite(t, settings{rules: keyed("sesame", "other")})
	for _, r := range s.Routes() {
		path := strings.Replace(r.Path, "*", "app.js", 1)
		for _, header := range [][]string{nil, {"Authorization", "Bearer wrong"}, {"x-api-key", "sesam"}, {"Authorization", "Basic sesame"}} {
			got := s.do(t, r.Method, path, "", header...)
			if open[r.Path] {
				assert.NotEqual(t, 401, got.status, r.Path)
				continue
			}
			require.Equal(t, 401, got.status, "%s %s", r.Method, r.Path)
			assert.Equal(t, "Bearer", got.header.Get("WWW-Authenticate"))
			assert.Regexp(t, `"code":"invalid_api_key"|"error":"T|"detail":"T`, string(got.body), "in the form of the route's API")
		}
	}
	assert.Empty(t, s.model.Requests())
	f := s.speak(t, hello).failure(t)
	assert.Equal(t, "invalid_api_key", deref(f.Code))
	assert.Equal(t, "invalid_request_error", f.Type)
}

func TestKeyIsTakenFromEachOfTheHeaders(t *testing.T) {
	s := openSite(t, settings{rules: keyed("sesame", "other")})
	for _, header := range [][]string{
		{"Authorization", "Bearer sesame"}, {"Authorization", "bearer  other"}, {"x-api-key", "sesame"}, {"xi-api-key", "other"},
		{"Authorization", "Basic dXNlcg==", "x-api-key", "sesame"},
	} {
		assert.Equal(t, 200, s.do(t, "POST", "/v1/audio/speech", hello, header...).status, header)
		assert.Equal(t, 200, s.do(t, "GET", "/cache/stats", "", header...).status, "without an admin key")
	}
	assert.Contains(t, s.log.String(), `"key":"other"`)
	assert.NotContains(t, s.log.String(), "sesam\"")
}

func TestWithAnAdminKeyNoAPIKeyManagesTheCache(t *testing.T) {
	rules, admin := keyed("sesame"), api.DigestOf("root")
	rules.Admin = &admin
	s := openSite(t, settings{rules: rules})
	assert.Equal(t, 401, s.do(t, "GET", "/cache/stats", "", "x-api-key", "sesame").status)
	assert.Equal(t, 200, s.do(t, "GET", "/cache/stats", "", "x-api-key", "root").status)
	assert.Equal(t, 401, s.do(t, "GET", "/v1/models", "", "x-api-key", "root").status)
}

func TestNewRulesHoldFromTheNextRequestOn(t *testing.T) {
	s := newSite(t)
	assert.Equal(t, 200, s.do(t, "GET", "/v1/models", "").status)
	s.change(keyed("sesame"))
	assert.Equal(t, 401, s.do(t, "GET", "/v1/models", "").status)
	s.change(keyed("other"))
	assert.Equal(t, 401, s.do(t, "GET", "/v1/models", "", "x-api-key", "sesame").status)
	assert.Equal(t, 200, s.do(t, "GET", "/v1/models", "", "x-api-key", "other").status)
	s.change(api.Rules{})
	assert.Equal(t, 200, s.do(t, "GET", "/v1/models", "", "x-api-key", "none").status)
}

// seconds reads a Retry-After, which must be whole seconds from 1 on.
func seconds(t *testing.T, h http.Header) int {
	t.Helper()
	n, err := strconv.Atoi(h.Get("Retry-After"))
	require.NoError(t, err)
	require.Positive(t, n)
	return n
}

func TestRequestsAMinuteAreLimitedByKey(t *testing.T) {
	rules := keyed("sesame", "other")
	rules.Keys[0].Allowance.RequestsPerMinute = 3
	s := openSite(t, settings{rules: rules})
	for left := 2; left >= 0; left-- {
		r := s.do(t, "POST", "/v1/audio/speech", hello, "x-api-key", "sesame")
		require.Equal(t, 200, r.status)
		assert.Equal(t, "3", r.header.Get("x-ratelimit-limit-requests"))
		assert.Equal(t, strconv.Itoa(left), r.header.Get("x-ratelimit-remaining-requests"))
		assert.Regexp(t, `^(\d+m)?[\d.]+s$`, r.header.Get("x-ratelimit-reset-requests"))
		assert.Empty(t, r.header.Get("x-ratelimit-limit-characters"))
	}
	r := s.do(t, "POST", "/v1/audio/speech", hello, "x-api-key", "sesame")
	require.Equal(t, 429, r.status)
	assert.Equal(t, "rate_limit_exceeded", deref(r.failure(t).Code))
	assert.Equal(t, "rate_limit_error", r.failure(t).Type)
	assert.LessOrEqual(t, seconds(t, r.header), 20, "three a minute")
	assert.Equal(t, "0", r.header.Get("x-ratelimit-remaining-requests"))
	assert.Equal(t, 200, s.do(t, "GET", "/v1/models", "", "x-api-key", "sesame").status, "only speech is counted")
	assert.Equal(t, 200, s.do(t, "POST", "/v1/audio/speech", hello, "x-api-key", "other").status)

	s.change(rules)
	assert.Equal(t, 429, s.do(t, "POST", "/v1/audio/speech", hello, "x-api-key", "sesame").status, "new rules give nothing back")
	rules.Keys[0].Allowance.RequestsPerMinute = 0
	s.change(rules)
	r = s.do(t, "POST", "/v1/audio/speech", hello, "x-api-key", "sesame")
	assert.Equal(t, 200, r.status)
	assert.Empty(t, r.header.Get("x-ratelimit-limit-requests"))
}

func TestCharactersAMinuteAreLimited(t *testing.T) {
	s := openSite(t, settings{rules: api.Rules{Open: api.Allowance{CharactersPerMinute: 10, RequestsPerMinute: 100}}})
	speak := func(text string) reply { return s.speak(t, `{"model":"suno/bark","input":"`+text+`"}`) }
	r := speak("äöüäöü")
	require.Equal(t, 200, r.status)
	assert.Equal(t, "4", r.header.Get("x-ratelimit-remaining-characters"), "characters, not bytes")
	r = speak("äöüäöü")
	require.Equal(t, 429, r.status)
	assert.InDelta(t, 12, seconds(t, r.header), 1, "two are missing of ten a minute")
	assert.Equal(t, "99", r.header.Get("x-ratelimit-remaining-requests"), "what is refused takes nothing")
	assert.Equal(t, 200, speak("äöüä").status)
	r = speak("more than ten")
	assert.Equal(t, 400, r.status, "it would be refused for ever")
	assert.Equal(t, "input_too_long", deref(r.failure(t).Code))
	assert.Equal(t, "input", deref(r.failure(t).Param))
	assert.Empty(t, r.header.Get("Retry-After"))
}

func TestRequestsAtOneTimeAreLimitedByKey(t *testing.T) {
	rules := keyed("sesame", "other")
	rules.Keys[0].Allowance.Concurrent = 1
	s := openSite(t, settings{rules: rules})
	entered, release := make(chan struct{}, 2), make(chan struct{})
	s.model.Work = func(context.Context, cgo.Request) error {
		entered <- struct{}{}
		<-release
		return nil
	}
	first := make(chan int)
	go func() { first <- s.do(t, "POST", "/v1/audio/speech", hello, "x-api-key", "sesame").status }()
	<-entered
	r := s.do(t, "POST", "/v1/audio/speech", hello, "x-api-key", "sesame")
	assert.Equal(t, 429, r.status)
	assert.Equal(t, "concurrency_limit_exceeded", deref(r.failure(t).Code))
	seconds(t, r.header)
	close(release)
	assert.Equal(t, 200, <-first)
	s.model.Work = nil
	for range 20 { // the place is free before the client can know that its request has ended
		for _, format := range []string{"", `,"stream_format":"audio"`, `,"stream_format":"sse"`} {
			r = s.do(t, "POST", "/v1/audio/speech", `{"model":"suno/bark","input":"Hi."`+format+`}`, "x-api-key", "sesame")
			require.Equal(t, 200, r.status, "%s", r.body)
		}
	}
	s.model.Work = func(context.Context, cgo.Request) error { panic("a bug") }
	assert.Equal(t, 500, s.do(t, "POST", "/v1/audio/speech", hello, "x-api-key", "sesame").status)
	s.model.Work = nil
	assert.Equal(t, 200, s.do(t, "POST", "/v1/audio/speech", hello, "x-api-key", "sesame").status)
}

func TestKeysHavePriorities(t *testing.T) {
	rules := keyed("usual", "first")
	rules.Keys[1].Priority = 1
	s := openSite(t, settings{rules: rules, queued: 2})
	entered, release := make(chan string, 3), make(chan struct{})
	s.model.Work = func(_ context.Context, req cgo.Request) error {
		entered <- req.Text
		<-release
		return nil
	}
	done := make(chan int, 3)
	speak := func(key, text string, waiting int) {
		go func() {
			done <- s.do(t, "POST", "/v1/audio/speech", `{"model":"suno/bark","input":"`+text+`"}`, "x-api-key", key).status
		}()
		s.awaitLoad(t, 1, waiting)
	}
	speak("usual", "runs", 0)
	speak("usual", "waits", 1)
	speak("first", "goes first", 2)
	close(release)
	for range 3 {
		assert.Equal(t, 200, <-done)
	}
	assert.Equal(t, []string{"runs", "goes first", "waits"}, []string{<-entered, <-entered, <-entered})
}
