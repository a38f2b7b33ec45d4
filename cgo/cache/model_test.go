package cache

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// The model-based test: random steps drive an owner with a clock that is a number, and beside it goes a naive model
// that knows only what an observer sees: which effects were asked for, what was reported, who was answered. After
// every step the two are compared (model_check_test.go).
//
// CACHE_MODEL_STEPS is how many steps are made in all, a million when it is not set (fewer under the race detector);
// CACHE_MODEL_SEED starts the seeds, 1 when it is not set. A failure names its configuration and seed.
func TestOwnerAgreesWithTheModel(t *testing.T) {
	steps, seed := fromEnv("CACHE_MODEL_STEPS", modelSteps), fromEnv("CACHE_MODEL_SEED", 1)
	const round = 2_000 // steps between two shutdowns
	configs := append(modelConfigs(), placeConfigs()...)
	rounds := max(1, steps/round/len(configs))
	for _, config := range configs {
		t.Run(config.name, func(t *testing.T) {
			t.Parallel()
			for n := range rounds {
				m := newModel(t, config, uint64(seed+n))
				m.run(round)
			}
			t.Logf("%d steps, seeds %d to %d", rounds*round, seed, seed+rounds-1)
		})
	}
}

func fromEnv(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

type modelConfig struct {
	name    string
	opts    Options[int]
	sizes   map[string]Footprint
	places  map[string][]Footprint // in place of sizes
	budgets bool                   // they change
	loses   bool                   // pools are lost
}

func modelConfigs() []modelConfig {
	plain := map[string]Footprint{"a": own(4), "b": own(3), "c": own(5), "d": own(2), "e": own(9)}
	codec := map[string]Footprint{"a": with(own(4), "codec", 3), "b": with(own(2), "codec", 3), "c": own(5),
		"d": with(with(own(1), "codec", 3), "voices", 2), "e": with(own(3), "voices", 2)}
	spread := map[string]Footprint{"a": own(2, 5), "b": own(1, 0, 6), "c": with(own(3, 4), "codec", 0, 2),
		"d": with(own(1, 2), "codec", 0, 2), "e": own(6), "f": own(0, 3, 3)}
	sessions := map[string]Footprint{}
	for key, f := range codec {
		f.Session = In(0, 1)
		sessions[key] = f
	}
	cool, ttl := 4*time.Second, 10*time.Second
	return []modelConfig{
		{name: "count", opts: Options[int]{MaxEntries: 2}},
		{name: "count of one", opts: Options[int]{MaxEntries: 1, CoolDown: cool, Patience: 5 * time.Second}},
		{name: "bytes", opts: Options[int]{Pools: pool(10), CoolDown: cool, MaxCoolDown: 4 * cool}, sizes: plain},
		{name: "both", opts: Options[int]{Pools: pool(12), MaxEntries: 3, KeepAlive: ttl}, sizes: plain, budgets: true},
		{name: "components", opts: Options[int]{Pools: pool(11), KeepAlive: ttl}, sizes: codec, budgets: true},
		{name: "pools", opts: Options[int]{Pools: pool(9, 10, 8), MaxEntries: 4, Patience: 5 * time.Second}, sizes: spread, budgets: true},
		{name: "sessions", opts: Options[int]{Pools: pool(13), Patience: 5 * time.Second, CoolDown: cool}, sizes: sessions, budgets: true},
		{name: "no limit", opts: Options[int]{Pools: pool(0), KeepAlive: AtOnce}, sizes: codec},
	}
}

// A phase is the model's idea of where an instance is.
type phase int

const (
	asking phase = iota // its estimate runs
	queued
	loading
	resident
	freeing
	gone
)

// An inst is one instance as seen from outside.
type inst struct {
	e       *entry[int] // its name; the model reads nothing of it
	key     string
	phase   phase
	places  []Footprint // the estimate
	size    Footprint   // the estimate of where it is to be, then what it takes
	value   int
	waiters int
	nested  int
	leases  int
	session int // at work
	drain   bool
	retried bool
	frees   int
	use     int // of the last lease given or taken back
	keep    time.Duration
	rested  time.Time // when its last lease was given back
}

func (i *inst) takesRoom() bool {
	return i.phase == loading || i.phase == resident || i.phase == freeing
}
func (i *inst) isLoaded() bool { return i.phase == resident || i.phase == freeing }

// stopped says that nobody waits for its load.
func (i *inst) stopped() bool { return i.phase <= loading && i.waiters == 0 }

type hold struct {
	lease   Lease[int]
	inst    *inst
	session int
}

type wait struct {
	w     *waiter[int]
	inst  *inst
	outer []*hold
	keep  time.Duration
}

type grow struct {
	g    *growth[int]
	hold *hold
}

type model struct {
	*rig
	config  modelConfig
	seed    uint64
	step    int
	did     string
	random  *rand.Rand
	keys    []string
	insts   []*inst
	byEntry map[*entry[int]]*inst
	comps   map[string]Bytes // the size of each component that is held
	left    Bytes            // unreturned
	holds   []*hold
	stale   []Lease[int] // released
	waits   []*wait
	grows   []*grow
	pins    map[string]bool
	held    map[int]bool
	lost    map[int]bool
	cool    map[string]coolRef
	budgets []int64
	entries int
	closed  bool
	uses    int
	loads   int
	asked   uint64              // requests that are demand
	seen    uint64              // of the journal
	may     struct{ grow bool } // beyond a budget, in this step
	started []*inst
	before  Bytes
}

type coolRef struct {
	until time.Time
	delay time.Duration
}

func newModel(t *testing.T, config modelConfig, seed uint64) *model {
	config.opts.Journal = 64
	config.opts.Ghosts = 3
	m := &model{rig: newRig(t, config.opts, config.sizes), config: config, seed: seed, random: rand.New(rand.NewPCG(seed, 4)),
		byEntry: map[*entry[int]]*inst{}, comps: map[string]Bytes{}, pins: map[string]bool{}, held: map[int]bool{}, lost: map[int]bool{},
		cool: map[string]coolRef{}, entries: config.opts.MaxEntries, keys: []string{"a", "b", "c", "d", "e"}}
	if config.places != nil {
		m.keys = append(m.keys, "f")
	}
	for _, p := range config.opts.Pools {
		m.budgets = append(m.budgets, p.Budget)
	}
	return m
}

func (m *model) failf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s, seed %d, step %d, %s: %s\nstates %v\nmodel %s\njournal %+v", m.config.name, m.seed, m.step, m.did,
		fmt.Sprintf(format, args...), m.states(), m.describe(), m.o.journal.since(max(m.seen, 8)-8))
}

func (m *model) describe() string {
	out := ""
	for _, i := range m.insts {
		out += fmt.Sprintf("%s(phase %d, %d waiters, %d leases, drain %v, %v) ", i.key, i.phase, i.waiters, i.leases, i.drain, i.size.Own[:2])
	}
	return out
}

func (m *model) run(steps int) {
	end := steps - steps/20
	for m.step = range steps {
		m.started, m.may.grow = nil, false
		m.before = m.o.ledger.used()
		switch {
		case m.step >= end:
			m.wind(m.step == end)
		case m.step%500 == 499:
			m.calm()
		default:
			m.act()
		}
		m.observe()
		m.check()
	}
	m.calm()
	m.checkEnd()
}
