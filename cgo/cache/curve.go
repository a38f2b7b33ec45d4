package cache

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"
)

// demandHalfLife is how fast past requests lose their weight in Demand.
const demandHalfLife = 24 * time.Hour

// demand is a key's place in the curve, whether it is resident or a ghost.
type demand struct {
	key   string
	slot  int   // its last use in the order of time; 0 before the first
	bytes int64 // when it was last loaded; 0 when it never was
	score float64
	at    time.Time // of score
	link  link[demand]
}

// curve is the miss-ratio curve: how many of the requests so far a least-recently-used cache of each size would have
// served. It needs the stack distance of each request, the number (and bytes) of distinct keys used since the same
// key was last used (Mattson et al. 1970), which a Fenwick tree over the order of last uses gives in O(log n)
// (Bennett and Kruskal 1975). Keys beyond the capacity are forgotten, oldest first.
type curve struct {
	capacity int
	nodes    map[string]*demand
	recent   list[demand]
	slots    []*demand // slot → its key; nil where the key was used again since. Slot 0 is none
	next     int
	count    fenwick
	bytes    fenwick
	byCount  []uint64 // requests by distance in keys, 1 .. capacity
	byBytes  [64 * bucketsPerOctave]uint64
	requests uint64
}

const bucketsPerOctave = 8

func newCurve(capacity int) *curve {
	slots := 2*capacity + 2
	return &curve{
		capacity: capacity, nodes: make(map[string]*demand), next: 1, slots: make([]*demand, slots),
		recent: newList(func(d *demand) *link[demand] { return &d.link }),
		count:  make(fenwick, slots), bytes: make(fenwick, slots), byCount: make([]uint64, capacity+1),
	}
}

// touch books one request for a key. d is the key's node if the caller has it, else nil.
func (c *curve) touch(now time.Time, key string, d *demand) *demand {
	if known := d; known == nil {
		d = c.node(key)
	} else if !known.link.in { // forgotten while it was resident
		d = c.node(key)
		c.size(d, known.bytes)
	}
	c.requests++
	d.score = d.scoreAt(now) + 1
	d.at = now
	if d.slot != 0 && d.slot == c.next-1 { // used twice in a row
		c.byCount[1]++
		c.byBytes[bucket(d.bytes)]++
		return d
	}
	if d.slot != 0 {
		keys := 1 + c.count.after(d.slot, c.next)
		if keys <= int64(c.capacity) {
			c.byCount[keys]++
			c.byBytes[bucket(d.bytes+c.bytes.after(d.slot, c.next))]++
		}
		c.vacate(d)
	}
	if c.next == len(c.slots) {
		c.compact()
	}
	c.occupy(d)
	c.recent.remove(d)
	c.recent.push(d)
	return d
}

func (c *curve) node(key string) *demand {
	d := c.nodes[key]
	if d == nil {
		if len(c.nodes) == c.capacity {
			oldest := c.recent.first
			c.vacate(oldest)
			c.recent.remove(oldest)
			delete(c.nodes, oldest.key)
		}
		d = &demand{key: key}
		c.nodes[key] = d
		c.recent.push(d)
	}
	return d
}

// size tells the curve what a key takes.
func (c *curve) size(d *demand, bytes int64) {
	if d == nil || !d.link.in || d.bytes == bytes {
		return
	}
	if d.slot != 0 {
		c.bytes.add(d.slot, bytes-d.bytes)
	}
	d.bytes = bytes
}

func (c *curve) occupy(d *demand) {
	d.slot = c.next
	c.slots[d.slot] = d
	c.count.add(d.slot, 1)
	c.bytes.add(d.slot, d.bytes)
	c.next++
}

func (c *curve) vacate(d *demand) {
	if d.slot == 0 {
		return
	}
	c.count.add(d.slot, -1)
	c.bytes.add(d.slot, -d.bytes)
	c.slots[d.slot] = nil
	d.slot = 0
}

// compact renumbers the slots in use: each capacity requests at most once.
func (c *curve) compact() {
	used := c.next
	clear(c.count)
	clear(c.bytes)
	c.next = 1
	for i := 1; i < used; i++ {
		if d := c.slots[i]; d != nil {
			c.slots[i] = nil
			c.occupy(d) // at or before i
		}
	}
}

