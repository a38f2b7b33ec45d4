package cgo_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/cgo/mock"
)

const gb = 1 << 30

// gpuPool returns a pool over two simulated GPUs, with a fault plan, and the losses that it tells of.
func gpuPool(t *testing.T, opts cgo.PoolOptions, gpus []int64, rules string) (*cgo.Pool, func() []cgo.Loss) {
	t.Helper()
	plan, err := mock.ParseFaults(fmt.Appendf(nil, `{"rules": [%s]}`, rules))
	require.NoError(t, err)
	rt := mock.New(mock.Options{Faults: plan, GPUs: gpus})
	var mu sync.Mutex
	var losses []cgo.Loss
	opts.Lost = func(l cgo.Loss) {
		mu.Lock()
		defer mu.Unlock()
		losses = append(losses, l)
	}
	pool, err := cgo.NewPool(rt, mock.Resolve, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, pool.Close(context.Background()))
		assert.Zero(t, rt.LiveHandles(), "handles leaked")
		for i := range pool.Devices() {
			live, err := rt.Live(i)
			require.NoError(t, err)
			assert.Zero(t, live.TotalBytes, "device %d", i)
		}
	})
	return pool, func() []cgo.Loss {
		mu.Lock()
		defer mu.Unlock()
		return losses
	}
}

// say speaks one text as a request does, and tells how much was heard.
func say(ctx context.Context, pool *cgo.Pool, id string) (heard int, err error) {
	lease, err := pool.Acquire(ctx, id, cache.Ask{})
	if err != nil {
		return 0, err
	}
	defer lease.Release()
	session, err := lease.NewSession(ctx, cgo.SessionOptions{})
	if err != nil {
		return 0, err
	}
	defer session.Close()
	req, err := lease.Model().Defaults(cgo.RulesSuno)
	if err != nil {
		return 0, err
	}
	req.Text = "Wherever I may be."
	_, err = session.Synthesize(ctx, req, cgo.Sink{Audio: func(pcm []float32) error { heard += len(pcm); return nil }})
	return heard, err
}

// homes are the devices that models are on.
func homes(pool *cgo.Pool) map[string]string {
	out := make(map[string]string)
	for _, e := range pool.Snapshot().Entries {
		if e.State == cache.Ready || e.State == cache.Leased {
			out[e.Key] = e.Pool
		}
	}
	return out
}

func TestModelsSpreadOverTheGPUsAndOnlyWhatNoneCanHaveIsOnTheCPU(t *testing.T) {
	opts := cgo.PoolOptions{Devices: []int{0, 1, 2}, Budgets: []int64{0, 3 * gb, 4 * gb}}
	pool, _ := gpuPool(t, opts, []int64{4 * gb, 5 * gb}, "")
	for _, id := range []string{"mock/small-1", "mock/small-2", "mock/small-3", "mock/bark-xl"} {
		require.NoError(t, pool.Preload(t.Context(), id, nil))
	}
	assert.Equal(t, map[string]string{"mock/small-1": "cuda:1", "mock/small-2": "cuda:0", "mock/small-3": "cuda:1",
		"mock/bark-xl": "cpu"}, homes(pool))
	books := pool.Snapshot().Pools
	assert.Positive(t, books[0].Booked)
	plan, err := pool.Plan(t.Context(), "mock/small-4")
	require.NoError(t, err)
	require.Len(t, plan.Victims, 1)
	assert.Equal(t, [2]string{"cuda:1", "mock/small-1"}, [2]string{plan.Pool, plan.Victims[0].Key}, "it was used longest ago")
	assert.LessOrEqual(t, books[2].Booked, books[2].Budget)
}

func TestVRAMIsBookedAsTheRuntimeCountsIt(t *testing.T) {
	pool, _ := gpuPool(t, cgo.PoolOptions{Devices: []int{2}}, []int64{4 * gb, 5 * gb}, "")
	lease, err := pool.Acquire(t.Context(), "suno/bark-small", cache.Ask{})
	require.NoError(t, err)
	session, err := lease.NewSession(t.Context(), cgo.SessionOptions{})
	require.NoError(t, err)
	model := lease.Model().Memory()
	books := pool.Snapshot().Pools
	assert.Equal(t, [3]int64{model.TablesBytes, 0, model.TotalBytes - model.TablesBytes + session.Memory().TotalBytes},
		[3]int64{books[0].Booked, books[1].Booked, books[2].Booked})
	require.NoError(t, session.Close())
	lease.Release()
}

