package audio

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"barkd/server/audio/resample"
	"barkd/server/audio/sndfile"
)

// ErrUnknownFormat is wrapped by an error of ParseFormat.
var ErrUnknownFormat = errors.New("unknown audio format")

// ErrUnavailable is wrapped by errors about formats that cannot be had here.
var ErrUnavailable = errors.New("the audio format is not available")

// codec is what writes a format.
type codec int

const (
	codecNone    codec = iota // this package
	codecSndfile              // libsndfile
	codecFFmpeg               // the program ffmpeg
)

// Format is one way to write samples.
type Format struct {
	Name        string // what a request calls it
	ContentType string
	Extension   string // of a file, with the dot

	codec  codec
	kind   sndfile.Kind // with codecSndfile
	float  bool         // IEEE float32 samples, else signed 16-bit
	header bool         // a RIFF header comes first
	rateHz int          // 0 is that of the samples
	kbit   int          // per second, with MP3 and Opus; 0 is the usual
}

// At returns the format at a sample rate, in Hz, and a bit rate, in kbit/s, of its own; 0 leaves either as it is. The bit
// rate is for MP3 and Opus alone.
func (f Format) At(rateHz, kbit int) Format {
	f.rateHz, f.kbit = rateHz, kbit
	return f
}

// RateHz is the sample rate of what is written of samples of modelHz.
func (f Format) RateHz(modelHz int) int {
	if f.rateHz == 0 {
		return modelHz
	}
	return f.rateHz
}

// The formats. PCM is what OpenAI's API calls so: signed 16-bit little-endian mono without a
// header, at the model's rate, which for Bark is 24 kHz. FLAC has the same 16 bits as WAV.
var (
	MP3      = Format{Name: "mp3", ContentType: "audio/mpeg", Extension: ".mp3", codec: codecSndfile, kind: sndfile.MP3}
	Opus     = Format{Name: "opus", ContentType: "audio/ogg", Extension: ".opus", codec: codecSndfile, kind: sndfile.Opus}
	AAC      = Format{Name: "aac", ContentType: "audio/aac", Extension: ".aac", codec: codecFFmpeg}
	FLAC     = Format{Name: "flac", ContentType: "audio/flac", Extension: ".flac", codec: codecSndfile, kind: sndfile.FLAC}
	WAV      = Format{Name: "wav", ContentType: "audio/wav", Extension: ".wav", header: true}
	WAVFloat = Format{Name: "wav-f32", ContentType: "audio/wav", Extension: ".wav", header: true, float: true}
	PCM      = Format{Name: "pcm", ContentType: "audio/pcm", Extension: ".pcm"}
)

// The formats of telephony, which no request asks for by these names: 8 bits a sample, without a header.
var (
	ULaw = Format{Name: "ulaw", ContentType: "audio/basic", Extension: ".ulaw", codec: codecSndfile, kind: sndfile.ULaw}
	ALaw = Format{Name: "alaw", ContentType: "audio/x-alaw-basic", Extension: ".alaw", codec: codecSndfile, kind: sndfile.ALaw}
)

// Formats returns every format that a request may name, in the order in which to name them to a user.
func Formats() []Format { return []Format{MP3, Opus, AAC, FLAC, WAV, WAVFloat, PCM} }

// Available returns why a format cannot be had here, nil if it can.
func (f Format) Available() error {
	switch f.codec {
	case codecSndfile:
		if !sndfile.Available {
			return fmt.Errorf("%w: %s needs libsndfile, which this build is without", ErrUnavailable, f.Name)
		}
	case codecFFmpeg:
		if _, err := exec.LookPath("ffmpeg"); err != nil {
			return fmt.Errorf("%w: %s needs the program ffmpeg, which is not on the PATH", ErrUnavailable, f.Name)
		}
	}
	if f.rateHz != 0 && !resample.Available {
		return fmt.Errorf("%w: another sample rate needs libspeexdsp, which this build is without", ErrUnavailable)
	}
	return nil
}

// StatesLength says whether a header of the format holds the length of the audio: a stream's cannot.
func (f Format) StatesLength() bool { return f.header }

// AvailableNames returns the names of the formats that can be had here.
func AvailableNames() []string {
	var names []string
	for _, f := range Formats() {
		if f.Available() == nil {
			names = append(names, f.Name)
		}
	}
	return names
}

// ParseFormat returns the format of that name. The error names those there are, and wraps ErrUnknownFormat or, for a
// format that could be had elsewhere, ErrUnavailable.
func ParseFormat(name string) (Format, error) {
	err := fmt.Errorf("%w %q", ErrUnknownFormat, name)
	for _, f := range Formats() {
		if f.Name != name {
			continue
		}
		if err = f.Available(); err == nil {
			return f, nil
		}
	}
	return Format{}, fmt.Errorf("%w; there are %s", err, strings.Join(AvailableNames(), ", "))
}

// sampleBytes is the width of one sample on disk.
func (f Format) sampleBytes() int {
	if f.float {
		return 4
	}
	return 2
}
