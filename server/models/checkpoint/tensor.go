// Package checkpoint reads the weights of other programs: torch's zip and legacy files, and safetensors. It never
// runs what it reads: the pickles inside may only build dicts, lists, numbers, strings and tensor descriptions.
package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/x448/float16"
)

// DType is a tensor's element type.
type DType int

// The element types a checkpoint may have. Only the floating ones can be read as numbers.
const (
	F32 DType = iota
	F16
	BF16
	F64
	I64
	I32
	I16
	I8
	U8
	Bool
)

var dtypes = [...]struct {
	name string
	size int64
}{{"f32", 4}, {"f16", 2}, {"bf16", 2}, {"f64", 8}, {"i64", 8}, {"i32", 4}, {"i16", 2}, {"i8", 1}, {"u8", 1}, {"bool", 1}}

// String returns the type's usual name in lower case.
func (d DType) String() string { return dtypes[d].name }

// Size returns the bytes of an element.
func (d DType) Size() int64 { return dtypes[d].size }

// Float reports whether the type holds real numbers.
func (d DType) Float() bool { return d == F32 || d == F16 || d == BF16 || d == F64 }

// Bounds of a tensor. The largest real one has 129600 × 1024 elements.
const (
	maxDims     = 8
	maxElements = 1 << 40
	maxGather   = 640 << 20 // bytes held while a strided tensor is read
)

// storage is a run of elements in a file; several tensors may share one.
type storage struct {
	dtype DType
	count int64 // elements
	at    int64 // byte offset in the file
	file  io.ReaderAt
}

// Tensor is one named array of a checkpoint, still on disk.
type Tensor struct {
	Name   string
	DType  DType
	Shape  []int64 // row-major
	stride []int64 // elements
	offset int64   // elements
	data   *storage
}

