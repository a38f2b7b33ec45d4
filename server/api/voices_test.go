package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"mime/multipart"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/models/voicefile"
	"barkd/server/speech/speechtest"
)

var someVoice = cgo.VoiceArrays{Semantic: []int32{7, 8}, Coarse: [][]int32{{1, 2, 3}, {4, 5, 6}}, Fine: [][]int32{{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}}

func npz(t *testing.T, arrays cgo.VoiceArrays) []byte {
	t.Helper()
	var file bytes.Buffer
	require.NoError(t, voicefile.WriteNPZ(&file, arrays, ""))
	return file.Bytes()
}

// form makes a multipart body of fields and, unless nil, a file.
func form(t *testing.T, fileField string, file []byte, fields ...string) (body, contentType string) {
	t.Helper()
	var text bytes.Buffer
	w := multipart.NewWriter(&text)
	for i := 0; i < len(fields); i += 2 {
		require.NoError(t, w.WriteField(fields[i], fields[i+1]))
	}
	if file != nil {
		part, err := w.CreateFormFile(fileField, "../../etc/passwd.npz")
		require.NoError(t, err)
		_, err = part.Write(file)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return text.String(), w.FormDataContentType()
}

func (s *site) upload(t *testing.T, fields ...string) reply {
	t.Helper()
	body, kind := form(t, "file", npz(t, someVoice), fields...)
	return s.do(t, "POST", "/v1/audio/voices", body, "Content-Type", kind)
}

type stored struct {
	ID, Object, Name, Type, Model, Consent string
	Created                                int64 `json:"created_at"`
}

func (r reply) stored(t *testing.T) (v stored) {
	t.Helper()
	require.Equal(t, 200, r.status, "%s", r.body)
	require.NoError(t, json.Unmarshal(r.body, &v))
	return v
}

func TestAnUploadedVoiceSpeaksByIDAndByName(t *testing.T) {
	dir := t.TempDir()
	s := openSite(t, settings{voices: []string{"v2/en_speaker_6"}, voiceDir: dir})
	v := s.upload(t, "name", "Änne", "model", "suno/bark", "consent", "hers").stored(t)
	assert.Equal(t, stored{ID: v.ID, Object: "audio.voice", Name: "Änne", Type: "audio_sample", Model: "suno/bark", Consent: "hers", Created: v.Created}, v)
	assert.NotZero(t, v.Created)
	s = openSite(t, settings{voices: []string{"v2/en_speaker_6"}, voiceDir: dir}) // a restart
	for _, how := range []string{`"` + v.ID + `"`, `"Änne"`, `{"id":"` + v.ID + `"}`} {
		r := s.speak(t, `{"model":"suno/bark","input":"Hi.","voice":`+how+`}`)
		require.Equal(t, 200, r.status, "%s", r.body)
		assert.Equal(t, v.ID, r.header.Get("X-Barkd-Voice"))
	}
	for _, asked := range s.model.Requests() {
		assert.Equal(t, someVoice, asked.Voice.(*speechtest.Voice).Arrays)
	}
	assert.Equal(t, v, s.do(t, "GET", "/v1/audio/voices/"+v.ID, "").stored(t))
	file := s.do(t, "GET", "/v1/audio/voices/"+v.ID+"?format=npz", "")
	assert.Equal(t, npz(t, someVoice), file.body)
	assert.Contains(t, file.header.Get("Content-Disposition"), v.ID+".npz")
	assert.Equal(t, 400, s.do(t, "GET", "/v1/audio/voices/"+v.ID+"?format=wav", "").status)
}

func TestStoredVoicesAreListedAfterTheModelsOwn(t *testing.T) {
	s := newSite(t, "v2/en_speaker_6")
	v := s.upload(t, "name", "mine").stored(t)
	s.upload(t, "name", "other", "model", "barkd/tiny").stored(t)
	var list struct {
		Voices []string
		Stored []stored
	}
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v1/audio/voices", "").body, &list))
	assert.Equal(t, []string{"v2/en_speaker_6", "mine"}, list.Voices, "those of another model are not among them")
	require.Len(t, list.Stored, 2)
	assert.Contains(t, list.Stored, v)
}

func TestADeletedVoiceIsGoneButNotForWhoSpeaksWithIt(t *testing.T) {
	s := newSite(t)
	entered, release := s.busy(t)
	v := s.upload(t, "name", "mine").stored(t)
	answers := make(chan reply, 1)
	go func() { answers <- s.speak(t, `{"model":"suno/bark","input":"Hi.","voice":"mine"}`) }()
	<-entered
	r := s.do(t, "DELETE", "/v1/audio/voices/"+v.ID, "")
	require.Equal(t, 200, r.status)
	assert.JSONEq(t, `{"id":"`+v.ID+`","object":"audio.voice.deleted","deleted":true}`, string(r.body))
	release()
	r = <-answers
	require.Equal(t, 200, r.status, "%s", r.body)
	assert.Equal(t, v.ID, r.header.Get("X-Barkd-Voice"))
	for _, method := range []string{"GET", "DELETE"} {
		assert.Equal(t, "voice_not_found", deref(s.do(t, method, "/v1/audio/voices/"+v.ID, "").failure(t).Code))
	}
	fail := s.speak(t, `{"model":"suno/bark","input":"Hi.","voice":"mine"}`)
	assert.Equal(t, 400, fail.status)
	assert.Equal(t, "voice", deref(fail.failure(t).Param))
}

func TestABadVoiceIsRefusedByName(t *testing.T) {
	s := newSite(t, "announcer")
	huge := bytes.Repeat([]byte{0}, 1<<20+1)
	good := npz(t, someVoice)
	ragged := someVoice
	ragged.Fine = [][]int32{{1}}
	for what, c := range map[string]struct {
		status      int
		param, code string
		file        []byte
		fields      []string
	}{
		"no name":         {400, "name", "missing_parameter", good, nil},
		"no file":         {400, "file", "missing_parameter", nil, []string{"name", "a"}},
		"a recording":     {400, "file", "invalid_voice", []byte("RIFF....WAVE"), []string{"name", "a"}},
		"a huge file":     {413, "file", "voice_too_large", huge, []string{"name", "a"}},
		"one codebook":    {400, "file", "invalid_voice", npz(t, ragged), []string{"name", "a"}},
		"unknown field":   {400, "labels", "unknown_parameter", good, []string{"name", "a", "labels", "x"}},
		"a field twice":   {400, "name", "invalid_value", good, []string{"name", "a", "name", "b"}},
		"a prompt":        {400, "type", "unsupported_value", good, []string{"name", "a", "type", "prompt"}},
		"a long consent":  {400, "consent", "invalid_value", good, []string{"name", "a", "consent", strings.Repeat("a", 257)}},
		"not UTF-8":       {400, "name", "invalid_utf8", good, []string{"name", "\xff"}},
		"a control":       {400, "name", "invalid_value", good, []string{"name", "a\nb"}},
		"OpenAI's name":   {400, "name", "name_taken", good, []string{"name", "alloy"}},
		"no voice's name": {400, "name", "name_taken", good, []string{"name", "none"}},
		"a model's voice": {400, "name", "name_taken", good, []string{"name", "announcer"}},
		"no such model":   {404, "model", "model_not_found", good, []string{"name", "a", "model", "suno/nope"}},
	} {
		body, kind := form(t, "file", c.file, c.fields...)
		r := s.do(t, "POST", "/v1/audio/voices", body, "Content-Type", kind)
		assert.Equal(t, c.status, r.status, "%s: %s", what, r.body)
		assert.Equal(t, c.code, deref(r.failure(t).Code), what)
		assert.Equal(t, c.param, deref(r.failure(t).Param), what)
	}
	for kind, want := range map[string]int{"text/plain": 415, "multipart/form-data": 400, "multipart/form-data; boundary=x": 400, "": 415} {
		assert.Equal(t, want, s.do(t, "POST", "/v1/audio/voices", "no form", "Content-Type", kind).status, kind)
	}
	s.model.BadVoice = true
	r := s.upload(t, "name", "a", "model", "suno/bark")
	assert.Equal(t, 400, r.status)
	assert.Contains(t, r.failure(t).Message, `does not fit the model "suno/bark"`)
	s.upload(t, "name", "a").stored(t)
	r = s.speak(t, `{"model":"suno/bark","input":"Hi.","voice":"a"}`)
	assert.Equal(t, 400, r.status, "what no model was named for shows when one speaks")
	assert.Contains(t, r.failure(t).Message, `does not fit the model "suno/bark"`)
	_, voices := s.model.Live()
	assert.Zero(t, voices)
}

func TestTheStoreOfVoicesIsBounded(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"a", "b", "c"} {
		s.upload(t, "name", name).stored(t)
	}
	r := s.upload(t, "name", "a")
	assert.Equal(t, 409, r.status)
	assert.Equal(t, "voice_exists", deref(r.failure(t).Code))
	r = s.upload(t, "name", "d")
	assert.Equal(t, 507, r.status)
	assert.Equal(t, "voices_full", deref(r.failure(t).Code))
}

func TestAFolderThatCannotBeWrittenIsSaid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "voices")
	s := openSite(t, settings{voiceDir: dir})
	require.NoError(t, os.WriteFile(dir, nil, 0o600)) // a file took its place
	r := s.upload(t, "name", "a")
	assert.Equal(t, 507, r.status)
	assert.Equal(t, "voices_unwritable", deref(r.failure(t).Code))
}

