package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/audio/resample"
	"barkd/server/audio/sndfile"
	"barkd/server/speech/speechtest"
)

// detail reads the error of ElevenLabs' API: its code, or for a wrong value the place and the message.
func (r reply) detail(t *testing.T) (code, where, message string) {
	t.Helper()
	var one struct {
		Detail struct{ Code, Status, Message, Param string }
	}
	var list struct {
		Detail []struct {
			Loc       []string
			Msg, Type string
		}
	}
	if r.status == 422 {
		require.NoError(t, json.Unmarshal(r.body, &list), "%s", r.body)
		require.Len(t, list.Detail, 1)
		return list.Detail[0].Type, strings.Join(list.Detail[0].Loc, "."), list.Detail[0].Msg
	}
	require.NoError(t, json.Unmarshal(r.body, &one), "%s", r.body)
	assert.Equal(t, one.Detail.Code, one.Detail.Status)
	assert.NotEmpty(t, one.Detail.Message)
	return one.Detail.Code, one.Detail.Param, one.Detail.Message
}

func TestElevenLabsRequestsSpeak(t *testing.T) {
	s := newSite(t, "v2/en_speaker_6", "mine")
	for _, path := range []string{"mine", "v2/en_speaker_6", "v2%2Fen_speaker_6"} {
		for _, stream := range []string{"", "/stream"} {
			r := s.do(t, "POST", "/v1/text-to-speech/"+path+stream, `{"text":"Hi.","model_id":"eleven_multilingual_v2","seed":4294967295}`, "xi-api-key", "x")
			require.Equal(t, 200, r.status, "%s", r.body)
			assert.Equal(t, "audio/mpeg", r.header.Get("Content-Type"))
			assert.Equal(t, "4294967295", r.header.Get("X-Barkd-Seed"))
			assert.Empty(t, r.header.Get("X-Barkd-Ignored"))
			_, _, err := sndfile.Decode(r.body)
			assert.NoError(t, err)
		}
	}
	var names []string
	for _, asked := range s.model.Requests() {
		names = append(names, asked.Voice.(*speechtest.Voice).Name)
	}
	assert.Equal(t, []string{"mine", "v2/en_speaker_6"}, names, "the same speech is made once")
	v := s.upload(t, "name", "anna").stored(t)
	r := s.do(t, "POST", "/v1/text-to-speech/"+v.ID, `{"text":"Hi.","model_id":"barkd/tiny"}`)
	require.Equal(t, 200, r.status, "%s", r.body)
	assert.Equal(t, v.ID, r.header.Get("X-Barkd-Voice"))
	assert.NotEmpty(t, r.header.Get("X-Barkd-Generation"))
	r = s.do(t, "POST", "/v1/text-to-speech/mine?enable_logging=false", `{"text":"Hi."}`)
	require.Equal(t, 200, r.status)
	assert.Empty(t, r.header.Get("X-Barkd-Generation"), "nothing of it is held")
}

func TestElevenLabsFormatsHaveTheRateTheySay(t *testing.T) {
	s := newSite(t, "mine")
	text := strings.Repeat("a", 2400) // some pieces, with pauses
	body := `{"text":"` + text + `","model_id":"suno/bark"}`
	samples := int64(len(s.do(t, "POST", "/v1/text-to-speech/mine?output_format=pcm_24000", body).body) / 2)
	require.GreaterOrEqual(t, samples, int64(24000))
	for format, c := range map[string]struct{ rateHz, width, header int }{
		"pcm_8000": {8000, 2, 0}, "pcm_16000": {16000, 2, 0}, "pcm_22050": {22050, 2, 0}, "pcm_44100": {44100, 2, 0}, "pcm_48000": {48000, 2, 0},
		"wav_16000": {16000, 2, 44}, "ulaw_8000": {8000, 1, 0}, "alaw_8000": {8000, 1, 0},
	} {
		for _, stream := range []string{"", "/stream"} {
			r := s.do(t, "POST", "/v1/text-to-speech/mine"+stream+"?output_format="+format, body)
			require.Equal(t, 200, r.status, "%s", r.body)
			assert.Equal(t, c.header+c.width*int(resample.Length(samples, 24000, c.rateHz)), len(r.body), format)
		}
	}
	for format, rate := range map[string]int{"mp3_22050_32": 22050, "mp3_24000_48": 24000, "mp3_44100_128": 44100, "opus_48000_64": 24000} {
		r := s.do(t, "POST", "/v1/text-to-speech/mine/stream?output_format="+format, `{"text":"Hello there."}`)
		require.Equal(t, 200, r.status, "%s", r.body)
		_, rateHz, err := sndfile.Decode(r.body)
		require.NoError(t, err)
		assert.Equal(t, rate, rateHz, format)
	}
	r := s.do(t, "POST", "/v1/text-to-speech/mine?output_format=pcm_16000", `{"text":"Hi."}`)
	assert.Equal(t, "16000", r.header.Get("X-Barkd-Sample-Rate"))
}

