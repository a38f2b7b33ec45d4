package speech

import (
	"math"
	"sync"
	"time"

	"barkd/cgo"
)

// caution is how much slower than measured a request is taken to go on.
const caution = 1.15

// firstShare is the part of a piece's work before its first audio, where that does not come all at once: more than was
// ever measured.
const firstShare = 0.5

// lead predicts when the rest of a request's audio will be there: a listener who has as much audio in hand as it asks
// for and begins to listen never runs out of it, if the measured rate holds. One goroutine tells it what has been made;
// any may ask.
type lead struct {
	clock   func() time.Time
	rates   *rates
	model   string
	running func() int // requests, this one included

	mu      sync.Mutex
	lengths []float64 // of each piece in seconds: as estimated, known once its audio has begun
	piece   int       // is being made
	begun   time.Time // when that began
	made    float64   // seconds of its audio
	known   bool      // its length is
	gap     float64   // seconds of silence between two pieces
	step    float64   // seconds of audio that come at a time; 0 is a piece
}

// begin says that a piece is begun.
func (l *lead) begin(piece int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.piece, l.begun, l.made, l.known = piece, l.clock(), 0, false
}

// heard takes so much audio of the piece; total is its whole length, 0 while that is unknown.
func (l *lead) heard(seconds, total float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made += seconds
	if total > 0 {
		l.lengths[l.piece], l.known = total, true
	}
}

// end says that the piece is made.
func (l *lead) end(estimated float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rates.learn(l.model, l.running(), l.clock().Sub(l.begun).Seconds(), estimated, l.made)
	l.piece++
	l.begun, l.made, l.known = l.clock(), 0, false
}

// need is how much audio, in seconds of listening at the given speed, must be in hand now. It is infinite while nothing
// is known of the model.
func (l *lead) need(speed float64) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.piece >= len(l.lengths) {
		return 0
	}
	work, pace := l.rates.of(l.model, l.running())
	spent := l.clock().Sub(l.begun).Seconds()
	if work == 0 { // the first piece of a model ever
		if !l.known {
			return math.Inf(1)
		}
		work = spent / l.lengths[l.piece] // when its audio begins most of the work is done
		if l.step > 0 {
			work = spent / l.made // not so: this errs to the slow side
		}
	}
	work *= caution

	most, until, listening := 0.0, 0.0, 0.0 // work until a piece is whole, listening until it is needed
	for i := l.piece; i < len(l.lengths); i++ {
		length := l.lengths[i]
		if i > l.piece || !l.known {
			length *= pace
		}
		left, rest := work*length, length
		if i == l.piece {
			left, rest = max(left-spent, 0), max(length-l.made, 0)
		}
		last := rest // comes at the end of the work
		if l.step > 0 {
			last = min(rest, l.step)
			first := firstShare
			if l.made > 0 && i == l.piece {
				first = last / max(rest, last)
			}
			most = max(most, until+first*left-listening/speed)
		}
		until += left
		most = max(most, until-(listening+rest-last)/speed)
		listening += rest + l.gap
	}
	return most
}

// followed tells the lead what the runtime's progress says: the codec knows how long the piece will be.
func (l *lead) followed(info cgo.ModelInfo, stage cgo.Stage, total int64) {
	if stage == cgo.StageCodec {
		l.heard(0, float64(total)*float64(info.HopLength)/float64(info.SampleRate))
	}
}
