//go:build cgo && emulated

package cgo_test

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/native"
	"barkd/server/models/untrained"
)

// emulated is a pool over libbarkrt with two emulated GPUs, devices 1 and 2, and four models of one size: "a" to "d".
// "again" has the file of "a".
type emulated struct {
	*cgo.Pool
	runtime cgo.Runtime
	sources map[string]cgo.Source
}

func newEmulated(t *testing.T, opts cgo.PoolOptions) emulated {
	t.Helper()
	rt, err := native.New(func(_ int, text string) { t.Log(text) })
	require.NoError(t, err)
	devices, err := rt.Devices()
	require.NoError(t, err)
	require.Len(t, devices, 3, "the CPU and two emulated GPUs")
	dir := t.TempDir()
	sources := make(map[string]cgo.Source)
	for i, id := range []string{"a", "b", "c", "d"} {
		path := filepath.Join(dir, id+".gguf")
		require.NoError(t, untrained.WriteFile(path, uint64(i), untrained.SmallConfig()))
		sources[id] = cgo.Source{Name: id, Path: path}
	}
	sources["again"] = sources["a"]
	pool, err := cgo.NewPool(rt, func(id string) (cgo.Source, error) {
		if src, ok := sources[id]; ok {
			return src, nil
		}
		return cgo.Source{}, fmt.Errorf("%w: model %q", cgo.ErrNotFound, id)
	}, opts)
	require.NoError(t, err)
	e := emulated{pool, rt, sources}
	t.Cleanup(func() {
		require.NoError(t, pool.Close(context.Background()))
		assert.Zero(t, native.LiveHandles(), "handles leaked")
		assert.Equal(t, []int64{0, 0, 0}, e.live(t))
	})
	return e
}

// live are the bytes that libbarkrt holds on each device.
func (e emulated) live(t *testing.T) []int64 {
	t.Helper()
	var out []int64
	for i := range e.Devices() {
		memory, err := e.runtime.Live(i)
		require.NoError(t, err)
		out = append(out, memory.TotalBytes)
	}
	return out
}

// booked are the bytes in each device's books.
func (e emulated) booked() []int64 {
	var out []int64
	for _, p := range e.Snapshot().Pools {
		out = append(out, p.Booked)
	}
	return out
}

func TestEmulatedGPUsAreListedWithTheirMemory(t *testing.T) {
	e := newEmulated(t, cgo.PoolOptions{})
	for i, d := range e.Devices()[1:] {
		assert.Equal(t, [2]string{fmt.Sprintf("cuda:%d", i), "cuda"}, [2]string{d.ID, d.Kind})
		assert.EqualValues(t, 1<<30, d.TotalBytes, d.ID)
		assert.Regexp(t, "^GPU-", d.UUID)
	}
}

func TestEmulatedGPUsHaveInTheirBooksWhatTheyHold(t *testing.T) {
	e := newEmulated(t, cgo.PoolOptions{Devices: []int{1, 2}, ModelDevices: map[string][]int{"a": {1}, "again": {2}}})
	audio := make(map[string][]float32)
	want := []int64{0, 0, 0}
	for i, id := range []string{"a", "again"} {
		device := i + 1
		lease, err := e.Acquire(t.Context(), id, cache.Ask{})
		require.NoError(t, err)
		session, err := lease.NewSession(t.Context(), cgo.SessionOptions{})
		require.NoError(t, err)
		model := lease.Model().Memory()
		want[0] += model.TablesBytes
		want[device] = model.TotalBytes - model.TablesBytes + session.Memory().TotalBytes
		assert.Equal(t, want, e.booked(), id)
		held := e.live(t)
		assert.Equal(t, want[device], held[device]-model.TablesBytes, "tables are on the host, and libbarkrt counts them with their model")

		req, err := lease.Model().Defaults(cgo.RulesSuno)
		require.NoError(t, err)
		req.Text, req.Seed, req.MaxSemanticTokens = "Hello.", 7, 8
		_, err = session.Synthesize(t.Context(), req, cgo.Sink{Audio: func(pcm []float32) error {
			audio[id] = append(audio[id], pcm...)
			return nil
		}})
		require.NoError(t, err)
		assert.Equal(t, held, e.live(t), "speaking takes nothing more")
		require.NoError(t, session.Close())
		lease.Release()
		want[device] -= session.Memory().TotalBytes
	}
	plausible(t, audio["a"])
	assert.Equal(t, audio["a"], audio["again"], "the same on every device of a kind")
	assert.Equal(t, map[string]string{"a": "cuda:0", "again": "cuda:1"}, homes(e.Pool))

	require.Equal(t, []string{"again"}, e.Remove(t.Context(), "again", false).Freed)
	soon(t, func() bool { return e.booked()[2] == 0 && e.live(t)[2] == 0 }, "one is empty")
	assert.Positive(t, e.booked()[1])
	e.Clear(t.Context(), false)
	soon(t, func() bool { return assert.ObjectsAreEqual([]int64{0, 0, 0}, e.booked()) }, "nothing is left")
	assert.Empty(t, e.Snapshot().Unreturned)
}

// plausible says that samples are those of audio.
func plausible(t *testing.T, pcm []float32) {
	t.Helper()
	require.NotEmpty(t, pcm)
	var energy float64
	for _, x := range pcm {
		require.LessOrEqual(t, math.Abs(float64(x)), 4.0, "which a NaN is not")
		energy += float64(x) * float64(x)
	}
	assert.Greater(t, math.Sqrt(energy/float64(len(pcm))), 1e-3, "silence")
}

func TestEmulatedGPUThatIsFullSendsModelsToTheOtherOrMakesRoom(t *testing.T) {
	e := newEmulated(t, cgo.PoolOptions{Devices: []int{1, 2}})
	estimate, err := e.runtime.Estimate(e.sources["a"], cgo.LoadOptions{Device: 1}, cgo.SessionOptions{})
	require.NoError(t, err)
	one := estimate.Model.TotalBytes - estimate.Model.TablesBytes + estimate.Session.TotalBytes
	e.SetBudget(1, 2*one)
	e.SetBudget(2, one)
	for _, id := range []string{"a", "b", "c"} {
		require.NoError(t, e.Preload(t.Context(), id, nil))
	}
	assert.Equal(t, map[string]string{"a": "cuda:0", "b": "cuda:0", "c": "cuda:1"}, homes(e.Pool))
	plan, err := e.Plan(t.Context(), "d")
	require.NoError(t, err)
	require.Len(t, plan.Victims, 1)
	assert.Equal(t, [2]string{"cuda:0", "a"}, [2]string{plan.Pool, plan.Victims[0].Key}, "it was used longest ago")
	require.NoError(t, e.Preload(t.Context(), "d", nil))
	assert.Equal(t, map[string]string{"b": "cuda:0", "c": "cuda:1", "d": "cuda:0"}, homes(e.Pool))
	for i, held := range e.live(t)[1:] {
		assert.LessOrEqual(t, held, []int64{2 * one, one}[i]+2*estimate.Model.TablesBytes)
	}

	e.SetBudget(1, one-1)
	e.SetBudget(2, one-1)
	soon(t, func() bool { return e.booked()[1]+e.booked()[2] == 0 }, "none fits any more")
	refused := new(cache.Refusal)
	require.ErrorAs(t, e.Preload(t.Context(), "a", nil), &refused)
	assert.Equal(t, cache.RefusedTooLarge, refused.Code)
}
