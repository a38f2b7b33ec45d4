package speech

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"barkd/cgo"
	"barkd/cgo/cache"
)

type openAIVoice struct{ name, preset, tiny string }

// defaultVoices are the presets that speak when a request names none: the first that the model has.
var defaultVoices = []string{"v2/en_speaker_6", "slt"}

// openAIVoices maps the names that OpenAI's clients send onto Bark's English presets and onto the voices of barkd/tiny,
// always the same way. v2/en_speaker_9 is the only woman among Bark's, so it stands for every name of a female voice.
var openAIVoices = []openAIVoice{
	{"alloy", "v2/en_speaker_6", "slt"},
	{"ash", "v2/en_speaker_0", "rms"},
	{"ballad", "v2/en_speaker_1", "rms"},
	{"cedar", "v2/en_speaker_8", "rms"},
	{"coral", "v2/en_speaker_9", "slt"},
	{"echo", "v2/en_speaker_2", "rms"},
	{"fable", "v2/en_speaker_3", "rms"},
	{"marin", "v2/en_speaker_9", "slt"},
	{"nova", "v2/en_speaker_9", "slt"},
	{"onyx", "v2/en_speaker_4", "rms"},
	{"sage", "v2/en_speaker_9", "slt"},
	{"shimmer", "v2/en_speaker_9", "slt"},
	{"verse", "v2/en_speaker_5", "rms"},
}

// Aliases maps each OpenAI voice name to one of the model's voices; it is empty when the model has none. A model
// without the preset gets another of its voices, by position, so that different names sound different if they can.
func Aliases(voices []string) map[string]string {
	out := map[string]string{}
	if len(voices) == 0 {
		return out
	}
	for i, v := range openAIVoices {
		switch {
		case slices.Contains(voices, v.name):
			// The model's own voice of that name wins.
		case slices.Contains(voices, v.preset):
			out[v.name] = v.preset
		case slices.Contains(voices, v.tiny):
			out[v.name] = v.tiny
		default:
			out[v.name] = voices[i%len(voices)]
		}
	}
	return out
}

// Default returns the voice that speaks when a request over HTTP names none: "" if the model has no voices.
func Default(voices []string) string {
	for _, v := range defaultVoices {
		if slices.Contains(voices, v) {
			return v
		}
	}
	if len(voices) == 0 {
		return ""
	}
	return voices[0]
}

// IsOpenAIVoice says whether a name is one that OpenAI's clients send.
func IsOpenAIVoice(name string) bool {
	return slices.ContainsFunc(openAIVoices, func(v openAIVoice) bool { return v.name == name })
}

// resolve turns a name into the name of a voice of the model, "" for none, or into the arrays of a stored voice, with
// its id as the name.
func (c VoiceChoice) resolve(info cgo.ModelInfo) (name string, arrays *cgo.VoiceArrays, err error) {
	switch {
	case c.Arrays != nil:
		return "", c.Arrays, nil
	case c.Name == "" && c.Default:
		return Default(info.Voices), nil, nil
	case c.Name == "" || slices.Contains(info.Voices, c.Name):
		return c.Name, nil, nil
	case c.Name == NoVoice:
		return "", nil, nil
	}
	if voice, ok := Aliases(info.Voices)[c.Name]; ok {
		return voice, nil, nil
	}
	if IsOpenAIVoice(c.Name) { // stock clients must send one; a model without voices makes up a speaker
		return "", nil, nil
	}
	if c.Stored == nil {
		return "", nil, unknownVoice(c.Name, info)
	}
	id, stored, err := c.Stored(c.Name)
	if errors.Is(err, cgo.ErrNotFound) {
		return "", nil, unknownVoice(c.Name, info)
	}
	return id, &stored, err
}

func unknownVoice(name string, info cgo.ModelInfo) error {
	text := fmt.Sprintf("the model %q has no voice %q; it has no voices at all: leave the voice out", info.Name, name)
	if n := len(info.Voices); n > 0 {
		text = fmt.Sprintf("the model %q has no voice %q; GET /v1/audio/voices?model=%s or 'barkd voices --model %s' lists its %d",
			info.Name, name, info.Name, info.Name, n)
	}
	return &InputError{Param: "voice", Message: text, Err: cgo.ErrNotFound}
}

// openVoice opens a voice as resolve returned it; nil without one.
func openVoice(model cgo.Model, name string, arrays *cgo.VoiceArrays) (cgo.Voice, error) {
	var (
		voice cgo.Voice
		err   error
	)
	switch {
	case arrays != nil:
		voice, err = model.NewVoice(*arrays)
	case name != "":
		voice, err = model.Voice(name)
	default:
		return nil, nil
	}
	if errors.Is(err, cgo.ErrInvalidArgument) || errors.Is(err, cgo.ErrNotFound) {
		message := err.Error()
		if arrays != nil {
			message = fmt.Sprintf("the voice does not fit the model %q: %s", model.Info().Name, message)
		}
		return nil, &InputError{Param: "voice", Message: message, Err: err}
	}
	return voice, err
}

// CheckVoice says whether a model takes arrays as a voice, loading it if needed: with an *InputError when it does not,
// else as Speak does.
func (s *Service) CheckVoice(ctx context.Context, model string, arrays cgo.VoiceArrays) error {
	if err := s.models.Known(model); err != nil {
		return err
	}
	ticket, err := s.admission.Enter(Place{Model: model})
	if err != nil {
		return err
	}
	defer ticket.Leave()
	lease, err := s.take(ctx, ticket, cache.Ask{Holder: "voice"})
	if err != nil {
		return err
	}
	defer lease.Release()
	voice, err := openVoice(lease.Model(), "", &arrays)
	if err != nil {
		return err
	}
	return voice.Close()
}
