package gguf

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func sampleMetadata() Metadata {
	return Metadata{
		{"general.architecture", "bark"},
		{AlignmentKey, uint32(64)},
		{"u8", uint8(200)}, {"i8", int8(-3)}, {"u16", uint16(60000)}, {"i16", int16(-30000)},
		{"i32", int32(-7)}, {"u64", uint64(1 << 60)}, {"i64", int64(-1 << 60)},
		{"f32", float32(0.7)}, {"f64", 49.9}, {"yes", true}, {"no", false},
		{"empty", []string{}}, {"strings", []string{"a", "", "é\n"}}, {"ints", []uint32{8, 5, 4, 2}},
		{"flags", []bool{true, false}},
	}
}

// sample returns a small valid file with tensors of odd sizes, and the tensors' bytes.
func sample(t testing.TB) ([]byte, map[string][]byte) {
	t.Helper()
	declared := []Tensor{
		{Name: "a", Type: F32, Shape: []int64{3, 5}},
		{Name: "b", Type: I8, Shape: []int64{7}},
		{Name: "c", Type: BF16, Shape: []int64{2, 1, 3, 4}},
	}
	var out bytes.Buffer
	w, err := NewWriter(&out, sampleMetadata(), declared)
	require.NoError(t, err)
	data := make(map[string][]byte)
	for i, d := range w.Tensors() {
		b := bytes.Repeat([]byte{byte(i + 1)}, int(d.Bytes))
		data[d.Name] = b
		require.NoError(t, w.Next(d.Name))
		_, err := w.Write(b[:1]) // in two pieces
		require.NoError(t, err)
		_, err = w.Write(b[1:])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes(), data
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	image, data := sample(t)
	f, err := Read(bytes.NewReader(image), int64(len(image)))
	require.NoError(t, err)
	assert.Equal(t, sampleMetadata(), f.Metadata)
	assert.Equal(t, int64(64), f.Alignment)
	require.Len(t, f.Tensors, 3)
	assert.Equal(t, []int64{2, 1, 3, 4}, f.Tensors[2].Shape)
	for _, tensor := range f.Tensors {
		assert.Zero(t, tensor.Offset%64, tensor.Name)
		got, err := io.ReadAll(f.Data(tensor))
		require.NoError(t, err)
		assert.Equal(t, data[tensor.Name], got, tensor.Name)
	}
	assert.Zero(t, len(image)%64, "the end is padded too")
}

func TestShapesAreStoredFastestFirst(t *testing.T) {
	image, _ := sample(t)
	at := bytes.Index(image, []byte("\x01\x00\x00\x00\x00\x00\x00\x00c"))
	require.Positive(t, at)
	dims := image[at+9:]
	assert.Equal(t, uint32(4), binary.LittleEndian.Uint32(dims))
	assert.Equal(t, uint64(4), binary.LittleEndian.Uint64(dims[4:]))
	assert.Equal(t, uint64(2), binary.LittleEndian.Uint64(dims[4+24:]))
}

func TestOpenNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.gguf")
	require.NoError(t, os.WriteFile(path, []byte("PK\x03\x04 not a model"), 0o600))
	_, err := Open(path)
	assert.ErrorContains(t, err, "model.gguf")
	assert.ErrorContains(t, err, "not a GGUF file")
	_, err = Open(filepath.Dir(path))
	assert.Error(t, err)
	_, err = Open(path + ".missing")
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestEveryTruncationIsAnError(t *testing.T) {
	image, _ := sample(t)
	last := len(image) - 64 // the rest is the last tensor and its padding
	for n := range last {
		_, err := Read(bytes.NewReader(image[:n]), int64(n))
		require.Errorf(t, err, "cut at %d", n)
	}
}

func TestHostileHeadersAreErrors(t *testing.T) {
	image, _ := sample(t)
	patch := func(at int, b ...byte) []byte {
		p := bytes.Clone(image)
		copy(p[at:], b)
		return p
	}
	huge := []byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F}
	find := func(s string) int {
		at := bytes.Index(image, []byte(s))
		require.Positive(t, at)
		return at
	}
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"version 2":              {patch(4, 2), "version 2"},
		"many tensors":           {patch(8, huge...), "tensor count"},
		"many keys":              {patch(16, huge...), "metadata count"},
		"key of half the memory": {patch(24, huge...), "metadata key length"},
		"long array":             {patch(find("strings")+7+8, huge...), "array length"},
		"unknown value type":     {patch(find("f64")+3, 99), "unsupported value type"},
		"nested array":           {patch(find("flags")+5+4, valueArray), "unsupported type"},
		"bool of 7":              {patch(find("yes")+3+4, 7), "bool"},
		"alignment 48":           {patch(find(AlignmentKey)+len(AlignmentKey)+4, 48), "power of two"},
		"duplicate key":          {patch(find("i16"), []byte("u16")...), "appears twice"},
	} {
		_, err := Read(bytes.NewReader(c.image), int64(len(c.image)))
		assert.ErrorContains(t, err, c.want, name)
	}
}