// Curve tells what hit rate a least-recently-used cache of other sizes would have had on the requests so far.
type Curve struct {
	Requests uint64
	ByModels []float64    // hit rate with 1, 2, 3 … values; the last is that of any more
	ByBytes  []BytesPoint // ascending; the hit rate grows at these sizes only
}

// BytesPoint is one point of a curve over bytes.
type BytesPoint struct {
	Bytes   int64
	HitRate float64
}

func (c *curve) snapshot() Curve {
	s := Curve{Requests: c.requests}
	if c.requests == 0 {
		return s
	}
	rate := func(hits uint64) float64 { return float64(hits) / float64(c.requests) }
	var hits uint64
	last := 0
	for n, at := range c.byCount {
		if at > 0 {
			last = n
		}
	}
	for n := 1; n <= last; n++ {
		hits += c.byCount[n]
		s.ByModels = append(s.ByModels, rate(hits))
	}
	hits = 0
	for i, at := range c.byBytes {
		if at > 0 {
			hits += at
			s.ByBytes = append(s.ByBytes, BytesPoint{Bytes: bucketTop(i), HitRate: rate(hits)})
		}
	}
	return s
}

// bucket numbers sizes, eight to the octave; bucketTop is the largest size of one.
func bucket(bytes int64) int {
	if bytes < bucketsPerOctave {
		return int(max(bytes, 0))
	}
	octave := bits.Len64(uint64(bytes)) - 1
	return octave*bucketsPerOctave + int(bytes>>(octave-3))&(bucketsPerOctave-1)
}

func bucketTop(i int) int64 {
	if i < bucketsPerOctave {
		return int64(i)
	}
	octave, part := i/bucketsPerOctave, i%bucketsPerOctave
	return int64(1)<<octave + (int64(part)+1)<<(octave-3) - 1
}

func (d *demand) scoreAt(now time.Time) float64 {
	if d.score == 0 {
		return 0
	}
	return d.score * math.Exp2(-float64(now.Sub(d.at))/float64(demandHalfLife))
}

// Demand is how much a key was asked for: requests, each halved every day.
type Demand struct {
	Key   string    `json:"key"`
	Score float64   `json:"score"`
	At    time.Time `json:"at"`
	Bytes int64     `json:"bytes"`
}

// demands lists what is known, most wanted first.
func (c *curve) demands(now time.Time) []Demand {
	var out []Demand
	for _, d := range c.nodes {
		if score := d.scoreAt(now); score > 0 {
			out = append(out, Demand{Key: d.key, Score: score, At: now, Bytes: d.bytes})
		}
	}
	sortDemand(out)
	return out
}

// sortDemand puts the most wanted first.
func sortDemand(list []Demand) {
	slices.SortFunc(list, func(a, b Demand) int {
		if order := cmp.Compare(b.Score, a.Score); order != 0 {
			return order
		}
		return cmp.Compare(a.Key, b.Key)
	})
}

// remember takes over the demand of an earlier life; the least wanted first, so that they are forgotten first.
func (c *curve) remember(list []Demand) {
	for i := len(list) - 1; i >= 0; i-- {
		d := c.node(list[i].Key)
		d.score, d.at = list[i].Score, list[i].At
		c.size(d, list[i].Bytes)
	}
}

// fenwick is a tree of partial sums over slots 1 .. len-1.
type fenwick []int64

func (f fenwick) add(i int, n int64) {
	for ; i < len(f); i += i & -i {
		f[i] += n
	}
}

func (f fenwick) upTo(i int) int64 {
	var sum int64
	for ; i > 0; i -= i & -i {
		sum += f[i]
	}
	return sum
}

// after sums the slots behind i, before next.
func (f fenwick) after(i, next int) int64 { return f.upTo(next-1) - f.upTo(i) }

// ValidDemand leaves out what no cache can have written: demand comes from a file.
func ValidDemand(list []Demand) []Demand {
	var out []Demand
	known := make(map[string]bool)
	for _, d := range list {
		if d.Key != "" && !known[d.Key] && d.Score > 0 && d.Score < 1e15 && d.Bytes >= 0 && d.Bytes < 1<<50 {
			known[d.Key] = true
			out = append(out, d)
		}
	}
	sortDemand(out)
	return out
}
