package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"slices"
	"unicode/utf8"

	"github.com/gofiber/fiber/v2"

	"barkd/server/models/voicefile"
	"barkd/server/voices"
)

const maxConsent = 256 // bytes

// parseVoice reads the body of POST /v1/audio/voices.
func (s *Server) parseVoice(c *fiber.Ctx) (newVoice, error) {
	kind, parameters, _ := mime.ParseMediaType(c.Get(fiber.HeaderContentType)) // no type is a wrong one
	switch kind {
	case fiber.MIMEMultipartForm:
		return parseVoiceForm(c.Request().Body(), parameters["boundary"])
	case fiber.MIMEApplicationJSON:
		body, err := s.jsonBody(c)
		if err != nil {
			return newVoice{}, err
		}
		return parseVoiceJSON(body)
	}
	return newVoice{}, &Error{Status: fiber.StatusUnsupportedMediaType, Type: typeInvalid, Code: "unsupported_media_type",
		Message: `A voice is sent as multipart/form-data with "name" and an .npz "file", or as application/json with "name" and "generation".`}
}

// set takes one text field of either form.
func (v *newVoice) set(name, value string) error {
	most := 256
	switch name {
	case "name":
		v.Name = value
	case "model":
		v.Model = value
	case "consent":
		v.Consent, most = value, maxConsent
	case "type": // OpenAI's
		if value != string(voices.Uploaded) {
			return badRequest("type", "unsupported_value", `"type" must be %q: a Bark voice is not made from a description.`, voices.Uploaded)
		}
	default:
		return badRequest(name, "unknown_parameter", "Unknown parameter %q.", name)
	}
	if len(value) > most {
		return badRequest(name, "invalid_value", "%q must be at most %d bytes of UTF-8, not %d.", name, most, len(value))
	}
	return nil
}

// parseVoiceJSON reads {"name": …, "generation": …}.
func parseVoiceJSON(body []byte) (newVoice, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return newVoice{}, notJSON("object", err)
	}
	var v newVoice
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		var value string
		if json.Unmarshal(fields[name], &value) != nil {
			return newVoice{}, badRequest(name, "invalid_value", "%q must be a string.", name)
		}
		switch name {
		case "generation":
			v.generation = value
		case "model":
			return newVoice{}, badRequest(name, "unknown_parameter", `"model" goes with a file: a generation's model is known.`)
		default:
			if err := v.set(name, value); err != nil {
				return newVoice{}, err
			}
		}
	}
	switch {
	case v.Name == "":
		return newVoice{}, missing("name")
	case v.generation == "":
		return newVoice{}, missing("generation")
	}
	return v, nil
}

// parseVoiceForm reads a form; the file's field is "file", or "audio_sample" as OpenAI's clients call it.
func parseVoiceForm(body []byte, boundary string) (newVoice, error) {
	if boundary == "" {
		return newVoice{}, badForm("the Content-Type has no boundary")
	}
	v := newVoice{Voice: voices.Voice{Origin: voices.Uploaded}}
	seen := map[string]bool{}
	form := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return newVoice{}, badForm(err.Error())
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return newVoice{}, badForm(err.Error())
		}
		name := part.FormName()
		if name == "audio_sample" {
			name = "file"
		}
		if seen[name] {
			return newVoice{}, badRequest(name, "invalid_value", "%q is there twice.", name)
		}
		seen[name] = true
		if name == "file" {
			err = v.setFile(content)
		} else if !utf8.Valid(content) {
			err = badRequest(name, "invalid_utf8", "%q is not valid UTF-8.", name)
		} else {
			err = v.set(name, string(content))
		}
		if err != nil {
			return newVoice{}, err
		}
	}
	switch {
	case v.Name == "":
		return newVoice{}, missing("name")
	case !seen["file"]:
		return newVoice{}, missing("file")
	}
	return v, nil
}

// setFile reads the .npz. The client's file name is not looked at.
func (v *newVoice) setFile(content []byte) error {
	if len(content) > voices.MaxBytes {
		return &Error{Status: fiber.StatusRequestEntityTooLarge, Type: typeInvalid, Param: "file", Code: "voice_too_large",
			Message: "A voice's file has at most 1 MiB."}
	}
	arrays, err := voicefile.ReadNPZ(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		e := badRequest("file", "invalid_voice", "The file is no Bark voice: %s. A voice is an .npz of semantic_prompt, coarse_prompt and fine_prompt; "+
			"the server cannot make one of a recording.", err)
		e.err = err
		return e
	}
	v.arrays = arrays
	return nil
}

func badForm(what string) *Error {
	return badRequest("", "invalid_form", "The body is no multipart form: %s.", what)
}
