// Package prometheus_test holds the metrics' names in deploy/ against those of the server, and has promtool judge the
// queries.
package prometheus_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/memwatch"
	"barkd/cgo/mock"
	"barkd/server/metrics"
	"barkd/server/speech"
)

// served returns the names of all samples that /metrics can have, and their labels, after one of everything.
func served(t *testing.T) (names, labels map[string]bool) {
	t.Helper()
	m := metrics.New()
	pool, err := cgo.NewPool(mock.New(mock.Options{}), mock.Resolve, cgo.PoolOptions{MaxModels: 1, Asked: m.Asked})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close(context.Background())) })
	require.NoError(t, pool.Preload(t.Context(), "barkd/tiny", nil))
	m.Watch(metrics.Watched{Cache: pool, Load: func() (int, int) { return 0, 0 }, Level: func(int) memwatch.Level { return 0 }, Slots: func() int { return 1 }, Audio: speech.NewAudioCache(0)})
	m.Asked("m", cache.Hit)
	for _, kind := range []cache.EventKind{cache.EventLoaded, cache.EventFailed, cache.EventStopped, cache.EventEvicted, cache.EventDraining} {
		m.Decided(cache.Event{Kind: kind, Key: "m"})
	}
	m.Cancelled("queue")
	m.Refused("overloaded")
	m.Spoke(1)
	m.FirstAudio(time.Second)
	m.Underrun()
	m.Relieved(cgo.Relief{Shortage: cgo.Shortage{Level: memwatch.LevelHigh}, Steps: []cgo.ReliefStep{{Name: "trim", Freed: 1}}})

	answer := httptest.NewRecorder()
	m.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	require.NoError(t, err)
	names, labels = make(map[string]bool), map[string]bool{"job": true, "instance": true, "le": true}
	for name, family := range families {
		suffixes := []string{""}
		if family.GetMetric()[0].GetHistogram() != nil {
			suffixes = []string{"_bucket", "_sum", "_count"}
		}
		for _, suffix := range suffixes {
			names[name+suffix] = true
		}
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels[l.GetName()] = true
		}
	}
	return names, labels
}

var (
	metricName = regexp.MustCompile(`\bbark_[a-z_]+\b`)
	byLabels   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	matcher    = regexp.MustCompile(`[{,]\s*([a-z_]+)\s*(?:=~?|!=|!~)\s*"`)
)

func TestEveryMetricNamedInDeployIsServed(t *testing.T) {
	names, _ := served(t)
	used := 0
	require.NoError(t, filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range metricName.FindAllString(string(text), -1) {
			assert.True(t, names[name], "%s names %s, which the server does not have", path, name)
			used++
		}
		return err
	}))
	assert.Greater(t, used, 50)
}

// queries are all of the dashboard and the rules, with a word for where they are from.
func queries(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	text, err := os.ReadFile("../grafana/barkd.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &dashboard))
	variables := strings.NewReplacer("$job", "barkd", "$instance", ".*", "$__rate_interval", "5m")
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			out[panel.Title+" "+target.Expr] = variables.Replace(target.Expr)
		}
	}
	require.NotEmpty(t, out)
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	text, err = os.ReadFile("barkd.rules.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &rules))
	for _, rule := range rules.Groups[0].Rules {
		out[rule.Alert] = rule.Expr
	}
	return out
}

func TestQueriesUseLabelsThatThereAre(t *testing.T) {
	_, labels := served(t)
	for where, query := range queries(t) {
		var used []string
		for _, list := range byLabels.FindAllStringSubmatch(query, -1) {
			used = append(used, strings.Split(list[1], ", ")...)
		}
		for _, one := range matcher.FindAllStringSubmatch(query, -1) {
			used = append(used, one[1])
		}
		for _, label := range used {
			assert.True(t, labels[label], "%s: no metric has the label %q", where, label)
		}
	}
}

// promtool runs Debian's promtool here.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	if os.Getenv("BARKD_BIN") == "" {
		if _, err := exec.LookPath("promtool"); errors.Is(err, exec.ErrNotFound) {
			t.Skip("promtool is not installed; 'make deploy-test' installs it")
		}
	}
	said, err := exec.Command("promtool", args...).CombinedOutput()
	require.NoError(t, err, "%s", said)
}

func TestConfigurationAndAlertRulesHold(t *testing.T) {
	promtool(t, "check", "config", "prometheus.yml")
	promtool(t, "test", "rules", "barkd.test.yml")
}

func TestQueriesAreValid(t *testing.T) {
	type rule struct {
		Record, Expr string
	}
	type group struct {
		Name  string
		Rules []rule
	}
	all := group{Name: "queries"}
	for _, query := range queries(t) {
		all.Rules = append(all.Rules, rule{Record: "query:" + string(rune('a'+len(all.Rules)%26)), Expr: query})
	}
	slices.SortFunc(all.Rules, func(a, b rule) int { return strings.Compare(a.Expr, b.Expr) })
	text, err := yaml.Marshal(map[string][]group{"groups": {all}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "queries.yml")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	promtool(t, "check", "rules", "--lint=none", file)
}
