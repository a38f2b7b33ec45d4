package api

import (
	"crypto/sha256"
	"time"
)

// Rules say who may ask, and how much. They may change while the server runs: see SetRules.
type Rules struct {
	// Keys are what clients must show; without any the server is open to everybody.
	Keys []Key
	// Admin is the key of /cache/*. Without one these routes ask for any of the Keys.
	Admin *Digest
	// Open is what all clients together may take while there are no Keys.
	Open Allowance
	// Timeout bounds the time until an answer begins; a request may ask for less. 0 is no bound.
	Timeout time.Duration
	// MaxInputChars is the most characters of a text.
	MaxInputChars int
	// QueueLimit is the most requests that may wait, for the weight that the agent's port tells.
	QueueLimit int
}

// Key is an API key and what its bearers may do.
type Key struct {
	Name      string // for the log
	Digest    Digest
	Priority  int // in the queue: higher goes first
	Allowance Allowance
}

// Digest is the SHA-256 of a key; the key itself is not kept.
type Digest [sha256.Size]byte

// DigestOf returns the digest of a key.
func DigestOf(key string) Digest { return sha256.Sum256([]byte(key)) }

// Allowance is what the bearers of a key may take together; 0 is no limit.
type Allowance struct {
	RequestsPerMinute   int
	CharactersPerMinute int // of texts
	Concurrent          int // requests at one time, waiting ones included
}

// door is the rules in force, with what each key has used.
type door struct {
	rules Rules
	open  *bearer
	keys  []*bearer
}

// bearer is who shows one key, or none where none is asked for.
type bearer struct {
	Key
	account *account
}

// SetRules puts new rules in force for the requests that come from now on. Keys that were there before keep what they
// have used.
func (s *Server) SetRules(rules Rules) {
	s.changing.Lock()
	defer s.changing.Unlock()
	accounts := make(map[Digest]*account)
	d := &door{rules: rules, open: &bearer{Key: Key{Allowance: rules.Open}, account: newAccount()}}
	if old := s.door.Load(); old != nil {
		d.open.account = old.open.account
		for _, b := range old.keys {
			accounts[b.Digest] = b.account
		}
	}
	d.open.account.allow(rules.Open)
	for _, key := range rules.Keys {
		b := &bearer{Key: key, account: accounts[key.Digest]}
		if b.account == nil {
			b.account = newAccount()
		}
		b.account.allow(key.Allowance)
		d.keys = append(d.keys, b)
	}
	s.door.Store(d)
}
