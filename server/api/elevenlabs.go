package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"barkd/cgo"
	"barkd/server/speech"
	"barkd/server/voices"
)

// The routes of ElevenLabs' API, for its clients: /v1/text-to-speech, /v1/voices, /v2/voices, and /v1/models for a
// request with an xi-api-key.

const headerElevenKey = "xi-api-key"

// elevenSpeech is POST /v1/text-to-speech/{voice_id}.
func (s *Server) elevenSpeech(c *fiber.Ctx) error { return s.elevenSpeak(c, deliverAuto) }

// elevenStream is POST /v1/text-to-speech/{voice_id}/stream.
func (s *Server) elevenStream(c *fiber.Ctx) error { return s.elevenSpeak(c, deliverStream) }

func (s *Server) elevenSpeak(c *fiber.Ctx, how delivery) error {
	voice, ok := pathRest(c)
	if !ok {
		return badRequest("voice", "invalid_value", "The path must name a voice.")
	}
	if strings.HasSuffix(voice, "/with-timestamps") {
		return &Error{Status: fiber.StatusNotImplemented, Type: typeServer, Code: "unsupported",
			Message: "A Bark model does not tell when it says what; there are no timestamps."}
	}
	body, err := s.jsonBody(c)
	if err != nil {
		return err
	}
	order, err := parseElevenSpeech(body, elevenQuery{
		format: strings.Clone(c.Query("output_format")), latency: strings.Clone(c.Query("optimize_streaming_latency")),
		logging: strings.Clone(c.Query("enable_logging")),
	})
	if err != nil {
		return err
	}
	if order.request.Model, err = s.modelOrDefault(c, order.request.Model); err != nil {
		return err
	}
	order.request.Voice.Name, order.delivery = voice, how
	if len(order.ignored) > 0 {
		c.Set("X-Barkd-Ignored", strings.Join(order.ignored, ", "))
	}
	return s.say(c, order.speechBody)
}

// elevenVoice is ElevenLabs' voice object, as far as a voice of Bark has what it tells.
type elevenVoice struct {
	ID       string            `json:"voice_id"`
	Name     string            `json:"name"`
	Category string            `json:"category"`
	Labels   map[string]string `json:"labels"`
	Models   []string          `json:"high_quality_base_model_ids"`
	Created  *int64            `json:"created_at_unix"`
	Settings elevenSettings    `json:"settings"`
}

type elevenSettings struct {
	Speed float64 `json:"speed"`
}

// elevenVoiceList lists the voices of every model, each once, then the stored ones.
func (s *Server) elevenVoiceList(ctx context.Context) ([]elevenVoice, error) {
	models, err := s.Catalogue.List(ctx)
	if err != nil {
		return nil, err
	}
	kept, err := s.storedVoices()
	if err != nil {
		return nil, err
	}
	all, at := []elevenVoice{}, map[string]int{}
	for _, m := range models {
		for _, name := range m.Voices {
			i, ok := at[name]
			if !ok {
				i = len(all)
				at[name] = i
				all = append(all, elevenVoice{ID: name, Name: name, Category: "premade", Labels: map[string]string{}, Settings: elevenSettings{1}})
			}
			all[i].Models = append(all[i].Models, m.ID)
		}
	}
	for _, v := range kept {
		created := v.Created.Unix()
		one := elevenVoice{ID: v.ID, Name: v.Name, Category: "cloned", Labels: map[string]string{}, Models: []string{}, Created: &created, Settings: elevenSettings{1}}
		if v.Origin == voices.Generated {
			one.Category = "generated"
		}
		if v.Model != "" {
			one.Models = append(one.Models, v.Model)
		}
		all = append(all, one)
	}
	return all, nil
}

// elevenVoices is GET /v1/voices.
func (s *Server) elevenVoices(c *fiber.Ctx) error {
	ctx, stop := s.clientContext(c)
	defer stop()
	all, err := s.elevenVoiceList(ctx)
	if err != nil {
		return err
	}
	return c.JSON(fiber.Map{"voices": all})
}

