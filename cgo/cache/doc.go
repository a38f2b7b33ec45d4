// Package cache is the policy by which loaded models stay in memory: a map of values with leases, one load per key,
// a ledger of bytes for every memory pool, and eviction of the least recently used. It is pure Go and knows neither
// models nor devices; its clock and everything that takes time come from outside.
//
// # States of an instance
//
//	absent → reserving → loading → ready ⇄ leased → draining → freeing → absent
//
//	reserving  its size is asked for, or it waits for room
//	loading    its load runs; its reservation is in the ledger
//	ready      resident and idle: the only state that can be evicted
//	leased     resident and in use
//	draining   in use, takes no new lease, freed at the last release
//	freeing    its free runs; it still takes room
//
// A load that fails because its pool was lost goes back to reserving. A key whose load failed is remembered until it has cooled down; it has no instance.
//
// # Shape
//
// All state has one owner (type owner): plain data and methods that never wait, call out or start goroutines. What has
// to happen outside (an estimate, a load, a free) they append to a list of effects. Cache puts a mutex around the
// owner and runs the effects on goroutines of their own; each reports back by one more method of the owner. So the
// whole policy can be driven step by step, by a clock that is a number, which is how the model-based test, the
// replay of traces and the formal model (model/cache.pml) work.
//
// # Rules
//
//   - A value is used under a lease, and a leased value is never freed.
//   - One load per key at a time, whoever asks. A waiter's cancel affects nobody else; the last one's stops the load.
//   - Room is reserved before a load begins: booked + reserved + unreturned never exceeds a pool's budget, and the
//     number of instances never exceeds the limit. Corrections after a load (its true size) may; then idle values go.
//   - Who waits for room waits in order of arrival, in each pool. A lease on a resident value overtakes them, until
//     the first in line has waited for the patience: then a busy resident drains instead of taking new leases.
//   - Who holds leases while it waits (Lease.Context) is served before all others, or refused: nobody waits for himself.
//   - An estimate may name several places (Footprint.Home). Which one is decided when there is room, of the lowest rank
//     in which the value can be at all: where most room is left, else where what would be evicted was used longest ago,
//     else it waits, in the same place, for leases.
//   - A pool that is lost (Lose) takes nothing more. What lives there takes no new lease; who waits goes elsewhere.
//   - Every waiter is answered, by a lease or an error that says why.
//
// Reading order: entry.go, ledger.go, choose.go, owner.go, waiters.go, room.go, place.go, then cache.go.
package cache
