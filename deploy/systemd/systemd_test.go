// Package systemd_test has systemd judge the unit.
package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mostExposure is in tenths of systemd's scale: below 2.0 is "OK", the default of a unit is 9.6. What is left open is
// the network, /proc/meminfo, and the devices on a machine with a GPU.
const mostExposure = "15"

func TestUnitIsValidAndHardened(t *testing.T) {
	if os.Getenv("BARKD_BIN") == "" {
		t.Skip("BARKD_BIN does not name the program; 'make deploy-test' does")
	}
	unit, err := os.ReadFile("barkd.service")
	require.NoError(t, err)
	dir := t.TempDir()
	file := filepath.Join(dir, "barkd.service")
	there := strings.Replace(string(unit), "/usr/local/bin/barkd", os.Getenv("BARKD_BIN"), 1) // systemd looks for the program
	require.NoError(t, os.WriteFile(file, []byte(there), 0o600))
	for _, gpu := range []bool{false, true} {
		most := mostExposure
		if gpu {
			dropIn, err := os.ReadFile("gpu.conf")
			require.NoError(t, err)
			require.NoError(t, os.Mkdir(file+".d", 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(file+".d", "gpu.conf"), dropIn, 0o600))
			most = "20"
		}
		said, err := exec.Command("systemd-analyze", "verify", file).CombinedOutput()
		require.NoError(t, err, "%s", said)
		assert.Empty(t, string(said))
		said, err = exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold="+most, file).CombinedOutput()
		require.NoError(t, err, "%s", said)
		lines := strings.Split(strings.TrimSpace(string(said)), "\n")
		t.Log(lines[len(lines)-1])
	}
}
