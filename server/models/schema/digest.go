package schema

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"

	"barkd/server/models/gguf"
)

// CodecDigest computes the digest of the codec's tensors that native/DESIGN.md defines. Like a gguf.Writer it takes
// them one after the other: Next, then the bytes.
type CodecDigest struct {
	hash  hash.Hash
	order []Tensor // still to come
}

// NewCodecDigest returns the digest of the codec's tensors in the list.
func NewCodecDigest(list []Tensor) *CodecDigest {
	return &CodecDigest{sha256.New(), CodecTensors(list)}
}

// CodecTensors returns the codec's tensors of the list in the digest's order.
func CodecTensors(list []Tensor) []Tensor {
	var codec []Tensor
	for _, t := range list {
		if strings.HasPrefix(t.Name, "codec.") {
			codec = append(codec, t)
		}
	}
	slices.SortFunc(codec, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	return codec
}

// Next begins the next tensor in the digest's order, whose name must be the given one.
func (d *CodecDigest) Next(name string) error {
	if len(d.order) == 0 || d.order[0].Name != name {
		return fmt.Errorf("the codec's digest: tensor %q is not the next one", name)
	}
	t := d.order[0]
	d.order = d.order[1:]
	head := binary.LittleEndian.AppendUint64(nil, uint64(len(t.Name)))
	head = append(head, t.Name...)
	head = binary.LittleEndian.AppendUint32(head, uint32(gguf.F32)) // the codec has no matrices of other types
	head = binary.LittleEndian.AppendUint32(head, uint32(len(t.Shape)))
	for _, n := range t.Shape {
		head = binary.LittleEndian.AppendUint64(head, uint64(n))
	}
	d.hash.Write(head)
	return nil
}

// Write adds bytes to the current tensor.
func (d *CodecDigest) Write(p []byte) (int, error) { return d.hash.Write(p) }

// Sum returns the digest in lower-case hexadecimal, once all tensors are in.
func (d *CodecDigest) Sum() (string, error) {
	if len(d.order) > 0 {
		return "", fmt.Errorf("the codec's digest lacks %d tensors", len(d.order))
	}
	return hex.EncodeToString(d.hash.Sum(nil)), nil
}
