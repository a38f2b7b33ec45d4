// Untrained writes a random model, the same for the same seed: the embedded default, or one of bark-small's size.
//
//	go run ./tools/untrained -o FILE [-shape tiny|bark-small]
package main

import (
	"flag"
	"fmt"
	"os"

	"barkd/server/models/untrained"
)

func main() {
	out := flag.String("o", "", "the GGUF file to write")
	seed := flag.Uint64("seed", 1, "seed of the weights")
	shape := flag.String("shape", "tiny", "tiny (the embedded default) or bark-small (for benchmarks, 0.8 GB)")
	flag.Parse()
	configs := map[string]func() untrained.Config{"tiny": untrained.DefaultConfig, "bark-small": untrained.BarkSmallConfig}
	config := configs[*shape]
	if *out == "" || config == nil || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(*out, *seed, config()); err != nil {
		fmt.Fprintln(os.Stderr, "untrained:", err)
		os.Exit(1)
	}
}

// write makes the file in one step, so that an interrupted run leaves no half model for the build to embed.
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
