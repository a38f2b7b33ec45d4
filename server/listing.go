package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"text/tabwriter"

	"github.com/rs/zerolog"

	"barkd/server/models"
)

// open checks the flags and opens what they name.
func (f runtimeFlags) open(io stdio) (*backend, error) {
	b, _, err := f.openRuntime(io)
	return b, err
}

// openRuntime also returns the number of threads.
func (f runtimeFlags) openRuntime(io stdio) (*backend, int, error) {
	var s settings
	cfg := f.read(&s)
	if err := s.err(); err != nil {
		return nil, 0, err
	}
	b, err := openBackend(cfg, newLog(io.err, from(zerolog.WarnLevel), "console"))
	return b, cfg.threads, err
}

// modelsCommand is `barkd models`.
type modelsCommand struct{ runtimeFlags }

// Run lists the models; those whose file cannot be read are named on stderr.
func (c *modelsCommand) Run(ctx context.Context, io stdio) error {
	b, err := c.open(io)
	if err != nil {
		return err
	}
	all, err := b.catalogue.List(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSIZE\tVOICES\tNOTE")
	for _, m := range all {
		note := ""
		if !m.Trained {
			note = "untrained: it makes noise"
		}
		if m.ID == models.DefaultID {
			note = joined("embedded", note)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", m.ID, megabytes(m.Bytes), len(m.Voices), note)
	}
	return w.Flush()
}

func joined(a, b string) string {
	if b == "" {
		return a
	}
	return a + ", " + b
}

// devicesCommand is `barkd devices`.
type devicesCommand struct{ runtimeFlags }

// Run lists the devices.
func (c *devicesCommand) Run(io stdio) error {
	b, err := c.open(io)
	if err != nil {
		return err
	}
	all, err := b.runtime.Devices()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tCORES\tFREE\tTOTAL\tPATH")
	for i, d := range all {
		detail := d.Detail
		free, err := b.runtime.Probe(i)
		if err != nil {
			detail = "cannot be used: " + err.Error()
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", d.ID, d.Name, d.Cores, megabytes(free), megabytes(d.TotalBytes), detail)
	}
	return w.Flush()
}

// versionCommand is `barkd version`.
type versionCommand struct{}

// Run shows the version, and the commit the program was built from if Go noted it.
func (versionCommand) Run(io stdio) error {
	commit := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = " " + s.Value[:min(len(s.Value), 12)]
			}
		}
	}
	_, err := fmt.Fprintf(io.out, "barkd %s%s %s %s/%s\n", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
