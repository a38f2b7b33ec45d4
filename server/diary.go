package main

import (
	"sync"

	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/cgo/cache"
)

// diary logs the decisions of the cache. It hears of them as any listener does, so that a log that is slow to write
// never holds up the cache: what it misses it says.
type diary struct {
	listener *cache.Listener
	log      zerolog.Logger
	writing  sync.WaitGroup
	last     uint64
}

func keepDiary(pool *cgo.Pool, log zerolog.Logger) *diary {
	listener, _ := pool.Listen(0)
	d := &diary{listener: listener, log: log}
	d.writing.Go(func() {
		for e := range listener.Events() {
			if missed := e.Seq - d.last - 1; missed > 0 {
				log.Warn().Uint64("events", missed).Msg("the log was too slow for decisions of the cache; /cache/events may still have them")
			}
			d.last = e.Seq
			d.write(e)
		}
	})
	return d
}

// close writes what is left.
func (d *diary) close() {
	d.listener.Close()
	d.writing.Wait()
}

func (d *diary) write(e cache.Event) {
	switch e.Kind {
	case cache.EventLoaded:
		d.log.Info().Str("model", e.Key).Dur("took_ms", e.Took).Int64("bytes", e.Bytes).Msg("model loaded")
	case cache.EventFailed:
		level := zerolog.ErrorLevel
		if e.Took == 0 { // it may be tried again at once: there is no such model, and its request's line says so
			level = zerolog.DebugLevel
		}
		d.log.WithLevel(level).Str("model", e.Key).Str("error", e.Error).Dur("rests_ms", e.Took).Msg("model not loaded")
	case cache.EventEvicted:
		line := d.log.Info().Str("model", e.Key).Str("reason", string(e.Reason)).Int64("bytes", e.Bytes)
		if e.For != "" {
			line = line.Str("for", e.For).Str("runner_up", e.RunnerUp)
		}
		line.Msg("model evicted")
	case cache.EventFreed:
		d.log.Info().Str("model", e.Key).Str("reason", string(e.Reason)).Int64("bytes", e.Bytes).Msg("model freed")
	case cache.EventUnreturned:
		d.log.Error().Str("model", e.Key).Int64("bytes", e.Bytes).
			Msg("a freed model still holds memory; it stays in the books until it comes back")
	}
}
