package untrained

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/models/gguf"
	"barkd/server/models/schema"
)

func model(t *testing.T, seed uint64, c Config) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, WriteConfig(&b, seed, c))
	return b.Bytes()
}

func TestSameSeedGivesTheSameBytes(t *testing.T) {
	assert.Equal(t, model(t, 1, DefaultConfig()), model(t, 1, DefaultConfig()))
	assert.NotEqual(t, model(t, 1, DefaultConfig()), model(t, 2, DefaultConfig()))
}

func TestDefaultModelSaysThatItIsUntrained(t *testing.T) {
	b := model(t, 1, DefaultConfig())
	f, err := gguf.Read(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	assert.Equal(t, Name, f.Metadata.String("general.name"))
	assert.False(t, f.Metadata.Bool("bark.trained"))
	assert.Equal(t, []string{"noise_a", "noise_b"}, f.Metadata.Strings("bark.voices"))
	assert.Len(t, f.Metadata.String("bark.codec.sha256"), 64)
	assert.Less(t, len(b), 2<<20, "it is embedded in the binary")
}

func TestEveryStorageTypeWrites(t *testing.T) {
	for kind, stored := range map[schema.Type]gguf.Type{
		schema.F32: gguf.F32, schema.BF16: gguf.BF16, schema.F16: gguf.F16, schema.Q8: gguf.I8, schema.Q4: gguf.I8,
	} {
		c := DefaultConfig()
		c.Type = kind
		c.Schema.Semantic.Bias, c.Schema.Fine.Bias = true, true
		c.Schema.Fine.Untied = []bool{true, false, true, false, false, false, false}
		b := model(t, 1, c)
		f, err := gguf.Read(bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		w, ok := f.Find("semantic.h.1.mlp.c_fc.weight")
		require.True(t, ok)
		assert.Equal(t, stored, w.Type)
		_, scaled := f.Find("semantic.h.1.mlp.c_fc.scale")
		assert.Equal(t, kind == schema.Q8, scaled)
		_, head := f.Find("fine.lm_head.2.weight")
		assert.True(t, head)
		_, tied := f.Find("fine.lm_head.1.weight")
		assert.False(t, tied)
	}
}

func TestAnImpossibleShapeIsAnError(t *testing.T) {
	c := DefaultConfig()
	c.Schema.Fine.Heads = 3
	assert.ErrorContains(t, WriteConfig(&bytes.Buffer{}, 1, c), "num_heads")
}
