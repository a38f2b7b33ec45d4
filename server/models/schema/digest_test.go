package schema

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCodecDigestIsTheDocumentedOne(t *testing.T) {
	list := []Tensor{
		{Name: "fine.x", Shape: []int64{4}},
		{Name: "codec.b", Shape: []int64{1}},
		{Name: "codec.a", Shape: []int64{1, 2}},
	}
	d := NewCodecDigest(list)
	require.NoError(t, d.Next("codec.a"))
	_, err := d.Write([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	require.NoError(t, err)
	_, err = d.Sum()
	assert.ErrorContains(t, err, "lacks 1")
	assert.Error(t, d.Next("codec.a"), "out of order")
	require.NoError(t, d.Next("codec.b"))
	_, err = d.Write([]byte{9, 9, 9, 9})
	require.NoError(t, err)
	sum, err := d.Sum()
	require.NoError(t, err)
	// printf '\7\0\0\0\0\0\0\0codec.a\0\0\0\0\2\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\1\2\3\4\5\6\7\10' and so on | sha256sum
	assert.Equal(t, "36e9982f288cb579218726f7fb27ebb0f427439303b841f2bafb3a35c98edd45", sum)
}
