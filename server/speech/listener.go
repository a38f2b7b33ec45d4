package speech

import "time"

// MostHeld bounds the audio that is held back for a listener, and with it the memory.
const MostHeld = 5 * time.Minute

// Listener is who plays a stream as it comes. It begins once it has enough never to run out if the work goes on as
// measured, or MostHeld. Its methods take the time, and are called by one goroutine.
type Listener struct {
	// Need is how much audio it must have to begin; nil is any.
	Need func() float64 // seconds

	first   time.Time // when it had its first audio
	held    time.Duration
	playing bool
	until   time.Time // when all it has is played
}

// Hold takes audio that is not played yet.
func (l *Listener) Hold(now time.Time, length time.Duration) {
	if l.first.IsZero() {
		l.first = now
	}
	l.held += length
}

// Begins says whether it can begin now with what it holds; the caller then hands it all out by Play.
func (l *Listener) Begins() bool {
	return l.held > 0 && (l.Need == nil || l.held >= MostHeld || l.held.Seconds() >= l.Need())
}

// Starves says whether it would begin too early, because it holds all that it may.
func (l *Listener) Starves() bool { return l.Need != nil && l.held.Seconds() < l.Need() }

// Waited is how long its first audio has been held back.
func (l *Listener) Waited(now time.Time) time.Duration {
	if l.first.IsZero() {
		return 0
	}
	return now.Sub(l.first)
}

// Play takes audio that is played after all before it, and says whether it had run out of that.
func (l *Listener) Play(now time.Time, length time.Duration) (underrun bool) {
	underrun = l.playing && now.After(l.until)
	if !l.playing || underrun {
		l.until = now
	}
	l.playing = true
	l.until = l.until.Add(length)
	return underrun
}
