package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// What callers branch on.
var (
	ErrNotFound = errors.New("not found on the hub") // repository, revision or file
	ErrDenied   = errors.New("the hub denies access")
	ErrOffline  = errors.New("offline")
	ErrDigest   = errors.New("content does not match the hub's digest")
	ErrNoSpace  = errors.New("no space left")
	ErrHostile  = errors.New("refused answer of the hub")
)

// Retries: 1, 2, 4, 8 s between five attempts in a row that bring nothing, or what the server asks for.
const (
	maxAttempts = 5
	firstWait   = time.Second
	longestWait = 5 * time.Minute
)

// transientError may pass: the request is worth repeating, not before after.
type transientError struct {
	err   error
	after time.Duration
}

func (e *transientError) Error() string { return e.err.Error() }
func (e *transientError) Unwrap() error { return e.err }

// retry repeats try while it fails with a transient error. try says whether it got further; then the count of attempts
// starts again, so that a poor line that moves does not fail.
func (c *Client) retry(ctx context.Context, what string, try func() (further bool, err error)) error {
	for failures, wait := 0, firstWait; ; wait *= 2 {
		further, err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var transient *transientError
		if !errors.As(err, &transient) {
			return err
		}
		if further {
			failures, wait = 0, firstWait
		}
		if failures++; failures == maxAttempts {
			return fmt.Errorf("%w (%d attempts)", err, maxAttempts)
		}
		if transient.after > longestWait {
			return fmt.Errorf("%w: the hub asks to come back in %v", err, transient.after)
		}
		pause := max(wait, transient.after)
		c.opts.Log(fmt.Sprintf("%s: %v; trying again in %v", what, err, pause))
		if err := c.opts.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// networkError says in one sentence why no answer came. Nearly everything may pass; a wrong name, a wrong certificate
// and a refused redirect stay wrong.
func networkError(ctx context.Context, err error) error {
	host := "the hub"
	var request *url.Error
	if errors.As(err, &request) {
		if u, parseErr := url.Parse(request.URL); parseErr == nil {
			host = u.Host
		}
		err = request.Err // the full address of a storage carries a signature
	}
	if ctx.Err() != nil {
		cause := context.Cause(ctx)
		if !errors.Is(cause, errStalled) && !errors.Is(cause, context.DeadlineExceeded) {
			return cause
		}
		return &transientError{err: fmt.Errorf("%s does not answer", host)}
	}
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	permanent := errors.Is(err, ErrHostile) || errors.As(err, &cert) || (errors.As(err, &dns) && dns.IsNotFound)
	err = fmt.Errorf("cannot reach %s: %w", host, err)
	if permanent {
		return err
	}
	return &transientError{err: err}
}

// isNetwork says whether err is the lack of an answer.
func isNetwork(err error) bool {
	var transient *transientError
	var network net.Error
	return errors.As(err, &transient) || errors.As(err, &network)
}

// statusError turns an answer that is no success into an error that says what to do. file is empty for the listing.
func (c *Client) statusError(resp *http.Response, id, revision, file string) error {
	code := resp.Header.Get("X-Error-Code")
	said := printable(resp.Header.Get("X-Error-Message"))
	page := c.cfg.Endpoint + "/" + id
	switch status := resp.StatusCode; {
	case !c.isHub(resp.Request.URL):
		// Where the hub redirected to: the right to read was the hub's to check, and the address is signed for a short
		// time. The next attempt gets a new one.
		return &transientError{err: fmt.Errorf("the hub's storage answers %s", resp.Status), after: c.retryAfter(resp.Header)}
	case code == "GatedRepo":
		return fmt.Errorf("%w: %s is gated: accept its conditions at %s, then set HF_TOKEN to a token of that account (%s/settings/tokens)",
			ErrDenied, id, page, c.cfg.Endpoint)
	case status == http.StatusUnauthorized && c.cfg.Token == "":
		return fmt.Errorf("%w: %s does not exist, or it is private and needs a token in HF_TOKEN (%s/settings/tokens)",
			ErrDenied, id, c.cfg.Endpoint)
	case status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s does not exist, or the token in use is not valid for it (HF_TOKEN or the token file)%s",
			ErrDenied, id, said)
	case status == http.StatusForbidden:
		return fmt.Errorf("%w: the token in use may not read %s: %s may have conditions to accept, or the token lacks the read right%s",
			ErrDenied, id, page, said)
	case code == "RevisionNotFound":
		return fmt.Errorf("%w: %s has no revision %q", ErrNotFound, id, revision)
	case status == http.StatusNotFound && file != "":
		return fmt.Errorf("%w: %s has no file %s", ErrNotFound, id, file)
	case status == http.StatusNotFound || status == http.StatusGone:
		return fmt.Errorf("%w: no model %s with revision %q at %s; check the name, or set HF_TOKEN if it is private",
			ErrNotFound, id, revision, c.cfg.Endpoint)
	case status == http.StatusTooManyRequests:
		hint := ""
		if c.cfg.Token == "" {
			hint = " (a token in HF_TOKEN raises the limit)"
		}
		return &transientError{err: fmt.Errorf("the hub says: too many requests%s", hint), after: c.retryAfter(resp.Header)}
	case status >= 500 || status == http.StatusRequestTimeout:
		return &transientError{err: fmt.Errorf("the hub answers %s", resp.Status), after: c.retryAfter(resp.Header)}
	default:
		return fmt.Errorf("the hub answers %s to a request for %s%s", resp.Status, firstOf(file, id), said)
	}
}

func (c *Client) isHub(address *url.URL) bool {
	hub, err := url.Parse(c.cfg.Endpoint)
	return err == nil && hub.Host == address.Host
}

// retryAfter reads Retry-After (seconds or a date), else the seconds to the next window in the RateLimit header
// (`"resolvers";r=0;t=52`), which Hugging Face sends.
func (c *Client) retryAfter(h http.Header) time.Duration {
	seconds := h.Get("Retry-After")
	if seconds == "" {
		for _, part := range strings.Split(h.Get("RateLimit"), ";") {
			if t, ok := strings.CutPrefix(strings.TrimSpace(part), "t="); ok {
				seconds = t
			}
		}
	}
	if n, err := strconv.ParseInt(seconds, 10, 32); err == nil && n >= 0 {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(seconds); err == nil {
		return max(0, at.Sub(c.opts.Now()))
	}
	return 0
}

// printable returns foreign text as ": text", short and without control characters, for the end of a message.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, text)
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…"
	}
	if text == "" {
		return ""
	}
	return ": " + text
}
