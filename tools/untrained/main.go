// Untrained writes the embedded default model: small, random, the same for the same seed.
//
//	go run ./tools/untrained -o FILE
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
	flag.Parse()
	if *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(*out, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "untrained:", err)
		os.Exit(1)
	}
}

// write makes the file in one step, so that an interrupted run leaves no half model for the build to embed.
func write(path string, seed uint64) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	err = untrained.Write(f, seed)
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
