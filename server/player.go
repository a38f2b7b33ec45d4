package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"barkd/server/audio"
)

// playerProgram is a program that plays samples from its standard input, or a file.
type playerProgram struct {
	name string
	file bool // it plays the WAV file of its last argument
	args func(rateHz string) []string
}

// playerPrograms are those there are, the first that is installed plays.
var playerPrograms = []playerProgram{
	{"paplay", false, func(rate string) []string {
		return []string{"--raw", "--format=s16le", "--channels=1", "--rate=" + rate, "--client-name=barkd"}
	}},
	{"aplay", false, func(rate string) []string {
		return []string{"-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", rate, "-"}
	}},
	{"ffplay", false, func(rate string) []string {
		return []string{"-nodisp", "-autoexit", "-loglevel", "error", "-f", "s16le", "-ar", rate, "-i", "pipe:0"}
	}},
	{"afplay", true, func(string) []string { return nil }},
}

// findPlayer returns the program of that name, or the first that is installed if the name is empty.
func findPlayer(name string) (playerProgram, error) {
	var names []string
	for _, p := range playerPrograms {
		names = append(names, p.name)
		if name != "" && name != p.name {
			continue
		}
		if _, err := exec.LookPath(p.name); err == nil {
			return p, nil
		} else if name != "" {
			return p, fmt.Errorf("%s is not installed; write a file with -o", name)
		}
	}
	return playerProgram{}, fmt.Errorf("there is nothing to play with: install one of %s, or write a file with -o", strings.Join(names, ", "))
}

// ahead is how many blocks of audio may wait for the player; each is a piece of a second or more.
const ahead = 1024

// player plays audio while more of it is made. The first Write starts it; it is used by one goroutine.
type player struct {
	program playerProgram
	rateHz  int
	speed   float64
	queue   chan []float32
	done    chan struct{} // closed when the program has ended; err is set by then
	err     error
}

// Write queues samples. It fails when the program has ended.
func (p *player) Write(ctx context.Context, samples []float32) error {
	if p.queue == nil {
		p.queue, p.done = make(chan []float32, ahead), make(chan struct{})
		go func() {
			defer close(p.done)
			p.err = p.run(ctx)
		}()
	}
	select {
	case p.queue <- slices.Clone(samples):
		return nil
	case <-p.done:
		return errors.Join(errors.New("the player has ended"), p.err)
	}
}

// Close waits until everything is heard, or the context of Write has ended.
func (p *player) Close() error {
	if p.queue == nil {
		return nil
	}
	close(p.queue)
	<-p.done
	return p.err
}

func (p *player) run(ctx context.Context) error {
	if p.program.file {
		return p.runFile(ctx)
	}
	cmd := exec.CommandContext(ctx, p.program.name, p.program.args(strconv.Itoa(p.rateHz))...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", p.program.name, err)
	}
	err = errors.Join(p.drain(in, audio.PCM), in.Close())
	if ended := cmd.Wait(); ended != nil { // then the pipe's error only says so
		err = fmt.Errorf("%s: %w %s", p.program.name, ended, strings.TrimSpace(complaint.String()))
	}
	return err
}

// runFile plays when all has been made.
func (p *player) runFile(ctx context.Context) error {
	file, err := os.CreateTemp("", "barkd-*.wav")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if err := errors.Join(p.drain(file, audio.WAV), file.Close()); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, p.program.name, append(p.program.args(""), file.Name())...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w %s", p.program.name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// drain writes what is queued until the queue is closed.
func (p *player) drain(w io.Writer, format audio.Format) error {
	e, err := audio.NewEncoder(w, format, p.rateHz, audio.UnknownLength)
	if err != nil {
		return err
	}
	if e, err = audio.AtSpeed(e, p.rateHz, p.speed); err != nil {
		return err
	}
	defer e.Abort()
	for samples := range p.queue {
		if err := e.Write(samples); err != nil {
			return err
		}
	}
	return e.Close()
}
