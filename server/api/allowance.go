package api

import (
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gofiber/fiber/v2"
	"golang.org/x/time/rate"
)

// account is what the bearers of a key have taken of their allowance. Its methods may be called from any goroutine.
type account struct {
	mu         sync.Mutex
	allowance  Allowance
	requests   *rate.Limiter
	characters *rate.Limiter
	running    int
}

// newAccount is that of a key which has taken nothing.
func newAccount() *account {
	return &account{requests: rate.NewLimiter(rate.Inf, 0), characters: rate.NewLimiter(rate.Inf, 0)}
}

// allow changes the allowance. What was taken of one that goes on is still taken; a new one begins full.
func (a *account) allow(to Allowance) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = changed(a.requests, a.allowance.RequestsPerMinute, to.RequestsPerMinute)
	a.characters = changed(a.characters, a.allowance.CharactersPerMinute, to.CharactersPerMinute)
	a.allowance = to
}

func changed(l *rate.Limiter, before, after int) *rate.Limiter {
	switch {
	case before == after:
		return l
	case after == 0:
		return rate.NewLimiter(rate.Inf, 0)
	case before == 0:
		return rate.NewLimiter(perMinute(after), after)
	}
	l.SetLimit(perMinute(after))
	l.SetBurst(after)
	return l
}

func perMinute(n int) rate.Limit { return rate.Limit(n) / 60 }

// take takes one request with so many characters, or says why not; then nothing is taken.
func (a *account) take(now time.Time, characters int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.allowance.Concurrent > 0 && a.running >= a.allowance.Concurrent:
		return tooMany("concurrency_limit_exceeded", retrySoon, "%d requests are under way, as many as may be.", a.running)
	case a.allowance.CharactersPerMinute > 0 && characters > a.allowance.CharactersPerMinute:
		return badRequest("input", "input_too_long", "The text has %d characters; at most %d are spoken a minute.",
			characters, a.allowance.CharactersPerMinute)
	}
	one, text := a.requests.ReserveN(now, 1), a.characters.ReserveN(now, characters)
	forOne, forText := one.DelayFrom(now), text.DelayFrom(now)
	if max(forOne, forText) == 0 {
		a.running++
		return nil
	}
	one.CancelAt(now)
	text.CancelAt(now)
	if forOne >= forText {
		return tooMany("rate_limit_exceeded", forOne, "At most %d requests a minute are taken.", a.allowance.RequestsPerMinute)
	}
	return tooMany("rate_limit_exceeded", forText, "At most %d characters are spoken a minute.", a.allowance.CharactersPerMinute)
}

// leave says that a request which was taken has ended.
func (a *account) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
}

func tooMany(code string, retryAfter time.Duration, format string, args ...any) *Error {
	return &Error{Status: fiber.StatusTooManyRequests, Type: typeRateLimit, Code: code, Message: fmt.Sprintf(format, args...), RetryAfter: retryAfter}
}

// tell sends what is left, in OpenAI's headers; ours for the characters are named like theirs for tokens.
func (a *account) tell(c *fiber.Ctx, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, of := range []struct {
		name  string
		limit int
		state *rate.Limiter
	}{
		{"requests", a.allowance.RequestsPerMinute, a.requests},
		{"characters", a.allowance.CharactersPerMinute, a.characters},
	} {
		if of.limit == 0 {
			continue
		}
		left := max(of.state.TokensAt(now), 0)
		full := time.Duration((float64(of.limit) - left) / float64(perMinute(of.limit)) * float64(time.Second))
		c.Set("X-Ratelimit-Limit-"+of.name, strconv.Itoa(of.limit))
		c.Set("X-Ratelimit-Remaining-"+of.name, strconv.Itoa(int(math.Floor(left))))
		c.Set("X-Ratelimit-Reset-"+of.name, max(full, 0).Round(time.Millisecond).String())
	}
}

// admit checks what the request's bearer and the rules allow, takes it from the bearer's allowance, and gives it its
// priority and its timeout. leave must be called when it has ended.
func (s *Server) admit(c *fiber.Ctx, order *speechBody) (leave func(), err error) {
	b, now, characters := bearerOf(c), time.Now(), utf8.RuneCountInString(order.request.Text)
	if most := s.door.Load().rules.MaxInputChars; characters > most {
		return nil, badRequest("input", "input_too_long", "The text has %d characters; at most %d are taken.", characters, most)
	}
	if order.request.Patience, err = s.timeoutOf(c); err != nil {
		return nil, err
	}
	order.request.Priority = b.Priority
	err = b.account.take(now, characters)
	b.account.tell(c, now)
	return b.account.leave, err
}
