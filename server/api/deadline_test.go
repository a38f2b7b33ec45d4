package api_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/api"
)

// untilCancelled is work that ends only with its context.
func untilCancelled(ctx context.Context, _ cgo.Request) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestAnswerThatDoesNotBeginInTimeIsA504(t *testing.T) {
	s := openSite(t, settings{rules: api.Rules{Timeout: time.Hour}})
	s.model.Work = untilCancelled
	for _, given := range []string{"0.02", "20ms"} {
		for _, format := range []string{"", `,"stream_format":"audio"`, `,"stream_format":"sse"`} {
			r := s.do(t, "POST", "/v1/audio/speech", `{"model":"suno/bark","input":"Hi."`+format+`}`, "X-Barkd-Timeout", given)
			assert.Equal(t, 504, r.status, "%s", r.body)
			assert.Equal(t, "timeout", deref(r.failure(t).Code))
			assert.Contains(t, r.failure(t).Message, "20ms")
		}
	}
	running, waiting := s.Speaker.Load()
	assert.Zero(t, running+waiting)
}

func TestServersOwnTimeoutHoldsForAllAndIsNotLengthened(t *testing.T) {
	s := openSite(t, settings{rules: api.Rules{Timeout: 20 * time.Millisecond}})
	s.model.Work = untilCancelled
	assert.Equal(t, 504, s.speak(t, hello).status)
	assert.Equal(t, 504, s.do(t, "POST", "/v1/audio/speech", hello, "X-Barkd-Timeout", "1h").status)
}

func TestTimeoutRunsOutInTheQueueAndGivesThePlaceBack(t *testing.T) {
	s := newSite(t)
	entered, release := make(chan struct{}, 2), make(chan struct{})
	s.model.Work = func(context.Context, cgo.Request) error {
		entered <- struct{}{}
		<-release
		return nil
	}
	done := make(chan int)
	go func() { done <- s.speak(t, hello).status }()
	<-entered
	for range 3 { // the queue has one place
		assert.Equal(t, 504, s.do(t, "POST", "/v1/audio/speech", hello, "X-Barkd-Timeout", "10ms").status)
	}
	close(release)
	assert.Equal(t, 200, <-done)
}

func TestStreamThatHasBegunMayGoOn(t *testing.T) {
	s := newSite(t)
	for timeout := 50 * time.Millisecond; ; timeout *= 2 {
		s.atPiece(1, func(ctx context.Context) error {
			time.Sleep(2 * timeout)
			return ctx.Err()
		})
		r := s.do(t, "POST", "/v1/audio/speech", long(`,"response_format":"pcm"`), "X-Barkd-Timeout", timeout.String())
		if r.status == 504 { // this machine is too slow today for its first audio to come in time
			continue
		}
		assert.Equal(t, 200, r.status)
		assert.Len(t, r.body, 2*(3*pieceSamples+2*silentSamples), "whole, though it took twice the timeout")
		return
	}
}

func TestTimeoutMustBeADuration(t *testing.T) {
	s := newSite(t)
	for _, bad := range []string{"soon", "0", "-1", "-5s", "NaN", "1 h"} {
		r := s.do(t, "POST", "/v1/audio/speech", hello, "X-Barkd-Timeout", bad)
		assert.Equal(t, 400, r.status, bad)
		assert.Equal(t, "X-Barkd-Timeout", deref(r.failure(t).Param))
	}
	assert.Equal(t, 200, s.do(t, "POST", "/v1/audio/speech", hello, "X-Barkd-Timeout", "1e300").status)
}

func TestWaitThatWouldBeTooLongIsRefusedAtOnce(t *testing.T) {
	s := newSite(t)
	s.model.Work = func(context.Context, cgo.Request) error {
		time.Sleep(50 * time.Millisecond) // three characters: at least a second for sixty
		return nil
	}
	require.Equal(t, 200, s.speak(t, hello).status)
	entered, release := make(chan struct{}), make(chan struct{})
	s.model.Work = func(context.Context, cgo.Request) error {
		close(entered)
		<-release
		return nil
	}
	done := make(chan int)
	go func() {
		done <- s.speak(t, `{"model":"suno/bark","input":"`+strings.Repeat("Hello. ", 500)+`","response_format":"wav","rules":"hf"}`).status
	}()
	<-entered
	r := s.do(t, "POST", "/v1/audio/speech", hello, "X-Barkd-Timeout", "1")
	assert.Equal(t, 503, r.status)
	assert.Equal(t, "timeout_too_short", deref(r.failure(t).Code))
	assert.Greater(t, seconds(t, r.header), 30, "fifty seconds or more, but for the second it would wait")
	close(release)
	assert.Equal(t, 200, <-done)
}

func TestTextsAreLimitedByCharacters(t *testing.T) {
	s := newSite(t)
	s.SetRules(api.Rules{MaxInputChars: 4})
	assert.Equal(t, 200, s.speak(t, `{"model":"suno/bark","input":"äöü."}`).status)
	r := s.speak(t, `{"model":"suno/bark","input":"äöü.."}`)
	assert.Equal(t, 400, r.status)
	assert.Equal(t, "input_too_long", deref(r.failure(t).Code))
	assert.Equal(t, "input", deref(r.failure(t).Param))
}

func TestFullQueueOfAModelSaysWhenToComeBackAndLeavesRoomForOthers(t *testing.T) {
	s := openSite(t, settings{queued: 2, perModel: 1})
	entered, release := make(chan struct{}, 2), make(chan struct{})
	s.model.Work = func(context.Context, cgo.Request) error {
		entered <- struct{}{}
		<-release
		return nil
	}
	done := make(chan int, 3)
	begin := func(model string, waiting int) {
		go func() { done <- s.speak(t, `{"model":"`+model+`","input":"Hi."}`).status }()
		s.awaitLoad(t, 1, waiting)
	}
	begin("suno/bark", 0)
	<-entered
	begin("suno/bark", 1)
	r := s.speak(t, hello)
	assert.Equal(t, 503, r.status)
	assert.Equal(t, "overloaded", deref(r.failure(t).Code))
	assert.Contains(t, r.failure(t).Message, "suno/bark")
	seconds(t, r.header)
	begin("barkd/tiny", 2)
	r = s.speak(t, `{"model":"barkd/tiny","input":"Hi."}`)
	assert.Equal(t, 503, r.status, "now both queues are full")
	assert.Contains(t, string(s.do(t, "GET", "/metrics", "").body), `bark_requests_refused_total{code="overloaded"} 2`)
	close(release)
	for range 3 {
		assert.Equal(t, 200, <-done)
	}
}
