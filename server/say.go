package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"barkd/server/audio"
	"barkd/server/audio/tempo"
	"barkd/server/speech"
)

// sayCommand is `barkd say`.
type sayCommand struct {
	runtimeFlags
	voiceDirFlag
	Text   []string `arg:"" optional:"" help:"What to say; - or none reads it from standard input."`
	Model  string   `short:"m" default:"barkd/tiny" help:"Id of a model, or a .gguf file."`
	Voice  string   `short:"v" help:"Name of a voice of the model, of a stored one, or an .npz file; none for a speaker of its own. Default is the model's."`
	Output string   `short:"o" placeholder:"FILE" help:"Write a file instead of playing: .mp3, .opus, .aac, .flac, .wav or .pcm."`
	Speed  float64  `default:"1" help:"0.25 to 4, at the same pitch."`
	Seed   *uint64  `help:"Of the random stream; without it one is drawn and shown."`
	Player string   `enum:",paplay,aplay,ffplay,afplay" default:"" placeholder:"PROGRAM" help:"What plays; default is the first that is installed of paplay, aplay, ffplay and afplay."`
}

// Run speaks the text: what is ready is heard while the rest is made.
func (c *sayCommand) Run(ctx context.Context, io stdio, env environ) error {
	if !(c.Speed >= tempo.Slowest && c.Speed <= tempo.Fastest) {
		return &usageError{fmt.Errorf("--speed is %g, which is not between 0.25 and 4", c.Speed)}
	}
	out, err := c.output()
	if err != nil {
		return err
	}
	req, err := c.request(io.in, env)
	if err != nil {
		return err
	}
	b, threads, err := c.openRuntime(io)
	if err != nil {
		return err
	}
	one := &oneModel{b: b, threads: threads}
	service := speech.NewService(one, speech.NewAdmission(speech.Limits{Running: 1}), newLog(io.err, from(zerolog.WarnLevel), "console"))
	bar := newSpeechBar(io.err, req.Text)
	sink := speech.Sink{Progress: bar.show}
	sink.Start = func(start speech.Start) error {
		bar.start(start)
		out.player.rateHz = start.SampleRate
		return announce(io.err, start)
	}
	sink.Audio = func(pcm []float32) error {
		bar.heard(pcm)
		return out.write(ctx, pcm)
	}
	result, err := service.Speak(ctx, req, sink)
	bar.clear()
	if err != nil {
		return errors.Join(err, out.player.Close())
	}
	fmt.Fprintf(io.err, "%.2f s of audio in %.2f s, real-time factor %.2f\n", result.AudioSeconds(), result.Elapsed.Seconds(), result.RealTimeFactor())
	return out.finish(result.SampleRate)
}

// request reads the text and the voice.
func (c *sayCommand) request(stdin io.Reader, env environ) (speech.Request, error) {
	req := speech.Request{Model: c.Model, Text: strings.Join(c.Text, " "), Seed: c.Seed}
	if req.Text == "" || req.Text == "-" {
		if file, ok := stdin.(*os.File); ok && isatty.IsTerminal(file.Fd()) && req.Text == "" {
			return req, &usageError{errors.New("there is nothing to say; 'barkd say --help' explains")}
		}
		var err error
		if req.Text, err = readText(stdin); err != nil {
			return req, err
		}
	}
	req.Voice.Default = true
	return req, c.readVoice(&req.Voice, c.Voice, env)
}

// sayOutput is where speech goes: to a file if it has a path, else to the player.
type sayOutput struct {
	path   string
	format audio.Format
	speed  float64
	pcm    []float32
	player player
}

// output decides that before the work.
func (c *sayCommand) output() (*sayOutput, error) {
	out := &sayOutput{path: c.Output, speed: c.Speed, player: player{speed: c.Speed}}
	var err error
	if c.Output == "" {
		out.player.program, err = findPlayer(c.Player)
		return out, err
	}
	if out.format, err = formatOf(c.Output); err != nil {
		return nil, err
	}
	return out, checkOutput(c.Output)
}

// formatOf is the format that a file's name asks for.
func formatOf(path string) (audio.Format, error) {
	var extensions []string
	for _, f := range audio.Formats() {
		if strings.EqualFold(filepath.Ext(path), f.Extension) {
			return f, f.Available()
		}
		extensions = append(extensions, f.Extension)
	}
	return audio.Format{}, &usageError{fmt.Errorf("the name of the file %q must end in one of %s", path, strings.Join(extensions, ", "))}
}

func (o *sayOutput) write(ctx context.Context, pcm []float32) error {
	if o.path == "" {
		return o.player.Write(ctx, pcm)
	}
	o.pcm = append(o.pcm, pcm...)
	return nil
}

// finish waits for the player, or writes the file.
func (o *sayOutput) finish(rateHz int) error {
	if o.path == "" {
		return o.player.Close()
	}
	pcm, err := audio.ChangeSpeed(o.pcm, rateHz, o.speed)
	if err != nil {
		return err
	}
	return writeAudio(nil, o.path, o.format, rateHz, pcm)
}
