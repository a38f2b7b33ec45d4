package mock_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/mock"
)

// twoGPUs returns a runtime with two GPUs and a plan.
func twoGPUs(t *testing.T, rules string) *mock.Runtime {
	t.Helper()
	plan, err := mock.ParseFaults(fmt.Appendf(nil, `{"rules": [%s]}`, rules))
	require.NoError(t, err)
	return mock.New(mock.Options{GPUs: []int64{16 << 30, 8 << 30}, Faults: plan})
}

func loadOn(t *testing.T, rt *mock.Runtime, device int) (cgo.Model, error) {
	t.Helper()
	src, err := mock.Resolve("suno/bark")
	require.NoError(t, err)
	return rt.Load(t.Context(), src, cgo.LoadOptions{Device: device})
}

func TestGPUsAreDevicesAfterTheProcessor(t *testing.T) {
	devices, err := twoGPUs(t, "").Devices()
	require.NoError(t, err)
	require.Len(t, devices, 3)
	assert.Equal(t, []string{"cpu", "cuda:0", "cuda:1"}, []string{devices[0].ID, devices[1].ID, devices[2].ID})
	assert.EqualValues(t, 8<<30, devices[2].TotalBytes)
	assert.NotEqual(t, devices[1].UUID, devices[2].UUID)
	_, err = loadOn(t, twoGPUs(t, ""), 3)
	assert.ErrorIs(t, err, cgo.ErrNotFound)
}

func TestModelIsOnItsDeviceAndItsTablesOnTheHost(t *testing.T) {
	rt := twoGPUs(t, "")
	m, err := loadOn(t, rt, 2)
	require.NoError(t, err)
	var live [3]cgo.Memory
	for i := range live {
		live[i], err = rt.Live(i)
		require.NoError(t, err)
	}
	all := m.Memory()
	assert.Equal(t, [3]int64{all.TablesBytes, 0, all.TotalBytes - all.TablesBytes},
		[3]int64{live[0].TotalBytes, live[1].TotalBytes, live[2].TotalBytes})
	other, err := loadOn(t, rt, 1)
	require.NoError(t, err)
	one, err := rt.Live(1)
	require.NoError(t, err)
	assert.Equal(t, all.TotalBytes-all.TablesBytes, one.TotalBytes, "devices share nothing")
	require.NoError(t, m.Close())
	require.NoError(t, other.Close())
	for i := range live {
		live[i], err = rt.Live(i)
		require.NoError(t, err)
		assert.Zero(t, live[i].TotalBytes)
	}
}

func TestDeviceIsLostAlone(t *testing.T) {
	for _, rule := range []string{"device_lost_in_load", "device_lost_in_session", "device_lost", "device_lost_in_stream"} {
		rt := twoGPUs(t, fmt.Sprintf(`{"fault": %q, "nth": 1}`, rule))
		heard := 0
		failed := func() error {
			m, err := loadOn(t, rt, 1)
			if err != nil {
				return err
			}
			defer m.Close()
			session, err := m.NewSession(cgo.SessionOptions{})
			if err != nil {
				return err
			}
			defer session.Close()
			req, err := m.Defaults(cgo.RulesSuno)
			require.NoError(t, err)
			req.Text = "The device goes."
			_, err = session.Synthesize(t.Context(), req, cgo.Sink{Audio: func(pcm []float32) error { heard += len(pcm); return nil }})
			return err
		}()
		assert.ErrorIs(t, failed, cgo.ErrDevice, rule)
		assert.Equal(t, rule == "device_lost_in_stream", heard > 0, rule)
		_, err := rt.Probe(1)
		assert.ErrorIs(t, err, cgo.ErrDevice, rule)
		_, err = loadOn(t, rt, 1)
		assert.ErrorIs(t, err, cgo.ErrDevice, rule)
		free, err := rt.Probe(2)
		require.NoError(t, err, rule)
		assert.Positive(t, free, rule)
		other, err := loadOn(t, rt, 2)
		require.NoError(t, err, rule)
		assert.EqualValues(t, 1, rt.LiveHandles(), rule)
		speak(t, other, "The other one works.")
		require.NoError(t, other.Close())
	}
}