func TestHostileTensorsAreErrors(t *testing.T) {
	image, _ := sample(t)
	b := bytes.Index(image, []byte("\x01\x00\x00\x00\x00\x00\x00\x00b")) + 8 // name, dims u32, dim u64, type u32, offset u64
	patch := func(at int, v ...byte) []byte {
		p := bytes.Clone(image)
		copy(p[b+at:], v)
		return p
	}
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"same name twice":  {patch(0, 'a'), "appears twice"},
		"five dimensions":  {patch(1, 5), "dimensions"},
		"zero length":      {patch(5, 0), "dimension 0"},
		"size overflow":    {patch(5, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F), "tensor \"b\""},
		"block type":       {patch(13, 2), "unsupported element type 2"},
		"overlap":          {patch(17, 0), "overlaps"},
		"unaligned":        {patch(17, 65), "not a multiple"},
		"outside the file": {patch(17, 0, 0, 0, 1), "outside"},
		"offset overflow":  {patch(17, 0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F), "outside"},
	} {
		_, err := Read(bytes.NewReader(c.image), int64(len(c.image)))
		assert.ErrorContains(t, err, c.want, name)
	}
}

func TestWriterRefusesWhatWasNotDeclared(t *testing.T) {
	declared := []Tensor{{Name: "a", Type: F32, Shape: []int64{1}}, {Name: "b", Type: F32, Shape: []int64{1}}}
	w, err := NewWriter(io.Discard, nil, declared)
	require.NoError(t, err)
	assert.ErrorContains(t, w.Next("b"), `"a" was declared`)
	require.NoError(t, w.Next("a"))
	_, err = w.Write(make([]byte, 5))
	assert.ErrorContains(t, err, "more bytes")
	_, err = w.Write(make([]byte, 3))
	require.NoError(t, err)
	assert.ErrorContains(t, w.Next("b"), "lacks 1 bytes")
	assert.Error(t, w.Close())
	_, err = NewWriter(io.Discard, Metadata{{"k", struct{}{}}}, nil)
	assert.ErrorContains(t, err, "unsupported type")
	_, err = NewWriter(io.Discard, nil, []Tensor{declared[0], declared[0]})
	assert.ErrorContains(t, err, "declared twice")
}

func TestWriterReportsAFullDisk(t *testing.T) {
	w, err := NewWriter(full{}, nil, []Tensor{{Name: "a", Type: I8, Shape: []int64{4 << 20}}})
	require.NoError(t, err)
	require.NoError(t, w.Next("a"))
	_, err = io.Copy(w, strings.NewReader(strings.Repeat("x", 4<<20)))
	assert.ErrorIs(t, err, io.ErrShortWrite)
}

// full refuses every byte.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func FuzzGGUF(f *testing.F) {
	image, _ := sample(f)
	f.Add(image)
	f.Add(image[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, tensor := range file.Tensors {
			n, err := io.Copy(io.Discard, file.Data(tensor))
			if err != nil || n != tensor.Bytes {
				t.Fatalf("tensor %q: read %d of %d bytes: %v", tensor.Name, n, tensor.Bytes, err)
			}
		}
	})
}

func TestDigestsAreOfTheBytes(t *testing.T) {
	image, data := sample(t)
	f, err := Read(bytes.NewReader(image), int64(len(image)))
	require.NoError(t, err)
	whole, err := f.SHA256()
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprintf("%x", sha256.Sum256(image)), whole)
	b, _ := f.Find("b")
	one, err := f.TensorSHA256(b)
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprintf("%x", sha256.Sum256(data["b"])), one)
}
