package api

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	refusalEvery = 2 * time.Millisecond
	refusalMost  = 2 * time.Second
)

// pace spaces refusals out. Clients that do not heed Retry-After ask again at once, and to refuse a crowd of them as
// fast as it asks would take the processor from those who are spoken to. So a refusal that comes sooner than
// refusalEvery after the one before is held back until then. A crowd too large for that waits up to refusalMost, each
// for a time drawn at random: they must not come back all at once.
type pace struct {
	mu   sync.Mutex // guards next
	next time.Time  // when the next one is due
}

// delay says how long to hold back a refusal.
func (p *pace) delay(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := p.next
	if due.Before(now) {
		due = now
	}
	wait := due.Sub(now)
	if wait > refusalMost {
		return refusalMost/2 + rand.N(refusalMost/2)
	}
	p.next = due.Add(refusalEvery)
	return wait
}

// hold holds back a refusal, unless the server is leaving.
func (s *Server) hold() {
	wait := s.refusals.delay(time.Now())
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.leaving:
	}
}