func TestWhatHasNoEffectIsNamed(t *testing.T) {
	s := newSite(t, "mine")
	r := s.do(t, "POST", "/v1/text-to-speech/mine?optimize_streaming_latency=3&output_format=pcm_24000",
		`{"text":"`+strings.Repeat("a", 1000)+`","language_code":"de","previous_text":null,"pronunciation_dictionary_locators":[],"audio_effects":{},
		"voice_settings":{"stability":0.5,"similarity_boost":0.75,"style":null,"use_speaker_boost":true,"speed":2}}`)
	require.Equal(t, 200, r.status, "%s", r.body)
	assert.Equal(t, "language_code, similarity_boost, stability, use_speaker_boost, optimize_streaming_latency", r.header.Get("X-Barkd-Ignored"))
	slow := s.do(t, "POST", "/v1/text-to-speech/mine?output_format=pcm_24000", `{"text":"`+strings.Repeat("a", 1000)+`"}`)
	assert.InEpsilon(t, len(slow.body)/2, len(r.body), 0.05, "speed has an effect")
}

func TestElevenLabsErrorsHaveItsForm(t *testing.T) {
	s := newSite(t, "mine")
	for _, c := range []struct {
		path, body           string
		status               int
		code, where, message string
	}{
		{"mine", `{}`, 422, "missing_parameter", "body.text", "required"},
		{"mine", `{"text":""}`, 422, "missing_parameter", "body.text", "required"},
		{"mine", `{"text":3}`, 422, "invalid_value", "body.text", "string"},
		{"mine", `{"text":"` + strings.Repeat("a", 65537) + `"}`, 422, "input_too_long", "body.text", "65536"},
		{"mine", `{"text":" "}`, 422, "invalid_value", "body.text", "empty"},
		{"mine", `{"text":"a","seed":4294967296}`, 422, "invalid_value", "body.seed", "4294967295"},
		{"mine", `{"text":"a","model_id":7}`, 422, "invalid_value", "body.model_id", "string"},
		{"mine", `{"text":"a","voice_settings":{"speed":9}}`, 422, "invalid_value", "body.voice_settings", "0.25 to 4"},
		{"mine", `{"text":"a","voice_settings":{"warmth":9}}`, 422, "invalid_value", "body.voice_settings", `"warmth"`},
		{"mine", `{"text":"a","voice_settings":3}`, 422, "invalid_value", "body.voice_settings", "object"},
		{"mine", `{"text":"a","audio_effects":{"pan":1}}`, 422, "invalid_value", "body.audio_effects", "empty"},
		{"mine", `{"text":"a","pronunciation_dictionary_locators":[{}]}`, 422, "invalid_value", "body.pronunciation_dictionary_locators", "empty"},
		{"mine", `{"text":"a","instructions":""}`, 422, "unknown_parameter", "body.instructions", "instructions"},
		{"mine?output_format=mp3_8000_8", `{"text":"a"}`, 422, "invalid_value", "query.output_format", "mp3_"},
		{"mine?output_format=pcm_24000_16", `{"text":"a"}`, 422, "invalid_value", "query.output_format", "pcm_"},
		{"mine?output_format=pcm_024000", `{"text":"a"}`, 422, "invalid_value", "query.output_format", "pcm_"},
		{"mine?output_format=opus", `{"text":"a"}`, 422, "invalid_value", "query.output_format", "opus_48000_"},
		{"mine?output_format=mp3_44100_128_2", `{"text":"a"}`, 422, "invalid_value", "query.output_format", "mp3_"},
		{"mine?enable_logging=maybe", `{"text":"a"}`, 422, "invalid_value", "query.enable_logging", "true"},
		{"JBFqnCBsd6RMkjVDRZzb", `{"text":"a"}`, 404, "voice_not_found", "voice_id", "no voice"},
		{"%FF", `{"text":"a"}`, 422, "invalid_value", "path.voice_id", "voice"},
		{"mine", `{"text":"a","model_id":"suno/nope"}`, 404, "model_not_found", "model_id", "suno/nope"},
		{"mine", `[]`, 400, "invalid_json", "", "object"},
		{"mine/with-timestamps", `{"text":"a"}`, 501, "unsupported", "", "timestamps"},
		{"mine/stream/with-timestamps", `{"text":"a"}`, 501, "unsupported", "", "timestamps"},
	} {
		r := s.do(t, "POST", "/v1/text-to-speech/"+c.path, c.body)
		require.Equal(t, c.status, r.status, "%s %s: %s", c.path, c.body, r.body)
		code, where, message := r.detail(t)
		assert.Equal(t, c.code, code, c.body)
		assert.Equal(t, c.where, where, c.body)
		assert.Contains(t, message, c.message, c.body)
	}
	r := s.do(t, "POST", "/v1/text-to-speech/mine", `{"text":"a"}`, "Content-Type", "text/plain")
	assert.Equal(t, 415, r.status)
	r.detail(t)
	s.models.Err = cgo.ErrBusy
	r = s.do(t, "POST", "/v1/text-to-speech/mine", `{"text":"a"}`)
	assert.Equal(t, 503, r.status)
	assert.NotEmpty(t, r.header.Get("Retry-After"))
	r.detail(t)
}

