package api_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func seeded(more string) string { return `{"model":"suno/bark","input":"Hello.","seed":7` + more + `}` }

func TestSpeechWithASeedHasATagAndIsKept(t *testing.T) {
	s := newSite(t)
	s.model.Version = "v1"
	made := s.speak(t, seeded(""))
	require.Equal(t, 200, made.status)
	assert.Equal(t, "sha256:digest-of-v1", made.header.Get("X-Barkd-Model-Digest"))
	assert.Equal(t, "miss", made.header.Get("X-Barkd-Audio-Cache"))
	assert.Equal(t, "private, no-cache", made.header.Get("Cache-Control"))
	assert.Regexp(t, `^"[\w-]{24}"$`, made.header.Get("ETag"))
	kept := s.speak(t, seeded(""))
	assert.Equal(t, "hit", kept.header.Get("X-Barkd-Audio-Cache"))
	for _, name := range []string{"ETag", "X-Barkd-Seed", "X-Barkd-Model-Digest", "X-Barkd-Real-Time-Factor", "X-Barkd-Audio-Seconds", "X-Barkd-Pieces"} {
		assert.Equal(t, made.header.Get(name), kept.header.Get(name), name)
	}
	assert.Equal(t, made.body, kept.body)
	assert.Len(t, s.model.Requests(), 1)
	metrics := string(s.do(t, "GET", "/metrics", "").body)
	assert.Contains(t, metrics, "bark_real_time_factor_count 1", "work that was done once is counted once")
}

func TestClientThatHasTheAudioIsTold304WithoutWork(t *testing.T) {
	s := newSite(t)
	whole, streamed := s.speak(t, seeded("")), s.speak(t, seeded(`,"stream_format":"audio"`))
	assert.NotEqual(t, whole.header.Get("ETag"), streamed.header.Get("ETag"), "an MP3 stream begins with other bytes")
	s.audio.Clear()
	for _, has := range []string{whole.header.Get("ETag"), streamed.header.Get("ETag"), `"x", W/` + whole.header.Get("ETag")} {
		r := s.do(t, "POST", "/v1/audio/speech", seeded(""), "If-None-Match", has)
		assert.Equal(t, 304, r.status)
		assert.Zero(t, len(r.body))
		assert.Contains(t, has, r.header.Get("ETag"))
		assert.Equal(t, "private, no-cache", r.header.Get("Cache-Control"))
	}
	require.Len(t, s.model.Requests(), 1)
	for name, more := range map[string]string{"format": `,"response_format":"flac"`, "speed": `,"speed":2`, "text": `,"input":"Bye."`, "events": `,"stream_format":"sse"`} {
		r := s.do(t, "POST", "/v1/audio/speech", seeded(more), "If-None-Match", whole.header.Get("ETag"))
		assert.Equal(t, 200, r.status, name)
	}
	s.model.Version = "v2"
	assert.Equal(t, 200, s.do(t, "POST", "/v1/audio/speech", seeded(""), "If-None-Match", whole.header.Get("ETag")).status, "another model file")
}

func TestSpeechWithoutASeedIsNotStored(t *testing.T) {
	s := newSite(t)
	r := s.do(t, "POST", "/v1/audio/speech", `{"model":"suno/bark","input":"Hello."}`, "If-None-Match", "*")
	require.Equal(t, 200, r.status)
	assert.Empty(t, r.header.Get("ETag"))
	assert.Empty(t, r.header.Get("X-Barkd-Audio-Cache"))
	assert.Equal(t, "no-store", r.header.Get("Cache-Control"))
	assert.Zero(t, s.audio.Stats().Entries)
}

func TestStreamAndWholeShareOneGeneration(t *testing.T) {
	s := newSite(t)
	entered, release := s.busy(t)
	defer release()
	answers := make(chan reply, 2)
	go func() { answers <- s.speak(t, long(`,"seed":7,"response_format":"wav"`)) }()
	<-entered
	streamed := make(chan []byte, 1)
	go func() {
		resp := s.open(t, long(`,"seed":7,"response_format":"pcm"`))
		assert.EqualValues(t, -1, resp.ContentLength)
		assert.Equal(t, "join", resp.Header.Get("X-Barkd-Audio-Cache"))
		all, err := io.ReadAll(resp.Body)
		assert.NoError(t, err)
		streamed <- all
	}()
	require.Eventually(t, func() bool { return s.audio.Stats().Joins == 1 }, 10*time.Second, time.Millisecond)
	release()
	whole := <-answers
	assert.Equal(t, whole.body[44:], <-streamed)
	assert.Len(t, s.model.Requests(), 3)
}

func TestClearEmptiesTheAudioCache(t *testing.T) {
	s := newSite(t)
	require.Equal(t, 200, s.speak(t, seeded("")).status)
	stats := get[map[string]any](t, s.do(t, "GET", "/cache/stats", ""))["audio_cache"].(map[string]any)
	assert.EqualValues(t, 1, stats["entries"])
	assert.EqualValues(t, 1, stats["misses"])
	cleared := get[map[string]any](t, s.do(t, "POST", "/cache/clear", ""))
	assert.Equal(t, stats["bytes"], cleared["freed_audio_bytes"])
	assert.Equal(t, "miss", s.speak(t, seeded("")).header.Get("X-Barkd-Audio-Cache"))
}

func TestFailureHasNoReceipt(t *testing.T) {
	s := newSite(t)
	r := s.speak(t, strings.Replace(seeded(""), "Hello.", " ", 1))
	assert.Equal(t, 400, r.status)
	assert.Empty(t, r.header.Get("ETag"))
	assert.Equal(t, 404, s.speak(t, `{"model":"suno/nope","input":"a","seed":1}`).status)
	assert.Equal(t, 400, s.speak(t, seeded(`,"voice":"nobody"`)).status)
}
