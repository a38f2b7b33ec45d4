package nvml

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"barkd/cgo/memwatch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// three are two whole GPUs and a MIG device.
func three() *GPUs {
	g := &GPUs{shutdown: func() error { return nil }}
	for _, uuid := range []string{"GPU-aaaa-1", "GPU-bbbb-2", "MIG-cccc-3"} {
		g.Devices = append(g.Devices, &Device{UUID: uuid, gpus: g, read: func() (memwatch.Reading, error) {
			return memwatch.Reading{TotalBytes: 1}, nil
		}})
	}
	return g
}

func TestDeviceIsFoundByTheNumberOfItsUUID(t *testing.T) {
	g := three()
	for uuid, want := range map[string]*Device{"GPU-bbbb-2": g.Devices[1], "GPU-BBBB-2": g.Devices[1], "MIG-cccc-3": g.Devices[2],
		"GPU-cccc-3": g.Devices[2], // as CUDA's number may have been written
		"GPU-dddd-4": nil, "GPU-aaaa": nil, "GPU-": nil, "": nil} {
		assert.Same(t, want, g.Find(uuid), uuid)
	}
}

func TestClosedLibraryIsNotRead(t *testing.T) {
	g := three()
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
	g.Devices = []*Device{{UUID: "GPU-1", gpus: g, read: func() (memwatch.Reading, error) {
		close(began)
		<-release
		return memwatch.Reading{}, nil
	}}}
	go func() { _, _ = g.Devices[0].Read(); close(ended) }()
	<-began
	assert.ErrorContains(t, g.Close(), "a reading has not ended")
	close(release)
	<-ended
	assert.ErrorContains(t, g.Close(), "shut down")
}

func TestThisMachineIsReadOrSaysWhyNot(t *testing.T) {
	g, err := Open()
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	require.NoError(t, err)
	for _, d := range g.Devices {
		r, err := d.Read()
		require.NoError(t, err)
		assert.Positive(t, r.TotalBytes)
		t.Logf("%s %s: %+v", d.UUID, d.Model, r)
	}
	require.NoError(t, g.Close())
}
