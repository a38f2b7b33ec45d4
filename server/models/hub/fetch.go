package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// fetch downloads one blob, whose lock is held, verifies it and gives it its name.
func (c *Client) fetch(ctx context.Context, repo Repo, k cache, f File, t *tally) error {
	p, err := openPartial(k.blob(f)+".incomplete", f)
	if err != nil {
		return err
	}
	defer p.file.Close()
	if f.SHA256 == "" && f.GitSHA1 == "" {
		c.opts.Log(f.Path + ": the hub gives no digest of it; only its size is checked")
	}
	t.add(p.have, f.Path)
	// A part left by an earlier run, or a line that garbles, deserves one clean start.
	for fresh := p.have == 0; ; fresh = true {
		err := c.retry(ctx, f.Path, func() (bool, error) {
			before := p.have
			err := c.fetchRest(ctx, repo, f, p, t)
			return p.have > before, err
		})
		if err != nil {
			return err
		}
		got := p.digest()
		if got == f.SHA256+f.GitSHA1 {
			return p.finish(k.blob(f))
		}
		t.add(-p.have, f.Path)
		if err := p.restart(); err != nil {
			return err
		}
		if fresh {
			_ = os.Remove(p.file.Name())
			return fmt.Errorf("%w: it should be %s and is %s", ErrDigest, f.SHA256+f.GitSHA1, got)
		}
		c.opts.Log(f.Path + ": the part from an earlier download was damaged; starting again")
	}
}

// fetchRest makes one request for what is missing. No If-Range is needed: the part is named by the digest of the
// content, and the storage's own ETag is another one than the hub's.
func (c *Client) fetchRest(ctx context.Context, repo Repo, f File, p *partial, t *tally) error {
	if p.have == f.Size {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	header := http.Header{}
	if p.have > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", p.have))
	}
	stall := time.AfterFunc(c.opts.StallTimeout, func() { cancel(errStalled) })
	defer stall.Stop()
	resp, err := c.send(ctx, c.http, http.MethodGet, c.fileURL(repo, f.Path), header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if err := checkRange(resp.Header.Get("Content-Range"), p.have, f.Size); err != nil {
			return err
		}
	case http.StatusOK, http.StatusRequestedRangeNotSatisfiable:
		// A server that knows no ranges, or another file: from the start.
		t.add(-p.have, f.Path)
		if err := p.restart(); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return &transientError{err: errors.New("the hub refused to continue the download")}
		}
		if resp.ContentLength >= 0 && resp.ContentLength != f.Size {
			return fmt.Errorf("%w: it should have %d bytes and the hub sends %d", ErrDigest, f.Size, resp.ContentLength)
		}
	default:
		return c.statusError(resp, repo.ID, repo.Revision, f.Path)
	}
	return p.read(ctx, resp.Body, func(n int64) {
		stall.Reset(c.opts.StallTimeout)
		t.add(n, f.Path)
	})
}

// checkRange makes sure that what follows is what was asked for.
func checkRange(contentRange string, start, size int64) error {
	spec, ok := strings.CutPrefix(contentRange, "bytes ")
	first, rest, _ := strings.Cut(spec, "-")
	_, total, _ := strings.Cut(rest, "/")
	if !ok || first != strconv.FormatInt(start, 10) || (total != "*" && total != strconv.FormatInt(size, 10)) {
		return fmt.Errorf("%w: asked for byte %d of %d and got %q", ErrHostile, start, size, contentRange)
	}
	return nil
}

// partial is a blob on its way: what the file has, the hash has seen.
type partial struct {
	file *os.File
	want File
	hash hash.Hash
	have int64
}

// openPartial opens or creates the file and hashes what is in it already.
func openPartial(path string, f File) (*partial, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, cacheError(err)
	}
	p := &partial{file: file, want: f}
	p.hash = p.newHash()
	if p.have, err = io.Copy(p.hash, file); err == nil && p.have > f.Size {
		err = p.restart()
	}
	if err != nil {
		_ = file.Close()
		return nil, cacheError(err)
	}
	return p, nil
}

// newHash returns the digest the hub knows the file by; git's covers a header too.
func (p *partial) newHash() hash.Hash {
	if p.want.SHA256 != "" || p.want.GitSHA1 == "" {
		return sha256.New()
	}
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", p.want.Size)
	return h
}

// digest returns the digest of the content, or nothing where the hub gave none to compare with.
func (p *partial) digest() string {
	if p.want.SHA256 == "" && p.want.GitSHA1 == "" {
		return ""
	}
	return hex.EncodeToString(p.hash.Sum(nil))
}

func (p *partial) restart() error {
	p.hash, p.have = p.newHash(), 0
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return cacheError(err)
	}
	return cacheError(p.file.Truncate(0))
}

// read appends the body until the file is whole. A body that ends early is transient, one that goes on is not.
func (p *partial) read(ctx context.Context, body io.Reader, progress func(n int64)) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := body.Read(buf)
		if int64(n) > p.want.Size-p.have {
			return fmt.Errorf("%w: it should have %d bytes and the hub sends more", ErrDigest, p.want.Size)
		}
		if n > 0 {
			if _, werr := p.file.Write(buf[:n]); werr != nil {
				return cacheError(werr)
			}
			p.hash.Write(buf[:n])
			p.have += int64(n)
			progress(int64(n))
		}
		switch {
		case err == nil:
		case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errStalled):
			return context.Cause(ctx)
		case p.have == p.want.Size:
			return nil
		case ctx.Err() != nil:
			return &transientError{err: errStalled}
		default:
			return &transientError{err: fmt.Errorf("the connection ended after %d of %d bytes: %w", p.have, p.want.Size, err)}
		}
	}
}

// finish gives the verified content its name. It is on the disk before: after a crash a name must not promise bytes
// that were never written.
func (p *partial) finish(path string) error {
	if err := p.file.Sync(); err != nil {
		return cacheError(err)
	}
	if err := p.file.Close(); err != nil {
		return cacheError(err)
	}
	return cacheError(os.Rename(p.file.Name(), path))
}
