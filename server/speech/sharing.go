package speech

import (
	"context"
	"sync"
)

// Sharing makes the same speech once. A request with a seed is answered from what was kept, or joins an equal one that
// runs, or runs itself; one without speaks for itself. Its methods may be called from any
// goroutine.
type Sharing struct {
	*Service
	identify Identify
	kept     *AudioCache

	mu      sync.Mutex // guards flights; a flight's own comes after it
	flights map[flightKey]*flight
}

// Identify tells the version of a model's image (see cgo.Source) and its voices, without loading it.
type Identify func(ctx context.Context, model string) (version string, voices []string, err error)

// NewSharing returns what shares a service's speech and keeps it in a cache.
func NewSharing(service *Service, identify Identify, kept *AudioCache) *Sharing {
	return &Sharing{Service: service, identify: identify, kept: kept, flights: make(map[flightKey]*flight)}
}

// Audio returns the cache.
func (s *Sharing) Audio() *AudioCache { return s.kept }

// Content names the audio of a request that has a seed. It fails when there is no such model or voice, as Speak will.
func (s *Sharing) Content(ctx context.Context, req Request) (Content, error) {
	version, voices, err := s.identify(ctx, req.Model)
	if err != nil {
		return Content{}, err
	}
	return req.content(version, voices)
}

// Speak is Service.Speak. A joined request is not counted by the admission, and has the errors of the one it joined.
func (s *Sharing) Speak(ctx context.Context, req Request, sink Sink) (Result, error) {
	if req.Seed == nil {
		return s.Service.Speak(ctx, req, sink)
	}
	content, err := s.Content(ctx, req)
	if err != nil { // the service has the right error
		return s.Service.Speak(ctx, req, sink)
	}
	if made := s.kept.get(content); made != nil {
		return made.replay(sink)
	}
	f, l := s.join(ctx, req, content)
	return f.follow(ctx, l, sink)
}

// join returns the flight of a content, and a place in it; without one it begins.
func (s *Sharing) join(ctx context.Context, req Request, content Content) (*flight, *listening) {
	key := flightKey{content, req.KeepAlive, req.Patience, req.Priority}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[key]; f != nil {
		f.mu.Lock()
		l := f.joinLocked()
		f.mu.Unlock()
		if l != nil {
			s.kept.asked(true)
			return f, l
		}
	}
	s.kept.asked(false)
	f, l := newFlight(), &listening{first: true}
	f.listeners[l] = struct{}{}
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx)) // others may stay when this one leaves
	s.flights[key] = f
	go s.fly(ctx, f, key, req)
	return f, l
}

// fly speaks, keeps what was made, and takes the flight off the board. Its listeners wait for it.
func (s *Sharing) fly(ctx context.Context, f *flight, key flightKey, req Request) {
	defer close(f.ended)
	defer f.cancel()
	result, err := f.speak(ctx, s.Service, req)
	if made := f.made(key.content, result); made != nil && err == nil {
		s.kept.put(made) // before the flight is over, so that no equal request finds neither
	}
	f.land(result, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flights[key] == f { // another may have begun since all had left this one
		delete(s.flights, key)
	}
}
