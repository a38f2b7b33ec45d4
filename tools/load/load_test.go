package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var speaking = request{"POST", "/v1/audio/speech", speech(`"response_format":"wav"`), isWAV}

// asked sends a request to a server of this kind and returns what became of it.
func asked(t *testing.T, leaving bool, handler http.HandlerFunc) *crowd {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	c := newCrowd(strings.TrimPrefix(s.URL, "http://"), 1)
	c.leaving.Store(leaving)
	one := &client{crowd: c}
	require.NoError(t, one.ask(speaking, "load-0-0"))
	one.hangUp()
	return c
}

func closes(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

func TestAnswersThatNobodyAnnouncedAreWrong(t *testing.T) {
	wav := "RIFF" + strings.Repeat("\x00", 60)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"no audio":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("RIFF")) }, "4 bytes are not what was asked for"},
		"a failure":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "500"},
		"not announced": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, "not an announced refusal"},
		"no answer":     {closes, "closed without an answer"},
		"half of one": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(wav))
			_ = http.NewResponseController(w).Flush()
			closes(w, r)
		}, "unexpected EOF"},
	} {
		wrong := asked(t, false, c.answer).wrong
		require.Len(t, wrong, 1, name)
		assert.Contains(t, wrong[0], c.want, name)
	}
	assert.Empty(t, asked(t, false, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(wav)) }).wrong)
	assert.Empty(t, asked(t, false, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(503)
		_, _ = w.Write([]byte(`{"error":{"code":"overloaded"}}`))
	}).wrong)
}

func TestRequestThatTheServerTookMustBeAnswered(t *testing.T) {
	c := asked(t, true, closes)
	require.Empty(t, c.wrong, "after SIGTERM a connection may close")
	require.Equal(t, []string{"load-0-0"}, c.unanswered)
	c.spoken = 1
	s := new(server)
	s.late.WriteString(`{"request_id":"load-0-00","status":503}` + "\n")
	require.NoError(t, verdict(c, s, 0, time.Second, 0))
	s.late.WriteString(`{"level":"info","request_id":"load-0-0","status":200}` + "\n")
	assert.ErrorContains(t, verdict(c, s, 0, time.Second, 0), `"status":200`)
}

func TestVerdictNamesWhatTheServerDid(t *testing.T) {
	c, s := newCrowd("", 1), &server{failed: []string{"a panic"}}
	err := verdict(c, s, 3, 60*time.Millisecond, 50*time.Millisecond)
	for _, want := range []string{"a panic", "code 3", "no request was served", "60ms"} {
		assert.ErrorContains(t, err, want)
	}
}

func TestPercentiles(t *testing.T) {
	var of []time.Duration
	for i := range 200 {
		of = append(of, time.Duration(200-i)*time.Millisecond)
	}
	assert.Equal(t, 198*time.Millisecond, percentile(of, 0.99))
	assert.Equal(t, 100*time.Millisecond, percentile(of, 0.5))
	assert.Equal(t, 200*time.Millisecond, percentile(of, 1))
	assert.Zero(t, percentile(nil, 0.5))
}

func TestHealthIsJudgedByItsSlowestTenSeconds(t *testing.T) {
	var samples []sample
	for i := range 2000 {
		took := time.Millisecond
		if i >= 1000 && i < 1020 {
			took = time.Second
		}
		samples = append(samples, sample{At: time.Duration(i) * probeEvery, Took: took})
	}
	assert.Equal(t, time.Second, reportHealth(new(strings.Builder), samples))
	assert.Equal(t, time.Millisecond, reportHealth(new(strings.Builder), samples[:1000]))
}
