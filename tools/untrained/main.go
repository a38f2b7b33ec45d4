// Untrained writes a random model, the same for the same seed: one for tests, or one of bark-small's or bark's size.
//
//	go run ./tools/untrained -o FILE [-shape small|tiny|bark-small|bark] [-type f32|f16|bf16|i8|i4]
package main

import (
	"flag"
	"fmt"
	"os"

	"barkd/server/models/schema"
	"barkd/server/models/untrained"
)

func main() {
	out := flag.String("o", "", "the GGUF file to write")
	seed := flag.Uint64("seed", 1, "seed of the weights")
	shape := flag.String("shape", "tiny", "small (for emulated GPUs), tiny (for tests), bark-small or bark (for benchmarks, 0.8 and 2.2 GB)")
	kind := flag.String("type", "f16", "of the matrices: f32, f16, bf16, i8 or i4")
	flag.Parse()
	types := map[string]schema.Type{"f32": schema.F32, "f16": schema.F16, "bf16": schema.BF16, "i8": schema.Q8, "i4": schema.Q4}
	configs := map[string]func() untrained.Config{
		"small": untrained.SmallConfig, "tiny": untrained.DefaultConfig, "bark-small": untrained.BarkSmallConfig, "bark": untrained.BarkConfig,
	}
	config := configs[*shape]
	matrices, known := types[*kind]
	if *out == "" || config == nil || !known || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	model := config()
	model.Type = matrices
	if err := untrained.WriteFile(*out, *seed, model); err != nil {
		fmt.Fprintln(os.Stderr, "untrained:", err)
		os.Exit(1)
	}
}
