package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"mime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gofiber/fiber/v2"

	"barkd/cgo"
	"barkd/server/audio"
	"barkd/server/audio/tempo"
	"barkd/server/speech"
)

// jsonBody returns the body of a request that must be JSON. It is valid UTF-8 and holds no escaped half of a
// surrogate pair: encoding/json would replace either in silence.
func (s *Server) jsonBody(c *fiber.Ctx) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(c.Get(fiber.HeaderContentType))
	if err != nil || kind != fiber.MIMEApplicationJSON {
		return nil, &Error{Status: fiber.StatusUnsupportedMediaType, Type: typeInvalid, Code: "unsupported_media_type",
			Message: "The body must be JSON and say so: send the header 'Content-Type: application/json'."}
	}
	if encoding := c.Get(fiber.HeaderContentEncoding); encoding != "" && encoding != "identity" {
		return nil, &Error{Status: fiber.StatusUnsupportedMediaType, Type: typeInvalid, Code: "unsupported_encoding",
			Message: "The body must not be compressed."}
	}
	body := c.Request().Body()
	if len(body) > s.MaxBodyBytes {
		return nil, fiber.ErrRequestEntityTooLarge
	}
	if !utf8.Valid(body) {
		return nil, badRequest("", "invalid_utf8", "The body is not valid UTF-8.")
	}
	if hasLoneSurrogate(body) {
		return nil, badRequest("", "invalid_utf8", "The body escapes half of a surrogate pair (\\ud800 to \\udfff), which is no character.")
	}
	return body, nil
}

// hasLoneSurrogate looks for an escaped surrogate without its other half. Whether the escapes are well formed is
// left to the JSON decoder.
func hasLoneSurrogate(body []byte) bool {
	high := false // the code unit just before was a high surrogate
	for i := 0; i < len(body); {
		unit := rune(-1)
		size := 1
		if body[i] == '\\' && i+1 < len(body) {
			size = 2
			if body[i+1] == 'u' && i+6 <= len(body) {
				if n, err := strconv.ParseUint(string(body[i+2:i+6]), 16, 16); err == nil {
					unit, size = rune(n), 6
				}
			}
		}
		low := unit >= 0xdc00 && unit < 0xe000
		if low != high {
			return true
		}
		high = unit >= 0xd800 && unit < 0xdc00
		i += size
	}
	return high
}

// maxModelID bounds the characters of a model id.
const maxModelID = 256

// speechBody is the body of POST /v1/audio/speech.
type speechBody struct {
	request     speech.Request
	format      audio.Format
	speed       float64
	delivery    delivery
	progress    bool        // told in events
	cut         *speech.Cut // nil: by the delivery
	temperature *float32    // of each stage whose own field is missing
	forget      bool        // hold no generation
}

// speechFields are the fields a request may have, each with its reader. A null is as good as a missing field.
var speechFields = map[string]func(*speechBody, json.RawMessage) string{
	"model": func(b *speechBody, raw json.RawMessage) string { return name(raw, &b.request.Model, maxModelID) },
	"input": func(b *speechBody, raw json.RawMessage) string { return text(raw, &b.request.Text, math.MaxInt) },
	"voice": func(b *speechBody, raw json.RawMessage) string { return voiceName(raw, &b.request.Voice.Name) },

	"response_format": responseFormat,
	"stream_format":   streamFormat,
	"speed":           speed,
	"cut":             cut,
	"latency":         latency,
	"history":         history,
	"progress": func(b *speechBody, raw json.RawMessage) string {
		if json.Unmarshal(raw, &b.progress) != nil {
			return "must be true or false"
		}
		return ""
	},
	"instructions": instructions,

	"seed":        seed,
	"rules":       rules,
	"max_tokens":  maxTokens,
	"keep_alive":  keepAlive,
	"temperature": func(b *speechBody, raw json.RawMessage) string { return number(raw, &b.temperature, 0, 10) },
	"temperature_semantic": func(b *speechBody, raw json.RawMessage) string {
		return number(raw, &b.request.Sampling.Semantic, 0, 10)
	},
	"temperature_coarse": func(b *speechBody, raw json.RawMessage) string { return number(raw, &b.request.Sampling.Coarse, 0, 10) },
	"temperature_fine":   func(b *speechBody, raw json.RawMessage) string { return number(raw, &b.request.Sampling.Fine, 0, 10) },
	"top_k":              topK,
	"top_p":              func(b *speechBody, raw json.RawMessage) string { return number(raw, &b.request.Sampling.TopP, 1e-6, 1) },
	"min_eos_p":          func(b *speechBody, raw json.RawMessage) string { return number(raw, &b.request.Sampling.MinEOSP, 0, 1) },
}

