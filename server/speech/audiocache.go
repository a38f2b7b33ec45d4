package speech

import (
	"container/list"
	"sync"
)

// AudioCache keeps finished audio by its content, the least recently used going first when it holds too many bytes. Its
// methods may be called from any goroutine.
type AudioCache struct {
	mu       sync.Mutex
	limit    int64
	stats    AudioStats
	order    *list.List // of *spoken, most recently used first
	contents map[Content]*list.Element
}

// AudioStats is what an audio cache holds and how requests with a seed fared.
type AudioStats struct {
	Entries             int
	Bytes, Limit        int64
	Hits, Joins, Misses uint64 // answered from it, by joining a request that ran, or by making the audio
	Evictions           uint64 // for room or memory, not by a clear
}

// spoken is finished audio.
type spoken struct {
	content Content
	parts   [][]float32 // as they were made: encoders may tell apart where they were cut
	result  Result
	bytes   int64
}

// NewAudioCache returns an empty cache of at most limit bytes; 0 keeps nothing.
func NewAudioCache(limit int64) *AudioCache {
	return &AudioCache{limit: limit, order: list.New(), contents: make(map[Content]*list.Element)}
}

// Stats returns what it holds.
func (c *AudioCache) Stats() AudioStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := c.stats
	stats.Entries, stats.Limit = c.order.Len(), c.limit
	return stats
}

// Clear drops everything and returns the bytes.
func (c *AudioCache) Clear() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	freed := c.stats.Bytes
	c.order.Init()
	clear(c.contents)
	c.stats.Bytes = 0
	return freed
}

// Free drops the oldest audio until need bytes are freed, and returns how many were.
func (c *AudioCache) Free(need int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.stats.Bytes
	c.shrinkLocked(max(before-need, 0))
	return before - c.stats.Bytes
}

func (c *AudioCache) shrinkLocked(to int64) {
	for c.stats.Bytes > to {
		c.dropLocked(c.order.Back())
		c.stats.Evictions++
	}
}

func (c *AudioCache) dropLocked(e *list.Element) {
	s := c.order.Remove(e).(*spoken)
	delete(c.contents, s.content)
	c.stats.Bytes -= s.bytes
}

// get returns the audio of a content, nil if it is not there, and counts a hit.
func (c *AudioCache) get(content Content) *spoken {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.contents[content]
	if e == nil {
		return nil
	}
	c.stats.Hits++
	c.order.MoveToFront(e)
	return e.Value.(*spoken)
}

// asked counts a request that was not a hit.
func (c *AudioCache) asked(joined bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if joined {
		c.stats.Joins++
	} else {
		c.stats.Misses++
	}
}

// put keeps audio, if it is not larger than all there is.
func (c *AudioCache) put(s *spoken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.bytes > c.limit {
		return
	}
	if e := c.contents[s.content]; e != nil {
		c.dropLocked(e)
	}
	c.shrinkLocked(c.limit - s.bytes)
	c.stats.Bytes += s.bytes
	c.contents[s.content] = c.order.PushFront(s)
}

// replay hands the audio to a sink.
func (s *spoken) replay(sink Sink) (Result, error) {
	if err := tell(sink.Start, s.result.Start); err != nil {
		return Result{}, err
	}
	for _, part := range s.parts {
		if err := tell(sink.Audio, part); err != nil {
			return Result{}, err
		}
	}
	return s.result, nil
}
