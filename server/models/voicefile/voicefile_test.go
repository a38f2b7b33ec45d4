package voicefile

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
)

// want holds the codes of the files in testdata.
func want() cgo.VoiceArrays {
	var v cgo.VoiceArrays
	for i := range int32(6) {
		v.Semantic = append(v.Semantic, i*37%100)
	}
	for q := range int32(8) {
		var row []int32
		for t := range int32(9) {
			row = append(row, (q*9+t)*7%50)
		}
		v.Fine = append(v.Fine, row)
	}
	v.Coarse = v.Fine[:2]
	return v
}

func TestEveryWrittenFormReadsTheSame(t *testing.T) {
	for _, path := range []string{
		"announcer.npz", // u2
		"announcer",     // suffix left out
		"speaker.npz",   // i8, coarse in Fortran order, i4
		"deflated.npz",  // u8, i2, i1
		"triple",        // .npy files: u1, Fortran i8, u4 with a version 2 header
	} {
		v, err := Read(filepath.Join("testdata", path))
		require.NoError(t, err, path)
		assert.Equal(t, want(), v, path)
	}
}

func TestAFolderOfThreeArraysIsAVoice(t *testing.T) {
	dir := t.TempDir()
	for _, name := range members {
		b, err := os.ReadFile("testdata/triple_" + name + ".npy")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".npy"), b, 0o600))
	}
	v, err := Read(dir)
	require.NoError(t, err)
	assert.Equal(t, want(), v)
}

func TestWrittenVoiceReadsBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.npz")
	require.NoError(t, Write(path, want()))
	v, err := Read(path)
	require.NoError(t, err)
	assert.Equal(t, want(), v)
	first, _ := os.ReadFile(path)
	require.NoError(t, Write(path, want()))
	second, _ := os.ReadFile(path)
	assert.Equal(t, first, second, "the same voice gives the same bytes")
}

func TestArraysStartAlignedAsNumPyWritesThem(t *testing.T) {
	b, err := encodeNPY(want().Fine, false)
	require.NoError(t, err)
	start := 10 + int(b[8]) + int(b[9])<<8
	assert.Zero(t, start%64)
	assert.Equal(t, byte('\n'), b[start-1])
	assert.Len(t, b, start+8*8*9)
}

