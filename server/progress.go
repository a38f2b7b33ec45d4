package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"

	"barkd/cgo"
	"barkd/server/speech"
)

// stageLine shows on a terminal which stage a synthesis is in. A bar with a total would lie: how long the speech gets
// is not known before its first stage has ended.
type stageLine struct {
	out   io.Writer // nil: not a terminal
	shown time.Time
	stage cgo.Stage
}

func newStageLine(w io.Writer) *stageLine {
	if file, ok := w.(*os.File); ok && isatty.IsTerminal(file.Fd()) {
		return &stageLine{out: w, stage: -1}
	}
	return &stageLine{}
}

// show is a speech.Sink's Progress.
func (l *stageLine) show(p speech.Progress) error {
	now := time.Now()
	if l.out == nil || p.Stage == l.stage && now.Sub(l.shown) < 100*time.Millisecond {
		return nil
	}
	l.shown, l.stage = now, p.Stage
	piece := ""
	if p.Pieces > 1 {
		piece = fmt.Sprintf("piece %d of %d, ", p.Piece+1, p.Pieces)
	}
	fmt.Fprintf(l.out, "\r\x1b[K%s%s %d of at most %d", piece, p.Stage, p.Done, p.Total)
	return nil
}

// clear leaves the line as it was.
func (l *stageLine) clear() {
	if l.out != nil && l.stage >= 0 {
		fmt.Fprint(l.out, "\r\x1b[K")
	}
}