func TestASpeechCanBeKeptAsAVoiceAfterItWasHeard(t *testing.T) {
	s := newSite(t)
	for _, how := range []string{"", `,"stream_format":"audio"`, `,"stream_format":"sse"`} {
		r := s.speak(t, `{"model":"suno/bark","input":"Hello."`+how+`}`)
		require.Equal(t, 200, r.status)
		id := r.header.Get("X-Barkd-Generation")
		require.NotEmpty(t, id)
		v := s.do(t, "POST", "/v1/audio/voices", `{"name":"kept`+how[:min(len(how), 1)]+id[:4]+`","generation":"`+id+`"}`).stored(t)
		assert.Equal(t, "generation", v.Type)
		assert.Equal(t, "suno/bark", v.Model)
		r = s.speak(t, `{"model":"suno/bark","input":"Bye.","voice":"`+v.ID+`"}`)
		require.Equal(t, 200, r.status)
	}
	asked := s.model.Requests()
	assert.Equal(t, []int32("Hello."), asked[len(asked)-1].Voice.(*speechtest.Voice).Arrays.Semantic)
}

func TestAVoiceIsKeptOnlyOfWhatIsHeld(t *testing.T) {
	s := openSite(t, settings{generations: 700})
	first := s.speak(t, `{"model":"suno/bark","input":"Hello, hi."}`).header.Get("X-Barkd-Generation")
	keep := func(name, id string) reply {
		return s.do(t, "POST", "/v1/audio/voices", `{"name":"`+name+`","generation":"`+id+`"}`)
	}
	keep("first", first).stored(t)
	second := s.speak(t, `{"model":"suno/bark","input":"Hello, hi."}`).header.Get("X-Barkd-Generation")
	r := keep("again", first)
	assert.Equal(t, 404, r.status, "pushed out by the second")
	assert.Equal(t, "generation_not_found", deref(r.failure(t).Code))
	keep("second", second).stored(t)
	for body, param := range map[string]string{
		`{"generation":"x"}`:                            "name",
		`{"name":"a"}`:                                  "generation",
		`{"name":"a","generation":3}`:                   "generation",
		`{"name":"a","generation":"x","voice":"y"}`:     "voice",
		`{"name":"a","generation":"x","model":"y"}`:     "model",
		`{"name":"a","generation":"x","type":"prompt"}`: "type",
		`[]`: "",
		`{`:  "",
	} {
		r := s.do(t, "POST", "/v1/audio/voices", body)
		assert.Equal(t, 400, r.status, body)
		assert.Equal(t, param, deref(r.failure(t).Param), body)
	}
	s.model.Work = func(context.Context, cgo.Request) error { return cgo.ErrDevice }
	id := s.speak(t, `{"model":"suno/bark","input":"Hi."}`).header.Get("X-Barkd-Generation")
	assert.Empty(t, id, "a failed request made nothing")
}

