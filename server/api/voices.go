package api

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"

	"barkd/cgo"
	"barkd/server/models/voicefile"
	"barkd/server/speech"
	"barkd/server/voices"
)

// voiceBody is OpenAI's voice object with our facts beside it.
type voiceBody struct {
	ID      string        `json:"id"`
	Object  string        `json:"object"`
	Name    string        `json:"name"`
	Created int64         `json:"created_at"`
	Type    voices.Origin `json:"type"`
	Model   string        `json:"model,omitempty"`
	Consent string        `json:"consent,omitempty"`
	Bytes   int64         `json:"bytes"`
}

func storedBody(v voices.Voice) voiceBody {
	return voiceBody{ID: v.ID, Object: "audio.voice", Name: v.Name, Created: v.Created.Unix(), Type: v.Origin, Model: v.Model,
		Consent: v.Consent, Bytes: v.Bytes}
}

// voices is GET /v1/audio/voices?model=; without a model it is the default one's.
func (s *Server) voices(c *fiber.Ctx) error {
	m, err := s.find(c, strings.Clone(c.Query("model", s.DefaultModel)))
	if err != nil {
		return err
	}
	kept, err := s.storedVoices()
	if err != nil {
		return err
	}
	names, stored := append([]string{}, m.Voices...), make([]voiceBody, 0, len(kept))
	for _, v := range kept {
		stored = append(stored, storedBody(v))
		if (v.Model == "" || v.Model == m.ID) && !slices.Contains(names, v.Name) {
			names = append(names, v.Name)
		}
	}
	return c.JSON(fiber.Map{
		"object": "list", "model": m.ID, "voices": names, "stored": stored,
		"default": speech.Default(m.Voices), "aliases": speech.Aliases(m.Voices),
	})
}

func (s *Server) storedVoices() ([]voices.Voice, error) {
	if s.Voices == nil {
		return nil, nil
	}
	return s.Voices.List()
}

// voice is GET /v1/audio/voices/{id}; with ?format=npz, the voice itself.
func (s *Server) voice(c *fiber.Ctx) error {
	v, err := s.pathVoice(c)
	if err != nil {
		return err
	}
	switch c.Query("format", "json") {
	case "json":
		return c.JSON(storedBody(v))
	case "npz":
		arrays, err := s.Voices.Arrays(v.ID)
		if err != nil {
			return err
		}
		var file bytes.Buffer
		if err := voicefile.WriteNPZ(&file, arrays, ""); err != nil {
			return err
		}
		c.Attachment(v.ID + voicefile.Suffix)
		c.Set(fiber.HeaderContentType, "application/zip")
		c.Context().Response.SetBodyRaw(file.Bytes())
		return nil
	}
	return badRequest("format", "invalid_value", `"format" must be json or npz.`)
}

// removeVoice is DELETE /v1/audio/voices/{id}. Requests that speak with the voice have it in memory.
func (s *Server) removeVoice(c *fiber.Ctx) error {
	v, err := s.pathVoice(c)
	if err == nil {
		err = s.Voices.Remove(v.ID)
	}
	if errors.Is(err, cgo.ErrNotFound) { // another request was faster
		return voiceNotFound(v.ID)
	}
	if err != nil {
		return err
	}
	s.Log.Info().Str("request_id", requestID(c)).Str("voice", v.ID).Str("name", v.Name).Msg("voice deleted")
	return c.JSON(fiber.Map{"id": v.ID, "object": "audio.voice.deleted", "deleted": true})
}

// pathVoice finds the voice whose id ends the path.
func (s *Server) pathVoice(c *fiber.Ctx) (voices.Voice, error) {
	id, _ := pathRest(c)
	if s.Voices == nil {
		return voices.Voice{}, voiceNotFound(id)
	}
	v, err := s.Voices.Get(id)
	if errors.Is(err, cgo.ErrNotFound) {
		return voices.Voice{}, voiceNotFound(id)
	}
	return v, err
}

