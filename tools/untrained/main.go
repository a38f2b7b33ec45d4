// Untrained writes a random model, the same for the same seed: a tiny one for tests, or one of bark-small's or bark's size.
//
//	go run ./tools/untrained -o FILE [-shape tiny|bark-small|bark] [-type f32|f16|bf16|i8]
package main

import (
	"flag"
	"fmt"
	"os"

	"barkd/server/models/gguf"
	"barkd/server/models/untrained"
)

func main() {
	out := flag.String("o", "", "the GGUF file to write")
	seed := flag.Uint64("seed", 1, "seed of the weights")
	shape := flag.String("shape", "tiny", "tiny (for tests), bark-small or bark (for benchmarks, 0.8 and 2.2 GB)")
	kind := flag.String("type", "f16", "of the matrices: f32, f16, bf16 or i8")
	flag.Parse()
	types := map[string]gguf.Type{"f32": gguf.F32, "f16": gguf.F16, "bf16": gguf.BF16, "i8": gguf.I8}
	configs := map[string]func() untrained.Config{
		"tiny": untrained.DefaultConfig, "bark-small": untrained.BarkSmallConfig, "bark": untrained.BarkConfig,
	}
	config := configs[*shape]
	matrices, known := types[*kind]
	if *out == "" || config == nil || !known || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	model := config()
	model.Type = matrices
	if err := write(*out, *seed, model); err != nil {
		fmt.Fprintln(os.Stderr, "untrained:", err)
		os.Exit(1)
	}
}

// write makes the file in one step, so that an interrupted run leaves no half model.
func write(path string, seed uint64, config untrained.Config) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	err = untrained.WriteConfig(f, seed, config)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
