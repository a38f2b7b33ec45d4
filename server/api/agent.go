package api

import (
	"errors"
	"fmt"
	"net"
	"time"

	"barkd/cgo/memwatch"
)

// The agent's port answers each connection with one line for HAProxy's agent-check and closes it:
//
//	up 100%      also 50% and 10%: send that part of the usual load
//	drain        the server shuts down: send nothing new
//	down#WHY     the warm-up runs, or the owner of the cache's state does not answer
//
// The weights are few and far apart because with consistent hashing each change moves models to other servers. For the
// first minute that it is up, "ready" comes before: it ends the drain that an earlier process of this address has asked
// for. Later the state that an operator sets by hand is left alone.
const (
	agentReadyPeriod = time.Minute
	agentPatience    = time.Second // for a caller to take its line
)

// ServeAgent answers on the listener until it is closed, one caller after the other.
func (s *Server) ServeAgent(listener net.Listener) {
	var upSince time.Time
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, say: the server may still speak
			s.Log.Warn().Err(err).Msg("a caller of the agent's port gets no answer")
			time.Sleep(agentPatience)
			continue
		}
		line := s.agentLine()
		if line[0] == 'u' {
			if upSince.IsZero() {
				upSince = time.Now()
			}
			if time.Since(upSince) < agentReadyPeriod {
				line = "ready " + line
			}
		}
		_ = conn.SetDeadline(time.Now().Add(agentPatience)) // a caller that is gone asks again
		_, _ = conn.Write([]byte(line + "\n"))
		_ = conn.Close()
	}
}

func (s *Server) agentLine() string {
	if err := s.ping(); err != nil {
		return "down#stuck"
	}
	switch status := s.readiness(); status {
	case statusOK:
		return fmt.Sprintf("up %d%%", s.weight())
	case statusDraining:
		return "drain"
	default:
		return "down#" + status
	}
}

// weight is the part of the usual load, in percent, that this server should get.
func (s *Server) weight() int {
	var worst memwatch.Level
	for i := range s.Cache.Snapshot().Pools {
		worst = max(worst, s.Machine.Level(i))
	}
	_, waiting := s.Speaker.Load()
	limit := s.door.Load().rules.QueueLimit
	switch {
	case worst == memwatch.LevelCritical || waiting > 0 && waiting >= limit:
		return 10
	case worst == memwatch.LevelHigh || 2*waiting > limit:
		return 50
	}
	return 100
}
