package speech

import (
	"math"
	"sync"
)

// rates are how fast each model speaks, learnt from every piece that was spoken: a moving average for each number of
// requests that ran at the same time, for one that shares the machine is slower. They may be used by any goroutine.
type rates struct {
	mu     sync.Mutex
	models map[string]*modelRates // only models that have spoken, which are those of this machine
}

const (
	mostBeside  = 16      // requests at one time that are told apart
	rateWeight  = 1.0 / 4 // of the newest piece in an average
	slowestPace = 4.0     // bounds of pace, so that one strange piece spoils no estimate
)

type modelRates struct {
	work [mostBeside]float64 // seconds of work per second of audio with i+1 requests running; 0 is unknown
	pace float64             // seconds of audio per second that SpokenSeconds estimated
}

func newRates() *rates { return &rates{models: make(map[string]*modelRates)} }

// learn takes a piece that took work seconds while so many requests ran, was estimated to be spoken for estimated
// seconds and is audio seconds long.
func (r *rates) learn(model string, running int, work, estimated, audio float64) {
	if audio <= 0 || estimated <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.models[model]
	if m == nil {
		m = &modelRates{}
		r.models[model] = m
	}
	average(&m.work[beside(running)], work/audio)
	average(&m.pace, min(max(audio/estimated, 1/slowestPace), slowestPace))
}

func average(of *float64, newest float64) {
	if *of == 0 {
		*of = newest
		return
	}
	*of += (newest - *of) * rateWeight
}

func beside(running int) int { return min(max(running, 1), mostBeside) - 1 }

// of returns the model's rates with so many requests running; work is 0 if nothing is known. What was measured with
// fewer requests is scaled as if they shared one machine, what was measured with more is taken as it is: both err to
// the slow side.
func (r *rates) of(model string, running int) (work, pace float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.models[model]
	if m == nil {
		return 0, 1
	}
	at := beside(running)
	for i := at; i >= 0; i-- {
		if m.work[i] > 0 {
			return m.work[i] * float64(at+1) / float64(i+1), m.pace
		}
	}
	for _, work := range m.work[at:] {
		if work > 0 {
			return work, m.pace
		}
	}
	return math.Inf(1), m.pace // not reached: a model is known once it has spoken
}
