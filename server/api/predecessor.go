package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"

	"barkd/server/audio"
)

// The routes of an older Bark server, for those who move from it: /synthesize, /synthesize/stream, /voices and /models.
// They have its fields and its bodies, but true status codes, and what it accepted and ignored is honoured or refused.

// olderVoice is one of its voices.
type olderVoice struct {
	name, about string
	speaker     int    // of Bark's presets v2/…_speaker_N
	alias       string // OpenAI's name that stands for it on a model without presets
}

var olderVoices = []olderVoice{
	{"announcer", "Announces", 6, "alloy"},
	{"narrator", "Tells a story", 9, "nova"},
	{"old_narrator", "Tells a story, older", 7, "onyx"},
	{"excited", "Lively", 1, "ballad"},
	{"calm", "Calm", 9, "nova"},
	{"deep", "Deep", 7, "onyx"},
	{"speaker_0", "Bark's speaker 0", 0, "ash"}, {"speaker_1", "Bark's speaker 1", 1, "ballad"},
	{"speaker_2", "Bark's speaker 2", 2, "echo"}, {"speaker_3", "Bark's speaker 3", 3, "fable"},
	{"speaker_4", "Bark's speaker 4", 4, "onyx"}, {"speaker_5", "Bark's speaker 5", 5, "verse"},
	{"speaker_6", "Bark's speaker 6", 6, "alloy"}, {"speaker_7", "Bark's speaker 7", 7, "onyx"},
	{"speaker_8", "Bark's speaker 8", 8, "cedar"}, {"speaker_9", "Bark's speaker 9", 9, "nova"},
}

// olderBody is a request of /synthesize.
type olderBody struct {
	speechBody
	language string
	pitch    *float32
}

var olderFields = map[string]func(*olderBody, json.RawMessage) string{
	"text":     func(b *olderBody, raw json.RawMessage) string { return text(raw, &b.request.Text, math.MaxInt) },
	"voice":    func(b *olderBody, raw json.RawMessage) string { return name(raw, &b.request.Voice.Name, 256) },
	"model":    func(b *olderBody, raw json.RawMessage) string { return name(raw, &b.request.Model, maxModelID) },
	"language": func(b *olderBody, raw json.RawMessage) string { return name(raw, &b.language, 16) },
	"speed":    func(b *olderBody, raw json.RawMessage) string { return speed(&b.speechBody, raw) },
	"pitch": func(b *olderBody, raw json.RawMessage) string {
		if number(raw, &b.pitch, 1, 1) != "" {
			return "must be 1: a Bark model's pitch is that of its voice"
		}
		return ""
	},
}

func parseOlder(body []byte) (olderBody, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil || raw == nil {
		return olderBody{}, notJSON("object", err)
	}
	b := olderBody{speechBody: speechBody{speed: 1, format: audio.WAV}, language: "en"}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		read, ok := olderFields[name]
		if !ok {
			return olderBody{}, badRequest(name, "unknown_parameter", "Unknown parameter %q.", name)
		}
		if bytes.Equal(raw[name], []byte("null")) {
			continue
		}
		if problem := read(&b, raw[name]); problem != "" {
			return olderBody{}, badRequest(name, "invalid_value", "%q %s.", name, problem)
		}
	}
	if b.request.Text == "" {
		return olderBody{}, missing("text")
	}
	return b, nil
}

// older reads a request and finds out whose voice it means on its model.
func (s *Server) older(c *fiber.Ctx) (speechBody, error) {
	body, err := s.jsonBody(c)
	if err != nil {
		return speechBody{}, err
	}
	b, err := parseOlder(body)
	if err != nil {
		return speechBody{}, err
	}
	if b.request.Model, err = s.modelOrDefault(c, b.request.Model); err != nil {
		return speechBody{}, err
	}
	m, err := s.find(c, b.request.Model)
	if err != nil {
		return speechBody{}, err
	}
	if b.request.Voice.Name, err = olderVoiceOn(m, b.request.Voice.Name, b.language); err != nil {
		return speechBody{}, err
	}
	return b.speechBody, nil
}

