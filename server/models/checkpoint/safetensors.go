package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxSafetensorsHeader is the format's own limit, in bytes.
const maxSafetensorsHeader = 100_000_000

var safetensorsTypes = map[string]DType{
	"F32": F32, "F16": F16, "BF16": BF16, "F64": F64, "I64": I64, "I32": I32, "I16": I16, "I8": I8, "U8": U8, "BOOL": Bool,
}

// readSafetensors reads a header of JSON and leaves the data where it is.
func readSafetensors(r io.ReaderAt, size int64) ([]*Tensor, error) {
	var prefix [8]byte
	if _, err := r.ReadAt(prefix[:], 0); err != nil {
		return nil, errors.New("safetensors: file is too short")
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > maxSafetensorsHeader || n > uint64(size-8) {
		return nil, fmt.Errorf("not a checkpoint: neither torch's magic nor a safetensors header (length %d)", n)
	}
	header := make([]byte, n)
	if _, err := r.ReadAt(header, 8); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	entries, err := object(header)
	if err != nil {
		return nil, fmt.Errorf("safetensors: header: %w", err)
	}
	var out []*Tensor
	for _, e := range entries {
		if e.key == "__metadata__" {
			continue
		}
		t, err := safetensor(e.value, r, 8+int64(n), size)
		if err != nil {
			return nil, fmt.Errorf("safetensors: tensor %q: %w", e.key, err)
		}
		t.Name = e.key
		out = append(out, t)
	}
	return out, nil
}

type member struct {
	key   string
	value json.RawMessage
}

// object splits a JSON object; unlike a map it notices keys given twice.
func object(text []byte) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var out []member
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := member{key: t.(string)} // the decoder allows nothing else here
		if seen[m.key] {
			return nil, fmt.Errorf("key %q appears twice", m.key)
		}
		seen[m.key] = true
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	return out, nil
}

func safetensor(raw json.RawMessage, r io.ReaderAt, base, size int64) (*Tensor, error) {
	var h struct {
		DType   string  `json:"dtype"`
		Shape   []int64 `json:"shape"`
		Offsets []int64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, err
	}
	dtype, ok := safetensorsTypes[h.DType]
	if !ok {
		return nil, fmt.Errorf("type %q is not supported", h.DType)
	}
	if len(h.Offsets) != 2 || h.Offsets[0] < 0 || h.Offsets[1] < h.Offsets[0] || h.Offsets[1] > size-base {
		return nil, fmt.Errorf("data_offsets %v lie outside the file", h.Offsets)
	}
	if len(h.Shape) > maxDims {
		return nil, fmt.Errorf("%d dimensions, limit %d", len(h.Shape), maxDims)
	}
	bytes := h.Offsets[1] - h.Offsets[0]
	s := &storage{dtype: dtype, count: bytes / dtype.Size(), at: base + h.Offsets[0], file: r}
	t := &Tensor{DType: dtype, Shape: h.Shape, data: s}
	count := int64(1)
	for _, d := range h.Shape {
		if d < 0 || d > maxElements || d > 0 && count > maxElements/d {
			return nil, fmt.Errorf("shape %v is impossible", h.Shape)
		}
		count *= d
	}
	if count*dtype.Size() != bytes {
		return nil, fmt.Errorf("shape %v of %s needs %d bytes, data_offsets give %d", h.Shape, dtype, count*dtype.Size(), bytes)
	}
	t.stride = rowMajor(h.Shape)
	return t, t.check()
}