// parseSpeech reads a speech request. Fields are matched exactly and unknown ones refused: a misspelt option that is
// ignored would be a lie. The model may be missing: see modelOf.
func parseSpeech(body []byte) (speechBody, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil || raw == nil {
		return speechBody{}, notJSON("object", err)
	}
	b := speechBody{speed: 1}
	for _, name := range slices.Sorted(maps.Keys(raw)) { // sorted: of several mistakes always the same is named
		value := raw[name]
		read, ok := speechFields[name]
		if !ok {
			return speechBody{}, badRequest(name, "unknown_parameter", "Unknown parameter %q.", name)
		}
		if bytes.Equal(value, []byte("null")) {
			continue
		}
		if problem := read(&b, value); problem != "" {
			return speechBody{}, badRequest(name, "invalid_value", "%q %s.", name, problem)
		}
	}
	if b.request.Text == "" {
		return speechBody{}, missing("input")
	}
	if b.progress && b.delivery != deliverEvents {
		return speechBody{}, badRequest("progress", "invalid_value", `"progress" needs "stream_format": "sse".`)
	}
	if b.format.Name == "" {
		b.format = audio.MP3
	}
	if err := b.format.Available(); err != nil {
		return speechBody{}, unsupportedFormat(err)
	}
	b.request.Voice.Default = true
	for _, stage := range []**float32{&b.request.Sampling.Semantic, &b.request.Sampling.Coarse, &b.request.Sampling.Fine} {
		if *stage == nil {
			*stage = b.temperature
		}
	}
	return b, nil
}

const codeMissing = "missing_parameter"

func missing(name string) *Error {
	return badRequest(name, codeMissing, "%q is required and must not be empty.", name)
}

func notJSON(want string, err error) *Error {
	message := "The body must be a JSON " + want + "."
	if err != nil {
		message = "The body must be a JSON " + want + ": " + err.Error() + "."
	}
	e := badRequest("", "invalid_json", "%s", message)
	e.err = err
	return e
}

// The readers below return what is wrong with the value, "" for nothing.

func text(raw json.RawMessage, to *string, maxBytes int) string {
	if json.Unmarshal(raw, to) != nil {
		return "must be a string"
	}
	if len(*to) > maxBytes {
		return "must be at most " + strconv.Itoa(maxBytes) + " bytes of UTF-8, not " + strconv.Itoa(len(*to))
	}
	return ""
}

func name(raw json.RawMessage, to *string, maxCharacters int) string {
	if json.Unmarshal(raw, to) != nil {
		return "must be a string"
	}
	if n := utf8.RuneCountInString(*to); n > maxCharacters {
		return "must be at most " + strconv.Itoa(maxCharacters) + " characters, not " + strconv.Itoa(n)
	}
	return ""
}

// voiceName reads a name, or OpenAI's object {"id": name} of a custom voice.
func voiceName(raw json.RawMessage, to *string) string {
	if raw[0] == '{' {
		var fields map[string]json.RawMessage
		id, ok := json.RawMessage(nil), json.Unmarshal(raw, &fields) == nil
		if ok {
			id, ok = fields["id"]
		}
		if !ok || len(fields) != 1 || id[0] != '"' {
			return `must be a string or an object with "id" alone`
		}
		raw = id
	}
	return name(raw, to, 256)
}

func responseFormat(b *speechBody, raw json.RawMessage) string {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		for _, f := range audio.Formats() {
			if f.Name == name {
				b.format = f
				return ""
			}
		}
	}
	return "must be one of " + strings.Join(audio.AvailableNames(), ", ")
}

// option is one of two names a field may have, and what it means.
type option[T any] struct {
	name  string
	means T
}

