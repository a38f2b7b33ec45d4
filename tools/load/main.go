// Command load holds many connections against a `barkd serve` of its own, each sending its next request as soon as the
// last is answered, and ends the server with SIGTERM while they do. It fails when an answer is neither what was asked
// for nor a refusal that says when to come back, when a request is lost, and when /health gets slow.
//
//	go run ./tools/load -connections 1000 -for 60s
//
// Settings of the server come from the environment; by default it runs the simulated runtime.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.program, "barkd", "bin/barkd", "the server's program")
	flag.IntVar(&o.connections, "connections", 1000, "how many are open at once")
	flag.DurationVar(&o.length, "for", time.Minute, "how long before SIGTERM")
	flag.DurationVar(&o.healthP99, "health-p99", 50*time.Millisecond, "fail when the 99th percentile of /health is above this in any 10 s; 0 only shows it")
	probed := flag.String("probe", "", "measure /health of this address until standard input ends; used by load itself")
	flag.Parse()
	run := func() error { return load(o) }
	if *probed != "" {
		run = func() error { return probe(*probed, os.Stdin, os.Stdout) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

type options struct {
	program     string
	connections int
	length      time.Duration
	healthP99   time.Duration
}

func load(o options) error {
	server, err := startServer(o.program)
	if err != nil {
		return err
	}
	defer server.kill()
	health, err := startProbe(server.url)
	if err != nil {
		return err
	}
	crowd := newCrowd(server.address, o.connections)
	crowd.start()
	time.Sleep(o.length)
	samples, err := health.stop()
	if err != nil {
		return err
	}
	crowd.leaving.Store(true)
	asked := time.Now()
	server.terminate()
	crowd.wait() // each ends when the server takes no more connections
	code, err := server.wait()
	if err != nil {
		return err
	}
	fmt.Printf("%d connections for %v, then SIGTERM; the server ended with code %d in %.1f s, at most %d MB\n",
		o.connections, o.length, code, time.Since(asked).Seconds(), server.peakMB())
	crowd.report(os.Stdout, o.length)
	slowest := reportHealth(os.Stdout, samples)
	return verdict(crowd, server, code, slowest, o.healthP99)
}

// verdict names everything that went wrong.
func verdict(crowd *crowd, server *server, code int, slowest, most time.Duration) error {
	wrong := slices.Clone(crowd.wrong)
	for _, id := range crowd.unanswered {
		if line := server.logged(id); line != "" {
			wrong = append(wrong, "the server took this request, but its answer never came: "+line)
		}
	}
	for _, line := range server.errors() {
		wrong = append(wrong, "the server logs an error: "+line)
	}
	if code != 0 {
		wrong = append(wrong, fmt.Sprintf("the server ended with code %d", code))
	}
	if crowd.spoken == 0 {
		wrong = append(wrong, "no request was served")
	}
	if most > 0 && slowest > most {
		wrong = append(wrong, fmt.Sprintf("the 99th percentile of /health is %v in the slowest 10 s; at most %v is wanted", slowest, most))
	}
	if len(wrong) == 0 {
		return nil
	}
	if more := len(wrong) - 20; more > 0 {
		wrong = append(wrong[:20], fmt.Sprintf("and %d more", more))
	}
	return errors.New("it went wrong:\n  " + strings.Join(wrong, "\n  "))
}

// startPatience bounds how long the server may take until it listens, and its shutdown.
const startPatience = time.Minute

func patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), startPatience)
}
