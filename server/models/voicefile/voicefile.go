// Package voicefile reads and writes history prompts on disk: suno's .npz, and the three .npy files of the Hugging
// Face repositories. It checks the form; whether the codes fit a model is for the model to say.
package voicefile

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"barkd/cgo"
	"barkd/server/models/atomicfile"
)

// Suffix of a voice in one file.
const Suffix = ".npz"

// maxFileBytes bounds a voice file; the largest real one has 0.1 MB.
const maxFileBytes = 64 << 20

// members are the arrays of a voice, in the order they are written.
var members = [3]string{"semantic_prompt", "coarse_prompt", "fine_prompt"}

// Read reads the voice at path: an .npz file (the suffix may be left out), a prefix P of P_semantic_prompt.npy,
// P_coarse_prompt.npy and P_fine_prompt.npy, or a folder that holds those three files without a prefix. The error
// wraps cgo.ErrNotFound when there is nothing, cgo.ErrInvalidArgument when it is no voice.
func Read(path string) (cgo.VoiceArrays, error) {
	for _, name := range []string{path, path + Suffix} {
		if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() {
			return named(name, func() (cgo.VoiceArrays, error) { return readFile(name) })
		}
	}
	for _, prefix := range []string{path + "_", path + string(filepath.Separator)} {
		if _, err := os.Stat(prefix + members[0] + ".npy"); err == nil {
			return named(path, func() (cgo.VoiceArrays, error) { return readTriple(prefix) })
		}
	}
	return cgo.VoiceArrays{}, fmt.Errorf("voice %q: %w (looked for an %s file and for %s_%s.npy)",
		path, cgo.ErrNotFound, Suffix, path, members[0])
}

// named marks what a reader finds wrong as the caller's mistake, and says where.
func named(path string, read func() (cgo.VoiceArrays, error)) (cgo.VoiceArrays, error) {
	v, err := read()
	if err != nil {
		return cgo.VoiceArrays{}, fmt.Errorf("voice %q: %w: %w", path, cgo.ErrInvalidArgument, err)
	}
	return v, nil
}

