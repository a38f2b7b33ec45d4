package convert

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"barkd/server/models/checkpoint"
	"barkd/server/models/schema"
)

// chunkElements is how much of a tensor is in memory at once, 4 bytes each.
const chunkElements = 1 << 20

// progress counts bytes for the caller and notices that the caller wants no more.
type progress struct {
	ctx         context.Context
	report      func(done, total int64)
	done, total int64
}

func (p *progress) add(n int64) error {
	p.done += n
	if p.report != nil {
		p.report(p.done, p.total)
	}
	return p.ctx.Err()
}

// digest returns the SHA-256 of a file.
func (p *progress) digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	buffer := make([]byte, 1<<20)
	for {
		n, err := f.Read(buffer)
		h.Write(buffer[:n])
		if stop := p.add(int64(n)); stop != nil {
			return "", stop
		}
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", fmt.Errorf("read %q: %w", path, err)
		}
	}
}

// tensorWriter is a gguf.Writer or the codec's digest.
type tensorWriter interface {
	io.Writer
	Next(name string) error
}

// tensor writes what a recipe makes, in rows of the storage type.
func (p *progress) tensor(g tensorWriter, r recipe, matrices Type) error {
	enc, err := schema.NewEncoder(r.tensor, matrices)
	if err != nil {
		return err
	}
	if err := g.Next(r.tensor.Name); err != nil {
		return err
	}
	cols := r.tensor.Shape[len(r.tensor.Shape)-1]
	if r.copied != nil {
		err = p.copyRows(g, enc, r.copied, cols)
	} else {
		err = p.buildRows(g, enc, r, cols)
	}
	if err != nil || len(enc.Scales()) == 0 {
		return err
	}
	if err := g.Next(schema.ScaleName(r.tensor.Name)); err != nil {
		return err
	}
	_, err = g.Write(enc.Scales())
	return err
}

func (p *progress) buildRows(g tensorWriter, enc *schema.Encoder, r recipe, cols int64) error {
	v, err := r.built()
	if err != nil {
		return fmt.Errorf("tensor %q: %w", r.tensor.Name, err)
	}
	return p.rows(g, enc, v, cols)
}

func (p *progress) copyRows(g tensorWriter, enc *schema.Encoder, t *checkpoint.Tensor, cols int64) error {
	in, err := t.Reader()
	if err != nil {
		return err
	}
	left := t.Elements()
	buffer := make([]float32, min(left, max(cols, chunkElements/cols*cols)))
	for left > 0 {
		chunk := buffer[:min(left, int64(len(buffer)))]
		if err := in.Read(chunk); err != nil {
			return err
		}
		if err := p.rows(g, enc, chunk, cols); err != nil {
			return err
		}
		left -= int64(len(chunk))
	}
	return nil
}

func (p *progress) rows(g tensorWriter, enc *schema.Encoder, v []float32, cols int64) error {
	written := int64(0)
	for ; int64(len(v)) >= cols; v = v[cols:] {
		b, err := enc.Row(v[:cols])
		if err != nil {
			return err
		}
		if _, err := g.Write(b); err != nil {
			return err
		}
		written += int64(len(b))
	}
	return p.add(written)
}
