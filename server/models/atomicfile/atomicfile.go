// Package atomicfile writes a file so that its name appears only when its content is complete.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Write creates the file through a temporary neighbour: fill writes to it, then it is synced and renamed. When fill
// or anything else fails, nothing is left behind and an older file of that name stays as it was.
func Write(path string, fill func(f *os.File) error) (err error) {
	f, err := create(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := fill(f); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

// create makes the temporary file in the same folder, with the permissions a plain new file has.
func create(path string) (*os.File, error) {
	dir, name := filepath.Split(path)
	for i := range 10000 {
		part := filepath.Join(dir, fmt.Sprintf(".%s.%d.%d.part", name, os.Getpid(), i))
		f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, os.ErrExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("write %q: too many temporary files beside it", path)
}
