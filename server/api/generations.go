package api

import (
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"barkd/cgo"
)

// generationAge is how long a generation can be kept as a voice.
const generationAge = time.Hour

// generation is the speech of one request: what it takes to speak on with its voice.
type generation struct {
	model  string
	tokens cgo.VoiceArrays
	made   time.Time
	bytes  int64
}

// generations holds the tokens of recent speech, about 50 kB each, so that a listener who likes a voice can keep it:
// nobody knows before the audio is heard. Bounded in bytes and age; the oldest go first.
type generations struct {
	limit int64

	mu    sync.Mutex // guards all below
	held  *simplelru.LRU[string, generation]
	bytes int64
}

func newGenerations(limit int64) *generations {
	g := &generations{limit: limit}
	const uncounted = 1 << 30                                                                          // the bytes are the bound
	g.held, _ = simplelru.NewLRU(uncounted, func(_ string, gone generation) { g.bytes -= gone.bytes }) // it fails at sizes below 1
	return g
}

// newID draws an id that nobody guesses, for a request about to be spoken; "" if none are held.
func (g *generations) newID() string {
	if g.limit <= 0 {
		return ""
	}
	return uuid.NewString()
}

func (g *generations) add(id string, made generation) {
	made.made = time.Now()
	const word = 4
	made.bytes = word * int64(len(made.tokens.Semantic))
	for _, rows := range [][][]int32{made.tokens.Coarse, made.tokens.Fine} {
		for _, row := range rows {
			made.bytes += word * int64(len(row))
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held.Add(id, made)
	g.bytes += made.bytes
	for g.bytes > g.limit {
		g.held.RemoveOldest()
	}
	g.forgetLocked()
}

// find returns a generation that is still held. Looking does not make it younger.
func (g *generations) find(id string) (generation, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked()
	return g.held.Peek(id)
}

func (g *generations) forgetLocked() {
	for {
		_, oldest, ok := g.held.GetOldest()
		if !ok || time.Since(oldest.made) < generationAge {
			return
		}
		g.held.RemoveOldest()
	}
}