// Elements returns the product of the shape.
func (t *Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// SameData reports whether two tensors are the same view of the same bytes.
func (t *Tensor) SameData(u *Tensor) bool {
	return t.data == u.data && t.offset == u.offset && equal(t.Shape, u.Shape) && equal(t.stride, u.stride)
}

func equal(a, b []int64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// rowMajor returns the strides of a contiguous tensor.
func rowMajor(shape []int64) []int64 {
	stride := make([]int64, len(shape))
	step := int64(1)
	for i := len(shape) - 1; i >= 0; i-- {
		stride[i] = step
		step *= shape[i]
	}
	return stride
}

// check makes sure that every element lies inside the storage. It must pass before anything else is asked.
func (t *Tensor) check() error {
	if len(t.Shape) > maxDims || len(t.stride) != len(t.Shape) {
		return fmt.Errorf("shape of %d and strides of %d dimensions", len(t.Shape), len(t.stride))
	}
	count, last := int64(1), t.offset
	for i, d := range t.Shape {
		if d < 0 || t.stride[i] < 0 || t.offset < 0 {
			return fmt.Errorf("negative shape %v, stride %v or offset %d", t.Shape, t.stride, t.offset)
		}
		if d > maxElements || t.stride[i] > maxElements || d > 0 && count > maxElements/d {
			return fmt.Errorf("shape %v with strides %v is too large", t.Shape, t.stride)
		}
		count *= d
	}
	if t.offset < 0 || t.offset > t.data.count {
		return fmt.Errorf("offset %d in a storage of %d elements", t.offset, t.data.count)
	}
	if count == 0 {
		return nil
	}
	for i, d := range t.Shape { // every product is below 2^80's overflow only if bounded step by step
		if t.stride[i] > 0 && d-1 > (t.data.count-last)/t.stride[i] {
			return fmt.Errorf("shape %v with strides %v and offset %d leaves a storage of %d elements",
				t.Shape, t.stride, t.offset, t.data.count)
		}
		last += (d - 1) * t.stride[i]
	}
	if last >= t.data.count {
		return fmt.Errorf("last element %d of a storage of %d elements", last, t.data.count)
	}
	return nil
}

// contiguous reports whether the elements lie in row-major order without gaps.
func (t *Tensor) contiguous() bool {
	step := int64(1)
	for i := len(t.Shape) - 1; i >= 0; i-- {
		if t.Shape[i] != 1 && t.stride[i] != step {
			return false
		}
		step *= t.Shape[i]
	}
	return true
}

// Reader returns the tensor's elements in row-major order.
func (t *Tensor) Reader() (*Reader, error) {
	if !t.DType.Float() {
		return nil, fmt.Errorf("tensor %q: %s is no floating type", t.Name, t.DType)
	}
	r := &Reader{t: t, size: t.DType.Size(), left: t.Elements()}
	if t.contiguous() {
		r.in = io.NewSectionReader(t.data.file, t.data.at+t.offset*r.size, r.left*r.size)
		return r, nil
	}
	return r, r.gather()
}

// Reader streams a tensor. It holds a chunk of a contiguous tensor, all of a strided one.
type Reader struct {
	t    *Tensor
	size int64
	left int64 // elements
	in   *io.SectionReader
	raw  []byte

	span  []byte  // strided: the bytes from the first to the last element
	index []int64 // strided: of the next element
}

func (r *Reader) gather() error {
	last := int64(0)
	for i, d := range r.t.Shape {
		last += max(0, d-1) * r.t.stride[i]
	}
	if r.left == 0 {
		return nil
	}
	if (last+1)*r.size > maxGather {
		return fmt.Errorf("tensor %q: not contiguous and larger than %d bytes", r.t.Name, maxGather)
	}
	r.span = make([]byte, (last+1)*r.size)
	r.index = make([]int64, len(r.t.Shape))
	_, err := r.t.data.file.ReadAt(r.span, r.t.data.at+r.t.offset*r.size)
	return r.fault(err)
}

// fault names the tensor in a read error. A read that ended exactly at the end of the file is none.
func (r *Reader) fault(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("tensor %q: %w", r.t.Name, err)
}

// Read fills dst with the next elements as 32-bit floats; fewer left than asked for is an error.
func (r *Reader) Read(dst []float32) error { return read(r, dst) }

// Read64 is Read without the rounding of 64-bit sources.
func (r *Reader) Read64(dst []float64) error { return read(r, dst) }

func read[T float32 | float64](r *Reader, dst []T) error {
	if int64(len(dst)) > r.left {
		return fmt.Errorf("tensor %q: %d elements wanted, %d left", r.t.Name, len(dst), r.left)
	}
	const chunk = 1 << 18 // elements
	for len(dst) > 0 {
		n := min(len(dst), chunk)
		raw, err := r.next(n)
		if err != nil {
			return err
		}
		decode(dst[:n], raw, r.t.DType)
		dst = dst[n:]
		r.left -= int64(n)
	}
	return nil
}

// next returns the bytes of the next n elements, valid until the next call.
func (r *Reader) next(n int) ([]byte, error) {
	want := n * int(r.size)
	if cap(r.raw) < want {
		r.raw = make([]byte, want)
	}
	raw := r.raw[:want]
	if r.in != nil {
		if _, err := io.ReadFull(r.in, raw); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", r.t.Name, err)
		}
		return raw, nil
	}
	for i := range n {
		at := int64(0)
		for d, x := range r.index {
			at += x * r.t.stride[d]
		}
		copy(raw[int64(i)*r.size:], r.span[at*r.size:(at+1)*r.size])
		for d := len(r.index) - 1; d >= 0; d-- {
			if r.index[d]++; r.index[d] < r.t.Shape[d] {
				break
			}
			r.index[d] = 0
		}
	}
	return raw, nil
}

func decode[T float32 | float64](dst []T, raw []byte, dtype DType) {
	switch dtype {
	case F32:
		for i := range dst {
			dst[i] = T(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
		}
	case F16:
		for i := range dst {
			dst[i] = T(float16.Frombits(binary.LittleEndian.Uint16(raw[2*i:])).Float32())
		}
	case BF16:
		for i := range dst {
			dst[i] = T(math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw[2*i:])) << 16))
		}
	case F64:
		for i := range dst {
			dst[i] = T(math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:])))
		}
	}
}
