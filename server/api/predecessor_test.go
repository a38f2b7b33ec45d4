package api_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/audio/sndfile"
	"barkd/server/speech/speechtest"
)

// older is the answer of /synthesize.
type older struct {
	Success  bool
	Audio    []byte `json:"audio_data"`
	Error    *string
	Duration *float64
}

func (s *site) synthesize(t *testing.T, body string) (int, older) {
	t.Helper()
	r := s.do(t, "POST", "/synthesize", body)
	var got older
	require.NoError(t, json.Unmarshal(r.body, &got), "%s", r.body)
	assert.Equal(t, "application/json", r.header.Get("Content-Type"))
	return r.status, got
}

func TestTheOlderServersClientsAreAnswered(t *testing.T) {
	s := newSite(t, "v2/en_speaker_1", "v2/en_speaker_7", "v2/en_speaker_9", "v2/de_speaker_9", "announcer")
	for voice, want := range map[string]string{
		"": "v2/en_speaker_9", `,"voice":"default","language":"en","speed":1.0,"pitch":1.0`: "v2/en_speaker_9",
		`,"voice":"deep"`: "v2/en_speaker_7", `,"voice":"excited"`: "v2/en_speaker_1", `,"voice":"announcer"`: "announcer",
		`,"voice":"speaker_9","language":"de"`: "v2/de_speaker_9", `,"voice":"v2/en_speaker_7"`: "v2/en_speaker_7", `,"voice":null`: "v2/en_speaker_9",
	} {
		status, got := s.synthesize(t, `{"text":"Hello!","model":"suno/bark"`+voice+`}`)
		require.Equal(t, 200, status, voice)
		assert.True(t, got.Success)
		assert.Nil(t, got.Error)
		pcm, rateHz, err := sndfile.Decode(got.Audio)
		require.NoError(t, err)
		assert.Equal(t, 24000, rateHz)
		assert.Len(t, pcm, 6*speechtest.SamplesPerRune)
		assert.InDelta(t, float64(len(pcm))/24000, *got.Duration, 1e-9)
		asked := s.model.Requests()
		last := asked[len(asked)-1]
		assert.Equal(t, want, last.Voice.(*speechtest.Voice).Name, voice)
		assert.Equal(t, "Hello!", last.Text, "the text is not altered")
	}
	status, _ := s.synthesize(t, `{"text":"Hi.","model":"barkd/tiny","voice":"calm"}`)
	assert.Equal(t, 200, status, "a model without voices makes up a speaker")
	r := s.do(t, "POST", "/synthesize/stream", `{"text":"Hello!"}`)
	require.Equal(t, 200, r.status)
	assert.Equal(t, "audio/wav", r.header.Get("Content-Type"))
	assert.Contains(t, r.header.Get("Content-Disposition"), "speech.wav")
	assert.Len(t, r.body, 44+2*6*speechtest.SamplesPerRune)
}

func TestTheOlderServersFailuresHaveATrueStatus(t *testing.T) {
	s := newSite(t, "v2/en_speaker_9")
	for body, want := range map[string]struct {
		status int
		text   string
	}{
		`{}`:                           {400, "text"},
		`{"text":""}`:                  {400, "text"},
		`{"text":" "}`:                 {400, "empty"},
		`{"text":3}`:                   {400, "string"},
		`{"text":"a","pitch":1.2}`:     {400, "pitch"},
		`{"text":"a","speed":5}`:       {400, "0.25 to 4"},
		`{"text":"a","language":"de"}`: {400, "v2/de_speaker_9"},
		`{"text":"a","voice":"x","language":"de"}`:      {400, "language"},
		`{"text":"a","voice":"x"}`:                      {400, "no voice"},
		`{"text":"a","emotion":"joy"}`:                  {400, "emotion"},
		`{"text":"a","model":"microsoft/speecht5_tts"}`: {404, "speecht5"},
		`[]`: {400, "object"},
		`{"text":"` + strings.Repeat("a", 65537) + `"}`: {400, "65536"},
	} {
		status, got := s.synthesize(t, body)
		assert.Equal(t, want.status, status, body)
		assert.False(t, got.Success)
		assert.Nil(t, got.Audio)
		assert.Nil(t, got.Duration)
		require.NotNil(t, got.Error)
		assert.Contains(t, *got.Error, want.text)
		r := s.do(t, "POST", "/synthesize/stream", body)
		assert.Equal(t, want.status, r.status, body)
		var detail struct{ Detail string }
		require.NoError(t, json.Unmarshal(r.body, &detail))
		assert.Contains(t, detail.Detail, want.text)
	}
	assert.Equal(t, 415, s.do(t, "POST", "/synthesize", `{"text":"a"}`, "Content-Type", "text/plain").status)
}

