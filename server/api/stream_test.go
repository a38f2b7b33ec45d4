package api_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/audio/sndfile"
	"barkd/server/speech"
	"barkd/server/speech/speechtest"
)

// sentence is one piece of a long text.
const (
	sentence      = "The quick brown fox jumps over the lazy dog, and then it walks home in the evening sun."
	pieceSamples  = len(sentence) * speechtest.SamplesPerRune
	silentSamples = int(speech.SilenceSeconds * 24000)
)

// long is a request for three pieces.
func long(more string) string {
	return `{"model":"suno/bark","input":"` + strings.Repeat(sentence+" ", 3) + `"` + more + `}`
}

// open sends a request and returns the response as soon as its headers are there.
func (s *site) open(t *testing.T, body string) *http.Response {
	t.Helper()
	resp, err := http.Post(s.url+"/v1/audio/speech", "application/json", strings.NewReader(body))
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// atPiece runs work in the middle of a piece, counted from 0.
func (s *site) atPiece(n int, work func(context.Context) error) {
	piece := 0
	s.model.Work = func(ctx context.Context, _ cgo.Request) error {
		piece++
		if piece == n+1 {
			return work(ctx)
		}
		return nil
	}
}

func TestPiecesAreSentWhileLaterOnesAreMade(t *testing.T) {
	s := newSite(t)
	heard := make(chan struct{})
	s.atPiece(1, func(ctx context.Context) error {
		select {
		case <-heard:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	resp := s.open(t, long(`,"response_format":"pcm","seed":4`))
	assert.Equal(t, 200, resp.StatusCode)
	assert.EqualValues(t, -1, resp.ContentLength)
	assert.Equal(t, "audio/pcm", resp.Header.Get("Content-Type"))
	assert.Equal(t, "no", resp.Header.Get("X-Accel-Buffering"))
	assert.Equal(t, "4", resp.Header.Get("X-Barkd-Seed"))
	assert.Equal(t, "3", resp.Header.Get("X-Barkd-Pieces"))
	assert.Empty(t, resp.Header.Get("X-Barkd-Audio-Seconds"), "not known yet")
	first := make([]byte, 2*(pieceSamples+silentSamples))
	_, err := io.ReadFull(resp.Body, first)
	require.NoError(t, err)
	close(heard)
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Len(t, rest, 2*(2*pieceSamples+silentSamples))
	assert.Equal(t, fmt.Sprintf("%.3f", float64(3*pieceSamples+2*silentSamples)/24000), resp.Trailer.Get("X-Barkd-Audio-Seconds"))
	assert.NotEmpty(t, resp.Trailer.Get("X-Barkd-Real-Time-Factor"))
	metrics := string(s.do(t, "GET", "/metrics", "").body)
	assert.Contains(t, metrics, "bark_first_audio_seconds_count 1")
	assert.Contains(t, metrics, "bark_real_time_factor_count 1")
}

func TestStreamHasTheSamplesOfTheWhole(t *testing.T) {
	s := newSite(t)
	for _, format := range []string{"opus", "flac"} {
		r := s.speak(t, long(`,"response_format":"`+format+`"`))
		require.Equal(t, 200, r.status)
		assert.Empty(t, r.header.Get("Content-Length"))
		pcm, _, err := sndfile.Decode(r.body)
		require.NoError(t, err)
		assert.Len(t, pcm, 3*pieceSamples+2*silentSamples, format)
	}
	r := s.speak(t, long("")) // mp3: LAME's delay comes first, the rest of a frame last
	pcm, _, err := sndfile.Decode(r.body)
	require.NoError(t, err)
	assert.InDelta(t, 3*pieceSamples+2*silentSamples+1105+576, len(pcm), 576)
}

func TestWAVIsWholeUnlessItsStreamIsAskedFor(t *testing.T) {
	s := newSite(t)
	samples := 3*pieceSamples + 2*silentSamples
	r := s.speak(t, long(`,"response_format":"wav"`))
	assert.Equal(t, fmt.Sprint(44+2*samples), r.header.Get("Content-Length"))
	assert.EqualValues(t, 2*samples, binary.LittleEndian.Uint32(r.body[40:]))
	streamed := s.speak(t, long(`,"response_format":"wav","stream_format":"audio"`))
	assert.Empty(t, streamed.header.Get("Content-Length"))
	assert.Equal(t, "audio/wav", streamed.header.Get("Content-Type"))
	assert.Equal(t, ^uint32(0), binary.LittleEndian.Uint32(streamed.body[40:]))
	assert.Equal(t, r.body[44:], streamed.body[44:])
}

func TestOnePieceIsStreamedWhenAskedFor(t *testing.T) {
	s := newSite(t)
	r := s.speak(t, `{"model":"suno/bark","input":"Hello.","stream_format":"audio","response_format":"pcm"}`)
	require.Equal(t, 200, r.status)
	assert.Empty(t, r.header.Get("Content-Length"))
	assert.Len(t, r.body, 2*6*speechtest.SamplesPerRune)
}

func TestStreamIsCutEarlyUnlessItSaysOtherwise(t *testing.T) {
	s := newSite(t)
	for more, pieces := range map[string]string{
		"": "1", `,"stream_format":"audio"`: "2", `,"stream_format":"sse"`: "2", `,"cut":"early"`: "2", `,"cut":"needed","stream_format":"audio"`: "1",
	} {
		r := s.speak(t, `{"model":"suno/bark","input":"`+sentence+" "+sentence+`","response_format":"pcm"`+more+`}`)
		require.Equal(t, 200, r.status, "%s", r.body[:min(len(r.body), 200)])
		assert.Equal(t, pieces, r.header.Get("X-Barkd-Pieces"), more)
	}
}

func TestHTTP10ClientGetsALength(t *testing.T) {
	s := newSite(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	body := long(`,"response_format":"pcm","stream_format":"audio"`)
	_, err = fmt.Fprintf(conn, "POST /v1/audio/speech HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.EqualValues(t, 2*(3*pieceSamples+2*silentSamples), resp.ContentLength)
}

func TestConnectionServesTheNextRequestAfterAStream(t *testing.T) {
	s := newSite(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	in := bufio.NewReader(conn)
	for range 3 {
		body := long(`,"response_format":"pcm"`)
		_, err = fmt.Fprintf(conn, "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		require.NoError(t, err)
		resp, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		all, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Len(t, all, 2*(3*pieceSamples+2*silentSamples))
	}
}

func TestFailureInTheMiddleBreaksTheBody(t *testing.T) {
	for name, fail := range map[string]func(context.Context) error{
		"error": func(context.Context) error { return cgo.ErrDevice },
		"panic": func(context.Context) error { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.atPiece(1, fail)
			resp := s.open(t, long(`,"response_format":"pcm"`))
			assert.Equal(t, 200, resp.StatusCode)
			all, err := io.ReadAll(resp.Body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "never a clean end")
			assert.Len(t, all, 2*(pieceSamples+silentSamples), "what was said before is sent")
			require.Eventually(t, func() bool { return strings.Contains(s.log.String(), "stream broken off") }, 10*time.Second, time.Millisecond)
			s.model.Work = nil
			assert.Equal(t, 200, s.speak(t, long("")).status, "the place and the lease were given back")
		})
	}
}

func TestFailureBeforeTheFirstAudioHasItsStatus(t *testing.T) {
	for _, how := range []string{"audio", "sse"} {
		s := newSite(t)
		s.atPiece(0, func(context.Context) error { return cgo.ErrOutOfMemory })
		r := s.speak(t, long(`,"stream_format":"`+how+`"`))
		assert.Equal(t, 503, r.status)
		assert.Equal(t, "insufficient_memory", deref(r.failure(t).Code))
		assert.Equal(t, "application/json", r.header.Get("Content-Type"))
	}
}

func TestClientThatLeavesAStreamCancelsItsWork(t *testing.T) {
	s := newSite(t)
	begun, ended := make(chan struct{}), make(chan error, 1)
	s.atPiece(1, func(ctx context.Context) error {
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	})
	resp := s.open(t, long(`,"response_format":"pcm"`))
	_, err := io.ReadFull(resp.Body, make([]byte, 2*pieceSamples))
	require.NoError(t, err)
	<-begun // a client that leaves sooner ends the speech at the silence before the piece
	require.NoError(t, resp.Body.Close())
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Eventually(t, func() bool {
		return strings.Contains(string(s.do(t, "GET", "/metrics", "").body), `bark_cancelled_total{stage="semantic"} 1`)
	}, 10*time.Second, 5*time.Millisecond)
	require.Eventually(t, func() bool { return strings.Contains(s.log.String(), `"status":499`) }, 10*time.Second, time.Millisecond)
	assert.Zero(t, s.models.Leases())
}

func TestShutdownBreaksStreamsOffAfterTheGrace(t *testing.T) {
	s := newSite(t)
	s.atPiece(1, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	resp := s.open(t, long(`,"response_format":"pcm"`))
	grace, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, s.Shutdown(grace))
	_, err := io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NoError(t, <-s.served)
	s.served = nil
}

// lateAudio is longer than the first piece plays at four times the pace, with its silence, 1.53 s: the player must
// really run out.
const lateAudio = 1600 * time.Millisecond

func TestLateAudioIsCounted(t *testing.T) {
	s := newSite(t)
	s.atPiece(1, func(context.Context) error {
		<-time.After(lateAudio)
		return nil
	})
	require.Equal(t, 200, s.speak(t, long(`,"response_format":"pcm","speed":4`)).status)
	assert.Contains(t, string(s.do(t, "GET", "/metrics", "").body), "bark_stream_underruns_total 1")
}

func TestStreamThatCannotBeFedIsHeldBack(t *testing.T) {
	s := newSite(t)
	s.model.Rune = 10 // 37 ms a piece
	const late = 50 * time.Millisecond
	s.model.Work = func(context.Context, cgo.Request) error {
		<-time.After(late)
		return nil
	}
	resp := s.open(t, long(`,"response_format":"pcm"`))
	require.Equal(t, 200, resp.StatusCode)
	held, err := strconv.ParseFloat(resp.Header.Get("X-Barkd-Held-Seconds"), 64)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, held, 2*late.Seconds(), "until the audio of the last piece comes")
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Len(t, body, 2*(3*len(sentence)*10+2*silentSamples))
	assert.Contains(t, string(s.do(t, "GET", "/metrics", "").body), "bark_stream_underruns_total 0")
}

type speechEvent struct {
	Type  string `json:"type"`
	Audio []byte `json:"audio"`
	Usage *struct {
		Input  int `json:"input_tokens"`
		Output int `json:"output_tokens"`
		Total  int `json:"total_tokens"`
	} `json:"usage"`
	Error  *failure `json:"error"`
	Stage  string   `json:"stage"`
	Piece  int      `json:"piece"`
	Pieces int      `json:"pieces"`
}

// events reads the events of a body, which must end cleanly.
func events(t *testing.T, body io.Reader) []speechEvent {
	t.Helper()
	var out []speechEvent
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for name := ""; lines.Scan(); {
		switch key, value, _ := strings.Cut(lines.Text(), ": "); key {
		case "event":
			name = value
		case "data":
			var e speechEvent
			require.NoError(t, json.Unmarshal([]byte(value), &e))
			assert.Equal(t, e.Type, name)
			out = append(out, e)
		}
	}
	require.NoError(t, lines.Err())
	return out
}

func TestEventsHoldTheAudioAndTheUsage(t *testing.T) {
	s := newSite(t)
	want := s.speak(t, long(`,"response_format":"pcm"`)).body
	resp := s.open(t, long(`,"response_format":"pcm","stream_format":"sse"`))
	assert.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	assert.Equal(t, "no", resp.Header.Get("X-Accel-Buffering"))
	all := events(t, resp.Body)
	require.Greater(t, len(all), 3)
	var got []byte
	for _, e := range all[:len(all)-1] {
		assert.Equal(t, "speech.audio.delta", e.Type)
		got = append(got, e.Audio...)
	}
	assert.Equal(t, want, got)
	done := all[len(all)-1]
	assert.Equal(t, "speech.audio.done", done.Type)
	require.NotNil(t, done.Usage)
	assert.Equal(t, 3*len(sentence), done.Usage.Input)
	assert.Equal(t, 3*len(sentence), done.Usage.Output)
	assert.Equal(t, 6*len(sentence), done.Usage.Total)
}

func TestEventsTellTheProgressIfAskedFor(t *testing.T) {
	s := newSite(t)
	for _, format := range []string{"pcm", "mp3"} {
		resp := s.open(t, long(`,"stream_format":"sse","progress":true,"response_format":"`+format+`"`))
		assert.Empty(t, resp.Header.Get("X-Barkd-Held-Seconds"))
		var stages, deltas int
		for _, e := range events(t, resp.Body) {
			switch e.Type {
			case "speech.audio.progress":
				stages++
				assert.Contains(t, []string{"semantic", "codec"}, e.Stage)
				assert.Equal(t, 3, e.Pieces)
				assert.Equal(t, deltas > 0, e.Piece > 0 || e.Stage == "codec", "it comes when it happens")
			case "speech.audio.delta":
				deltas++
			}
		}
		assert.GreaterOrEqual(t, stages, 6, "two stages of three pieces")
	}
	all := events(t, s.open(t, long(`,"stream_format":"sse"`)).Body)
	for _, e := range all {
		assert.NotEqual(t, "speech.audio.progress", e.Type, "OpenAI's clients do not know it")
	}
}

func TestFailureInTheMiddleIsAnEvent(t *testing.T) {
	s := newSite(t)
	s.atPiece(2, func(context.Context) error { return errors.Join(cgo.ErrDevice, errors.New("/secret/path")) })
	all := events(t, s.open(t, long(`,"response_format":"pcm","stream_format":"sse"`)).Body)
	last := all[len(all)-1]
	assert.Equal(t, "speech.audio.error", last.Type)
	require.NotNil(t, last.Error)
	assert.Equal(t, "device_failed", deref(last.Error.Code))
	assert.NotContains(t, last.Error.Message, "secret")
	assert.Nil(t, last.Usage)
}

func TestLongFormTakesConstantMemory(t *testing.T) {
	s := newSite(t)
	const pieces = 1 << 16 / (len(sentence) + 1) // as many as the server takes
	text := strings.TrimSpace(strings.Repeat(sentence+" ", pieces))
	for _, more := range []string{"", `,"seed":7`} { // with a seed up to 32 MB are kept for others, then the beginning is dropped
		resp := s.open(t, `{"model":"suno/bark","input":"`+text+`","response_format":"pcm"`+more+`}`)
		require.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, strconv.Itoa(pieces), resp.Header.Get("X-Barkd-Pieces"))
		block, total := make([]byte, 1<<20), 0
		heap := func(until int) int {
			for total < until {
				n, err := resp.Body.Read(block)
				total += n
				require.NoError(t, err)
			}
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int(m.HeapAlloc)
		}
		const whole = 100 << 20 // of its 208 MB
		early := heap(whole / 2)
		late := heap(2 * whole)
		assert.Less(t, late-early, 8<<20, "all of the audio is %d MB", 2*pieces*pieceSamples>>20)
		n, err := io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		assert.EqualValues(t, 2*(pieces*pieceSamples+(pieces-1)*silentSamples), total+int(n))
	}
}