func voiceNotFound(id string) *Error {
	return &Error{Status: fiber.StatusNotFound, Type: typeInvalid, Param: "voice", Code: "voice_not_found",
		Message: fmt.Sprintf("There is no stored voice of id %q; \"stored\" of GET /v1/audio/voices lists those there are.", id)}
}

// newVoice is what POST /v1/audio/voices is asked to store.
type newVoice struct {
	voices.Voice
	generation string // the arrays are those of a recent request
	arrays     cgo.VoiceArrays
}

// addVoice is POST /v1/audio/voices: a form with an .npz file, or JSON that names a generation.
func (s *Server) addVoice(c *fiber.Ctx) error {
	if s.Voices == nil {
		return &Error{Status: fiber.StatusNotImplemented, Type: typeServer, Code: "voices_off",
			Message: "This server keeps no voices: its VOICES_DIR is off."}
	}
	v, err := s.parseVoice(c)
	if err != nil {
		return err
	}
	if v.generation != "" {
		made, ok := s.recent.find(v.generation)
		if !ok {
			return &Error{Status: fiber.StatusNotFound, Type: typeInvalid, Param: "generation", Code: "generation_not_found",
				Message: fmt.Sprintf("There is no generation %q to keep: the X-Barkd-Generation of speech that ended well is known for %s, or until many more have come.",
					v.generation, generationAge)}
		}
		v.Origin, v.Model, v.arrays = voices.Generated, made.model, made.tokens
	}
	if err := s.checkVoice(c, v); err != nil {
		return err
	}
	stored, err := s.Voices.Add(v.Voice, v.arrays)
	if err != nil {
		return storeError(err)
	}
	s.Log.Info().Str("request_id", requestID(c)).Str("voice", stored.ID).Str("name", stored.Name).Str("origin", string(stored.Origin)).Msg("voice stored")
	return c.JSON(storedBody(stored))
}

// checkVoice refuses what could not be spoken with: a name that means another voice, arrays that do not fit.
func (s *Server) checkVoice(c *fiber.Ctx, v newVoice) error {
	if err := voices.CheckName(v.Name); err != nil {
		return badRequest("name", "invalid_value", "%q must have 1 to 100 printable characters, without a space at either end.", "name")
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	models, err := s.Catalogue.List(ctx)
	if err != nil {
		return err
	}
	if NameTaken(v.Name, models) {
		return badRequest("name", "name_taken", "The name %q means another voice already; a model's own voices and OpenAI's names come first.", v.Name)
	}
	if err := voices.CheckShape(v.arrays); err != nil {
		from := "file"
		if v.generation != "" {
			from = "generation"
		}
		return badRequest(from, "invalid_voice", "%s.", err)
	}
	if v.Model == "" {
		return nil
	}
	if err := s.Speaker.CheckVoice(ctx, v.Model, v.arrays); err != nil {
		return &modelError{id: v.Model, err: err}
	}
	return nil
}

// NameTaken says whether a name means another voice than a stored one: of a model, or OpenAI's.
func NameTaken(name string, models []Model) bool {
	return name == speech.NoVoice || speech.IsOpenAIVoice(name) ||
		slices.ContainsFunc(models, func(m Model) bool { return slices.Contains(m.Voices, name) })
}

// storeError maps what the store says to its sender.
func storeError(err error) error {
	var file *fs.PathError
	switch {
	case errors.As(err, &file):
		return &Error{Status: fiber.StatusInsufficientStorage, Type: typeServer, Code: "voices_unwritable",
			Message: "The server cannot write to its folder of voices; its log says more.", err: err}
	case errors.Is(err, voices.ErrExists):
		return &Error{Status: fiber.StatusConflict, Type: typeInvalid, Param: "name", Code: "voice_exists",
			Message: "The voice cannot be stored: " + err.Error() + "; delete that one or take another name.", err: err}
	case errors.Is(err, voices.ErrFull):
		return &Error{Status: fiber.StatusInsufficientStorage, Type: typeServer, Code: "voices_full",
			Message: "The voice cannot be stored: " + err.Error() + "; delete one first.", err: err}
	}
	return err
}