func TestTheOlderServersListsAreThere(t *testing.T) {
	s := newSite(t, "mine")
	var voices struct {
		Voices, Recommended []string
		Details             map[string]struct{ Name, Language string }
		Grouped             map[string]map[string]any
	}
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/voices", "").body, &voices))
	assert.Len(t, voices.Voices, 16)
	assert.Subset(t, voices.Voices, []string{"announcer", "narrator", "old_narrator", "excited", "calm", "deep", "speaker_0", "speaker_9"})
	assert.Len(t, voices.Details, 16)
	assert.Len(t, voices.Grouped["speaker_voices"], 10)
	for _, name := range voices.Voices {
		status, _ := s.synthesize(t, `{"text":"a","voice":"`+name+`"}`)
		assert.Equal(t, 200, status, name)
	}
	require.NoError(t, s.pool.Preload(t.Context(), "suno/bark", nil))
	var models struct {
		Models  []string
		Details map[string]struct {
			Cached bool
			Voices []string
		}
		Status struct {
			Cached []string `json:"cached_models"`
		} `json:"cache_status"`
	}
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/models", "").body, &models))
	assert.ElementsMatch(t, []string{"suno/bark", "barkd/tiny"}, models.Models)
	assert.True(t, models.Details["suno/bark"].Cached)
	assert.False(t, models.Details["barkd/tiny"].Cached)
	assert.Equal(t, []string{"suno/bark"}, models.Status.Cached)
}

func TestOllamasProbesAreAnswered(t *testing.T) {
	s := newSite(t)
	assert.JSONEq(t, `{"version":"1.2.3"}`, string(s.do(t, "GET", "/api/version", "").body))
	assert.JSONEq(t, `{"models":[]}`, string(s.do(t, "GET", "/api/ps", "").body))
	for _, path := range []string{"/", "/api/version", "/api/tags"} {
		r := s.do(t, "HEAD", path, "")
		assert.Equal(t, 200, r.status, path)
		assert.Empty(t, r.body)
	}
	require.NoError(t, s.pool.Preload(t.Context(), "suno/bark", nil))
	type model struct {
		Name, Model, Digest string
		Size                int64
		VRAM                *int64     `json:"size_vram"`
		Expires             *time.Time `json:"expires_at"`
		Modified            *time.Time `json:"modified_at"`
		Details             struct{ Format, Family string }
	}
	var list struct{ Models []model }
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/api/ps", "").body, &list))
	require.Len(t, list.Models, 1)
	m := list.Models[0]
	assert.Equal(t, "suno/bark", m.Name)
	assert.Equal(t, m.Name, m.Model)
	assert.Equal(t, "digest-of-suno/bark", m.Digest)
	booked := s.pool.Snapshot().Pools[0].Booked
	assert.Equal(t, booked, m.Size, "as the ledger says, for the only model")
	assert.Zero(t, *m.VRAM)
	assert.Equal(t, 9999, m.Expires.Year(), "it does not go by itself")
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/api/tags", "").body, &list))
	require.Len(t, list.Models, 2)
	assert.NotNil(t, list.Models[0].Modified)
	assert.Equal(t, "bark", list.Models[0].Details.Family)
}
