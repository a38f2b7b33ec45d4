package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFailureLeavesTheOldFileAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	broken := errors.New("broken")
	err := Write(path, func(f *os.File) error {
		_, _ = f.WriteString("half")
		return broken
	})
	require.ErrorIs(t, err, broken)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1)
	b, _ := os.ReadFile(path)
	assert.Equal(t, "old", string(b))
}

func TestNameAppearsWithTheWholeContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	require.NoError(t, Write(path, func(f *os.File) error {
		_, err := os.Stat(path)
		require.ErrorIs(t, err, os.ErrNotExist)
		_, err = f.WriteString("new")
		return err
	}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "new", string(b))
}
