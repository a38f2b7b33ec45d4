package api

import (
	"time"

	"github.com/gofiber/fiber/v2"

	"barkd/cgo/cache"
	"barkd/cgo/memwatch"
)

const (
	mebi = 1 << 20
	gibi = 1 << 30
)

// Machine tells the memory of the machine and how short each pool is.
type Machine interface {
	// Memory returns the host's bytes in use and in total; zeros when they cannot be read.
	Memory() (used, total int64)
	// ThresholdGB is the use above which memory is given back.
	ThresholdGB() float64
	Level(device int) memwatch.Level
	Cleanups() uint64
}

// cacheStats is the body of GET /cache/stats. The keys up to system_memory_percent are a contract with users of older
// servers; the others are ours.
type cacheStats struct {
	CachedModels        []string `json:"cached_models"` // least recently used first
	CacheSize           int      `json:"cache_size"`
	MaxCacheSize        int      `json:"max_cache_size"`
	CacheMemoryMB       float64  `json:"cache_memory_mb"`
	SystemMemoryGB      float64  `json:"system_memory_gb"` // in use
	MemoryThresholdGB   float64  `json:"memory_threshold_gb"`
	Hits                uint64   `json:"hits"`
	Misses              uint64   `json:"misses"`
	HitRate             float64  `json:"hit_rate"` // 0..1
	Evictions           uint64   `json:"evictions"`
	MemoryCleanups      uint64   `json:"memory_cleanups"`
	TotalLoads          uint64   `json:"total_loads"`
	SystemMemoryTotalGB float64  `json:"system_memory_total_gb"`
	SystemMemoryPercent float64  `json:"system_memory_percent"` // in use

	MockMode          bool              `json:"mock_mode"`
	Joins             uint64            `json:"joins"` // misses that joined a load or its queue
	LoadFailures      uint64            `json:"load_failures"`
	Refusals          uint64            `json:"refusals"`
	Yields            uint64            `json:"yields"` // busy models that drain because another waits too long
	EvictionsByReason map[string]uint64 `json:"evictions_by_reason"`
	Entries           []cacheEntry      `json:"entries"`
	Pools             []poolState       `json:"pools"`
	Components        []component       `json:"components"`
	Pins              []string          `json:"pins"`
	Failed            []failedModel     `json:"failed"`
	Unreturned        []unreturned      `json:"unreturned"`
	MissRatioCurve    missRatioCurve    `json:"miss_ratio_curve"`
	Warmup            []warmupModel     `json:"warmup"`
	AudioCache        audioCache        `json:"audio_cache"`
}

// audioCache is what is kept of finished speech. Hits, joins and misses are requests with a seed.
type audioCache struct {
	Entries   int    `json:"entries"`
	Bytes     int64  `json:"bytes"`
	Limit     int64  `json:"limit_bytes"`
	Hits      uint64 `json:"hits"`
	Joins     uint64 `json:"joins"`
	Misses    uint64 `json:"misses"`
	Evictions uint64 `json:"evictions"`
}

// cacheEntry is one model the cache knows.
type cacheEntry struct {
	Model     string    `json:"model"`
	State     string    `json:"state"`
	Device    string    `json:"device,omitempty"` // it lives on; none while it waits for room
	Pinned    bool      `json:"pinned"`
	Leases    int       `json:"leases"`
	Holders   []blocker `json:"holders"`
	Waiters   int       `json:"waiters"` // requests that wait for it
	Sessions  int       `json:"sessions"`
	Bytes     int64     `json:"bytes"` // beside its components
	DoneBytes int64     `json:"done_bytes,omitempty"`
	AgeS      float64   `json:"age_s"`
	IdleS     float64   `json:"idle_s"`
	ExpiresS  *float64  `json:"expires_s"` // null for never, or while it is in use
	LoadTook  float64   `json:"load_took_s"`
}

type poolState struct {
	Pool       string `json:"pool"`
	Budget     int64  `json:"budget_bytes"` // 0: no limit
	Booked     int64  `json:"booked_bytes"`
	Reserved   int64  `json:"reserved_bytes"`
	Unreturned int64  `json:"unreturned_bytes"`
	Pressure   string `json:"pressure"`
	Refusing   string `json:"refusing,omitempty"` // why it takes no loads
	State      string `json:"state"`              // ok, or lost: until the server is started again
	lossBody
}

