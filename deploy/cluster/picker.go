package cluster

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// View is what a router that reads metrics knows of a server.
type View struct {
	Running, Waiting int
	Utilization      float64 // 0..1
	MaxModels        int
	Resident         map[string]bool
	Loading          map[string]bool
}

// ReadView reads the metrics as llm-d's core-metrics-extractor does, with the names that the chart gives it: of the
// residency's series the one of the highest value, its labels those of vLLM's LoRA metric.
func ReadView(families map[string]*dto.MetricFamily) (View, error) {
	v := View{Resident: map[string]bool{}, Loading: map[string]bool{}}
	for name, to := range map[string]func(float64){
		"bark_requests_waiting": func(x float64) { v.Waiting = int(x) },
		"bark_requests_running": func(x float64) { v.Running = int(x) },
		"bark_utilization":      func(x float64) { v.Utilization = x },
	} {
		series := families[name].GetMetric()
		if len(series) != 1 || series[0].GetGauge() == nil {
			return v, fmt.Errorf("%s is not one gauge", name)
		}
		to(series[0].GetGauge().GetValue())
	}
	var newest *dto.Metric
	for _, m := range families["bark_cache_residency_info"].GetMetric() {
		if newest == nil || m.GetGauge().GetValue() > newest.GetGauge().GetValue() {
			newest = m
		}
	}
	if newest == nil {
		return v, fmt.Errorf("there is no bark_cache_residency_info")
	}
	for _, l := range newest.GetLabel() {
		switch l.GetName() {
		case "max_lora":
			var err error
			if v.MaxModels, err = strconv.Atoi(l.GetValue()); err != nil {
				return v, fmt.Errorf("max_lora: %w", err)
			}
		case "running_lora_adapters":
			list(v.Resident, l.GetValue())
		case "waiting_lora_adapters":
			list(v.Loading, l.GetValue())
		}
	}
	return v, nil
}

func list(to map[string]bool, text string) {
	for _, id := range strings.Split(text, ",") {
		if id = strings.TrimSpace(id); id != "" {
			to[id] = true
		}
	}
}

// Affinity is the score of the picker's lora-affinity-scorer.
func (v View) Affinity(model string) float64 {
	held := len(v.Resident)
	for id := range v.Loading {
		if !v.Resident[id] {
			held++
		}
	}
	switch {
	case v.Resident[model]:
		return 1
	case held < v.MaxModels:
		return 0.8
	case v.Loading[model]:
		return 0.6
	}
	return 0
}

// Weights are those of the scorers in the chart's values.
type Weights struct{ Residency, Queue, Utilization float64 }

// DefaultWeights are the chart's. tools/routing compares: with 3, 1, 1 a full replica never gets a copy of a model
// that another one holds, however long its queue.
var DefaultWeights = Weights{Residency: 3, Queue: 2, Utilization: 2}

// Pick returns the server of the highest score, any one of several: the affinity, the queue's place between the
// shortest (1) and the longest (0), and what is not utilised.
func (w Weights) Pick(views []View, model string, random *rand.Rand) int {
	shortest, longest := views[0].Waiting, views[0].Waiting
	for i := range views {
		shortest, longest = min(shortest, views[i].Waiting), max(longest, views[i].Waiting)
	}
	best, top, ties := 0, -1.0, 0
	for i := range views {
		queue := 1.0
		if longest > shortest {
			queue = float64(longest-views[i].Waiting) / float64(longest-shortest)
		}
		score := w.Residency*views[i].Affinity(model) + w.Queue*queue + w.Utilization*(1-views[i].Utilization)
		switch {
		case score > top:
			best, top, ties = i, score, 1
		case score == top:
			ties++
			if random.IntN(ties) == 0 {
				best = i
			}
		}
	}
	return best
}
