package memwatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Reader reads the memory of one pool. *Source is one; a GPU of package nvml is another.
type Reader interface {
	Read() (Reading, error)
}

// Waker is a Reader that hears of pressure without being asked. Wake returns when ctx ends, or when there is nothing to
// wait for. It calls notify with the cause of every event, and missing with what cannot be waited for (any more).
type Waker interface {
	Wake(ctx context.Context, notify func(cause string), missing func(err error))
}

// Pool is what a Watcher watches.
type Pool struct {
	Name   string // "host", "cuda:0"
	Memory Reader // also a Waker where the system can tell of pressure by itself
	Marks  Marks
}

// Config says what to watch and whom to tell.
type Config struct {
	Pools    []Pool
	Interval time.Duration // pools are read this often when no event asks for it

	// OnEvent is told of every change of a level, and of a level above LevelNone again at each interval and, at most
	// once a second, with each event of the kernel: what did not free enough is tried again. Calls come one at a time
	// from one goroutine, each with a reading taken after the last call returned. ctx ends when the Watcher closes.
	// The kernel tells when pressure begins, not when it ends: a pool above LevelNone is read every second as well.
	OnEvent func(ctx context.Context, e Event)

	// OnTrouble is told once when a pool cannot be read any more, once with a nil error when it can be again, and once
	// with an error that is ErrIntervalOnly when a pool is without some events of the kernel. It must not wait for the
	// Watcher; calls may overlap. nil is nobody.
	OnTrouble func(pool string, err error)

	Clock func() time.Time                       // nil is time.Now
	After func(d time.Duration) <-chan time.Time // nil is time.After
}

// ErrIntervalOnly says that some events of a pool cannot be waited for, so that only the interval finds what they tell.
var ErrIntervalOnly = errors.New("some memory pressure is noticed at the interval only")

// Causes of an event beside the files of the kernel.
const (
	CauseStart    = "start"
	CauseInterval = "interval"
	CauseRecheck  = "recheck" // the reading between two intervals of a pool above LevelNone
)

// Event is what OnEvent is told.
type Event struct {
	Pool          string
	Before, After Level
	NeedBytes     int64 // to be freed for the level to fall to LevelNone; 0 also when only the stall mark holds it
	Reading       Reading
	Cause         string // CauseStart, CauseInterval, the kernel's file that told, or what Check was given
	At            time.Time
	Err           error // why the pool cannot be read: After is LevelNone and Reading is empty
}

// State is what a Watcher last saw of a pool.
type State struct {
	Pool      string
	Level     Level
	NeedBytes int64
	Reading   Reading
	At        time.Time // of the reading; zero before the first
	Err       error     // the last reading failed: the level is not known, and shown as LevelNone
}

const (
	readLimit    = 2 * time.Second        // a driver that hangs is a source that fails
	closeLimit   = time.Second            // how long Close waits
	wakeGap      = 100 * time.Millisecond // memory.events can change a hundred times a second
	redeliverGap = time.Second            // of an unchanged level, when the kernel reports again
	recheckGap   = time.Second            // between two readings of a pool above LevelNone
)

// Watcher watches the memory of pools.
type Watcher struct {
	config Config
	pools  []*watched
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	done   chan struct{} // closed when all tasks have ended
	woken  chan struct{} // holds one token while some pool has a cause

	mu sync.Mutex // guards state and cause of every pool
}

type watched struct {
	Pool
	state State  // guarded by Watcher.mu; written by the watcher's goroutine alone, which reads it without
	cause string // why the pool must be read at once, empty for not; the first of several; guarded by Watcher.mu

	// Of the watcher's goroutine alone:
	reading   chan result // of a reading that has not answered in time
	delivered time.Time
	owed      string // the cause of an event that came too soon after the last delivery; the next recheck delivers it
}

type result struct {
	reading Reading
	err     error
}

