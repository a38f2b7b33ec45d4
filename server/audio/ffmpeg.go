package audio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// ffmpegPatience bounds how long ffmpeg may take no input, or take to end; a reader that is slow to take its output
// holds it up, too.
const ffmpegPatience = time.Minute

// ffmpeg encodes through the program of that name: samples go to its standard input, and what it prints to the writer,
// by a goroutine that ends with it.
type ffmpeg struct {
	promise
	cmd      *exec.Cmd
	in       io.WriteCloser
	complain bytes.Buffer // its standard error
	format   Format
	block    []byte
	ended    bool
}

func newFFmpeg(w io.Writer, f Format, rateHz int, p promise) (Encoder, error) {
	if err := f.Available(); err != nil {
		return nil, err
	}
	e := &ffmpeg{promise: p, format: f, cmd: exec.Command("ffmpeg", "-hide_banner", "-loglevel", "error",
		"-probesize", "32", "-f", "f32le", "-ar", strconv.Itoa(rateHz), "-ac", "1", "-i", "pipe:0",
		"-c:a", "aac", "-b:a", "96k", "-flush_packets", "1", "-f", "adts", "pipe:1")}
	e.cmd.Stdout, e.cmd.Stderr = w, &e.complain
	in, err := e.cmd.StdinPipe()
	if err == nil {
		e.in, err = in, e.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("audio: start ffmpeg: %w", err)
	}
	return e, nil
}

func (e *ffmpeg) Write(samples []float32) error {
	if err := e.take(samples); err != nil {
		return err
	}
	e.block = e.block[:0]
	for _, x := range samples {
		e.block = binary.LittleEndian.AppendUint32(e.block, math.Float32bits(max(-1, min(1, x))))
	}
	if pipe, ok := e.in.(interface{ SetWriteDeadline(time.Time) error }); ok {
		if err := pipe.SetWriteDeadline(time.Now().Add(ffmpegPatience)); err != nil {
			e.err = fmt.Errorf("audio: write to ffmpeg: %w", err)
			return e.err
		}
	}
	if _, err := e.in.Write(e.block); err != nil {
		e.kill()
		e.err = fmt.Errorf("audio: write to ffmpeg: %w", errors.Join(err, e.wait()))
	}
	return e.err
}

func (e *ffmpeg) Close() error {
	defer e.Abort()
	if err := e.keep(); err != nil {
		return err
	}
	if err := e.in.Close(); err != nil {
		return fmt.Errorf("audio: end the input of ffmpeg: %w", err)
	}
	late := time.AfterFunc(ffmpegPatience, e.kill)
	defer late.Stop()
	if err := e.wait(); err != nil {
		return fmt.Errorf("audio: encode %s: %w", e.format.Name, err)
	}
	return nil
}

func (e *ffmpeg) Abort() {
	if !e.ended {
		e.kill()
		_ = e.wait() // its failure is the one asked for
	}
}

// kill ends the program; one that has ended already is no matter.
func (e *ffmpeg) kill() { _ = e.cmd.Process.Kill() }

// wait returns when the program and the copying of its output have ended, with what it said.
func (e *ffmpeg) wait() error {
	if e.ended {
		return nil
	}
	e.ended = true
	err := e.cmd.Wait()
	if said := strings.TrimSpace(e.complain.String()); err != nil && said != "" {
		return fmt.Errorf("ffmpeg: %w: %s", err, said)
	}
	return err
}
