package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/server/audio"
	"barkd/server/models/atomicfile"
	"barkd/server/models/voicefile"
	"barkd/server/speech"
)

// maxTextBytes bounds what --text - reads.
const maxTextBytes = 1 << 20

// synthCommand is `barkd synth`.
type synthCommand struct {
	runtimeFlags
	voiceDirFlag
	Model  string `default:"barkd/tiny" help:"Id of a model, or a .gguf file."`
	Voice  string `help:"Name of a voice of the model, of a stored one, an .npz file, or the prefix of .npy files; default is none, so that the model makes up a speaker."`
	Text   string `required:"" help:"What to say; - reads it from standard input."`
	Output string `short:"o" required:"" help:"File to write; - is standard output."`
	Format string `enum:"mp3,opus,aac,flac,wav,wav-f32,pcm" default:"wav" help:"mp3, opus (in Ogg), aac (by ffmpeg), flac, wav (16-bit), wav-f32 or pcm (16-bit without a header)."`

	Greedy              bool     `xor:"semantic,coarse,fine" help:"Always take the likeliest token: temperature 0 in all stages."`
	Seed                *uint64  `help:"Of the random stream; without it one is drawn and shown."`
	Rules               string   `enum:"suno,hf" default:"suno" help:"suno, or hf to follow transformers: the text is then neither cut nor normalised."`
	KV                  string   `name:"kv" enum:"f16,f32,i8" default:"f16" help:"Type of the key-value cache; f32 for comparing with the reference implementations, i8 for less memory."`
	Latency             string   `enum:"normal,low" default:"normal" help:"low: the fine stage in chunks of a second, to hear how the server's low latency sounds."`
	MaxTokens           int      `help:"Most semantic tokens of each piece, about 50 a second; 0 is the model's own limit."`
	SaveVoice           string   `help:"Write the run's semantic, coarse and fine tokens to this .npz; of a text in several pieces, those of the first, whose voice the others have."`
	TemperatureSemantic *float32 `xor:"semantic" help:"Overrides the model's own."`
	TemperatureCoarse   *float32 `xor:"coarse" help:"Overrides the model's own."`
	TemperatureFine     *float32 `xor:"fine" help:"Overrides the model's own."`
	TopK                *int32   `help:"Of the semantic and coarse stages; 0 is off."`
	TopP                *float32 `help:"Of the semantic and coarse stages; 1 is off."`
	MinEOSP             *float32 `name:"min-eos-p" help:"Stop once the end is this likely; 0 is off."`
}

// Run speaks the text into the file. A text that fits the model is exactly one generation, its bytes unaltered; a
// longer one is cut as the server cuts it, except with --rules hf.
func (c *synthCommand) Run(ctx context.Context, io stdio, env environ) error {
	req, err := c.request(io.in, env)
	if err != nil {
		return err
	}
	format, err := audio.ParseFormat(c.Format)
	if err != nil {
		return err
	}
	if err := checkOutput(c.Output, c.SaveVoice); err != nil {
		return err
	}
	b, threads, err := c.openRuntime(io)
	if err != nil {
		return err
	}
	one := &oneModel{b: b, threads: threads}
	service := speech.NewService(one, speech.NewAdmission(speech.Limits{Running: 1}), newLog(io.err, from(zerolog.WarnLevel), "console"))
	bar := newSpeechBar(io.err, req.Text)
	var pcm []float32
	sink := speech.Sink{
		Start: func(start speech.Start) error {
			bar.start(start)
			return announce(io.err, start)
		},
		Audio: func(part []float32) error {
			bar.heard(part)
			pcm = append(pcm, part...)
			return nil
		},
		Progress: bar.show,
	}
	result, err := service.Speak(ctx, req, sink)
	bar.clear()
	if err != nil {
		return err
	}
	report(io.err, result, one.loadTook)
	if err := writeAudio(io.out, c.Output, format, result.SampleRate, pcm); err != nil {
		return err
	}
	if c.SaveVoice != "" {
		return voicefile.Write(c.SaveVoice, result.Spoken)
	}
	return nil
}

// request reads the text and the voice.
func (c *synthCommand) request(stdin io.Reader, env environ) (speech.Request, error) {
	if c.MaxTokens < 0 {
		return speech.Request{}, &usageError{fmt.Errorf("--max-tokens is %d, which is less than 0", c.MaxTokens)}
	}
	req := speech.Request{
		Model: c.Model, Text: c.Text, Seed: c.Seed, MaxSemanticTokens: c.MaxTokens,
		Rules: map[string]cgo.Rules{"suno": cgo.RulesSuno, "hf": cgo.RulesHF}[c.Rules],
		KV:    cgo.KVTypes[c.KV],
		Sampling: speech.SamplingChoice{
			Semantic: c.TemperatureSemantic, Coarse: c.TemperatureCoarse, Fine: c.TemperatureFine,
			TopK: c.TopK, TopP: c.TopP, MinEOSP: c.MinEOSP,
		},
	}
	if c.Latency == "low" {
		req.FineChunk = speech.LowLatency
	}
	if c.Greedy {
		var zero float32
		req.Sampling.Semantic, req.Sampling.Coarse, req.Sampling.Fine = &zero, &zero, &zero
	}
	if c.Text == "-" {
		var err error
		if req.Text, err = readText(stdin); err != nil {
			return req, err
		}
	}
	return req, c.readVoice(&req.Voice, c.Voice, env)
}

