package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Checkpoint is the tensors of one or several files, still on disk.
type Checkpoint struct {
	Tensors map[string]*Tensor
	// Root is what the single torch file's pickle built: suno's files carry settings beside the weights. Nil for
	// safetensors and for several files.
	Root *Dict

	closers []io.Closer
}

// Open opens files that together hold one checkpoint. The caller must Close it.
func Open(paths ...string) (*Checkpoint, error) {
	c := &Checkpoint{Tensors: make(map[string]*Tensor)}
	for _, path := range paths {
		if err := c.add(path, len(paths) == 1); err != nil {
			c.Close()
			return nil, fmt.Errorf("read checkpoint %q: %w", path, err)
		}
	}
	return c, nil
}

// Close closes the files; the tensors cannot be read any more.
func (c *Checkpoint) Close() error {
	var all error
	for _, f := range c.closers {
		all = errors.Join(all, f.Close())
	}
	c.closers = nil
	return all
}

func (c *Checkpoint) add(path string, single bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, f)
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	tensors, root, err := Read(f, st.Size())
	if err != nil {
		return err
	}
	for _, t := range tensors {
		if c.Tensors[t.Name] != nil {
			return fmt.Errorf("tensor %q appears twice", t.Name)
		}
		c.Tensors[t.Name] = t
	}
	if single {
		c.Root = root
	}
	return nil
}

// Read reads a checkpoint of size bytes: torch's zip or legacy format, or safetensors, told apart by their first
// bytes. The tensors read their data from r later on. Root is nil for safetensors.
func Read(r io.ReaderAt, size int64) (tensors []*Tensor, root *Dict, err error) {
	start := make([]byte, min(size, int64(len(legacyMagic))))
	if _, err := r.ReadAt(start, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	var v any
	switch {
	case len(start) >= 4 && string(start[:4]) == "PK\x03\x04":
		v, err = readZip(r, size)
	case string(start) == legacyMagic:
		v, err = readLegacy(r, size)
	default:
		tensors, err = readSafetensors(r, size)
		return tensors, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	root, ok := v.(*Dict)
	if !ok {
		return nil, nil, errors.New("the file does not hold a dict of tensors")
	}
	return StateDict(root), root, nil
}

// StateDict returns the tensors that a dict holds under string keys, named by them. One tensor under two keys gives
// two Tensors of the same data.
func StateDict(d *Dict) []*Tensor {
	var out []*Tensor
	for i, key := range d.Keys {
		name, ok := key.(string)
		t, isTensor := d.Values[i].(*Tensor)
		if ok && isTensor {
			named := *t
			named.Name = name
			out = append(out, &named)
		}
	}
	return out
}
