package nvml

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"barkd/cgo/memwatch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Three GPUs: a plain one, one in MIG mode with two instances, one in MIG mode without any.
var threeGPUs = []physical{
	{uuid: "GPU-aaaa-1", model: "A100"},
	{uuid: "GPU-aabb-2", model: "A100", migEnabled: true, mig: []instance{
		{uuid: "MIG-11", legacy: "MIG-GPU-aabb-2/1/0"}, {uuid: "MIG-12", legacy: "MIG-GPU-aabb-2/2/0"}}},
	{uuid: "GPU-cccc-3", model: "A100", migEnabled: true},
}

func shown(t *testing.T, env Env, machine []physical) []string {
	t.Helper()
	var g GPUs
	require.NoError(t, g.show(env, machine))
	uuids := []string{}
	for i, d := range g.Devices {
		assert.Equal(t, []string{"cuda:0", "cuda:1", "cuda:2"}[i], d.Name)
		uuids = append(uuids, d.UUID)
	}
	return uuids
}

func TestAllGPUsAreShownWithoutAList(t *testing.T) {
	assert.Equal(t, []string{"GPU-aaaa-1", "MIG-11"}, shown(t, Env{}, threeGPUs))
}

func TestVisibleDevicesPicksAndOrders(t *testing.T) {
	for list, want := range map[string][]string{
		"":                          {},
		"-1":                        {},
		"1,0":                       {"MIG-11", "GPU-aaaa-1"},
		" 0 ":                       {"GPU-aaaa-1"},
		"0,7,1":                     {"GPU-aaaa-1"}, // the list ends at what is not there
		"2,0":                       {"GPU-aaaa-1"}, // in MIG mode, no instance: nothing to show
		"GPU-aaa":                   {"GPU-aaaa-1"},
		"GPU-aa":                    {}, // begins two
		"MIG-12,GPU-aaaa-1":         {"MIG-12", "GPU-aaaa-1"},
		"MIG-GPU-aabb-2/2/0,MIG-11": {"MIG-12", "MIG-11"},
		"NoDevFiles":                {},
	} {
		assert.Equal(t, want, shown(t, Env{VisibleDevices: list, Restricted: true}, threeGPUs), list)
	}
}

func TestGPUNamedTwiceIsAnError(t *testing.T) {
	var g GPUs
	assert.ErrorContains(t, g.show(Env{VisibleDevices: "0,GPU-aaaa-1", Restricted: true}, threeGPUs), "twice")
}

func TestOrderOfDifferentModelsIsDoubtfulUnlessFixed(t *testing.T) {
	mixed := []physical{{uuid: "GPU-1", model: "T4"}, {uuid: "GPU-2", model: "H100"}}
	for _, c := range []struct {
		env   Env
		doubt bool
	}{
		{Env{}, true},
		{Env{DeviceOrder: "PCI_BUS_ID"}, false},
		{Env{VisibleDevices: "1", Restricted: true}, true},
		{Env{VisibleDevices: "GPU-2", Restricted: true}, false},
	} {
		var g GPUs
		require.NoError(t, g.show(c.env, mixed))
		assert.Equal(t, c.doubt, g.Doubt != "", "%+v", c.env)
	}
}

func TestEnvTellsUnsetFromEmpty(t *testing.T) {
	assert.False(t, EnvFrom(func(string) (string, bool) { return "", false }).Restricted)
	assert.True(t, EnvFrom(func(string) (string, bool) { return "", true }).Restricted)
}

func TestClosedLibraryIsNotRead(t *testing.T) {
	g := &GPUs{shutdown: func() error { return nil }}
	require.NoError(t, g.show(Env{}, []physical{{uuid: "GPU-1", read: func() (memwatch.Reading, error) {
		return memwatch.Reading{TotalBytes: 1}, nil
	}}}))
	_, err := g.Devices[0].Read()
	require.NoError(t, err)
	require.NoError(t, g.Close())
	require.NoError(t, g.Close())
	_, err = g.Devices[0].Read()
	assert.ErrorIs(t, err, ErrUnavailable)
}

func TestLibraryStaysOpenUnderAHangingReading(t *testing.T) {
	began, release, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	g := &GPUs{shutdown: func() error { return errors.New("shut down") }}
	require.NoError(t, g.show(Env{}, []physical{{uuid: "GPU-1", read: func() (memwatch.Reading, error) {
		close(began)
		<-release
		return memwatch.Reading{}, nil
	}}}))
	go func() { _, _ = g.Devices[0].Read(); close(ended) }()
	<-began
	assert.ErrorContains(t, g.Close(), "a reading has not ended")
	close(release)
	<-ended
	assert.ErrorContains(t, g.Close(), "shut down")
}

func TestThisMachineIsReadOrSaysWhyNot(t *testing.T) {
	g, err := Open(EnvFrom(os.LookupEnv))
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	require.NoError(t, err)
	for _, d := range g.Devices {
		r, err := d.Read()
		require.NoError(t, err)
		assert.Positive(t, r.TotalBytes)
		t.Logf("%s %s %s: %+v", d.Name, d.UUID, d.Model, r)
	}
	require.NoError(t, g.Close())
}
