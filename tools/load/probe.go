package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"time"
)

const (
	probeEvery = 10 * time.Millisecond
	windowSize = 10 * time.Second
)

// sample is one look at /health.
type sample struct {
	At    time.Duration // since the first
	Took  time.Duration
	Fresh bool // on a connection of its own
}

// probe asks for /health at fixed times, in turn on a kept connection and on a new one as orchestrators do, until in
// ends; then it writes the samples. A look that is late because the one before it took so long is timed from when it
// was due: one slow answer must not hide those that it kept waiting.
func probe(url string, in io.Reader, out io.Writer) error {
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in) // an error ends it as well
		close(ended)
	}()
	kept := &http.Client{Transport: &http.Transport{}}
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	samples := []sample{}
	first := time.Now()
	var answered time.Duration // the look before, since first
	for n := 0; ; n++ {
		due := time.Duration(n) * probeEvery
		select {
		case <-ended:
			return json.NewEncoder(out).Encode(samples)
		case <-time.After(time.Until(first.Add(due))):
		}
		client := kept
		if n%2 == 1 {
			client = fresh
		}
		from := time.Since(first)
		if answered > due {
			from = due
		}
		if err := look(client, url+"/health"); err != nil {
			return err
		}
		answered = time.Since(first)
		samples = append(samples, sample{At: due, Took: answered - from, Fresh: n%2 == 1})
	}
}

func look(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/health says %d: %s", resp.StatusCode, body)
	}
	return nil
}

// prober is a process that probes: beside a thousand clients in this one, it would measure their turns.
type prober struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     io.Reader
}

func startProbe(url string) (*prober, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &prober{process: exec.Command(self, "-probe", url)}
	p.process.Stderr = os.Stderr
	if p.in, err = p.process.StdinPipe(); err != nil {
		return nil, err
	}
	if p.out, err = p.process.StdoutPipe(); err != nil {
		return nil, err
	}
	return p, p.process.Start()
}

func (p *prober) stop() ([]sample, error) {
	_ = p.in.Close() // it may have ended already; then Wait says why
	var samples []sample
	read := json.NewDecoder(bufio.NewReader(p.out)).Decode(&samples)
	if err := p.process.Wait(); err != nil {
		return nil, fmt.Errorf("the probe of /health failed: %w", err)
	}
	return samples, read
}

// reportHealth prints the percentiles and returns the 99th of the slowest window.
func reportHealth(w io.Writer, samples []sample) time.Duration {
	windows := make(map[time.Duration][]time.Duration)
	var all, fresh []time.Duration
	for _, s := range samples {
		window := s.At / windowSize
		windows[window] = append(windows[window], s.Took)
		all = append(all, s.Took)
		if s.Fresh {
			fresh = append(fresh, s.Took)
		}
	}
	var slowest time.Duration
	for _, in := range windows {
		slowest = max(slowest, percentile(in, 0.99))
	}
	fmt.Fprintf(w, "/health, %d times: median %v, 99th percentile %v (of those on a new connection %v, in the slowest %v %v), most %v\n",
		len(all), percentile(all, 0.5), percentile(all, 0.99), percentile(fresh, 0.99), windowSize, slowest, percentile(all, 1))
	return slowest
}

// percentile is the smallest value that a part of all does not exceed; 0 of none.
func percentile(of []time.Duration, part float64) time.Duration {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	at := int(part*float64(len(sorted))+0.999999) - 1
	return sorted[max(at, 0)].Round(10 * time.Microsecond)
}
