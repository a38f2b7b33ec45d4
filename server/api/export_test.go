package api

import (
	"maps"
	"slices"
)

// SpeechFields are the names a speech request may use.
func SpeechFields() []string { return slices.Collect(maps.Keys(speechFields)) }
