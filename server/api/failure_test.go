package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
)

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
		"long input":        {`{"model":"suno/bark","input":"` + strings.Repeat("a", 100_000) + `"}`, "input", "input_too_long", 400},
		"huge input":        {`{"model":"suno/bark","input":"` + strings.Repeat("a", 1_000_000) + `"}`, "", "request_too_large", 413},
		"unknown model":     {`{"model":"suno/nope","input":"a"}`, "model", "model_not_found", 404},
		"unknown field":     {body(`"pitch":2`), "pitch", "unknown_parameter", 400},
		"field in capitals": {body(`"Seed":2`), "Seed", "unknown_parameter", 400},
		"unknown voice":     {body(`"voice":"nobody"`), "voice", "", 400},
		"voice number":      {body(`"voice":1`), "voice", "invalid_value", 400},
		"voice object":      {body(`"voice":{"name":"x"}`), "voice", "invalid_value", 400},
		"voice object more": {body(`"voice":{"id":"mine","x":1}`), "voice", "invalid_value", 400},
		"format":            {body(`"response_format":"mp4"`), "response_format", "invalid_value", 400},
		"format number":     {body(`"response_format":3`), "response_format", "invalid_value", 400},
		"stream":            {body(`"stream_format":"websocket"`), "stream_format", "invalid_value", 400},
		"stream number":     {body(`"stream_format":1`), "stream_format", "invalid_value", 400},
		"cut":               {body(`"cut":"late"`), "cut", "invalid_value", 400},
		"latency":           {body(`"latency":"none"`), "latency", "invalid_value", 400},
		"history":           {body(`"history":"next"`), "history", "invalid_value", 400},
		"progress":          {body(`"progress":true`), "progress", "invalid_value", 400},
		"progress number":   {body(`"progress":1,"stream_format":"sse"`), "progress", "invalid_value", 400},
		"cut number":        {body(`"cut":1`), "cut", "invalid_value", 400},
		"speed":             {body(`"speed":4.01`), "speed", "invalid_value", 400},
		"speed slow":        {body(`"speed":0.24`), "speed", "invalid_value", 400},
		"speed text":        {body(`"speed":"1"`), "speed", "invalid_value", 400},
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
	r := s.speak(t, `{"model":"suno/bark","input":"a","response_format":"mp4"}`)
	assert.Contains(t, r.failure(t).Message, "flac, wav, wav-f32, pcm")
}

func TestFormatThatIsNotInstalledSaysWhatThereIs(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	s := newSite(t)
	r := s.speak(t, `{"model":"suno/bark","input":"a","response_format":"aac"}`)
	assert.Equal(t, 400, r.status)
	failure := r.failure(t)
	assert.Equal(t, "unsupported_format", deref(failure.Code))
	assert.Equal(t, "response_format", deref(failure.Param))
	assert.Contains(t, failure.Message, "ffmpeg")
	assert.Contains(t, failure.Message, "mp3, opus, flac, wav, wav-f32, pcm")
	assert.Empty(t, s.model.Requests(), "it is known before the work")
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
		cgo.ErrLost:            {503, "device_lost"},
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

// inPieces is a text of four pieces.
var inPieces = strings.TrimSpace(strings.Repeat("This sentence is as long as a model can say in one go and not a bit longer than that, so that the next is another piece. ", 8))

// losing fails the requests of the given numbers.
func losing(numbers ...int) func(context.Context, cgo.Request) error {
	n := 0
	return func(context.Context, cgo.Request) error {
		if n++; slices.Contains(numbers, n) {
			return fmt.Errorf("cuda:0: %w", errors.Join(cgo.ErrLost, cgo.ErrDevice))
		}
		return nil
	}
}

func TestAnswerThatIsNotSentYetBeginsAgainOnAnotherDevice(t *testing.T) {
	whole := newSite(t).speak(t, fmt.Sprintf(`{"model":"suno/bark","input":%q,"response_format":"wav","seed":3}`, inPieces))
	for name, c := range map[string]struct {
		lost   []int
		status int
	}{
		"before the first piece":              {[]int{1}, 200},
		"after the first piece":               {[]int{2}, 200},
		"before it and again after the first": {[]int{1, 3}, 200},
		"twice after the first piece":         {[]int{2, 4}, 503},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.model.Work = losing(c.lost...)
			r := s.speak(t, fmt.Sprintf(`{"model":"suno/bark","input":%q,"response_format":"wav"}`, inPieces))
			require.Equal(t, c.status, r.status, "%s", r.body)
			if c.status == 503 {
				assert.Equal(t, "device_lost", deref(r.failure(t).Code))
				assert.NotEmpty(t, r.header.Get("Retry-After"))
				return
			}
			assert.Len(t, r.body, len(whole.body), "what was made first is dropped")
			requests := s.model.Requests()
			assert.Equal(t, strconv.FormatUint(requests[0].Seed, 10), r.header.Get("X-Barkd-Seed"))
			assert.Equal(t, requests[0].Seed, requests[c.lost[len(c.lost)-1]].Seed, "it begins with the seed it has told")
		})
	}
}

func TestStreamThatHasBegunEndsWithItsDevice(t *testing.T) {
	s := newSite(t)
	s.model.Work = losing(3)
	r := s.speak(t, fmt.Sprintf(`{"model":"suno/bark","input":%q,"stream_format":"sse","response_format":"pcm"}`, inPieces))
	assert.Equal(t, 200, r.status)
	assert.Contains(t, string(r.body), "speech.audio.delta")
	assert.Contains(t, string(r.body), `"device_lost"`)
	assert.Len(t, s.model.Requests(), 3)
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
