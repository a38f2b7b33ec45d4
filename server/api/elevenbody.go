package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"barkd/server/audio"
)

// elevenBody is a request of ElevenLabs' API.
type elevenBody struct {
	speechBody
	ignored []string // what has no effect on a Bark model
}

// elevenQuery is what comes beside the body, "" for nothing.
type elevenQuery struct{ format, latency, logging string }

// elevenFields are the fields a request may have; those without a reader have no effect on a Bark model, which is said
// in the response's X-Barkd-Ignored.
var elevenFields = map[string]func(*elevenBody, json.RawMessage) string{
	"text":           func(b *elevenBody, raw json.RawMessage) string { return text(raw, &b.request.Text, math.MaxInt) },
	"model_id":       func(b *elevenBody, raw json.RawMessage) string { return name(raw, &b.request.Model, maxModelID) },
	"voice_settings": elevenVoiceSettings,
	"seed": func(b *elevenBody, raw json.RawMessage) string {
		if problem := seed(&b.speechBody, raw); problem != "" || *b.request.Seed > math.MaxUint32 {
			return "must be an integer from 0 to 4294967295"
		}
		return ""
	},
	"pronunciation_dictionary_locators": mustBeEmpty,
	"audio_effects":                     mustBeEmpty,

	"language_code": nil, "previous_text": nil, "next_text": nil, "previous_request_ids": nil, "next_request_ids": nil,
	"use_pvc_as_ivc": nil, "apply_text_normalization": nil, "apply_language_text_normalization": nil,
}

// elevenSettingFields are those of voice_settings beside speed; none has an effect.
var elevenSettingFields = []string{"stability", "similarity_boost", "style", "use_speaker_boost", "clone_strength"}

func parseElevenSpeech(body []byte, query elevenQuery) (elevenBody, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil || raw == nil {
		return elevenBody{}, notJSON("object", err)
	}
	b := elevenBody{speechBody: speechBody{speed: 1}}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		read, ok := elevenFields[name]
		switch {
		case !ok:
			return elevenBody{}, badRequest(name, "unknown_parameter", "Unknown parameter %q.", name)
		case bytes.Equal(raw[name], []byte("null")):
		case read == nil:
			b.ignored = append(b.ignored, name)
		default:
			if problem := read(&b, raw[name]); problem != "" {
				return elevenBody{}, badRequest(name, "invalid_value", "%q %s.", name, problem)
			}
		}
	}
	if b.request.Text == "" {
		return elevenBody{}, missing("text")
	}
	if strings.HasPrefix(b.request.Model, "eleven_") { // a client's own choice where there was another
		b.request.Model = ""
	}
	return b, b.readQuery(query)
}

func (b *elevenBody) readQuery(query elevenQuery) error {
	if query.latency != "" {
		b.ignored = append(b.ignored, "optimize_streaming_latency")
	}
	switch query.logging {
	case "", "true":
	case "false":
		b.forget = true
	default:
		return badRequest("enable_logging", "invalid_value", `"enable_logging" must be true or false.`)
	}
	if query.format == "" {
		b.format = audio.MP3
		return b.format.Available()
	}
	format, ok := elevenFormat(query.format)
	if !ok {
		return badRequest("output_format", "invalid_value", `"output_format" must be mp3_ with 22050_32, 24000_48, 44100_32, 44100_64, 44100_96, 44100_128 or 44100_192; `+
			"opus_48000_ with 32, 64, 96, 128 or 192; pcm_ or wav_ with 8000, 16000, 22050, 24000, 32000, 44100 or 48000; ulaw_8000 or alaw_8000.")
	}
	b.format = format
	return format.Available()
}

// elevenFormat reads codec_rate_bitrate, such as mp3_44100_128.
func elevenFormat(name string) (audio.Format, bool) {
	parts := strings.Split(name, "_")
	numbers := []int{0, 0}
	for i, part := range parts[1:] {
		n, err := strconv.Atoi(part)
		if err != nil || i == len(numbers) || part != strconv.Itoa(n) {
			return audio.Format{}, false
		}
		numbers[i] = n
	}
	rateHz, kbit := numbers[0], numbers[1]
	var ok bool
	var format audio.Format
	switch parts[0] {
	case "mp3":
		format = audio.MP3
		ok = slices.Contains([][2]int{{22050, 32}, {24000, 48}, {44100, 32}, {44100, 64}, {44100, 96}, {44100, 128}, {44100, 192}}, [2]int{rateHz, kbit})
	case "opus": // it plays at 48 kHz whatever it was made of
		ok = rateHz == 48000 && slices.Contains([]int{32, 64, 96, 128, 192}, kbit)
		format, rateHz = audio.Opus, 0
	case "pcm", "wav":
		format = map[string]audio.Format{"pcm": audio.PCM, "wav": audio.WAV}[parts[0]]
		ok = len(parts) == 2 && slices.Contains([]int{8000, 16000, 22050, 24000, 32000, 44100, 48000}, rateHz)
	case "ulaw", "alaw":
		format = map[string]audio.Format{"ulaw": audio.ULaw, "alaw": audio.ALaw}[parts[0]]
		ok = len(parts) == 2 && rateHz == 8000
	}
	return format.At(rateHz, kbit), ok
}

func elevenVoiceSettings(b *elevenBody, raw json.RawMessage) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return "must be an object"
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		switch {
		case bytes.Equal(fields[name], []byte("null")):
		case name == "speed":
			if problem := speed(&b.speechBody, fields[name]); problem != "" {
				return "has a speed that " + problem
			}
		case slices.Contains(elevenSettingFields, name):
			b.ignored = append(b.ignored, name)
		default:
			return "has an unknown setting " + strconv.Quote(name)
		}
	}
	return ""
}

// mustBeEmpty refuses what would change the speech and cannot here.
func mustBeEmpty(_ *elevenBody, raw json.RawMessage) string {
	var list []json.RawMessage
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &list) == nil && len(list) == 0 || json.Unmarshal(raw, &object) == nil && len(object) == 0 {
		return ""
	}
	return "must be empty: a Bark model has nothing like it"
}
