package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Writer writes a file front to back: the header when it is made, then the tensors in the order they were declared.
// It never seeks and holds no tensor.
type Writer struct {
	out       *bufio.Writer
	pos       int64
	alignment int64
	tensors   []Tensor
	current   int   // index of the tensor that takes bytes now; -1 before the first
	left      int64 // bytes the current tensor still needs
	err       error // sticky
}

// NewWriter checks the declarations and writes the header. Metadata says the alignment (AlignmentKey). Offset and
// Bytes of the tensors are computed.
func NewWriter(w io.Writer, metadata Metadata, tensors []Tensor) (*Writer, error) {
	alignment, err := metadata.alignment()
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	g := &Writer{out: bufio.NewWriterSize(w, 1<<20), alignment: alignment, current: -1}
	if err := g.declare(tensors); err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	if err := g.header(metadata); err != nil {
		return nil, fmt.Errorf("gguf: write header: %w", err)
	}
	return g, nil
}

// Tensors returns the declared tensors with their final offsets and sizes.
func (w *Writer) Tensors() []Tensor { return w.tensors }

// Next begins the next declared tensor, whose name must be the given one; what is written to the Writer after it are
// the tensor's bytes.
func (w *Writer) Next(name string) error {
	if w.err != nil {
		return w.err
	}
	if w.left > 0 {
		return fmt.Errorf("gguf: tensor %q lacks %d bytes", w.tensors[w.current].Name, w.left)
	}
	if w.current+1 >= len(w.tensors) {
		return fmt.Errorf("gguf: tensor %q was not declared", name)
	}
	if want := w.tensors[w.current+1].Name; want != name {
		return fmt.Errorf("gguf: tensor %q written where %q was declared", name, want)
	}
	w.pad()
	w.current++
	w.left = w.tensors[w.current].Bytes
	return w.err
}

// Write adds bytes to the current tensor.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(p)) > w.left {
		return 0, errors.New("gguf: more bytes than the tensor was declared with")
	}
	w.left -= int64(len(p))
	w.raw(p)
	return len(p), w.err
}

// WriteI32 writes the next declared tensor, of type I32, from its rows.
func (w *Writer) WriteI32(name string, rows ...[]int32) error {
	if err := w.Next(name); err != nil {
		return err
	}
	for _, row := range rows {
		b, err := binary.Append(nil, binary.LittleEndian, row)
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// Close checks that every declared tensor is complete, pads the end and flushes. It does not close what lies beneath.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if w.left > 0 || w.current+1 != len(w.tensors) {
		return fmt.Errorf("gguf: closed after %d of %d tensors", w.current+1, len(w.tensors))
	}
	w.pad()
	if w.err == nil {
		w.err = w.out.Flush()
	}
	return w.err
}

func (w *Writer) declare(tensors []Tensor) error {
	seen := make(map[string]bool)
	offset := int64(0)
	for _, t := range tensors {
		if t.Name == "" || len(t.Name) > maxNameBytes || seen[t.Name] {
			return fmt.Errorf("tensor name %q is empty, too long or declared twice", t.Name)
		}
		seen[t.Name] = true
		size, err := t.byteSize()
		if err != nil {
			return err
		}
		if size > math.MaxInt64/2-offset {
			return errors.New("the tensors' sizes overflow")
		}
		t.Offset, t.Bytes = offset, size
		offset = align(offset+size, w.alignment)
		w.tensors = append(w.tensors, t)
	}
	return nil
}

func (w *Writer) header(metadata Metadata) error {
	w.raw([]byte(Magic))
	w.u32(Version)
	w.u64(uint64(len(w.tensors)))
	w.u64(uint64(len(metadata)))
	seen := make(map[string]bool)
	for _, e := range metadata {
		if e.Key == "" || len(e.Key) > maxKeyBytes || seen[e.Key] {
			return fmt.Errorf("metadata key %q is empty, too long or given twice", e.Key)
		}
		seen[e.Key] = true
		w.string(e.Key)
		if err := w.value(e.Value); err != nil {
			return fmt.Errorf("metadata key %q: %w", e.Key, err)
		}
	}
	for _, t := range w.tensors {
		w.string(t.Name)
		w.u32(uint32(len(t.Shape)))
		for i := range t.Shape {
			w.u64(uint64(t.Shape[len(t.Shape)-1-i]))
		}
		w.u32(uint32(t.Type))
		w.u64(uint64(t.Offset))
	}
	data := align(w.pos, w.alignment)
	for i := range w.tensors {
		w.tensors[i].Offset += data
	}
	if len(w.tensors) == 0 {
		w.pad()
	}
	return w.err
}

// pad writes zeros up to the next multiple of the alignment.
func (w *Writer) pad() {
	w.raw(make([]byte, align(w.pos, w.alignment)-w.pos))
}

func (w *Writer) raw(p []byte) {
	if w.err == nil {
		_, w.err = w.out.Write(p)
		w.pos += int64(len(p))
	}
}

func (w *Writer) u32(v uint32) { w.raw(binary.LittleEndian.AppendUint32(nil, v)) }

func (w *Writer) u64(v uint64) { w.raw(binary.LittleEndian.AppendUint64(nil, v)) }

func (w *Writer) string(s string) {
	w.u64(uint64(len(s)))
	w.raw([]byte(s))
}

func (w *Writer) value(v any) error {
	switch v := v.(type) {
	case []uint8:
		return writeArray(w, valueU8, v)
	case []int8:
		return writeArray(w, valueI8, v)
	case []uint16:
		return writeArray(w, valueU16, v)
	case []int16:
		return writeArray(w, valueI16, v)
	case []uint32:
		return writeArray(w, valueU32, v)
	case []int32:
		return writeArray(w, valueI32, v)
	case []uint64:
		return writeArray(w, valueU64, v)
	case []int64:
		return writeArray(w, valueI64, v)
	case []float32:
		return writeArray(w, valueF32, v)
	case []float64:
		return writeArray(w, valueF64, v)
	case []bool:
		return writeArray(w, valueBool, v)
	case []string:
		return writeArray(w, valueString, v)
	}
	kind, ok := scalarKind(v)
	if !ok {
		return fmt.Errorf("unsupported type %T", v)
	}
	w.u32(kind)
	return w.scalar(v)
}

func writeArray[T any](w *Writer, kind uint32, values []T) error {
	w.u32(valueArray)
	w.u32(kind)
	w.u64(uint64(len(values)))
	for _, v := range values {
		if err := w.scalar(v); err != nil {
			return err
		}
	}
	return nil
}

func scalarKind(v any) (uint32, bool) {
	switch v.(type) {
	case uint8:
		return valueU8, true
	case int8:
		return valueI8, true
	case uint16:
		return valueU16, true
	case int16:
		return valueI16, true
	case uint32:
		return valueU32, true
	case int32:
		return valueI32, true
	case uint64:
		return valueU64, true
	case int64:
		return valueI64, true
	case float32:
		return valueF32, true
	case float64:
		return valueF64, true
	case bool:
		return valueBool, true
	case string:
		return valueString, true
	}
	return 0, false
}

func (w *Writer) scalar(v any) error {
	if s, ok := v.(string); ok {
		w.string(s)
		return w.err
	}
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		return err
	}
	w.raw(b)
	return w.err
}
