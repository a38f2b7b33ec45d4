// Package gguf reads and writes GGUF version 3, the container of a model file: ordered metadata, tensor descriptions,
// then the tensors' bytes, each aligned. It knows nothing of Bark; package schema does.
package gguf

import (
	"fmt"
	"math"
)

// Magic starts every GGUF file.
const Magic = "GGUF"

// Version is the only container version this package reads and writes.
const Version = 3

// AlignmentKey is the metadata key (u32) that says how tensors are aligned.
const AlignmentKey = "general.alignment"

// DefaultAlignment holds, in bytes, where AlignmentKey is absent.
const DefaultAlignment = 32

// MaxDims is the largest rank of a tensor in the container.
const MaxDims = 4

// Type is a tensor's element type, numbered as in the container.
type Type uint32

// The element types that have one scalar per element. Block-quantised types of the container are not supported.
const (
	F32  Type = 0
	F16  Type = 1
	I8   Type = 24
	I16  Type = 25
	I32  Type = 26
	I64  Type = 27
	F64  Type = 28
	BF16 Type = 30
)

// Size returns the bytes of one element, 0 for a type this package does not know.
func (t Type) Size() int64 {
	switch t {
	case I8:
		return 1
	case F16, BF16, I16:
		return 2
	case F32, I32:
		return 4
	case F64, I64:
		return 8
	}
	return 0
}

// String returns the type's usual name in lower case.
func (t Type) String() string {
	switch t {
	case F32:
		return "f32"
	case F16:
		return "f16"
	case I8:
		return "i8"
	case I16:
		return "i16"
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F64:
		return "f64"
	case BF16:
		return "bf16"
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Tensor describes one tensor. Offset and Bytes are set by the reader and the writer.
type Tensor struct {
	Name   string
	Type   Type
	Shape  []int64 // row-major, slowest first: the container's own order reversed
	Offset int64   // of the data, from the start of the file
	Bytes  int64
}

// Elements returns the product of the shape. It trusts the shape; the reader and the writer have checked it.
func (t Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// byteSize returns the tensor's bytes, or why it has none.
func (t Tensor) byteSize() (int64, error) {
	size := t.Type.Size()
	if size == 0 {
		return 0, fmt.Errorf("tensor %q: unsupported element type %d", t.Name, uint32(t.Type))
	}
	if len(t.Shape) == 0 || len(t.Shape) > MaxDims {
		return 0, fmt.Errorf("tensor %q: %d dimensions, want 1 to %d", t.Name, len(t.Shape), MaxDims)
	}
	for _, d := range t.Shape {
		if d < 1 {
			return 0, fmt.Errorf("tensor %q: dimension %d in %v", t.Name, d, t.Shape)
		}
		if size > math.MaxInt64/d {
			return 0, fmt.Errorf("tensor %q: size of %v overflows", t.Name, t.Shape)
		}
		size *= d
	}
	return size, nil
}

// Entry is one metadata key with its value. Value is one of uint8, int8, uint16, int16, uint32, int32, uint64, int64,
// float32, float64, bool, string, or a slice of one of them.
type Entry struct {
	Key   string
	Value any
}

// Metadata is the list of keys in file order; keys are unique.
type Metadata []Entry

// Get returns the value of key.
func (m Metadata) Get(key string) (any, bool) {
	for _, e := range m {
		if e.Key == key {
			return e.Value, true
		}
	}
	return nil, false
}

// String returns the value of key if it is a string, else "".
func (m Metadata) String(key string) string {
	v, _ := m.Get(key)
	s, _ := v.(string)
	return s
}

// Strings returns the value of key if it is an array of strings, else nil.
func (m Metadata) Strings(key string) []string {
	v, _ := m.Get(key)
	s, _ := v.([]string)
	return s
}

// Bool returns the value of key if it is a bool, else false.
func (m Metadata) Bool(key string) bool {
	v, _ := m.Get(key)
	b, _ := v.(bool)
	return b
}

// Int returns the value of key if it is an integer that fits.
func (m Metadata) Int(key string) (int64, bool) {
	v, _ := m.Get(key)
	switch n := v.(type) {
	case uint8:
		return int64(n), true
	case int8:
		return int64(n), true
	case uint16:
		return int64(n), true
	case int16:
		return int64(n), true
	case uint32:
		return int64(n), true
	case int32:
		return int64(n), true
	case int64:
		return n, true
	case uint64:
		return int64(n), n <= math.MaxInt64
	}
	return 0, false
}

// alignment returns the value of AlignmentKey or the default.
func (m Metadata) alignment() (int64, error) {
	if _, ok := m.Get(AlignmentKey); !ok {
		return DefaultAlignment, nil
	}
	n, ok := m.Int(AlignmentKey)
	if !ok || n < 8 || n > 1<<20 || n&(n-1) != 0 {
		return 0, fmt.Errorf("%s is not a power of two from 8 to 1048576", AlignmentKey)
	}
	return n, nil
}

// align rounds n up to a multiple of a.
func align(n, a int64) int64 { return (n + a - 1) / a * a }

// Value types of the container.
const (
	valueU8 = iota
	valueI8
	valueU16
	valueI16
	valueU32
	valueI32
	valueF32
	valueBool
	valueString
	valueArray
	valueU64
	valueI64
	valueF64
)