func TestWriteRefusesWhatIsNoVoice(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []cgo.VoiceArrays{
		{},
		{Semantic: []int32{1}, Coarse: [][]int32{{1, 2}, {3}}, Fine: [][]int32{{1}}},
	} {
		assert.Error(t, Write(filepath.Join(dir, "x.npz"), v))
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestMissingVoiceIsNotFound(t *testing.T) {
	_, err := Read("testdata/nobody")
	require.ErrorIs(t, err, cgo.ErrNotFound)
	assert.ErrorContains(t, err, "nobody_semantic_prompt.npy")
}

func TestForeignArraysAreInvalid(t *testing.T) {
	for path, text := range map[string]string{
		"floats.npz":   `"<f4"`,
		"objects.npz":  `"|O"`,
		"toolarge.npz": "1099511627776",
		"README.md":    "not an npz archive",
	} {
		_, err := Read(filepath.Join("testdata", path))
		require.ErrorIs(t, err, cgo.ErrInvalidArgument, path)
		assert.ErrorContains(t, err, text, path)
	}
}

func TestDamagedArchivesAreErrors(t *testing.T) {
	good, err := os.ReadFile("testdata/speaker.npz")
	require.NoError(t, err)
	for n := 0; n < len(good); n += 7 {
		_, err := ReadNPZ(bytes.NewReader(good[:n]), int64(n))
		require.Errorf(t, err, "cut at %d", n)
	}
	flipped := bytes.Clone(good)
	flipped[bytes.Index(good, []byte("NUMPY"))+130] ^= 1 // a code
	_, err = ReadNPZ(bytes.NewReader(flipped), int64(len(flipped)))
	assert.ErrorIs(t, err, zip.ErrChecksum)
}

func TestTwoArraysOfOneNameAreAnError(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range []string{members[0], members[0], members[1], members[2]} {
		w, err := z.Create(name + ".npy")
		require.NoError(t, err)
		data, err := encodeNPY([][]int32{{1}}, name == members[0])
		require.NoError(t, err)
		_, err = w.Write(data)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	_, err := ReadNPZ(bytes.NewReader(b.Bytes()), int64(b.Len()))
	assert.ErrorContains(t, err, "2 arrays")
}

func npy(header string, data ...byte) []byte {
	return append(append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), byte(len(header)>>8)), append([]byte(header), data...)...)
}

func TestHostileHeadersAreErrors(t *testing.T) {
	for header, text := range map[string]string{
		"": "not understood",
		"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999999999,), }": "not understood",
		"{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }":                   "not understood",
		"{'descr': '<i8', 'fortran_order': False, 'shape': (1048576, 1048576), }":      "limit",
		"{'descr': '<i8', 'fortran_order': False, 'shape': (1, 1, 1), }":               "not understood",
		"{'descr': '<i8', 'fortran_order': False, 'shape': (), }":                      "0 dimensions",
		"{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }":                    "fewer",
		"{'descr': '<i8', 'fortran_order': False}":                                     "lacks",
		"{'descr': '<i8', 'descr': '<i8', 'fortran_order': False}":                     "not understood",
		"{'descr': '<i8', 'fortran_order': False, 'shape': (1,), 'x': 1}":              "not understood",
		"{'descr': '<i8', 'fortran_order': False, 'shape': (1,), } import os":          "not understood",
		"{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (1,), }":           "not understood",
		"{'descr': '>i8', 'fortran_order': False, 'shape': (1,), }":                    ">i8",
		"{'descr': '|i8', 'fortran_order': False, 'shape': (1,), }":                    "|i8",
		"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }":                    "<c8",
	} {
		_, err := ReadNPY(bytes.NewReader(npy(header, 1, 0, 0, 0, 0, 0, 0, 0)))
		assert.ErrorContains(t, err, text, header)
	}
	good := "{'descr': '<i2', 'fortran_order': False, 'shape': (1,), }"
	_, err := ReadNPY(bytes.NewReader(npy(good, 1, 2, 3)))
	assert.ErrorContains(t, err, "more")
	a, err := ReadNPY(bytes.NewReader(npy("{\"shape\":(1L),'fortran_order':True,'descr':'<i2'}", 0xFF, 0xFF)))
	require.NoError(t, err)
	assert.Equal(t, Array{Shape: []int{1}, Values: []int32{-1}}, a)
}

func FuzzNPY(f *testing.F) {
	f.Add(npy("{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }", make([]byte, 12)...))
	f.Add(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1L,)}", 7))
	b, err := encodeNPY(want().Fine, false)
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ReadNPY(bytes.NewReader(b))
		if err != nil {
			return
		}
		n := 1
		for _, d := range a.Shape {
			n *= d
		}
		if n != len(a.Values) {
			t.Fatalf("shape %v with %d values", a.Shape, len(a.Values))
		}
	})
}

func FuzzNPZ(f *testing.F) {
	for _, name := range []string{"announcer.npz", "speaker.npz", "deflated.npz", "objects.npz"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ReadNPZ(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := WriteNPZ(&again, v, ""); err != nil {
			t.Fatalf("a voice that was read cannot be written: %v", err)
		}
		w, err := ReadNPZ(bytes.NewReader(again.Bytes()), int64(again.Len()))
		if err != nil || !assert.ObjectsAreEqual(v, w) {
			t.Fatalf("a voice changes when written: %v", err)
		}
	})
}

func TestANoteStaysBesideTheArrays(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, WriteNPZ(&b, want(), `{"name":"Änne"}`))
	note, err := ReadNote(bytes.NewReader(b.Bytes()), int64(b.Len()))
	require.NoError(t, err)
	assert.Equal(t, `{"name":"Änne"}`, note)
	v, err := ReadNPZ(bytes.NewReader(b.Bytes()), int64(b.Len()))
	require.NoError(t, err)
	assert.Equal(t, want(), v)
	_, err = ReadNote(bytes.NewReader([]byte("no zip")), 6)
	assert.Error(t, err)
}
