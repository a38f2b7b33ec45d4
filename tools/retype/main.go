// Retype writes a model file of f32 matrices again with matrices of another type, as `barkd convert --type` would make
// it from the checkpoint.
//
//	go run ./tools/retype [-type f16|bf16|i8] [-groups N] -o OUT.gguf IN.gguf
//
// With -groups the matrices of the two decode stages are first rounded to 4 bits in groups of N: what that would cost
// in quality can then be measured before any kernel exists.
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/x448/float16"

	"barkd/server/models/atomicfile"
	"barkd/server/models/gguf"
	"barkd/server/models/schema"
)

func main() {
	out := flag.String("o", "", "the GGUF file to write")
	kind := flag.String("type", "f32", "of the matrices: f32, f16, bf16 or i8")
	groups := flag.Int("groups", 0, "round the semantic and coarse matrices to 4 bits in groups of this many numbers; 0 is off")
	flag.Parse()
	types := map[string]gguf.Type{"f32": gguf.F32, "f16": gguf.F16, "bf16": gguf.BF16, "i8": gguf.I8}
	matrices, known := types[*kind]
	if *out == "" || !known || *groups < 0 || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	err := atomicfile.Write(*out, func(f *os.File) error { return retype(f, flag.Arg(0), matrices, *groups) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "retype:", err)
		os.Exit(1)
	}
}

func retype(w io.Writer, path string, matrices gguf.Type, groups int) (err error) {
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
		plain := schema.Tensor{Name: t.Name, Shape: t.Shape, Matrix: isMatrix(t), Voice: t.Type == gguf.I32}
		declared = append(declared, plain.Declare(matrices)...)
	}
	g, err := gguf.NewWriter(w, in.Metadata, declared)
	if err != nil {
		return err
	}
	for _, t := range in.Tensors {
		if isMatrix(t) {
			n := 0
			if !strings.HasPrefix(t.Name, "fine.") && !strings.Contains(t.Name, ".wte.") {
				n = groups
			}
			err = write(g, t, in.Data(t), matrices, n)
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

func write(g *gguf.Writer, t gguf.Tensor, data io.Reader, matrices gguf.Type, groups int) error {
	enc, err := schema.NewEncoder(matrices, t.Name)
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
		for rest := row; groups > 0 && len(rest) > 0; rest = rest[min(groups, len(rest)):] {
			roundToFourBits(rest[:min(groups, len(rest))])
		}
		b, err := enc.Row(row)
		if err != nil {
			return err
		}
		if _, err := g.Write(b); err != nil {
			return err
		}
	}
	if matrices != gguf.I8 {
		return nil
	}
	if err := g.Next(schema.ScaleName(t.Name)); err != nil {
		return err
	}
	_, err = g.Write(enc.Scales())
	return err
}

// roundToFourBits leaves q·d: q from −8 to 7, and of scales d in half precision around the one that puts the largest number
// at −8, the one with the least squared error.
func roundToFourBits(v []float32) {
	peak := float32(0)
	for _, x := range v {
		if math.Abs(float64(x)) > math.Abs(float64(peak)) {
			peak = x
		}
	}
	best, least := 0.0, math.Inf(1)
	for levels := float32(-9.6); levels <= -6.4; levels += 0.1 {
		d := float64(float16.Fromfloat32(peak / levels).Float32())
		if d == 0 {
			break // zeros, or too small for any scale
		}
		sum := 0.0
		for _, x := range v {
			e := float64(x) - d*fourBits(float64(x)/d)
			sum += e * e
		}
		if sum < least {
			best, least = d, sum
		}
	}
	for i, x := range v {
		v[i] = 0
		if best != 0 {
			v[i] = float32(best * fourBits(float64(x)/best))
		}
	}
}

func fourBits(q float64) float64 { return max(-8, min(7, math.RoundToEven(q))) }
