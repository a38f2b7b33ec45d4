package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"barkd/cgo"
	"barkd/cgo/cache"
)

// cacheCommand groups what looks at the cache without a server.
type cacheCommand struct {
	Replay replayCommand `cmd:"" help:"Replay a recorded trace (CACHE_TRACE) against other limits, with the server's own policy."`
}

// replayCommand is `barkd cache replay`.
type replayCommand struct {
	Trace     string `arg:"" help:"File that CACHE_TRACE recorded."`
	Budget    string `placeholder:"SIZE,SIZE" help:"Budgets of the host's memory to try, such as 2GB,4GB; default is no limit."`
	Models    string `placeholder:"N,N" help:"Limits of models to try; default is 1 to 4."`
	KeepAlive string `default:"-1" placeholder:"-1" help:"How long an idle model stays."`
}

// Run replays the trace once for each pair of limits.
func (c *replayCommand) Run(io stdio) error {
	var s settings
	limits := c.limits(&s)
	budgets := c.budgets(&s)
	keepAlive := s.keepAlive("--keep-alive", c.KeepAlive)
	if err := s.err(); err != nil {
		return err
	}
	f, err := os.Open(c.Trace)
	if err != nil {
		return err
	}
	trace, err := cgo.ReadTrace(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", c.Trace, err)
	}
	table := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "models\tbudget\trequests\thit rate\tloads\tevictions\tloaded\tpeak\trefused\twait p50\twait p99\t")
	for _, n := range limits {
		for _, budget := range budgets {
			r := cache.Replay(trace, cache.ReplayOptions{MaxEntries: n, KeepAlive: keepAlive, Pools: replayPools(budget)})
			fmt.Fprintf(table, "%d\t%s\t%d\t%.3f\t%d\t%d\t%s\t%s\t%d\t%v\t%v\t\n", n, size(budget), r.Requests, r.HitRate,
				r.Loads, r.Evictions, humanize.Bytes(uint64(r.Loaded)), humanize.Bytes(uint64(r.Peak.Total())), r.Refused,
				r.WaitP50.Round(time.Millisecond), r.WaitP99.Round(time.Millisecond))
		}
	}
	return table.Flush()
}

// replayPools bounds the host's memory; other devices keep what they have.
func replayPools(budget int64) []cache.Pool {
	pools := make([]cache.Pool, cache.MaxPools)
	pools[0] = cache.Pool{Name: "cpu", Budget: budget}
	for i := 1; i < len(pools); i++ {
		pools[i].Name = "device " + strconv.Itoa(i)
	}
	return pools
}

func size(bytes int64) string {
	if bytes == 0 {
		return "none"
	}
	return humanize.Bytes(uint64(bytes))
}

func (c *replayCommand) limits(s *settings) []int {
	var out []int
	for _, part := range splitList(c.Models) {
		out = append(out, s.integer("--models", part, 0, 1<<20))
	}
	if len(out) == 0 {
		out = []int{1, 2, 3, 4}
	}
	return out
}

func (c *replayCommand) budgets(s *settings) []int64 {
	var out []int64
	for _, part := range splitList(c.Budget) {
		bytes, err := humanize.ParseBytes(part)
		if err != nil || bytes > 1<<50 {
			s.bad("--budget", part, "a size such as 4GB")
		}
		out = append(out, int64(bytes))
	}
	if len(out) == 0 {
		out = []int64{0}
	}
	return out
}