// Watch starts a Watcher; Close ends it. The error names everything that is wrong with c.
func Watch(c Config) (*Watcher, error) {
	if err := c.problems(); err != nil {
		return nil, fmt.Errorf("watch memory: %w", err)
	}
	if c.OnTrouble == nil {
		c.OnTrouble = func(string, error) {}
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.After == nil {
		c.After = time.After
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watcher{config: c, cancel: cancel, done: make(chan struct{}), woken: make(chan struct{}, 1)}
	for _, p := range c.Pools {
		w.pools = append(w.pools, &watched{Pool: p, state: State{Pool: p.Name}})
	}
	w.tasks.Go(func() { w.run(ctx) })
	for _, p := range w.pools {
		if waker, ok := p.Memory.(Waker); ok {
			w.tasks.Go(func() { w.listen(ctx, p, waker) })
		}
	}
	go func() { w.tasks.Wait(); close(w.done) }()
	return w, nil
}

func (c Config) problems() error {
	var all []error
	if c.Interval <= 0 {
		all = append(all, fmt.Errorf("an interval of %v", c.Interval))
	}
	if c.OnEvent == nil {
		all = append(all, errors.New("nobody to tell"))
	}
	for i, p := range c.Pools {
		if slices.ContainsFunc(c.Pools[:i], func(other Pool) bool { return other.Name == p.Name }) {
			all = append(all, fmt.Errorf("two pools %q", p.Name))
		}
		if p.Memory == nil {
			all = append(all, fmt.Errorf("pool %q has no source", p.Name))
		}
		if err := p.Marks.problems(); err != nil {
			all = append(all, fmt.Errorf("pool %q: %w", p.Name, err))
		}
	}
	return errors.Join(all...)
}

// Close ends the watch and waits for its goroutines. A source or a reaction that does not end within a second is left
// behind and named by the error; calling Close again waits for it again. OnEvent must not call Close.
func (w *Watcher) Close() error {
	w.cancel()
	select {
	case <-w.done:
		return nil
	case <-w.config.After(closeLimit):
		return fmt.Errorf("close memory watch: a source or a reaction has not ended after %v", closeLimit)
	}
}

// States returns what was last seen of each pool, in the order of Config.Pools.
func (w *Watcher) States() []State {
	w.mu.Lock()
	defer w.mu.Unlock()
	states := make([]State, len(w.pools))
	for i, p := range w.pools {
		states[i] = p.state
	}
	return states
}

// Level returns the level of a pool, LevelNone for one that is not watched.
func (w *Watcher) Level(pool string) Level {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pools {
		if p.Name == pool {
			return p.state.Level
		}
	}
	return LevelNone
}

// Check has every pool read soon, as an event of the kernel would. cause appears in the Event.
func (w *Watcher) Check(cause string) {
	for _, p := range w.pools {
		w.wake(p, cause)
	}
}

func (w *Watcher) wake(p *watched, cause string) {
	w.mu.Lock()
	if p.cause == "" {
		p.cause = cause
	}
	w.mu.Unlock()
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

func (w *Watcher) listen(ctx context.Context, p *watched, waker Waker) {
	waker.Wake(ctx,
		func(cause string) { w.wake(p, cause) },
		func(err error) { w.config.OnTrouble(p.Name, fmt.Errorf("%w: %w", ErrIntervalOnly, err)) })
}

func (w *Watcher) run(ctx context.Context) {
	for _, p := range w.pools {
		w.check(ctx, p, CauseStart)
	}
	tick := w.config.After(w.config.Interval)
	var recheck <-chan time.Time // nil while all pools are at LevelNone
	for {
		if recheck == nil && w.pressed() {
			recheck = w.config.After(recheckGap)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick:
			for _, p := range w.pools {
				w.check(ctx, p, CauseInterval)
			}
			tick = w.config.After(w.config.Interval)
		case <-recheck:
			recheck = nil
			for _, p := range w.pools {
				if p.state.Level > LevelNone {
					w.check(ctx, p, cmp.Or(p.owed, CauseRecheck))
				}
			}
		case <-w.woken:
			for _, p := range w.pools {
				if cause := w.takeCause(p); cause != "" {
					w.check(ctx, p, cause)
				}
			}
			select {
			case <-ctx.Done():
			case <-w.config.After(wakeGap):
			}
		}
	}
}

func (w *Watcher) pressed() bool {
	return slices.ContainsFunc(w.pools, func(p *watched) bool { return p.state.Level > LevelNone })
}

func (w *Watcher) takeCause(p *watched) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	cause := p.cause
	p.cause = ""
	return cause
}

// check reads one pool and tells what came of it.
func (w *Watcher) check(ctx context.Context, p *watched, cause string) {
	reading, err := w.read(ctx, p)
	if ctx.Err() != nil {
		return
	}
	e := Event{Pool: p.Name, Before: p.state.Level, Reading: reading, Cause: cause, At: w.config.Clock(), Err: err}
	failedBefore := p.state.Err != nil
	if err == nil {
		e.After = p.Marks.level(reading, e.Before)
		e.NeedBytes = p.Marks.need(reading, e.After)
	}
	w.mu.Lock()
	p.state = State{Pool: p.Name, Level: e.After, NeedBytes: e.NeedBytes, Reading: reading, At: e.At, Err: err}
	w.mu.Unlock()
	if failed := err != nil; failed != failedBefore {
		w.config.OnTrouble(p.Name, err)
	}
	again := false
	if e.After > LevelNone && cause != CauseRecheck {
		again = cause == CauseInterval || e.At.Sub(p.delivered) >= redeliverGap
		p.owed = cause // until delivered
	}
	if e.After != e.Before || again {
		p.owed = ""
		w.config.OnEvent(ctx, e)
		p.delivered = w.config.Clock()
	}
}

// read reads a pool, but waits for its source only so long: a hanging GPU driver must not hide the host's pressure.
func (w *Watcher) read(ctx context.Context, p *watched) (Reading, error) {
	if p.reading != nil {
		select {
		case <-p.reading: // an answer of long ago
			p.reading = nil
		default:
			return Reading{}, errors.New("read memory: the source still does not answer")
		}
	}
	answer := make(chan result, 1)
	w.tasks.Go(func() {
		r, err := p.Memory.Read()
		answer <- result{r, err}
	})
	select {
	case got := <-answer:
		if got.err != nil {
			return Reading{}, fmt.Errorf("read memory: %w", got.err)
		}
		return got.reading, nil
	case <-w.config.After(readLimit):
		p.reading = answer
		return Reading{}, fmt.Errorf("read memory: the source does not answer within %v", readLimit)
	case <-ctx.Done():
		return Reading{}, ctx.Err()
	}
}
