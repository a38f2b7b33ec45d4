// Retype writes a model file of f32 or 8-bit matrices again with matrices of another type, as `barkd convert --type` would
// make it from a checkpoint of those numbers.
//
//	go run ./tools/retype [-type f16|bf16|i8|i4] -o OUT.gguf IN.gguf
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

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
	var sources []source
	var declared []gguf.Tensor
	for _, t := range in.Tensors {
		if isScale(in, t) {
			continue
		}
		s, err := open(in, t)
		if err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		sources = append(sources, s)
		declared = append(declared, s.tensor.Declare(matrices)...)
	}
	g, err := gguf.NewWriter(w, in.Metadata, declared)
	if err != nil {
		return err
	}
	for _, s := range sources {
		if s.tensor.Matrix {
			err = write(g, s, matrices)
		} else if err = g.Next(s.tensor.Name); err == nil {
			_, err = io.Copy(g, s.data)
		}
		if err != nil {
			return fmt.Errorf("tensor %q: %w", s.tensor.Name, err)
		}
	}
	return g.Close()
}

func write(g *gguf.Writer, s source, matrices schema.Type) error {
	enc, err := schema.NewEncoder(s.tensor, matrices)
	if err != nil {
		return err
	}
	if err := g.Next(s.tensor.Name); err != nil {
		return err
	}
	row := make([]float32, s.tensor.Shape[1])
	for range s.tensor.Shape[0] {
		if err := s.next(row); err != nil {
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
	if err := g.Next(schema.ScaleName(s.tensor.Name)); err != nil {
		return err
	}
	_, err = g.Write(enc.Scales())
	return err
}
