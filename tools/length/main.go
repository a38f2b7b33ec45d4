// Length speaks texts of growing length with the embedded model through a server of its own, and says how long each took
// and how much memory the server had at most meanwhile.
//
//	go run ./tools/length [-server bin/barkd] [-json FILE] [sentences ...]
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sentences are said in turn.
var sentences = []string{
	"The train leaves at nine, so we have to be quick.",
	"It was a bright cold day in April, and the clocks were striking.",
	"She opened the window and listened to the rain.",
	"A journey of a thousand miles begins with a single step.",
}

// result is one line of the JSON.
type result struct {
	Sentences  int     `json:"sentences"`
	Characters int     `json:"characters"`
	AudioS     float64 `json:"audio_s"`
	Seconds    float64 `json:"seconds"`
	FirstS     float64 `json:"first_audio_s"`
	PeakBytes  int64   `json:"peak_bytes"`
}

func main() {
	server := flag.String("server", "bin/barkd", "the program to start")
	out := flag.String("json", "", "file to write, one object per text")
	flag.Parse()
	counts := []int{1, 8, 32, 64, 256}
	if flag.NArg() > 0 {
		counts = counts[:0]
		for _, arg := range flag.Args() {
			n, err := strconv.Atoi(arg)
			if err != nil || n < 1 {
				fmt.Fprintf(os.Stderr, "length: %q is not a number of sentences\n", arg)
				os.Exit(2)
			}
			counts = append(counts, n)
		}
	}
	if err := run(*server, *out, counts); err != nil {
		fmt.Fprintln(os.Stderr, "length:", err)
		os.Exit(1)
	}
}

func run(server, out string, counts []int) (err error) {
	address, stop, pid, err := start(server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if _, err := speak(address, pid, 1); err != nil { // the model is loaded, its memory touched
		return err
	}
	var lines bytes.Buffer
	fmt.Println("sentences  characters     audio      time  real-time factor  first audio  most memory")
	for _, n := range counts {
		r, err := speak(address, pid, n)
		if err != nil {
			return fmt.Errorf("%d sentences: %w", n, err)
		}
		fmt.Printf("%9d %11d %7.1f s %7.2f s %17.3f %10.2f s %9.1f MB\n",
			r.Sentences, r.Characters, r.AudioS, r.Seconds, r.Seconds/r.AudioS, r.FirstS, float64(r.PeakBytes)/1e6)
		if err := json.NewEncoder(&lines).Encode(r); err != nil {
			return err
		}
	}
	if out == "" {
		return nil
	}
	return os.WriteFile(out, lines.Bytes(), 0o644)
}

// start runs a server on a free port until it answers; stop ends it.
func start(server string) (address string, stop func() error, pid int, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, 0, err
	}
	address = l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	if err := l.Close(); err != nil {
		return "", nil, 0, err
	}
	cmd := exec.Command(server, "serve", "--host", "127.0.0.1", "--port", port, "--log-level", "warn", "--cache-warmup-enabled=false")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", nil, 0, err
	}
	stop = func() error { return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()) }
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		answer, err := http.Get("http://" + address + "/livez")
		if err == nil {
			answer.Body.Close()
			return address, stop, cmd.Process.Pid, nil
		}
		if time.Now().After(deadline) {
			return "", nil, 0, errors.Join(fmt.Errorf("the server does not answer: %w", err), stop())
		}
	}
}

// speak streams one text as 16-bit samples and throws them away.
func speak(address string, pid, n int) (result, error) {
	var text []string
	for i := range n {
		text = append(text, sentences[i%len(sentences)])
	}
	r := result{Sentences: n, Characters: len(strings.Join(text, " "))}
	body, err := json.Marshal(map[string]any{
		"model": "barkd/tiny", "input": strings.Join(text, " "), "seed": 1, "response_format": "pcm", "stream_format": "audio",
	})
	if err != nil {
		return r, err
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return r, fmt.Errorf("reset the peak memory: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/v1/audio/speech", bytes.NewReader(body))
	if err != nil {
		return r, err
	}
	req.Header.Set("Content-Type", "application/json")
	start := time.Now()
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return r, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<12))
		return r, fmt.Errorf("%s: %s", answer.Status, said)
	}
	stream := bufio.NewReader(answer.Body)
	if _, err := stream.Peek(1); err != nil {
		return r, err
	}
	r.FirstS = time.Since(start).Seconds()
	size, err := io.Copy(io.Discard, stream)
	if err != nil {
		return r, err
	}
	r.Seconds, r.AudioS = time.Since(start).Seconds(), float64(size)/2/24000
	r.PeakBytes, err = peak(pid)
	return r, err
}

// peak is what the process has had in memory at most since the last reset.
func peak(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(status), "VmHWM:")
	if fields := strings.Fields(rest); found && len(fields) > 0 {
		kilobytes, err := strconv.ParseInt(fields[0], 10, 64)
		return kilobytes << 10, err
	}
	return 0, errors.New("/proc does not say VmHWM")
}
