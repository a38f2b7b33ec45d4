package api_test

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/audio/sndfile"
	"barkd/server/speech/speechtest"
)

func TestSpeechIsAWAVOfTheText(t *testing.T) {
	s := newSite(t, "v2/en_speaker_6")
	r := s.speak(t, `{"model":"suno/bark","input":"Hello.","voice":"alloy","seed":18446744073709551615,"response_format":"wav"}`)
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

func TestEachFormatIsWholeAndOfItsType(t *testing.T) {
	s := newSite(t)
	for name, kind := range map[string]string{
		"": "audio/mpeg", "mp3": "audio/mpeg", "opus": "audio/ogg", "flac": "audio/flac", "wav": "audio/wav", "wav-f32": "audio/wav",
	} {
		format := strings.ReplaceAll(`,"response_format":"?"`, "?", name)
		if name == "" {
			format = "" // OpenAI's default
		}
		r := s.speak(t, `{"model":"suno/bark","input":"Hello."`+format+`}`)
		require.Equal(t, 200, r.status, "%s", r.body)
		assert.Equal(t, kind, r.header.Get("Content-Type"))
		assert.Equal(t, strconv.Itoa(len(r.body)), r.header.Get("Content-Length"))
		pcm, rateHz, err := sndfile.Decode(r.body)
		require.NoError(t, err, name)
		assert.Equal(t, 24000, rateHz)
		assert.Len(t, pcm, 6*speechtest.SamplesPerRune, name)
	}
}

func TestAACIsMadeByFFmpeg(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	s := newSite(t)
	for _, how := range []string{"", `,"stream_format":"audio"`} {
		r := s.speak(t, `{"model":"suno/bark","input":"Hello.","response_format":"aac"`+how+`}`)
		require.Equal(t, 200, r.status, "%s", r.body)
		assert.Equal(t, "audio/aac", r.header.Get("Content-Type"))
		require.NotEmpty(t, r.body)
		assert.Equal(t, []byte{0xff, 0xf1}, r.body[:2], "an ADTS frame")
	}
}

func TestSpeedShortensTheAudio(t *testing.T) {
	s := newSite(t)
	text := strings.Repeat("a", 24000/speechtest.SamplesPerRune) // a second
	var lengths []int
	for _, how := range []string{`"stream_format":"audio",`, ""} {
		r := s.speak(t, `{"model":"suno/bark","input":"`+text+`","rules":"hf","response_format":"pcm",`+how+`"speed":2}`)
		require.Equal(t, 200, r.status, "%s", r.body)
		lengths = append(lengths, len(r.body)/2)
		if how == "" {
			assert.Equal(t, "0.500", r.header.Get("X-Barkd-Audio-Seconds"))
		}
	}
	assert.InEpsilon(t, 12000, lengths[0], 0.02)
	assert.Equal(t, lengths[0], lengths[1], "streamed or not")
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
	s := openSite(t, settings{voices: []string{"mine"}, kv: cgo.KVI8})
	r := s.speak(t, `{"model":"suno/bark","input":"Hi.","voice":{"id":"mine"},"speed":1.0,"instructions":"","stream_format":"audio",
		"response_format":null,"seed":3,"rules":"hf","max_tokens":7,"temperature":0,"temperature_fine":0.25,"top_k":40,"top_p":0.5,"min_eos_p":0.1,
		"latency":"low"}`)
	require.Equal(t, 200, r.status, "%s", r.body)
	assert.Equal(t, []cgo.KVType{cgo.KVI8}, s.model.Caches())
	got := s.model.Requests()[0]
	assert.Equal(t, "mine", got.Voice.(*speechtest.Voice).Name)
	got.Voice = nil
	assert.Equal(t, cgo.Request{
		Rules: cgo.RulesHF, Text: "Hi.", Seed: 3, MaxSemanticTokens: 7, FineChunk: 75,
		Semantic: cgo.Sampling{TopK: 40, TopP: 0.5, MinEOSP: 0.1},
		Coarse:   cgo.Sampling{TopK: 40, TopP: 0.5},
		Fine:     cgo.Sampling{Temperature: 0.25, TopP: 1},
	}, got)
}

func TestTenKilobytesOfTextAreSpoken(t *testing.T) {
	s := newSite(t)
	text := strings.Repeat("The quick brown fox jumps over the lazy dog and walks home. ", 170)
	r := s.speak(t, `{"model":"suno/bark","response_format":"pcm","input":"`+text+`"}`)
	require.Equal(t, 200, r.status, "%s", r.body[:min(len(r.body), 200)])
	assert.Equal(t, "170", r.header.Get("X-Barkd-Pieces"))
}

func TestNULInTextIsLeftToTheModel(t *testing.T) {
	s := newSite(t)
	require.Equal(t, 200, s.speak(t, `{"model":"suno/bark","input":"a\u0000b 👩‍👩‍👧 \ud83d\ude00"}`).status)
	assert.Equal(t, "a\x00b 👩‍👩‍👧 😀", s.model.Requests()[0].Text)
}
