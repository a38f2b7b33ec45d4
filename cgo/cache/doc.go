// Package cache keeps loaded values under a limit: leases, one load per key, least recently used first out.
//
// It is pure Go and knows nothing of models. One mutex owns all state and nothing slow runs under it: loads and
// frees run on goroutines of the cache and report back. An entry goes through
//
//	absent → reserving → loading → ready ⇄ leased → draining → freeing → absent
//
// Reserving waits for room, in order of arrival. Every entry from loading to freeing takes room, so a limit
// holds even while a victim is being freed. A failed load is told to all who waited and leaves nothing behind.
package cache
