package speech

import (
	"math"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// What requests will take is predicted from the length of their text and what a character of their model's took.

// unknownWait is the Retry-After when nothing has been measured yet.
const unknownWait = 5 * time.Second

// longestRetry bounds a Retry-After: what is further away is a guess.
const longestRetry = 10 * time.Minute

// maxPaces bounds how many models' times are kept.
const maxPaces = 256

// pace is how fast a model speaks: the time and the characters of its requests, older ones weighing less.
type pace struct{ seconds, chars float64 }

const paceDecay = 7.0 / 8

func (p *pace) learn(chars int, took time.Duration) {
	p.seconds = p.seconds*paceDecay + took.Seconds()
	p.chars = p.chars*paceDecay + float64(chars)
}

// paces are those of the models.
type paces struct {
	models *simplelru.LRU[string, *pace]
	all    pace // stands in for a model without one
}

func newPaces() paces {
	models, err := simplelru.NewLRU[string, *pace](maxPaces, nil)
	if err != nil {
		panic(err) // it fails for a size below 1
	}
	return paces{models: models}
}

func (p *paces) learn(model string, chars int, took time.Duration) {
	own, ok := p.models.Get(model)
	if !ok {
		own = &pace{}
		p.models.Add(model, own)
	}
	own.learn(chars, took)
	p.all.learn(chars, took)
}

// known says whether there is anything to predict from.
func (p *paces) known() bool { return p.all.chars > 0 }

// predict is the time that a text will take, 0 if nothing is known.
func (p *paces) predict(place Place) time.Duration {
	of, ok := p.models.Peek(place.Model)
	if !ok {
		of = &p.all
	}
	if of.chars == 0 {
		return 0
	}
	return time.Duration(float64(place.Chars) * of.seconds / of.chars * float64(time.Second))
}

// leftLocked is what a running request will still take.
func (a *Admission) leftLocked(now time.Time, t *Ticket) time.Duration {
	return max(a.paces.predict(t.place)-now.Sub(t.started), 0)
}

// waitLocked predicts how long t would wait for its turn if it were to come now: for the work of all that is before it,
// shared by the turns there are. The load of a model is not in it.
func (a *Admission) waitLocked(now time.Time, t *Ticket) time.Duration {
	if len(a.running) < a.limits.Running {
		return 0
	}
	var work time.Duration
	for r := range a.running {
		work += a.leftLocked(now, r)
	}
	for _, c := range a.crowds {
		for _, q := range c.queue {
			if q != t && !t.before(q) {
				work += a.paces.predict(q.place)
			}
		}
	}
	return work / time.Duration(a.limits.Running)
}

// nextPlaceLocked predicts when the first of the tickets leaves, of c's or, for nil, of all: then there is a place.
func (a *Admission) nextPlaceLocked(now time.Time, c *crowd) time.Duration {
	if !a.paces.known() {
		return unknownWait
	}
	next := time.Duration(math.MaxInt64)
	for t := range a.running {
		if c == nil || t.crowd == c {
			next = min(next, a.leftLocked(now, t))
		}
	}
	if next == math.MaxInt64 { // none of them runs yet
		next = 0
		if c != nil && len(c.queue) > 0 {
			first := c.queue[0]
			next = a.waitLocked(now, first) + a.paces.predict(first.place)
		}
	}
	return atLeastASecond(next)
}

// atLeastASecond makes a Retry-After: whole seconds, rounded up.
func atLeastASecond(d time.Duration) time.Duration {
	seconds := (d + time.Second - 1).Truncate(time.Second)
	return min(max(seconds, time.Second), longestRetry)
}
