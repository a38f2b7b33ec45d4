package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Bounds of what a hub may send.
const (
	maxListingBytes = 64 << 20 // the largest listings known are a few megabytes
	maxRedirects    = 10
)

// Options are the client's surroundings. The zero value is the real world without a log.
type Options struct {
	// Transport carries the requests. The default honours HTTPS_PROXY and gives a server 30 s to begin to answer.
	Transport http.RoundTripper
	// Log receives one line per retry, wait and doubt. Several goroutines may call it.
	Log func(line string)
	// Now and Sleep are the clock of the retries. Sleep returns early with ctx's error when ctx ends.
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error
	// FreeBytes returns the free space of the file system that holds dir.
	FreeBytes func(dir string) (int64, error)
	// Workers is how many files are fetched at once, 8 if 0.
	Workers int
	// StallTimeout is how long a download may bring no byte before it is tried again, 60 s if 0.
	StallTimeout time.Duration
	// LockPoll is how often a file that another program downloads is looked at, 200 ms if 0.
	LockPoll time.Duration
}

// Client talks to one hub. Its methods may be called from any goroutine.
type Client struct {
	cfg   Config
	opts  Options
	http  *http.Client // follows redirects, without the token where they leave the hub
	plain *http.Client // follows none: the hub's own headers are on the first answer
}

// New returns a client for cfg, which ConfigFromEnv usually made.
func New(cfg Config, opts Options) *Client {
	if opts.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = 30 * time.Second
		t.MaxIdleConnsPerHost = 16
		opts.Transport = t
	}
	if opts.Log == nil {
		opts.Log = func(string) {}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Sleep == nil {
		opts.Sleep = sleep
	}
	if opts.FreeBytes == nil {
		opts.FreeBytes = freeBytes
	}
	if opts.Workers <= 0 {
		opts.Workers = 8
	}
	if opts.StallTimeout <= 0 {
		opts.StallTimeout = time.Minute
	}
	if opts.LockPoll <= 0 {
		opts.LockPoll = 200 * time.Millisecond
	}
	return &Client{
		cfg:  cfg,
		opts: opts,
		http: &http.Client{Transport: opts.Transport, CheckRedirect: checkRedirect},
		plain: &http.Client{Transport: opts.Transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
	}
}

// Config returns what the client was made with.
func (c *Client) Config() Config { return c.cfg }

// checkRedirect keeps the token on the hub. The standard library would send it on to subdomains and to other ports
// of the same host; a hub's storage is often the first, and refuses requests that carry it.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("%w: %d redirects in a row", ErrHostile, len(via))
	}
	first := via[0].URL
	if first.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("%w: a redirect from https to %s://%s", ErrHostile, req.URL.Scheme, req.URL.Host)
	}
	for _, hop := range append(via, req) {
		if hop.URL.Host != first.Host || hop.URL.Scheme != first.Scheme {
			req.Header.Del("Authorization")
		}
	}
	return nil
}

// send makes one request to the hub. An error or a status that may pass is a *transientError.
func (c *Client) send(ctx context.Context, hc *http.Client, method, address string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "barkd")
	req.Header.Set("Accept-Encoding", "identity") // lengths and ranges must count the bytes of the file
	if c.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, networkError(ctx, err)
	}
	return resp, nil
}

func (c *Client) listingURL(id, revision string) string {
	return c.cfg.Endpoint + "/api/models/" + id + "/revision/" + url.PathEscape(revision) + "?blobs=true"
}

func (c *Client) fileURL(repo Repo, path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return c.cfg.Endpoint + "/" + repo.ID + "/resolve/" + repo.Commit + "/" + strings.Join(parts, "/")
}

// listing fetches and parses the list of a repository's files.
func (c *Client) listing(ctx context.Context, id, revision string) (Repo, error) {
	var body []byte
	err := c.retry(ctx, id, func() (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*c.opts.StallTimeout)
		defer cancel()
		resp, err := c.send(ctx, c.http, http.MethodGet, c.listingURL(id, revision), nil)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return false, c.statusError(resp, id, revision, "")
		}
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxListingBytes+1))
		if err != nil {
			return false, &transientError{err: fmt.Errorf("read the file list: %w", err)}
		}
		return false, nil
	})
	if err != nil {
		return Repo{}, err
	}
	if len(body) > maxListingBytes {
		return Repo{}, fmt.Errorf("the file list of %s is longer than %d MiB", id, maxListingBytes>>20)
	}
	return parseListing(body, id, revision)
}

// describe asks for the size and digest of a file whose listing did not say them.
func (c *Client) describe(ctx context.Context, repo Repo, f File) (File, error) {
	address := c.fileURL(repo, f.Path)
	var header http.Header
	var length int64
	err := c.retry(ctx, f.Path, func() (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, c.opts.StallTimeout)
		defer cancel()
		hop := address
		for range maxRedirects {
			resp, err := c.send(ctx, c.plain, http.MethodHead, hop, nil)
			if err != nil {
				return false, err
			}
			_ = resp.Body.Close()
			next, moved := c.moved(resp)
			if resp.Header.Get("X-Linked-Etag") == "" && moved {
				hop = next // a renamed repository, still on the hub
				continue
			}
			if resp.StatusCode >= 400 {
				return false, c.statusError(resp, repo.ID, repo.Revision, f.Path)
			}
			header, length = resp.Header, resp.ContentLength
			return false, nil
		}
		return false, fmt.Errorf("%w: %s: %d redirects in a row", ErrHostile, f.Path, maxRedirects)
	})
	if err != nil {
		return f, err
	}
	return f.withHeader(header, length)
}

// moved returns where resp redirects to if that is the hub itself.
func (c *Client) moved(resp *http.Response) (string, bool) {
	if resp.StatusCode < 300 || resp.StatusCode > 399 {
		return "", false
	}
	to, err := resp.Location()
	if err != nil || to.Host != resp.Request.URL.Host || to.Scheme != resp.Request.URL.Scheme {
		return "", false
	}
	return to.String(), true
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// errStalled ends a download that brings nothing any more.
var errStalled = errors.New("no data arrived any more")
