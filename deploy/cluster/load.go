package cluster

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func splitAddress(address string) (host, port string, err error) {
	if host, port, err = net.SplitHostPort(address); err != nil {
		return "", "", fmt.Errorf("the address of a server: %w", err)
	}
	return host, port, nil
}

// Answer is how one request ended.
type Answer struct {
	Model  string
	Status int   // 0 if there was no whole answer
	Err    error // why
	Took   time.Duration
}

// Failed says whether the client has no speech.
func (a Answer) Failed() bool { return a.Err != nil || a.Status != http.StatusOK }

// Load is many clients that ask for speech, each the next time when it has its answer.
type Load struct {
	client  *http.Client
	stop    atomic.Bool
	clients sync.WaitGroup
	mu      sync.Mutex
	answers []Answer
}

// Begin starts the clients. order says what request number i is for; it must be safe for concurrent use.
func Begin(clients int, order func(i int) (url, body, model string)) *Load {
	l := &Load{client: NewClient()}
	var next atomic.Int64
	for range clients {
		l.clients.Go(func() {
			for !l.stop.Load() {
				url, body, model := order(int(next.Add(1)) - 1)
				answer := Ask(l.client, url, body, model)
				l.mu.Lock()
				l.answers = append(l.answers, answer)
				l.mu.Unlock()
			}
		})
	}
	return l
}

// Count is how many answers there are by now.
func (l *Load) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.answers)
}

// Await returns when there are n more answers than now.
func (l *Load) Await(n int) {
	for want := l.Count() + n; l.Count() < want; {
		time.Sleep(time.Millisecond)
	}
}

// End stops the clients, waits for their last answers and returns all.
func (l *Load) End() []Answer {
	l.stop.Store(true)
	l.clients.Wait()
	l.client.CloseIdleConnections()
	return l.answers
}

// NewClient returns a client that keeps its connections, as many as it needs.
func NewClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: 2 * time.Minute}
}

// Ask asks once for speech and reads the answer to its end.
func Ask(client *http.Client, url, body, model string) Answer {
	began := time.Now()
	a := Answer{Model: model}
	resp, err := client.Post(url+"/v1/audio/speech", "application/json", strings.NewReader(body))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close() // it is read
		if err == nil {
			a.Status = resp.StatusCode
		}
	}
	a.Err, a.Took = err, time.Since(began)
	return a
}

// Percentile returns the time within which the part p (0..1) of the answers came.
func Percentile(answers []Answer, p float64) time.Duration {
	if len(answers) == 0 {
		return 0
	}
	took := make([]time.Duration, len(answers))
	for i, a := range answers {
		took[i] = a.Took
	}
	slices.Sort(took)
	return took[min(len(took)-1, int(p*float64(len(took))))]
}