func TestWithoutAStoreNothingIsKept(t *testing.T) {
	s := openSite(t, settings{noVoices: true, generations: -1})
	assert.Equal(t, "voices_off", deref(s.upload(t, "name", "a").failure(t).Code))
	assert.Equal(t, 404, s.do(t, "DELETE", "/v1/audio/voices/voice_a", "").status)
	assert.Contains(t, string(s.do(t, "GET", "/v1/audio/voices", "").body), `"stored":[]`)
	r := s.speak(t, `{"model":"suno/bark","input":"Hi."}`)
	require.Equal(t, 200, r.status)
	assert.Empty(t, r.header.Get("X-Barkd-Generation"))
	assert.Equal(t, 400, s.speak(t, `{"model":"suno/bark","input":"Hi.","voice":"mine"}`).status)
}

func TestManyMakeAndDeleteVoicesAtOnce(t *testing.T) {
	s := newSite(t)
	var all sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d"} {
		all.Go(func() {
			for range 5 {
				r := s.upload(t, "name", name)
				if r.status == 507 {
					continue // the other three were there
				}
				v := r.stored(t)
				assert.Equal(t, 200, s.do(t, "GET", "/v1/audio/voices", "").status)
				assert.Equal(t, 200, s.do(t, "DELETE", "/v1/audio/voices/"+v.ID, "").status)
			}
		})
	}
	all.Wait()
	assert.Contains(t, string(s.do(t, "GET", "/v1/audio/voices", "").body), `"stored":[]`)
}
