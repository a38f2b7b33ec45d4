package speech

import (
	"errors"
	"fmt"
	"slices"

	"barkd/cgo"
)

// defaultVoices are the presets that speak when a request names none: the first that the model has.
var defaultVoices = []string{"v2/en_speaker_6", "slt"}

// openAIVoices maps the names that OpenAI's clients send onto Bark's English presets and onto the voices of barkd/tiny,
// always the same way. v2/en_speaker_9 is the only woman among Bark's, so it stands for every name of a female voice.
var openAIVoices = []struct{ name, preset, tiny string }{
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

// resolveVoice returns the name of the model's voice that the choice means, "" for none.
func resolveVoice(choice VoiceChoice, info cgo.ModelInfo) (string, error) {
	name := choice.Name
	switch {
	case choice.Arrays != nil:
		return "", nil
	case name == "" && choice.Default:
		return Default(info.Voices), nil
	case name == "" || slices.Contains(info.Voices, name):
		return name, nil
	case name == NoVoice:
		return "", nil
	}
	if voice, ok := Aliases(info.Voices)[name]; ok {
		return voice, nil
	}
	for _, v := range openAIVoices {
		if v.name == name { // stock clients must send one; a model without voices makes up a speaker
			return "", nil
		}
	}
	return "", unknownVoice(name, info)
}

func unknownVoice(name string, info cgo.ModelInfo) error {
	text := fmt.Sprintf("the model %q has no voice %q; it has no voices at all: leave the voice out", info.Name, name)
	if n := len(info.Voices); n > 0 {
		text = fmt.Sprintf("the model %q has no voice %q; GET /v1/audio/voices?model=%s or 'barkd voices --model %s' lists its %d",
			info.Name, name, info.Name, info.Name, n)
	}
	return &InputError{Param: "voice", Message: text, Err: cgo.ErrNotFound}
}

// openVoice opens the chosen voice; nil without one.
func openVoice(model cgo.Model, choice VoiceChoice, name string) (cgo.Voice, error) {
	var (
		voice cgo.Voice
		err   error
	)
	switch {
	case choice.Arrays != nil:
		voice, err = model.NewVoice(*choice.Arrays)
	case name != "":
		voice, err = model.Voice(name)
	default:
		return nil, nil
	}
	if errors.Is(err, cgo.ErrInvalidArgument) || errors.Is(err, cgo.ErrNotFound) {
		return nil, &InputError{Param: "voice", Message: err.Error(), Err: err}
	}
	return voice, err
}
