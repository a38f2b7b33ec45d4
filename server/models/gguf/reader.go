package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"unicode/utf8"
)

// Bounds of a header. A Bark file has about 80 keys, 400 tensors and a 3 MB vocabulary.
const (
	maxHeaderBytes = 256 << 20
	maxKeys        = 1 << 16
	maxTensors     = 1 << 16
	maxKeyBytes    = 1 << 16 // what the container allows
	maxNameBytes   = 1 << 10
)

// File is an open, validated GGUF file: every tensor lies inside it, aligned, without overlap.
type File struct {
	Path       string
	Size       int64 // bytes
	Alignment  int64
	DataOffset int64 // where the tensors start
	Metadata   Metadata
	Tensors    []Tensor // file order

	data   io.ReaderAt
	closer io.Closer
	byName map[string]int
}

// Open opens and validates the file. The caller must Close it.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open model file: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open model file %q: %w", path, err)
	}
	file, err := Read(f, st.Size())
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	file.Path, file.closer = path, f
	return file, nil
}

// Read validates an image of size bytes. The File reads tensor data from r later on.
func Read(r io.ReaderAt, size int64) (*File, error) {
	d := &decoder{
		in:    bufio.NewReaderSize(io.NewSectionReader(r, 0, min(size, maxHeaderBytes)), 1<<16),
		limit: min(size, maxHeaderBytes),
	}
	f := &File{Size: size, data: r}
	if err := d.file(f); err != nil {
		if d.err == nil {
			return nil, fmt.Errorf("gguf: byte %d: %w", d.pos, err)
		}
		if errors.Is(d.err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("gguf: header is cut off at byte %d", d.pos)
		}
		return nil, fmt.Errorf("gguf: byte %d: %w", d.pos, d.err)
	}
	return f, nil
}

// Close closes the underlying file.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Find returns the tensor of that name.
func (f *File) Find(name string) (Tensor, bool) {
	i, ok := f.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return f.Tensors[i], true
}

// Data returns the bytes of one of the file's tensors.
func (f *File) Data(t Tensor) *io.SectionReader {
	return io.NewSectionReader(f.data, t.Offset, t.Bytes)
}

// decoder reads the header. The first failed read sticks in err, and every later read returns zero.
type decoder struct {
	in    *bufio.Reader
	pos   int64
	limit int64
	err   error
}

func (d *decoder) bytes(n int64) []byte {
	if d.err != nil {
		return nil
	}
	if n < 0 || n > d.limit-d.pos {
		d.err = io.ErrUnexpectedEOF
		return nil
	}
	b := make([]byte, n)
	got, err := io.ReadFull(d.in, b)
	d.pos += int64(got)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		d.err = err
		return nil
	}
	return b
}

func (d *decoder) u32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// length reads a 64-bit length of at most limit.
func (d *decoder) length(what string, limit int64) (int64, error) {
	n := d.u64()
	if d.err != nil {
		return 0, d.err
	}
	if n > uint64(limit) {
		return 0, fmt.Errorf("%s of %d, limit %d", what, n, limit)
	}
	return int64(n), nil
}

func (d *decoder) string(what string, limit int64) (string, error) {
	n, err := d.length(what+" length", limit)
	if err != nil {
		return "", err
	}
	b := d.bytes(n)
	if d.err != nil {
		return "", d.err
	}
	if !utf8.Valid(b) {
		return "", fmt.Errorf("%s is not UTF-8", what)
	}
	return string(b), nil
}

func (d *decoder) file(f *File) error {
	magic := d.bytes(4)
	if d.err != nil {
		return d.err
	}
	if string(magic) != Magic {
		return fmt.Errorf("not a GGUF file (starts with %q)", magic)
	}
	if v := d.u32(); d.err == nil && v != Version {
		return fmt.Errorf("GGUF version %d, want %d", v, Version)
	}
	nTensors, err := d.length("tensor count", maxTensors)
	if err != nil {
		return err
	}
	nKeys, err := d.length("metadata count", maxKeys)
	if err != nil {
		return err
	}
	if err := d.metadata(f, nKeys); err != nil {
		return err
	}
	if f.Alignment, err = f.Metadata.alignment(); err != nil {
		return err
	}
	if err := d.tensors(f, nTensors); err != nil {
		return err
	}
	f.DataOffset = align(d.pos, f.Alignment)
	return place(f)
}

func (d *decoder) metadata(f *File, n int64) error {
	seen := make(map[string]bool)
	for range n {
		key, err := d.string("metadata key", maxKeyBytes)
		if err != nil {
			return err
		}
		if key == "" || seen[key] {
			return fmt.Errorf("metadata key %q is empty or appears twice", key)
		}
		seen[key] = true
		value, err := d.value(d.u32())
		if d.err != nil {
			return d.err
		}
		if err != nil {
			return fmt.Errorf("metadata key %q: %w", key, err)
		}
		f.Metadata = append(f.Metadata, Entry{key, value})
	}
	return nil
}