// elevenSearch is GET /v2/voices: those whose name has the text of ?search=, ?page_size= at a time.
func (s *Server) elevenSearch(c *fiber.Ctx) error {
	size, err := strconv.Atoi(query(c, "page_size", "10"))
	if err != nil || size < 1 || size > 100 {
		return badRequest("page_size", "invalid_value", `"page_size" must be an integer from 1 to 100.`)
	}
	token := c.Query("next_page_token", "0")
	from, err := strconv.Atoi(token)
	if err != nil || from < 0 || len(token) > 9 {
		return badRequest("next_page_token", "invalid_value", `"next_page_token" must be the one of an answer.`)
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	all, err := s.elevenVoiceList(ctx)
	if err != nil {
		return err
	}
	search := strings.ToLower(c.Query("search"))
	all = slices.DeleteFunc(all, func(v elevenVoice) bool { return !strings.Contains(strings.ToLower(v.Name), search) })
	page := all[min(from, len(all)):min(from+size, len(all))]
	var next *string
	if more := from + len(page); more < len(all) {
		token = strconv.Itoa(more)
		next = &token
	}
	return c.JSON(fiber.Map{"voices": page, "has_more": next != nil, "total_count": len(all), "next_page_token": next})
}

// elevenVoice is GET /v1/voices/{voice_id}.
func (s *Server) elevenVoice(c *fiber.Ctx) error {
	id, _ := pathRest(c)
	ctx, stop := s.clientContext(c)
	defer stop()
	all, err := s.elevenVoiceList(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(v elevenVoice) bool { return v.ID == id })
	if i < 0 {
		return voiceNotFound(id)
	}
	return c.JSON(all[i])
}

// elevenRemove is DELETE /v1/voices/{voice_id}, of a stored voice.
func (s *Server) elevenRemove(c *fiber.Ctx) error {
	if err := s.removeVoice(c); err != nil {
		return err
	}
	return c.JSON(fiber.Map{"status": "ok"})
}

// elevenLanguage is one that a model speaks.
type elevenLanguage struct {
	ID   string `json:"language_id"`
	Name string `json:"name"`
}

// barkLanguages are those of Bark's presets, v2/…_speaker_N.
var barkLanguages = []elevenLanguage{{"en", "English"}, {"de", "German"}, {"es", "Spanish"}, {"fr", "French"}, {"hi", "Hindi"}, {"it", "Italian"},
	{"ja", "Japanese"}, {"ko", "Korean"}, {"pl", "Polish"}, {"pt", "Portuguese"}, {"ru", "Russian"}, {"tr", "Turkish"}, {"zh", "Chinese"}}

// languages are those that the model has presets of; without any, English.
func (m Model) languages() []elevenLanguage {
	var out []elevenLanguage
	for _, l := range barkLanguages {
		if slices.ContainsFunc(m.Voices, func(v string) bool { return strings.HasPrefix(v, "v2/"+l.ID+"_speaker_") }) {
			out = append(out, l)
		}
	}
	if out == nil {
		return barkLanguages[:1]
	}
	return out
}

// elevenModels is GET /v1/models for ElevenLabs' clients.
func (s *Server) elevenModels(c *fiber.Ctx, all []Model) error {
	list := make([]fiber.Map, 0, len(all))
	for _, m := range all {
		list = append(list, fiber.Map{
			"model_id": m.ID, "name": m.ID, "description": m.body(nil).Notice, "can_do_text_to_speech": true, "can_do_voice_conversion": false,
			"can_be_finetuned": false, "can_use_style": false, "can_use_speaker_boost": false, "serves_pro_voices": false,
			"requires_alpha_access": false, "token_cost_factor": 0, "maximum_text_length_per_request": s.door.Load().rules.MaxInputChars, "languages": m.languages(),
		})
	}
	return c.JSON(list)
}

// speaksEleven says whether a request is one of ElevenLabs' API.
func speaksEleven(c *fiber.Ctx) bool {
	path := c.Path()
	return strings.HasPrefix(path, "/v1/text-to-speech/") || strings.HasPrefix(path, "/v1/voices") || strings.HasPrefix(path, "/v2/voices") ||
		strings.HasPrefix(path, "/v1/models") && c.Get(headerElevenKey) != ""
}

// elevenNames are ElevenLabs' names of what OpenAI's API calls otherwise.
var elevenNames = map[string]string{"input": "text", "voice": "voice_id", "model": "model_id", "response_format": "output_format"}

// elevenDetail is the body of an error: ElevenLabs' clients read "detail", in which a wrong value's is a list.
func elevenDetail(c *fiber.Ctx, e *Error) fiber.Map {
	param := e.Param
	if name, ok := elevenNames[param]; ok {
		param = name
	}
	if e.Status == fiber.StatusUnprocessableEntity {
		where := "body"
		switch param {
		case "voice_id":
			where = "path"
		case "output_format", "page_size", "next_page_token", "optimize_streaming_latency", "enable_logging":
			where = "query"
		}
		return fiber.Map{"detail": []fiber.Map{{"loc": []string{where, param}, "msg": e.Message, "type": cmp.Or(e.Code, "invalid_value")}}}
	}
	return fiber.Map{"detail": fiber.Map{"type": e.Type, "code": e.Code, "status": e.Code, "message": e.Message, "param": param, "request_id": requestID(c)}}
}

// elevenStatus gives an error the status that ElevenLabs' clients know it by.
func elevenStatus(e *Error) *Error {
	var input *speech.InputError
	changed := *e
	switch {
	case e.Param == "voice" && errors.As(e, &input) && errors.Is(e, cgo.ErrNotFound):
		changed.Status, changed.Code = fiber.StatusNotFound, "voice_not_found"
	case e.Status == fiber.StatusBadRequest && e.Param != "":
		changed.Status = fiber.StatusUnprocessableEntity
	}
	return &changed
}
