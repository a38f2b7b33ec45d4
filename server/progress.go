package main

import (
	"fmt"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"

	"barkd/cgo"
	"barkd/server/speech"
)

// speechBar shows on a terminal how far a synthesis is: its piece and stage, how much has been said, the real-time factor
// and the time left. How long a speech gets is known only when its first stage has ended; till then the bar guesses by the
// length of the text.
type speechBar struct {
	bar     *progressbar.ProgressBar // nil: not a terminal
	out     io.Writer
	runes   int // of the text
	started time.Time
	rateHz  int
	samples int64
	took    time.Duration // till the last of them
	share   float64       // of the work that is done; it never shrinks
}

const barSteps = 1000

func newSpeechBar(w io.Writer, text string) *speechBar {
	b := &speechBar{runes: utf8.RuneCountInString(text)}
	if file, ok := w.(*os.File); ok && isatty.IsTerminal(file.Fd()) && os.Getenv("TERM") != "dumb" {
		b.out = w
	}
	return b
}

// start begins to count; it is for a speech.Sink's Start.
func (b *speechBar) start(at speech.Start) {
	b.started, b.rateHz = time.Now(), at.SampleRate
	if b.out != nil {
		b.bar = progressbar.NewOptions(barSteps, progressbar.OptionSetWriter(b.out), progressbar.OptionSetWidth(20),
			progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
}

// heard counts audio; it is for a speech.Sink's Audio.
func (b *speechBar) heard(pcm []float32) {
	b.samples += int64(len(pcm))
	b.took = time.Since(b.started)
}

// show is a speech.Sink's Progress.
func (b *speechBar) show(p speech.Progress) error {
	if b.bar == nil {
		return nil
	}
	b.share = max(b.share, b.estimate(p))
	b.bar.Describe(b.describe(p))
	_ = b.bar.Set(min(int(b.share*barSteps), barSteps-1)) // a bar that cannot be drawn is no reason to stop
	return nil
}

// describe says where it is.
func (b *speechBar) describe(p speech.Progress) string {
	text := fmt.Sprintf("%-8s", p.Stage)
	if p.Pieces > 1 {
		text = fmt.Sprintf("piece %d of %d, %s", p.Piece+1, p.Pieces, text)
	}
	if b.samples > 0 {
		said := float64(b.samples) / float64(b.rateHz)
		text += fmt.Sprintf(" %.1f s said, real-time factor %.2f", said, b.took.Seconds()/said)
	}
	return text
}

// stageEnds are the shares of a piece's work at the end of each stage, as measured (README).
var stageEnds = [cgo.StageCount + 1]float64{0, 0.12, 0.55, 0.98, 1}

// tokensPerRune is what English comes to: 50 semantic tokens and some 15 letters a second.
const tokensPerRune = 3.3

// estimate is the share of the whole work that is done.
func (b *speechBar) estimate(p speech.Progress) float64 {
	total := float64(p.Total)
	if p.Stage == cgo.StageSemantic {
		total = min(total, tokensPerRune*float64(b.runes)/float64(p.Pieces))
	}
	done := 0.0
	if total > 0 {
		done = min(float64(p.Done)/total, 1)
	}
	stage := max(0, min(int(p.Stage), cgo.StageCount-1))
	piece := stageEnds[stage] + done*(stageEnds[stage+1]-stageEnds[stage])
	return (float64(p.Piece) + piece) / float64(p.Pieces)
}

// clear leaves the line as it was.
func (b *speechBar) clear() {
	if b.bar != nil {
		_ = b.bar.Clear()
	}
}