func TestModelOfASettingIsOnItsDevice(t *testing.T) {
	opts := cgo.PoolOptions{Devices: []int{1, 2}, ModelDevices: map[string][]int{"suno/bark": {1}, "barkd/tiny": {0}}}
	pool, _ := gpuPool(t, opts, []int64{4 * gb, 9 * gb}, "")
	for _, id := range []string{"suno/bark", "barkd/tiny", "suno/bark-small"} {
		require.NoError(t, pool.Preload(t.Context(), id, nil))
	}
	assert.Equal(t, map[string]string{"suno/bark": "cuda:0", "barkd/tiny": "cpu", "suno/bark-small": "cuda:1"}, homes(pool))
	_, err := cgo.NewPool(mock.New(mock.Options{}), mock.Resolve, cgo.PoolOptions{ModelDevices: map[string][]int{"a": {1}}})
	assert.ErrorIs(t, err, cgo.ErrNotFound)
}

func TestLoadMovesToTheOtherDeviceWithoutTheCallersNotice(t *testing.T) {
	pool, losses := gpuPool(t, cgo.PoolOptions{Devices: []int{1, 2}}, []int64{9 * gb, 4 * gb}, `{"fault": "device_lost_in_load", "nth": 1}`)
	heard, err := say(t.Context(), pool, "suno/bark-small")
	require.NoError(t, err)
	assert.Positive(t, heard)
	assert.Equal(t, map[string]string{"suno/bark-small": "cuda:1"}, homes(pool))
	require.Len(t, losses(), 1)
	loss := losses()[0]
	assert.Equal(t, "cuda:0", loss.Device.ID)
	assert.Equal(t, []string{"suno/bark-small"}, loss.Models)
	assert.Contains(t, loss.Why, "by the fault plan")
	assert.Equal(t, loss.Why, pool.Snapshot().Pools[1].Lost)
	assert.True(t, pool.Usable())
}

func TestRequestOnALostDeviceIsToldAndTheNextIsServedElsewhere(t *testing.T) {
	for _, fault := range []string{"device_lost_in_session", "device_lost", "device_lost_in_stream"} {
		pool, losses := gpuPool(t, cgo.PoolOptions{Devices: []int{1, 2}}, []int64{9 * gb, 4 * gb}, fmt.Sprintf(`{"fault": %q, "nth": 1}`, fault))
		heard, err := say(t.Context(), pool, "suno/bark-small")
		assert.ErrorIs(t, err, cgo.ErrLost, fault)
		assert.ErrorIs(t, err, cgo.ErrDevice, fault)
		assert.Equal(t, fault == "device_lost_in_stream", heard > 0, fault)
		heard, err = say(t.Context(), pool, "suno/bark-small")
		require.NoError(t, err, fault)
		assert.Positive(t, heard, fault)
		assert.Len(t, losses(), 1, fault)
		assert.Equal(t, "cuda:1", homes(pool)["suno/bark-small"], fault)
		soon(t, func() bool { return pool.Snapshot().Pools[1].Booked == 0 }, "what was lost is freed: %s", fault)
		returned, err := pool.Trim()
		require.NoError(t, err, "the lost one is left alone")
		assert.Zero(t, returned)
	}
}

func TestBothLostEndsAtTheCPUIfItIsAllowed(t *testing.T) {
	faults := `{"fault": "device_lost", "nth": 1}, {"fault": "device_lost_in_load", "nth": 2}`
	for allowed, devices := range map[bool][]int{true: {0, 1, 2}, false: {1, 2}} {
		pool, losses := gpuPool(t, cgo.PoolOptions{Devices: devices}, []int64{9 * gb, 4 * gb}, faults)
		_, err := say(t.Context(), pool, "suno/bark-small")
		require.ErrorIs(t, err, cgo.ErrLost)
		heard, err := say(t.Context(), pool, "suno/bark-small")
		assert.Len(t, losses(), 2)
		assert.Equal(t, allowed, pool.Usable())
		if allowed {
			require.NoError(t, err)
			assert.Positive(t, heard)
			assert.Equal(t, map[string]string{"suno/bark-small": "cpu"}, homes(pool))
			continue
		}
		refused := new(cache.Refusal)
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, cache.RefusedLost, refused.Code)
		soon(t, func() bool { return len(pool.Snapshot().Entries) == 0 }, "what was lost is freed")
	}
}

// soon waits for what comes true beside the test.
func soon(t *testing.T, holds func() bool, what string, args ...any) {
	t.Helper()
	assert.Eventually(t, holds, 5*time.Second, time.Millisecond, append([]any{what}, args...)...)
}

func TestWaiterForALostDeviceGoesToTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := `{"fault": "device_lost", "model": "mock/small-1", "nth": 1}`
		opts := cgo.PoolOptions{Devices: []int{1, 2}, Budgets: []int64{0, 2 * gb, 2 * gb}}
		pool, _ := gpuPool(t, opts, []int64{2 * gb, 2 * gb}, faults)
		var held []*cgo.ModelLease
		for _, id := range []string{"mock/small-1", "mock/small-2"} {
			lease, err := pool.Acquire(t.Context(), id, cache.Ask{})
			require.NoError(t, err)
			held = append(held, lease)
		}
		var answer error
		go func() { _, answer = say(t.Context(), pool, "mock/small-3") }()
		synctest.Wait() // both devices are in use: it waits
		assert.Equal(t, 1, pool.Snapshot().Waiting)
		_, err := say(t.Context(), pool, "mock/small-1")
		require.ErrorIs(t, err, cgo.ErrLost)
		synctest.Wait()
		assert.Equal(t, 1, pool.Snapshot().Waiting, "the other one is still in use")
		held[1].Release()
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, answer)
		assert.Equal(t, map[string]string{"mock/small-3": "cuda:1"}, homes(pool))
		held[0].Release()
		synctest.Wait()
	})
}

func TestFailureOfACallIsNoLoss(t *testing.T) {
	pool, losses := gpuPool(t, cgo.PoolOptions{Devices: []int{1, 2}}, []int64{9 * gb, 4 * gb}, `{"fault": "load_fails", "error": "device", "nth": 1}`)
	_, err := say(t.Context(), pool, "suno/bark-small")
	assert.ErrorIs(t, err, cgo.ErrDevice)
	assert.NotErrorIs(t, err, cgo.ErrLost)
	assert.Empty(t, losses())
}

func TestDeviceThatNeverWorkedIsLostFromTheStart(t *testing.T) {
	rt := mock.New(mock.Options{GPUs: []int64{gb}, Faults: &mock.Faults{Rules: []mock.Fault{{Kind: mock.DeviceLostInLoad, Nth: 1}}}})
	src, err := mock.Resolve("barkd/tiny")
	require.NoError(t, err)
	_, err = rt.Load(t.Context(), src, cgo.LoadOptions{Device: 1})
	require.ErrorIs(t, err, cgo.ErrDevice)
	pool, err := cgo.NewPool(rt, mock.Resolve, cgo.PoolOptions{Devices: []int{0, 1}})
	require.NoError(t, err)
	assert.NotEmpty(t, pool.Snapshot().Pools[1].Lost)
	require.NoError(t, pool.Preload(t.Context(), "barkd/tiny", nil))
	assert.Equal(t, map[string]string{"barkd/tiny": "cpu"}, homes(pool))
	require.NoError(t, pool.Close(t.Context()))
}

// probed notes which devices are asked for anything.
type probed struct {
	cgo.Runtime
	devices []int
}

func (p *probed) Probe(device int) (int64, error) {
	p.devices = append(p.devices, device)
	return p.Runtime.Probe(device)
}

func TestDevicesThatNoModelMayBeOnAreLeftAlone(t *testing.T) {
	for _, c := range []struct {
		opts cgo.PoolOptions
		want []int
	}{
		{cgo.PoolOptions{}, nil},
		{cgo.PoolOptions{Devices: []int{0, 2}}, []int{2}},
		{cgo.PoolOptions{Devices: []int{0}, ModelDevices: map[string][]int{"suno/bark": {1, 0}}}, []int{1}},
	} {
		rt := &probed{Runtime: mock.New(mock.Options{GPUs: []int64{gb, gb}})}
		pool, err := cgo.NewPool(rt, mock.Resolve, c.opts)
		require.NoError(t, err)
		assert.Equal(t, c.want, rt.devices)
		require.NoError(t, pool.Close(t.Context()))
	}
}

func TestProposedWarmUpFillsEveryDevice(t *testing.T) {
	opts := cgo.PoolOptions{Devices: []int{0, 1, 2}, Budgets: []int64{gb, 3 * gb, 2 * gb}}
	pool, _ := gpuPool(t, opts, []int64{3 * gb, 2 * gb}, "")
	demand := []cache.Demand{{Key: "a", Bytes: 2 * gb}, {Key: "b", Bytes: 2 * gb}, {Key: "c", Bytes: 2 * gb}, {Key: "d", Bytes: gb}, {Key: "e", Bytes: gb}, {Key: "f", Bytes: 1}}
	assert.Equal(t, []string{"a", "b", "d", "e"}, pool.Propose(demand))
}