// choose reads which of two options a field names.
func choose[T any](raw json.RawMessage, into *T, a, b option[T]) string {
	var name string
	_ = json.Unmarshal(raw, &name) // what is no string is no name either
	switch name {
	case a.name:
		*into = a.means
	case b.name:
		*into = b.means
	default:
		return fmt.Sprintf("must be %q or %q", a.name, b.name)
	}
	return ""
}

func streamFormat(b *speechBody, raw json.RawMessage) string {
	return choose(raw, &b.delivery, option[delivery]{"audio", deliverStream}, option[delivery]{"sse", deliverEvents})
}

func cut(b *speechBody, raw json.RawMessage) string {
	b.cut = new(speech.Cut)
	return choose(raw, b.cut, option[speech.Cut]{"needed", speech.CutNeeded}, option[speech.Cut]{"early", speech.CutEarly})
}

func history(b *speechBody, raw json.RawMessage) string {
	return choose(raw, &b.request.History, option[speech.History]{"voice", speech.HistoryVoice},
		option[speech.History]{"previous", speech.HistoryPrevious})
}

func latency(b *speechBody, raw json.RawMessage) string {
	return choose(raw, &b.request.FineChunk, option[int]{"normal", 0}, option[int]{"low", speech.LowLatency})
}

func speed(b *speechBody, raw json.RawMessage) string {
	if json.Unmarshal(raw, &b.speed) != nil || !(b.speed >= tempo.Slowest && b.speed <= tempo.Fastest) {
		return "must be a number from 0.25 to 4"
	}
	return ""
}

// instructions are OpenAI's; Bark cannot obey them, so only the value that asks for nothing passes.
func instructions(_ *speechBody, raw json.RawMessage) string {
	var value string
	if json.Unmarshal(raw, &value) != nil || value != "" {
		return "must be empty: the model takes no instructions"
	}
	return ""
}

// integer returns the digits of a whole number, which JSON may also write 5.0 or 5e3.
func integer(raw json.RawMessage) string {
	if x, err := strconv.ParseFloat(string(raw), 64); err == nil && bytes.ContainsAny(raw, ".eE") && x == math.Trunc(x) {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return string(raw)
}

func seed(b *speechBody, raw json.RawMessage) string {
	value, err := strconv.ParseUint(integer(raw), 10, 64)
	if err != nil {
		return "must be an integer from 0 to 18446744073709551615"
	}
	b.request.Seed = &value
	return ""
}

func rules(b *speechBody, raw json.RawMessage) string {
	var name string
	_ = json.Unmarshal(raw, &name) // what is no string is no rule either
	switch name {
	case "suno":
		b.request.Rules = cgo.RulesSuno
	case "hf":
		b.request.Rules = cgo.RulesHF
	default:
		return `must be "suno" or "hf"`
	}
	return ""
}

func maxTokens(b *speechBody, raw json.RawMessage) string {
	value, err := strconv.ParseInt(integer(raw), 10, 32)
	if err != nil || value < 1 {
		return "must be a positive integer"
	}
	b.request.MaxSemanticTokens = int(value)
	return ""
}

// keepAlive reads how long the model stays afterwards: seconds as a number, or a duration such as "5m"; negative is
// for ever, 0 frees it at once.
func keepAlive(b *speechBody, raw json.RawMessage) string {
	const want = `must be seconds or a duration such as "5m"; -1 for ever, 0 to free the model at once`
	var text string
	if json.Unmarshal(raw, &text) != nil {
		text = string(raw)
	}
	d, err := speech.ParseKeepAlive(text)
	if err != nil {
		return want
	}
	b.request.KeepAlive = d
	return ""
}

func topK(b *speechBody, raw json.RawMessage) string {
	value, err := strconv.ParseInt(integer(raw), 10, 32)
	if err != nil || value < 0 {
		return "must be an integer, 0 for all"
	}
	k := int32(value)
	b.request.Sampling.TopK = &k
	return ""
}

func number(raw json.RawMessage, to **float32, low, high float64) string {
	var value float64
	if json.Unmarshal(raw, &value) != nil || math.IsNaN(value) || value < low || value > high {
		return "must be a number from " + strconv.FormatFloat(low, 'g', -1, 64) + " to " + strconv.FormatFloat(high, 'g', -1, 64)
	}
	small := float32(value)
	*to = &small
	return ""
}
