// Command routing compares ways to route requests over replicas that each hold a few models in memory: what they do to
// hits, loads, evictions and waits. It simulates; routing_test.go does the same on real servers.
//
//	go run ./tools/routing                     10, 100 and 1,000 replicas
//	go run ./tools/routing -replicas 100 -models 600 -refresh 5s
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	o := Setup{}
	replicas := flag.String("replicas", "10,100,1000", "numbers of replicas")
	models := flag.Float64("models", 2, "models in demand: a number for each replica")
	flag.Float64Var(&o.Skew, "skew", 0.9, "popularity of the model of rank k is k to minus this")
	flag.IntVar(&o.Slots, "slots", 3, "models that fit a replica's memory")
	flag.IntVar(&o.Running, "running", 2, "requests that a replica speaks at one time")
	flag.IntVar(&o.Queue, "queue", 32, "most requests that wait at a replica")
	flag.DurationVar(&o.Speech, "speech", 4200*time.Millisecond, "mean time to speak")
	flag.DurationVar(&o.Load, "load", 2*time.Second, "time to load a model")
	flag.Float64Var(&o.Offered, "offered", 0.7, "speech asked for, as a part of what all replicas can do")
	flag.DurationVar(&o.Refresh, "refresh", 200*time.Millisecond, "how old the router's metrics get")
	flag.IntVar(&o.PerServer, "requests", 200, "requests for each replica")
	flag.Uint64Var(&o.Seed, "seed", 1, "of arrivals, models and lengths")
	flag.Parse()
	for _, text := range strings.Split(*replicas, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "routing: -replicas %q must be numbers with commas\n", *replicas)
			os.Exit(2)
		}
		o.Replicas, o.Models = n, max(1, int(*models*float64(n)))
		fmt.Printf("%d replicas with room for %d of %d models each\n", o.Replicas, o.Slots, o.Models)
		var outcomes []Outcome
		for _, policy := range policies() {
			outcomes = append(outcomes, Simulate(o, policy))
		}
		print(outcomes)
	}
}

func print(outcomes []Outcome) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "policy\thit rate\tloads per 1,000\tevictions per 1,000\trefused per 1,000\twait p50\twait p99\t")
	for _, o := range outcomes {
		fmt.Fprintf(w, "%s\t%.1f %%\t%.1f\t%.1f\t%.1f\t%.2f s\t%.2f s\t\n", o.Policy, 100*o.HitRate(), o.Per1000(o.Loads), o.Per1000(o.Evictions),
			o.Per1000(o.Refused), o.WaitP50.Seconds(), o.WaitP99.Seconds())
	}
	_ = w.Flush() // stdout
}
