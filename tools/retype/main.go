// Retype writes a model file of f32 matrices again with matrices of another type, as `barkd convert --type` would make
// it from the checkpoint.
//
//	go run ./tools/retype [-type f16|bf16|i8|i4] -o OUT.gguf IN.gguf
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"barkd/server/models/atomicfile"
	"barkd/server/models/gguf"
	"barkd/server/models/schema"
)

func main() {
	out := flag.String("o", "", "the GGUF file to write")
	kind := flag.String("type", "f32", "of the matrices: f32, f16, bf16, i8 or i4")
	flag.Parse()
	types := map[string]schema.Type{"f32": schema.F32, "f16": schema.F16, "bf16": schema.BF16, "i8": schema.Q8, "i4": schema.Q4}
	matrices, known := types[*kind]
	if *out == "" || !known || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	err := atomicfile.Write(*out, func(f *os.File) error { return retype(f, flag.Arg(0), matrices) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "retype:", err)
		os.Exit(1)
	}
}

func retype(w io.Writer, path string, matrices schema.Type) (err error) {
	in, err := gguf.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	var declared []gguf.Tensor
	for _, t := range in.Tensors {
		if isMatrix(t) && t.Type != gguf.F32 {
			return fmt.Errorf("tensor %q of %q is %s: want a file of f32 matrices", t.Name, path, t.Type)
		}
		declared = append(declared, plain(t).Declare(matrices)...)
	}
	g, err := gguf.NewWriter(w, in.Metadata, declared)
	if err != nil {
		return err
	}
	for _, t := range in.Tensors {
		if isMatrix(t) {
			err = write(g, t, in.Data(t), matrices)
		} else if err = g.Next(t.Name); err == nil {
			_, err = io.Copy(g, in.Data(t))
		}
		if err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	return g.Close()
}

// isMatrix tells the tensors that native/DESIGN.md marks M.
func isMatrix(t gguf.Tensor) bool {
	stage, rest, _ := strings.Cut(t.Name, ".")
	return (stage == "semantic" || stage == "coarse" || stage == "fine") && len(t.Shape) == 2 && !strings.HasPrefix(rest, "wpe.")
}

func plain(t gguf.Tensor) schema.Tensor {
	return schema.Tensor{Name: t.Name, Shape: t.Shape, Matrix: isMatrix(t), Voice: t.Type == gguf.I32}
}

func write(g *gguf.Writer, t gguf.Tensor, data io.Reader, matrices schema.Type) error {
	enc, err := schema.NewEncoder(plain(t), matrices)
	if err != nil {
		return err
	}
	if err := g.Next(t.Name); err != nil {
		return err
	}
	row := make([]float32, t.Shape[1])
	for range t.Shape[0] {
		if err := binary.Read(data, binary.LittleEndian, row); err != nil {
			return err
		}
		b, err := enc.Row(row)
		if err != nil {
			return err
		}
		if _, err := g.Write(b); err != nil {
			return err
		}
	}
	if len(enc.Scales()) == 0 {
		return nil
	}
	if err := g.Next(schema.ScaleName(t.Name)); err != nil {
		return err
	}
	_, err = g.Write(enc.Scales())
	return err
}