// lossBody says why and since when a device is lost.
type lossBody struct {
	Lost   string     `json:"lost,omitempty"`
	LostAt *time.Time `json:"lost_at,omitempty"`
}

func lossOf(p cache.PoolState) (state string, body lossBody) {
	if p.Lost == "" {
		return statusOK, lossBody{}
	}
	return "lost", lossBody{Lost: p.Lost, LostAt: &p.LostAt}
}

type component struct {
	ID      string `json:"id"`
	Bytes   int64  `json:"bytes"`
	Holders int    `json:"holders"`
}

type failedModel struct {
	Model      string  `json:"model"`
	RetryAfter float64 `json:"retry_after_s"`
	Error      string  `json:"error"`
}

type unreturned struct {
	Model string  `json:"model"`
	Bytes int64   `json:"bytes"`
	ForS  float64 `json:"for_s"`
}

// missRatioCurve tells the hit rate that other cache sizes would have had.
type missRatioCurve struct {
	Requests uint64      `json:"requests"`
	ByModels []float64   `json:"by_models"` // with 1, 2, 3 … models
	ByBytes  []sizePoint `json:"by_bytes"`
}

type sizePoint struct {
	Bytes   int64   `json:"bytes"`
	HitRate float64 `json:"hit_rate"`
}

type warmupModel struct {
	Model string  `json:"model"`
	State string  `json:"state"`
	TookS float64 `json:"took_s"`
	Error string  `json:"error,omitempty"`
}

// cacheStats is GET /cache/stats.
func (s *Server) cacheStats(c *fiber.Ctx) error { return c.JSON(s.stats()) }

// stats is what the cache knows, its curve, and the machine's memory.
func (s *Server) stats() cacheStats {
	out := s.contents()
	out.MissRatioCurve = curveBody(s.Cache.Curve())
	out.MemoryThresholdGB, out.MemoryCleanups = s.Machine.ThresholdGB(), s.Machine.Cleanups()
	used, total := s.Machine.Memory()
	out.SystemMemoryGB, out.SystemMemoryTotalGB = float64(used)/gibi, float64(total)/gibi
	if total > 0 {
		out.SystemMemoryPercent = 100 * float64(used) / float64(total)
	}
	return out
}

// contents is what the cache knows: nothing is read for it but memory.
func (s *Server) contents() cacheStats {
	snapshot := s.Cache.Snapshot()
	out := cacheStats{
		CachedModels: []string{}, MaxCacheSize: snapshot.MaxEntries,
		Hits: snapshot.Hits, Misses: snapshot.Misses, Evictions: snapshot.Evictions, TotalLoads: snapshot.Loads,
		MockMode: s.Backend == "mock", Joins: snapshot.Joins,
		LoadFailures: snapshot.LoadFailures, Refusals: snapshot.Refusals, Yields: snapshot.Yields,
		EvictionsByReason: make(map[string]uint64), Pins: list(snapshot.Pins), Warmup: s.warmup(),
		Entries: []cacheEntry{}, Pools: []poolState{}, Components: []component{}, Failed: []failedModel{},
		Unreturned: []unreturned{},
	}
	if asked := snapshot.Hits + snapshot.Misses; asked > 0 {
		out.HitRate = float64(snapshot.Hits) / float64(asked)
	}
	for why, n := range snapshot.ByReason {
		out.EvictionsByReason[string(why)] = n
	}
	out.AudioCache = audioCache(s.Audio.Stats())
	s.describe(&out, snapshot)
	return out
}