func (d *decoder) value(kind uint32) (any, error) {
	if kind != valueArray {
		return d.scalar(kind)
	}
	elem := d.u32()
	n, err := d.length("array length", d.limit)
	if err != nil {
		return nil, err
	}
	if n > d.limit-d.pos { // an element takes a byte at least
		return nil, fmt.Errorf("array of %d elements in %d bytes", n, d.limit-d.pos)
	}
	switch elem {
	case valueU8:
		return array[uint8](d, elem, n)
	case valueI8:
		return array[int8](d, elem, n)
	case valueU16:
		return array[uint16](d, elem, n)
	case valueI16:
		return array[int16](d, elem, n)
	case valueU32:
		return array[uint32](d, elem, n)
	case valueI32:
		return array[int32](d, elem, n)
	case valueU64:
		return array[uint64](d, elem, n)
	case valueI64:
		return array[int64](d, elem, n)
	case valueF32:
		return array[float32](d, elem, n)
	case valueF64:
		return array[float64](d, elem, n)
	case valueBool:
		return array[bool](d, elem, n)
	case valueString:
		return array[string](d, elem, n)
	}
	return nil, fmt.Errorf("array of unsupported type %d", elem)
}

// array grows as it reads, so that a false length costs no memory.
func array[T any](d *decoder, kind uint32, n int64) (any, error) {
	out := make([]T, 0, min(n, 4096))
	for range n {
		v, err := d.scalar(kind)
		if err != nil {
			return nil, err
		}
		if d.err != nil {
			return nil, d.err
		}
		out = append(out, v.(T))
	}
	return out, nil
}

func (d *decoder) scalar(kind uint32) (any, error) {
	one := func() uint8 {
		if b := d.bytes(1); b != nil {
			return b[0]
		}
		return 0
	}
	two := func() uint16 {
		if b := d.bytes(2); b != nil {
			return binary.LittleEndian.Uint16(b)
		}
		return 0
	}
	switch kind {
	case valueU8:
		return one(), nil
	case valueI8:
		return int8(one()), nil
	case valueU16:
		return two(), nil
	case valueI16:
		return int16(two()), nil
	case valueU32:
		return d.u32(), nil
	case valueI32:
		return int32(d.u32()), nil
	case valueU64:
		return d.u64(), nil
	case valueI64:
		return int64(d.u64()), nil
	case valueF32:
		return math.Float32frombits(d.u32()), nil
	case valueF64:
		return math.Float64frombits(d.u64()), nil
	case valueBool:
		b := one()
		if b > 1 {
			return nil, fmt.Errorf("bool of value %d", b)
		}
		return b == 1, nil
	case valueString:
		return d.string("string", d.limit)
	}
	return nil, fmt.Errorf("unsupported value type %d", kind)
}

func (d *decoder) tensors(f *File, n int64) error {
	f.byName = make(map[string]int)
	for range n {
		name, err := d.string("tensor name", maxNameBytes)
		if err != nil {
			return err
		}
		if _, twice := f.byName[name]; name == "" || twice {
			return fmt.Errorf("tensor name %q is empty or appears twice", name)
		}
		dims := d.u32()
		if d.err == nil && (dims == 0 || dims > MaxDims) {
			return fmt.Errorf("tensor %q: %d dimensions, want 1 to %d", name, dims, MaxDims)
		}
		shape := make([]int64, dims)
		for i := range shape {
			dim, err := d.length(fmt.Sprintf("tensor %q: dimension", name), math.MaxInt64)
			if err != nil {
				return err
			}
			shape[len(shape)-1-i] = dim
		}
		t := Tensor{Name: name, Type: Type(d.u32()), Shape: shape}
		if t.Offset, err = d.length(fmt.Sprintf("tensor %q: offset", name), math.MaxInt64); err != nil {
			return err
		}
		if t.Bytes, err = t.byteSize(); err != nil {
			return err
		}
		f.byName[name] = len(f.Tensors)
		f.Tensors = append(f.Tensors, t)
	}
	return nil
}

// place turns offsets into positions in the file and checks that each tensor lies inside it, after the one before.
func place(f *File) error {
	end := int64(0) // relative to DataOffset
	for i := range f.Tensors {
		t := &f.Tensors[i]
		if t.Offset%f.Alignment != 0 {
			return fmt.Errorf("tensor %q: offset %d is not a multiple of %d", t.Name, t.Offset, f.Alignment)
		}
		if t.Offset < end {
			return fmt.Errorf("tensor %q: overlaps the tensor before it", t.Name)
		}
		if room := f.Size - f.DataOffset; t.Bytes > room || t.Offset > room-t.Bytes {
			return fmt.Errorf("tensor %q: %d bytes at %d lie outside the file of %d bytes",
				t.Name, t.Bytes, t.Offset, f.Size)
		}
		end = t.Offset + t.Bytes
		t.Offset += f.DataOffset
	}
	return nil
}
