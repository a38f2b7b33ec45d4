package api

import (
	"maps"
	"slices"
	"time"
)

// SpeechFields are the names a speech request may use.
func SpeechFields() []string { return slices.Collect(maps.Keys(speechFields)) }

// ElevenFields and ElevenSettings are the names that a request of ElevenLabs' API may use.
func ElevenFields() []string   { return slices.Collect(maps.Keys(elevenFields)) }
func ElevenSettings() []string { return append(slices.Clone(elevenSettingFields), "speed") }

// ElevenFormat says whether an output_format is known.
func ElevenFormat(name string) bool { _, ok := elevenFormat(name); return ok }

// OlderFields are the names that a request of the older API may use.
func OlderFields() []string { return slices.Collect(maps.Keys(olderFields)) }

// Pace spaces refusals.
type Pace = pace

// The pace of refusals.
const (
	RefusalEvery = refusalEvery
	RefusalMost  = refusalMost
)

// Delay says how long to hold back a refusal.
func (p *pace) Delay(now time.Time) time.Duration { return p.delay(now) }