// describe adds the lists.
func (s *Server) describe(out *cacheStats, snapshot cache.Snapshot) {
	var booked int64
	for i, p := range snapshot.Pools {
		booked += p.Booked
		state, loss := lossOf(p)
		out.Pools = append(out.Pools, poolState{Pool: p.Name, Budget: max(p.Budget, 0), Booked: p.Booked,
			Reserved: p.Reserved, Unreturned: p.Unreturned, Pressure: s.Machine.Level(i).String(), Refusing: p.Refusing,
			State: state, lossBody: loss})
	}
	out.CacheMemoryMB = float64(booked) / mebi
	for _, e := range snapshot.Entries {
		if e.State == cache.Ready || e.State == cache.Leased {
			out.CachedModels = append(out.CachedModels, e.Key)
		}
		out.Entries = append(out.Entries, entryBody(e))
	}
	out.CacheSize = len(out.CachedModels)
	for _, h := range snapshot.Components {
		out.Components = append(out.Components, component{ID: h.ID, Bytes: h.Bytes.Total(), Holders: h.Holders})
	}
	for _, f := range snapshot.Failed {
		out.Failed = append(out.Failed, failedModel{Model: f.Key, RetryAfter: f.Until.Seconds(), Error: f.Err.Error()})
	}
	for _, u := range snapshot.Unreturned {
		out.Unreturned = append(out.Unreturned, unreturned{Model: u.Key, Bytes: u.Bytes, ForS: u.Since.Seconds()})
	}
}

func entryBody(e cache.Entry) cacheEntry {
	out := cacheEntry{Model: e.Key, State: e.State.String(), Device: e.Pool, Pinned: e.Pinned, Leases: e.Leases,
		Holders: blockers(e.Holders), Waiters: e.Waiters, Sessions: e.Sessions, Bytes: e.Bytes().Total(), AgeS: e.Age.Seconds(),
		IdleS: e.Idle.Seconds(), LoadTook: e.LoadTook.Seconds()}
	if e.State == cache.Loading {
		out.DoneBytes = e.Progress.Done
	}
	if e.Expires >= 0 {
		in := e.Expires.Seconds()
		out.ExpiresS = &in
	}
	return out
}

func curveBody(curve cache.Curve) missRatioCurve {
	out := missRatioCurve{Requests: curve.Requests, ByModels: list(curve.ByModels), ByBytes: []sizePoint{}}
	for _, p := range curve.ByBytes {
		out.ByBytes = append(out.ByBytes, sizePoint(p))
	}
	return out
}

func (s *Server) warmup() []warmupModel {
	out := []warmupModel{}
	for _, m := range s.Warmup.Models() {
		body := warmupModel{Model: m.ID, State: string(m.State), TookS: m.Took.Seconds()}
		if m.Err != nil {
			body.Error = m.Err.Error()
		}
		out = append(out, body)
	}
	return out
}

// planBody is GET /cache/plan?model=.
type planBody struct {
	Model      string    `json:"model"`
	Resident   bool      `json:"resident"`
	State      string    `json:"state"` // absent when it is not in the cache
	Device     string    `json:"device"`
	NeedsBytes int64     `json:"needs_bytes"`
	Fits       bool      `json:"fits"`
	Evicts     []string  `json:"evicts"`
	FreesBytes int64     `json:"frees_bytes"`
	RunnerUp   string    `json:"runner_up,omitempty"`
	WaitS      float64   `json:"expected_wait_s"`
	Ahead      []string  `json:"ahead"`
	Blockers   []blocker `json:"blockers"`
	Refused    string    `json:"refused,omitempty"`
}

// cachePlan is GET /cache/plan?model=: what a load would do, without doing it.
func (s *Server) cachePlan(c *fiber.Ctx) error {
	id := string([]byte(c.Query("model")))
	if id == "" {
		return missing("model")
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	plan, err := s.Cache.Plan(ctx, id)
	if err != nil {
		return &modelError{id: id, err: err}
	}
	out := planBody{Model: id, Resident: plan.Resident, State: plan.State.String(), Device: plan.Pool, NeedsBytes: plan.Needs.Total(),
		Fits: plan.Fits || plan.Resident, Evicts: []string{}, FreesBytes: plan.Frees.Total(), RunnerUp: plan.RunnerUp,
		WaitS: plan.Wait.Seconds(), Ahead: list(plan.Ahead), Blockers: blockers(plan.Blockers)}
	if plan.State == cache.Freeing {
		out.State = "absent"
	}
	for _, v := range plan.Victims {
		out.Evicts = append(out.Evicts, v.Key)
	}
	if plan.Refusal != nil {
		out.Refused = plan.Refusal.Error()
	}
	return c.JSON(out)
}

// uptime is the server's age in whole seconds.
func (s *Server) uptime() int { return int(time.Since(s.started).Seconds()) }
