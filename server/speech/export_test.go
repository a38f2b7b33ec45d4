package speech

import "time"

// SetClock makes the service tell the time by another clock.
func (s *Service) SetClock(now func() time.Time) { s.clock = now }