func TestElevenLabsListsVoicesAndModels(t *testing.T) {
	s := newSite(t, "announcer", "mine", "v2/de_speaker_3", "v2/en_speaker_1")
	v := s.upload(t, "name", "anna", "model", "suno/bark").stored(t)
	var list struct {
		Voices []struct {
			ID       string `json:"voice_id"`
			Name     string
			Category string
			Models   []string `json:"high_quality_base_model_ids"`
		}
		HasMore bool    `json:"has_more"`
		Total   int     `json:"total_count"`
		Next    *string `json:"next_page_token"`
	}
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v1/voices", "").body, &list))
	require.Len(t, list.Voices, 5)
	assert.Equal(t, "premade", list.Voices[0].Category)
	assert.Equal(t, []string{"suno/bark"}, list.Voices[0].Models)
	assert.Equal(t, v.ID, list.Voices[4].ID)
	assert.Equal(t, "cloned", list.Voices[4].Category)
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v2/voices?search=Nn&page_size=1", "").body, &list))
	assert.True(t, list.HasMore)
	assert.Equal(t, 2, list.Total, "announcer and anna")
	first := list.Voices[0].ID
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v2/voices?search=Nn&page_size=2&next_page_token="+*list.Next, "").body, &list))
	assert.False(t, list.HasMore)
	assert.Len(t, list.Voices, 1)
	assert.NotEqual(t, first, list.Voices[0].ID)
	for _, bad := range []string{"page_size=0", "page_size=101", "page_size=x", "next_page_token=-1", "next_page_token=x"} {
		assert.Equal(t, 422, s.do(t, "GET", "/v2/voices?"+bad, "").status, bad)
	}
	assert.JSONEq(t, `{"voices":[],"has_more":false,"total_count":5,"next_page_token":null}`, string(s.do(t, "GET", "/v2/voices?next_page_token=99", "").body))
	assert.Contains(t, string(s.do(t, "GET", "/v1/voices/mine", "").body), `"voice_id":"mine"`)
	for _, id := range []string{"nobody", "mine"} { // a model's own voice is not deleted
		r := s.do(t, "DELETE", "/v1/voices/"+id, "")
		require.Equal(t, 404, r.status)
		code, _, _ := r.detail(t)
		assert.Equal(t, "voice_not_found", code)
	}
	assert.Equal(t, 404, s.do(t, "GET", "/v1/voices/nobody", "").status)
	assert.JSONEq(t, `{"status":"ok"}`, string(s.do(t, "DELETE", "/v1/voices/"+v.ID, "").body))
	var models []struct {
		ID   string `json:"model_id"`
		Does bool   `json:"can_do_text_to_speech"`

		Languages []struct {
			ID string `json:"language_id"`
		}
	}
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v1/models", "", "xi-api-key", "any").body, &models))
	require.Len(t, models, 2)
	for _, m := range models {
		assert.True(t, m.Does)
		want := map[string]int{"suno/bark": 2, "barkd/tiny": 1}[m.ID]
		assert.Len(t, m.Languages, want)
		assert.Equal(t, "en", m.Languages[0].ID)
	}
	assert.Contains(t, string(s.do(t, "GET", "/v1/models", "", "Authorization", "Bearer any").body), `"object":"list"`)
}
