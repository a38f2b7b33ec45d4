package api

import "time"

// player is a listener who begins with the first audio of a stream and plays it as it comes.
type player struct {
	until time.Time // when all it has is played; zero before the first
}

// hear takes so much more audio, and says whether the player had run out of it before.
func (p *player) hear(now time.Time, length time.Duration) (underrun bool) {
	underrun = !p.until.IsZero() && now.After(p.until)
	if p.until.Before(now) {
		p.until = now
	}
	p.until = p.until.Add(length)
	return underrun
}