// readText reads what to say.
func readText(stdin io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(stdin, maxTextBytes+1))
	if err != nil {
		return "", fmt.Errorf("read the text: %w", err)
	}
	if len(text) > maxTextBytes {
		return "", fmt.Errorf("the text is longer than %d bytes", maxTextBytes)
	}
	return string(text), nil
}

// checkOutput finds out before the work whether its results can be written.
func checkOutput(paths ...string) error {
	for _, path := range paths {
		if path == "" || path == "-" {
			continue
		}
		dir := filepath.Dir(path)
		if st, err := os.Stat(dir); err != nil {
			return fmt.Errorf("cannot write %s: %w", path, err)
		} else if !st.IsDir() {
			return fmt.Errorf("cannot write %s: %s is not a folder", path, dir)
		}
		if st, err := os.Stat(path); err == nil && st.IsDir() {
			return fmt.Errorf("cannot write %s: it is a folder", path)
		}
	}
	return nil
}

// writeAudio writes a regular file whole or not at all, and a device or a pipe as it comes; - is stdout.
func writeAudio(stdout io.Writer, path string, format audio.Format, rateHz int, pcm []float32) error {
	encoded, err := audio.Encode(format, rateHz, pcm)
	if err != nil {
		return err
	}
	if path == "-" {
		_, err = stdout.Write(encoded)
		return err
	}
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return os.WriteFile(path, encoded, 0o666)
	}
	return atomicfile.Write(path, func(f *os.File) error {
		_, err := f.Write(encoded)
		return err
	})
}

// announce shows the seed at once, so that a run that is interrupted can be repeated, too.
func announce(w io.Writer, start speech.Start) error {
	if !start.Trained {
		fmt.Fprintf(w, "%s is untrained: it makes noise, not speech\n", start.Model)
	}
	pieces := ""
	if start.Pieces > 1 {
		pieces = fmt.Sprintf(", %d pieces", start.Pieces)
	}
	fmt.Fprintf(w, "model %s, seed %d%s\n", start.Model, start.Seed, pieces)
	return nil
}

// report shows where time and memory went.
func report(w io.Writer, r speech.Result, loadTook time.Duration) {
	var ms [cgo.StageCount]float64
	var made [cgo.StageCount]int64
	for _, s := range r.Stats {
		for i := range ms {
			ms[i] += s.StageMS[i]
		}
		made[cgo.StageSemantic] += int64(s.SemanticTokens)
		made[cgo.StageCoarse] += int64(s.CoarseTokens)
		made[cgo.StageFine] += int64(s.Frames)
		made[cgo.StageCodec] += s.Samples
	}
	units := [cgo.StageCount]string{"tokens", "tokens", "frames", "samples"}
	fmt.Fprintf(w, "%-10s %8.3f s\n", "load", loadTook.Seconds())
	for i := range ms {
		fmt.Fprintf(w, "%-10s %8.3f s  %d %s\n", cgo.Stage(i), ms[i]/1000, made[i], units[i])
	}
	fmt.Fprintf(w, "%.2f s of audio in %.2f s, real-time factor %.2f\n", r.AudioSeconds(), r.Elapsed.Seconds(), r.RealTimeFactor())
	fmt.Fprintf(w, "memory: model %s, session %s", megabytes(r.ModelMemory.TotalBytes), megabytes(r.SessionMemory.PeakBytes))
	if peak := peakRSS(); peak > 0 {
		fmt.Fprintf(w, ", process at most %s", megabytes(peak))
	}
	fmt.Fprintln(w)
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

// peakRSS is the process's largest resident memory so far, 0 where the system does not say.
func peakRSS() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(status))
	i := slices.Index(fields, "VmHWM:")
	if i < 0 || i+1 >= len(fields) {
		return 0
	}
	var kb int64
	if _, err := fmt.Sscan(fields[i+1], &kb); err != nil {
		return 0
	}
	return kb << 10
}

// oneModel lends the model that a command line names: loaded for the lease, closed with it. It is on the first GPU that
// works, else on the CPU.
type oneModel struct {
	b        *backend
	threads  int
	loadTook time.Duration
}

// Known implements speech.Models; Acquire comes right after it and says the same.
func (o *oneModel) Known(string) error { return nil }

// Acquire implements speech.Models.
func (o *oneModel) Acquire(ctx context.Context, name string, _ cache.Ask) (speech.Lease, error) {
	src, err := o.b.argument(name)
	if err != nil {
		return nil, err
	}
	devices, err := o.b.runtime.Devices()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	device := 0
	for i, d := range devices {
		if d.Kind == "cpu" {
			continue
		}
		if _, err := o.b.runtime.Probe(i); err == nil {
			device = i
			break
		}
	}
	started := time.Now()
	model, err := o.b.runtime.Load(ctx, src, cgo.LoadOptions{Device: device, Threads: o.threads})
	if err != nil {
		return nil, err
	}
	o.loadTook = time.Since(started)
	return oneLease{model}, nil
}

type oneLease struct{ model cgo.Model }

func (l oneLease) Model() cgo.Model { return l.model }

// Version is nobody's business here.
func (l oneLease) Version() string { return "" }

func (l oneLease) NewSession(_ context.Context, opts cgo.SessionOptions) (cgo.Session, error) {
	return l.model.NewSession(opts)
}

// Revoked is never closed: nobody else is there to want the model back.
func (l oneLease) Revoked() <-chan struct{} { return nil }

// Release frees the model; the process ends right after, so a failure could only hide the command's own.
func (l oneLease) Release() { _ = l.model.Close() }
