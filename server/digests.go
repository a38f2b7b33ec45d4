package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"

	"barkd/cgo"
)

// digests names the contents of model files. Each version of a file is read once. Its methods may be called from any
// goroutine.
type digests struct {
	resolve cgo.Resolver
	open    func(cgo.Source) (io.ReadCloser, error)

	ctx     context.Context // ends what reads
	stop    context.CancelFunc
	reading sync.WaitGroup

	mu    sync.Mutex
	known map[fileVersion]*digest // those that this process has loaded
}

// fileVersion is one state of a model's file.
type fileVersion struct{ id, version string }

// digest is set when done is closed.
type digest struct {
	done chan struct{}
	sum  string
	err  error
}

func newDigests(b *backend) *digests {
	d := &digests{resolve: b.resolve, open: b.open, known: make(map[fileVersion]*digest)}
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d
}

// close stops what reads. No Digest may be asked for any more.
func (d *digests) close() {
	d.stop()
	d.reading.Wait()
}

// Digest returns the SHA-256 of a version of the model's file in hexadecimal, reading it if need be. It fails when the
// file is another one by now.
func (d *digests) Digest(ctx context.Context, id, of string) (string, error) {
	at := fileVersion{id, of}
	d.mu.Lock()
	it := d.known[at]
	if it == nil {
		it = &digest{done: make(chan struct{})}
		d.known[at] = it
		d.reading.Go(func() { d.learn(at, it) })
	}
	d.mu.Unlock()
	select {
	case <-it.done:
		return it.sum, it.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Known returns the digest of the model's file as it is now, "" if it has not been read yet.
func (d *digests) Known(id string) string {
	src, err := d.resolve(id)
	if err != nil {
		return ""
	}
	d.mu.Lock()
	it := d.known[fileVersion{id, src.Version}]
	d.mu.Unlock()
	if it == nil {
		return ""
	}
	select {
	case <-it.done:
		return it.sum // "" with an error
	default:
		return ""
	}
}

func (d *digests) learn(at fileVersion, it *digest) {
	defer close(it.done)
	if it.sum, it.err = d.read(at); it.err != nil {
		it.err = fmt.Errorf("digest of %q: %w", at.id, it.err)
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.known, at) // the next one tries again
	}
}

func (d *digests) read(at fileVersion) (string, error) {
	src, err := d.same(at)
	if err != nil {
		return "", err
	}
	image, err := d.open(src)
	if err != nil {
		return "", err
	}
	defer image.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, whileLasts{d.ctx, image}, make([]byte, 1<<20)); err != nil {
		return "", err
	}
	_, err = d.same(at)
	return hex.EncodeToString(h.Sum(nil)), err
}

// same returns the source of the model if it still is that fileVersion.
func (d *digests) same(at fileVersion) (cgo.Source, error) {
	src, err := d.resolve(at.id)
	if err == nil && src.Version != at.version {
		err = errors.New("the file was replaced")
	}
	return src, err
}

// whileLasts reads until ctx ends.
type whileLasts struct {
	ctx context.Context
	r   io.Reader
}

func (w whileLasts) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(p)
}