// olderVoiceOn is the name of the voice on the model: Bark's preset of the language, if the model has presets.
func olderVoiceOn(m Model, name, language string) (string, error) {
	if name == "" || name == "default" {
		name = "narrator"
	}
	i := slices.IndexFunc(olderVoices, func(v olderVoice) bool { return v.name == name })
	if i < 0 || slices.Contains(m.Voices, name) {
		if language != "en" {
			return "", badRequest("language", "unsupported_value", `"language" goes with the voices of GET /voices; the language of %q is its own.`, name)
		}
		return name, nil
	}
	preset := fmt.Sprintf("v2/%s_speaker_%d", language, olderVoices[i].speaker)
	switch {
	case slices.Contains(m.Voices, preset):
		return preset, nil
	case language == "en":
		return olderVoices[i].alias, nil
	}
	return "", badRequest("language", "unsupported_value", "The model %q has no voice %q.", m.ID, preset)
}

// olderAnswer is the body of /synthesize.
type olderAnswer struct {
	Success  bool     `json:"success"`
	Audio    []byte   `json:"audio_data"` // base64 of a WAV, null when it failed
	Error    *string  `json:"error"`
	Duration *float64 `json:"duration"` // seconds
}

// olderSynthesize is POST /synthesize.
func (s *Server) olderSynthesize(c *fiber.Ctx) error {
	order, err := s.older(c)
	if err != nil {
		return err
	}
	s.prepare(c, &order)
	u, err := s.utter(c, order)
	if err != nil {
		return err
	}
	<-u.done // a WAV is not streamed unless one asks for it
	defer u.stop()
	if u.err != nil {
		return u.err
	}
	if err := u.sendWhole(c); err != nil {
		return err
	}
	duration := u.result.AudioSeconds() / order.speed
	return c.JSON(olderAnswer{Success: true, Audio: c.Response().Body(), Duration: &duration})
}

// olderStream is POST /synthesize/stream.
func (s *Server) olderStream(c *fiber.Ctx) error {
	order, err := s.older(c)
	if err != nil {
		return err
	}
	order.delivery = deliverStream
	c.Attachment("speech.wav")
	return s.say(c, order)
}

// olderVoiceList is GET /voices.
func (s *Server) olderVoiceList(c *fiber.Ctx) error {
	type about struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		Language    string `json:"language"`
	}
	names, details := []string{}, map[string]about{}
	grouped := map[string]map[string]about{"bark_voices": {}, "speaker_voices": {}}
	for _, v := range olderVoices {
		names = append(names, v.name)
		details[v.name] = about{Name: v.name, Description: v.about, Language: "en"}
		group := "bark_voices"
		if strings.HasPrefix(v.name, "speaker_") {
			group = "speaker_voices"
		}
		grouped[group][v.name] = details[v.name]
	}
	return c.JSON(fiber.Map{"voices": names, "grouped": grouped, "details": details, "recommended": []string{"narrator", "announcer", "excited", "calm"}})
}

// olderModels is GET /models.
func (s *Server) olderModels(c *fiber.Ctx) error {
	ctx, stop := s.clientContext(c)
	defer stop()
	all, err := s.Catalogue.List(ctx)
	if err != nil {
		return err
	}
	stats := s.contents()
	ids, details := []string{}, fiber.Map{}
	for _, m := range all {
		ids = append(ids, m.ID)
		details[m.ID] = fiber.Map{"type": "bark", "description": m.body(nil).Notice, "voices": list(m.Voices), "cached": slices.Contains(stats.CachedModels, m.ID)}
	}
	return c.JSON(fiber.Map{"models": ids, "details": details, "cache_status": fiber.Map{
		"cached_models": stats.CachedModels, "cache_size": stats.CacheSize, "max_cache_size": stats.MaxCacheSize}})
}

// olderError is the body of an error on /synthesize; the stream's is that of FastAPI.
func olderError(c *fiber.Ctx, e *Error) any {
	if c.Path() == "/synthesize" {
		return olderAnswer{Error: &e.Message}
	}
	return fiber.Map{"detail": e.Message}
}

// speaksOlder says whether a request is one of the older server's API.
func speaksOlder(c *fiber.Ctx) bool { return strings.HasPrefix(c.Path(), "/synthesize") }