func readFile(path string) (cgo.VoiceArrays, error) {
	f, err := os.Open(path)
	if err != nil {
		return cgo.VoiceArrays{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return cgo.VoiceArrays{}, err
	}
	return ReadNPZ(f, st.Size())
}

func readTriple(prefix string) (cgo.VoiceArrays, error) {
	var arrays [3]Array
	for i, name := range members {
		f, err := os.Open(prefix + name + ".npy")
		if err != nil {
			return cgo.VoiceArrays{}, err
		}
		arrays[i], err = ReadNPY(f)
		f.Close()
		if err != nil {
			return cgo.VoiceArrays{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	return Assemble(arrays)
}

// ReadNPZ reads a voice from a zip archive of size bytes, its members stored or deflated.
func ReadNPZ(r io.ReaderAt, size int64) (cgo.VoiceArrays, error) {
	if size > maxFileBytes {
		return cgo.VoiceArrays{}, fmt.Errorf("npz of %d bytes, limit %d", size, maxFileBytes)
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return cgo.VoiceArrays{}, fmt.Errorf("not an npz archive: %w", err)
	}
	var arrays [3]Array
	for i, name := range members {
		var found []*zip.File
		for _, f := range z.File {
			if f.Name == name+".npy" {
				found = append(found, f)
			}
		}
		if len(found) != 1 {
			return cgo.VoiceArrays{}, fmt.Errorf("the archive has %d arrays %q, want one", len(found), name)
		}
		if arrays[i], err = readMember(found[0]); err != nil {
			return cgo.VoiceArrays{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	return Assemble(arrays)
}

// ReadNote returns the comment of an archive of size bytes, "" for none, without reading its arrays.
func ReadNote(r io.ReaderAt, size int64) (string, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return "", fmt.Errorf("not an npz archive: %w", err)
	}
	return z.Comment, nil
}

func readMember(f *zip.File) (Array, error) {
	r, err := f.Open()
	if err != nil {
		return Array{}, err
	}
	defer r.Close()
	return ReadNPY(r) // reads to the end, where archive/zip compares the checksum
}

// Assemble makes a voice of its semantic, coarse and fine arrays, whose ranks must be 1, 2 and 2.
func Assemble(arrays [3]Array) (cgo.VoiceArrays, error) {
	for i, rank := range []int{1, 2, 2} {
		if a := arrays[i]; len(a.Shape) != rank || len(a.Values) == 0 {
			return cgo.VoiceArrays{}, fmt.Errorf("%s has shape %v, want %d dimensions and values",
				members[i], a.Shape, rank)
		}
	}
	return cgo.VoiceArrays{Semantic: arrays[0].Values, Coarse: rows(arrays[1]), Fine: rows(arrays[2])}, nil
}

func rows(a Array) [][]int32 {
	out := make([][]int32, a.Shape[0])
	for i := range out {
		out[i] = a.Values[i*a.Shape[1] : (i+1)*a.Shape[1]]
	}
	return out
}

// Write writes the voice as an .npz that NumPy, suno-ai/bark and transformers read: 64-bit integers, stored. The file
// appears complete or not at all.
func Write(path string, v cgo.VoiceArrays) error {
	var b bytes.Buffer
	if err := WriteNPZ(&b, v, ""); err != nil {
		return fmt.Errorf("write voice %q: %w", path, err)
	}
	err := atomicfile.Write(path, func(f *os.File) error {
		_, err := f.Write(b.Bytes())
		return err
	})
	if err != nil {
		return fmt.Errorf("write voice: %w", err)
	}
	return nil
}

// WriteNPZ writes the archive that Write puts in a file. note is the archive's comment, which readers of arrays skip;
// ReadNote returns it.
func WriteNPZ(w io.Writer, v cgo.VoiceArrays, note string) error {
	z := zip.NewWriter(w)
	if err := z.SetComment(note); err != nil {
		return err
	}
	for i, matrix := range [][][]int32{{v.Semantic}, v.Coarse, v.Fine} {
		data, err := encodeNPY(matrix, i == 0)
		if err != nil {
			return fmt.Errorf("%s: %w", members[i], err)
		}
		h := &zip.FileHeader{
			Name: members[i] + ".npy", Method: zip.Store, CRC32: crc32.ChecksumIEEE(data),
			CompressedSize64: uint64(len(data)), UncompressedSize64: uint64(len(data)),
			Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC), // the same voice gives the same bytes
		}
		f, err := z.CreateRaw(h) // raw: sizes in the local header, as NumPy writes it
		if err != nil {
			return err
		}
		if _, err := f.Write(data); err != nil {
			return err
		}
	}
	return z.Close()
}

func encodeNPY(matrix [][]int32, vector bool) ([]byte, error) {
	if len(matrix) == 0 || len(matrix[0]) == 0 {
		return nil, errors.New("the array is empty")
	}
	cols := len(matrix[0])
	shape := fmt.Sprintf("(%d, %d)", len(matrix), cols)
	if vector {
		shape = fmt.Sprintf("(%d,)", cols)
	}
	header := fmt.Sprintf("{'descr': '<i8', 'fortran_order': False, 'shape': %s, }", shape)
	pad := 64 - (10+len(header)+1)%64 // the data starts at a multiple of 64
	header += fmt.Sprintf("%*s\n", pad%64, "")
	out := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), byte(len(header)>>8))
	out = append(out, header...)
	for _, row := range matrix {
		if len(row) != cols {
			return nil, fmt.Errorf("rows of %d and %d values", cols, len(row))
		}
		for _, value := range row {
			out = binary.LittleEndian.AppendUint64(out, uint64(int64(value)))
		}
	}
	return out, nil
}
