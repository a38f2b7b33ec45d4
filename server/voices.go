package main

import (
	"errors"
	"math"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/server/models/voicefile"
	"barkd/server/speech"
	"barkd/server/voices"
)

// voiceDirFlag says where the voices that people make are kept.
type voiceDirFlag struct {
	VoicesDir string `var:"VOICES_DIR" placeholder:"DIR" help:"Folder of the stored voices; default is in the user's data folder, off for none."`
}

// voiceFlags bound them.
type voiceFlags struct {
	voiceDirFlag
	MaxVoices         string `var:"MAX_VOICES" default:"1000" placeholder:"1000" help:"Most voices in it."`
	VoicesBudget      string `var:"VOICES_BUDGET" default:"256MB" placeholder:"256MB" help:"Most bytes of their files."`
	GenerationsBudget string `var:"GENERATIONS_BUDGET" default:"16MB" placeholder:"16MB" help:"Memory for the tokens of recent speech, from which a voice can be kept; 0 for none."`
}

// voiceConfig is voiceFlags, checked.
type voiceConfig struct {
	dir              string // "" for the default, "off" for none
	limits           voices.Limits
	generationsBytes int64
}

func (f voiceFlags) read(s *settings) voiceConfig {
	return voiceConfig{
		dir:              f.VoicesDir,
		limits:           voices.Limits{Voices: s.integer("MAX_VOICES", f.MaxVoices, 0, math.MaxInt32), Bytes: s.bytes("VOICES_BUDGET", f.VoicesBudget)},
		generationsBytes: s.bytes("GENERATIONS_BUDGET", f.GenerationsBudget),
	}
}

// bytes reads a size such as 16MB.
func (s *settings) bytes(name, value string) int64 {
	n, err := humanize.ParseBytes(strings.TrimSpace(value))
	if err != nil || n > math.MaxInt64/1024 {
		s.bad(name, value, "a size such as 16MB")
	}
	return int64(n)
}

// readVoice takes a name for a file if there is one of that name, else for a voice of the model or a stored one.
func (f voiceDirFlag) readVoice(to *speech.VoiceChoice, name string, env environ) error {
	to.Name = name
	if name == "" {
		return nil
	}
	arrays, err := voicefile.Read(name)
	switch {
	case err == nil:
		to.Arrays = &arrays
		return nil
	case !errors.Is(err, cgo.ErrNotFound) || strings.HasSuffix(name, voicefile.Suffix):
		return err
	}
	store, err := voiceConfig{dir: f.VoicesDir}.open(env.get, zerolog.Nop())
	if store != nil {
		to.Stored = store.Lookup
	}
	return err
}

// open opens the folder, nil for none. A process without a home keeps no voices: a server is useful without them.
func (c voiceConfig) open(getenv func(string) string, log zerolog.Logger) (*voices.Store, error) {
	dir := c.dir
	if strings.EqualFold(dir, "off") {
		return nil, nil
	}
	if dir == "" {
		var err error
		if dir, err = voices.DefaultDir(getenv); err != nil {
			log.Warn().Err(err).Msg("no voices are kept")
			return nil, nil
		}
	}
	return voices.Open(dir, c.limits)
}
