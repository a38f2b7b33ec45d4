// Package cachebench times the cache's hot path beside two caches that hold values without leases: hashicorp's LRU
// under its lock, and ristretto, which drops some of the updates of its order to be faster.
package cachebench

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/dgraph-io/ristretto/v2"
	lru "github.com/hashicorp/golang-lru/v2"

	"barkd/cgo/cache"
)

var sizes = []int{1, 100_000}

func keys(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("suno/bark-%d", i)
	}
	return out
}

// use runs get on every key, on one goroutine and on at least 64.
func use(b *testing.B, known []string, get func(key string)) {
	runtime.GC()
	b.Run("goroutines=1", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			get(known[i*7919%len(known)])
		}
	})
	b.Run("goroutines=64", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				get(known[i*7919%len(known)])
			}
		})
	})
}

// BenchmarkAcquireRelease has all keys resident.
func BenchmarkAcquireRelease(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) { acquireRelease(b, n, n) })
	}
}

// BenchmarkAcquireReleaseAmongGhosts has three residents, and as many keys known as were asked for before.
func BenchmarkAcquireReleaseAmongGhosts(b *testing.B) { acquireRelease(b, 100_000, 3) }

func acquireRelease(b *testing.B, known, resident int) {
	c := cache.New(cache.Options[int]{
		MaxEntries: resident, Ghosts: known,
		Load: func(context.Context, string, int, func(int64, int64)) (int, error) { return 0, nil },
		Free: func(string, int) (func() cache.Bytes, error) { return nil, nil },
	})
	ctx := context.Background()
	get := func(key string) {
		lease, err := c.Acquire(ctx, key, cache.Ask{})
		if err != nil {
			b.Error(err)
			return
		}
		lease.Release()
	}
	all := keys(known)
	for _, key := range all {
		get(key)
	}
	use(b, all[known-resident:], get)
	if err := c.Close(ctx); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkHashicorpLRU(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			c, err := lru.New[string, int](n)
			if err != nil {
				b.Fatal(err)
			}
			for _, key := range keys(n) {
				c.Add(key, 0)
			}
			use(b, keys(n), func(key string) { c.Get(key) })
		})
	}
}

func BenchmarkRistretto(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			c, err := ristretto.NewCache(&ristretto.Config[string, int]{NumCounters: int64(10 * n), MaxCost: int64(n), BufferItems: 64})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			for _, key := range keys(n) {
				c.Set(key, 0, 1)
			}
			c.Wait()
			use(b, keys(n), func(key string) { c.Get(key) })
		})
	}
}
