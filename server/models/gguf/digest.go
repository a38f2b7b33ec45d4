package gguf

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
)

// SHA256 returns the digest of the whole file in hexadecimal.
func (f *File) SHA256() (string, error) {
	return digest(io.NewSectionReader(f.data, 0, f.Size))
}

// TensorSHA256 returns the digest of a tensor's bytes in hexadecimal.
func (f *File) TensorSHA256(t Tensor) (string, error) {
	return digest(f.Data(t))
}

func digest(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.CopyBuffer(h, r, make([]byte, 1<<20)); err != nil {
		return "", fmt.Errorf("digest: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
