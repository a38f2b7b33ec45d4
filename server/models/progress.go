package models

import (
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
)

// ProgressFunc is told how far a long operation is: its step ("download", "convert"), bytes, and the file that brought
// the last of them, or "". It is called by one goroutine at a time. done shrinks when something starts again.
type ProgressFunc func(step string, done, total int64, file string)

// Progress shows a ProgressFunc's calls to a person: as a bar with rate and remaining time on a terminal, elsewhere as
// a line at each step's end, and one per tenth of a step that is large.
type Progress struct {
	out    io.Writer
	asBars bool
	now    func() time.Time

	mu      sync.Mutex // guards the fields below, and the order of what is written
	bar     *progressbar.ProgressBar
	step    string
	started time.Time
	tenth   int64
	whole   bool // the step has reached its total
}

// Where lines are shown, a step smaller than this is not worth more than its last one.
const largeStepBytes = 100 << 20

// NewProgress returns a Progress that writes to out. Without bars (HF_HUB_DISABLE_PROGRESS_BARS) it writes lines on a
// terminal too.
func NewProgress(out *os.File, bars bool) *Progress {
	terminal := isatty.IsTerminal(out.Fd()) && os.Getenv("TERM") != "dumb"
	return newProgress(out, bars && terminal, time.Now)
}

func newProgress(out io.Writer, asBars bool, now func() time.Time) *Progress {
	return &Progress{out: out, asBars: asBars, now: now}
}

// Update is a ProgressFunc.
func (p *Progress) Update(step string, done, total int64, file string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if step != p.step {
		p.finishLocked()
		p.step, p.started, p.tenth, p.whole = step, p.now(), 0, false
		if p.asBars && total > 0 {
			p.bar = p.newBar(total)
		}
	}
	if p.whole || total <= 0 {
		return
	}
	p.whole = done >= total
	if p.bar != nil {
		if !p.whole {
			p.bar.Describe(describe(step, file))
		}
		_ = p.bar.Set64(done) // a bar that cannot be drawn is no reason to stop
		return
	}
	if p.asBars {
		return
	}
	if tenth := done * 10 / total; p.whole {
		fmt.Fprintf(p.out, "%s: %s in %v\n", step, formatBytes(total), p.now().Sub(p.started).Round(time.Second/10))
	} else if tenth > p.tenth && total >= largeStepBytes {
		p.tenth = tenth
		fmt.Fprintf(p.out, "%s: %d%% of %s\n", step, tenth*10, formatBytes(total))
	}
}

// Log writes one line, above the bar if there is one.
func (p *Progress) Log(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil && !p.whole {
		_ = p.bar.Clear()
	}
	fmt.Fprintln(p.out, line)
}

// Close leaves the cursor on a fresh line. It is needed after a failure, too.
func (p *Progress) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finishLocked()
}

func (p *Progress) finishLocked() {
	if p.bar != nil && !p.whole {
		fmt.Fprintln(p.out)
	}
	p.bar, p.step, p.whole = nil, "", false
}

func (p *Progress) newBar(total int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(p.out),
		progressbar.OptionSetDescription(describe(p.step, "")),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowTotalBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionOnCompletion(func() { fmt.Fprintln(p.out) }))
}

// describe names step and file in a fixed width, so that the bar does not dance. File names come from elsewhere: what
// is not plain ASCII could move the cursor.
func describe(step, file string) string {
	name := ""
	if file != "" {
		name = strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return '?'
			}
			return r
		}, path.Base(file))
	}
	return fmt.Sprintf("%-9.9s%-20.20s", step, name)
}

// formatBytes writes a size the way hubs do: decimal units.
func formatBytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f kB", float64(n)/1e3)
}
