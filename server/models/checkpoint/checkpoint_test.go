package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func open(t testing.TB, name string) *Checkpoint {
	t.Helper()
	c, err := Open(filepath.Join("testdata", name))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func values(t testing.TB, c *Checkpoint, name string) []float32 {
	t.Helper()
	require.Contains(t, c.Tensors, name)
	r, err := c.Tensors[name].Reader()
	require.NoError(t, err)
	out := make([]float32, c.Tensors[name].Elements())
	half := len(out) / 2 // two reads, so that the place is kept
	require.NoError(t, r.Read(out[:half]))
	require.NoError(t, r.Read(out[half:]))
	assert.Error(t, r.Read(make([]float32, 1)))
	return out
}

func base() []float32 {
	out := make([]float32, 24)
	for i := range out {
		out[i] = float32(i)
	}
	return out
}

func TestTorchFilesOfEveryFormatReadTheSame(t *testing.T) {
	for _, file := range []string{"zip.pt", "protocol4.pt", "legacy.pt"} {
		t.Run(file, func(t *testing.T) {
			c := open(t, file)
			assert.Len(t, c.Tensors, 13)
			assert.Equal(t, base(), values(t, c, "tied.a"))
			assert.Equal(t, base()[6:18], values(t, c, "offset"))
			assert.Equal(t, []float32{2, 8, 14, 20}, values(t, c, "column"))
			assert.Equal(t, []int64{6, 4}, c.Tensors["transposed"].Shape)
			assert.Equal(t, []float32{0, 6, 12, 18, 1, 7}, values(t, c, "transposed")[:6])
			assert.Equal(t, []float32{7, 7, 7, 7, 7, 7}, values(t, c, "expanded"))
			assert.Equal(t, []float32{1.5}, values(t, c, "scalar"))
			assert.Empty(t, values(t, c, "empty"))
			assert.Equal(t, []float32{1, -2.5, 65504, 5.9604645e-8}, values(t, c, "f16"))
			assert.InEpsilonSlice(t, []float32{1, -2.5, 3e38}, values(t, c, "bf16"), 4e-3)
		})
	}
}

func TestSharedStorageIsSeen(t *testing.T) {
	c := open(t, "zip.pt")
	assert.True(t, c.Tensors["tied.a"].SameData(c.Tensors["tied.b"]))
	assert.False(t, c.Tensors["tied.a"].SameData(c.Tensors["offset"]))
}

func TestDoublesKeepTheirPrecision(t *testing.T) {
	c := open(t, "legacy.pt")
	r, err := c.Tensors["f64"].Reader()
	require.NoError(t, err)
	got := make([]float64, 2)
	require.NoError(t, r.Read64(got))
	assert.Equal(t, []float64{0.1, 1e300}, got)
}

func TestBuffersOfOtherTypesAreListedButNotRead(t *testing.T) {
	c := open(t, "zip.pt")
	assert.Equal(t, Bool, c.Tensors["mask"].DType)
	assert.Equal(t, I64, c.Tensors["count"].DType)
	_, err := c.Tensors["mask"].Reader()
	assert.ErrorContains(t, err, "mask")
}

func TestSettingsBesideTheWeightsAreRead(t *testing.T) {
	c := open(t, "suno.pt")
	args, ok := c.Root.Get("model_args")
	require.True(t, ok)
	layers, _ := args.(*Dict).Get("n_layer")
	assert.Equal(t, int64(2), layers)
	bias, _ := args.(*Dict).Get("bias")
	assert.Equal(t, false, bias)
	model, _ := c.Root.Get("model")
	tensors := StateDict(model.(*Dict))
	require.Len(t, tensors, 1)
	assert.Equal(t, "_orig_mod.w", tensors[0].Name)
	assert.Equal(t, base()[:6], values(t, c, "p"), "a Parameter is its tensor")
}

func TestSafetensorsReads(t *testing.T) {
	c := open(t, "mixed.safetensors")
	assert.Equal(t, base()[6:18], values(t, c, "offset"))
	assert.Equal(t, []float32{1.5}, values(t, c, "scalar"))
	assert.Empty(t, values(t, c, "empty"))
	assert.Equal(t, []float32{1, -2.5, 65504, 5.9604645e-8}, values(t, c, "f16"))
}

func TestShardsAreOneCheckpoint(t *testing.T) {
	c, err := Open("testdata/mixed.safetensors", "testdata/suno.pt")
	require.NoError(t, err)
	defer c.Close()
	assert.Contains(t, c.Tensors, "f16")
	assert.Contains(t, c.Tensors, "p")
	_, err = Open("testdata/mixed.safetensors", "testdata/zip.pt")
	assert.ErrorContains(t, err, "appears twice")
}

func TestEveryTruncationIsAnError(t *testing.T) {
	for _, name := range []string{"zip.pt", "legacy.pt", "mixed.safetensors"} {
		whole, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		for n := range len(whole) {
			_, _, err := Read(bytes.NewReader(whole[:n]), int64(n))
			require.Errorf(t, err, "%s cut at %d", name, n)
		}
	}
}

// archive returns a torch zip with the pickle and one storage "0" of the given bytes.
func archive(t testing.TB, pickle string, data []byte, more ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	add := func(name string, data []byte, method uint16) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		require.NoError(t, err)
		_, err = w.Write(data)
		require.NoError(t, err)
	}
	add("a/data.pkl", []byte(pickle), zip.Store)
	add("a/data/0", data, zip.Store)
	for _, name := range more {
		method := zip.Store
		if strings.HasPrefix(name, "deflated") {
			method = zip.Deflate
		}
		add(name, []byte("big and repetitive, repetitive, repetitive"), method)
	}
	require.NoError(t, z.Close())
	return b.Bytes()
}

func short(s string) string { return "\x8c" + string(rune(len(s))) + s }

// pickled describes a tensor over storage 0 of 6 floats.
func pickled(storage, rest string) string {
	return "\x80\x02}" + short("w") + "ctorch._utils\n_rebuild_tensor_v2\n((" + storage + "tQ" + rest + "\x89NtRs."
}

const sixFloats = "\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x06"

func TestASmallPickleIsATensor(t *testing.T) {
	b := archive(t, pickled(sixFloats, "K\x00K\x02K\x03\x86K\x03K\x01\x86"), make([]byte, 24))
	tensors, _, err := Read(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	require.Len(t, tensors, 1)
	assert.Equal(t, []int64{2, 3}, tensors[0].Shape)
}

func TestHostilePicklesAreErrors(t *testing.T) {
	plain := "K\x00K\x02K\x03\x86K\x03K\x01\x86"
	for name, c := range map[string]struct{ pickle, want string }{
		"calls the system":      {"\x80\x02cos\nsystem\n\x8c\x04echo\x85R.", `global "os system" is not allowed`},
		"calls by stack global": {"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04echo\x85R.", `"posix system"`},
		"builtins":              {"\x80\x02c__builtin__\neval\n.", "not allowed"},
		"dotted attribute":      {"\x80\x04\x8c\x05torch\x8c\x10FloatStorage.add\x93.", "not allowed"},
		"calls a storage class": {"\x80\x02ctorch\nFloatStorage\n)R.", "calls a"},
		"calls a string":        {"\x80\x02\x8c\x01x)R.", "calls a"},
		"makes an instance":     {"\x80\x02ctorch\nFloatStorage\n)\x81.", "opcode 0x81"},
		"sets a tensor's state": {"\x80\x02ccollections\nOrderedDict\n)R\x85}b.", "sets the state"},
		"inst opcode":           {"\x80\x02(ios\nsystem\n.", "opcode 0x69"},
		"old protocol":          {"\x80\x01}.", "protocol 1"},
		"nothing":               {"", "cut off"},
		"empty stack":           {"\x80\x02.", "empty stack"},
		"a value too many":      {"\x80\x02}}.", "behind"},
		"mark as a value":       {"\x80\x02(.", "mark"},
		"no mark":               {"\x80\x02}t.", "mark"},
		"memo never set":        {"\x80\x02h\x07.", "never set"},
		"huge string":           {"\x80\x02X\xff\xff\xff\x7f", "limit"},
		"string beyond the end": {"\x80\x02X\xff\x00\x00\x00a", "cut off"},
		"string of no UTF-8":    {"\x80\x02\x8c\x01\xff.", "UTF-8"},
		"long integer":          {"\x80\x02\x8a\xff" + strings.Repeat("x", 255) + ".", "integer"},
		"dict as a key":         {"\x80\x02}}Ns.", "key"},
		"odd items":             {"\x80\x02}(Nu.", "dict"},
		"no dict at the top":    {"\x80\x02].", "dict of tensors"},
		"another file's key":    {pickled("\x8c\x07storagectorch\nFloatStorage\n\x8c\x0b../../data1\x8c\x03cpuK\x06", plain), "not in the archive"},
		"larger than its bytes": {pickled("\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x07", plain), "24 bytes, want 28"},
		"negative count":        {pickled("\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuJ\xff\xff\xff\xff", plain), "storage"},
		"huge count":            {pickled("\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpu\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x3f", plain), "storage"},
		"unknown class":         {pickled("\x8c\x07storagectorch\nQInt8Storage\n\x8c\x010\x8c\x03cpuK\x06", plain), "not allowed"},
		"shape too large":       {pickled(sixFloats, "K\x00K\x02K\x04\x86K\x04K\x01\x86"), "leaves a storage"},
		"offset too large":      {pickled(sixFloats, "K\x01K\x02K\x03\x86K\x03K\x01\x86"), "storage of 6"},
		"stride too large":      {pickled(sixFloats, "K\x00K\x02K\x03\x86K\x04K\x01\x86"), "storage of 6"},
		"negative stride":       {pickled(sixFloats, "K\x05K\x06\x85J\xff\xff\xff\xff\x85"), "negative"},
		"negative offset":       {pickled(sixFloats, "J\xff\xff\xff\xffK\x01\x85K\x01\x85"), "negative"},
		"overflowing shape":     {pickled(sixFloats, "K\x00\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x02\x86K\x00K\x00\x86"), "too large"},
		"shape without strides": {pickled(sixFloats, "K\x00K\x02K\x03\x86K\x03\x85"), "dimensions"},
		"nine dimensions":       {pickled(sixFloats, "K\x00(KKKKKKKKKtK\x01\x85"), ""},
	} {
		b := archive(t, c.pickle, make([]byte, 24))
		_, _, err := Read(bytes.NewReader(b), int64(len(b)))
		assert.ErrorContains(t, err, c.want, name)
	}
}

func TestHostileArchivesAreErrors(t *testing.T) {
	good := pickled(sixFloats, "K\x00K\x02K\x03\x86K\x03K\x01\x86")
	for member, want := range map[string]string{
		"a/data/0":       "appears twice",
		"../evil":        "no plain path",
		"a/../../evil":   "no plain path",
		"/etc/passwd":    "no plain path",
		"a\\b":           "no plain path",
		"deflated":       "compressed",
		"b/data.pkl":     "two pickles",
		"a/byteorder":    "byte order",
		"deflated/a/b/c": "compressed",
	} {
		b := archive(t, good, make([]byte, 24), member)
		_, _, err := Read(bytes.NewReader(b), int64(len(b)))
		assert.ErrorContains(t, err, want, member)
	}
	b := archive(t, good, make([]byte, 24))
	b[bytes.Index(b, []byte("_rebuild"))] ^= 1
	_, _, err := Read(bytes.NewReader(b), int64(len(b)))
	assert.Error(t, err)
}

func safetensors(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func TestHostileSafetensorsAreErrors(t *testing.T) {
	for header, want := range map[string]string{
		`[]`: "not a JSON object",
		`{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`: "twice",
		`{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,12]}}`:                                                     "outside",
		`{"w":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}`:                                                     "outside",
		`{"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}`:                                                      "outside",
		`{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`:                                                      "needs 12 bytes",
		`{"w":{"dtype":"F32","shape":[-1,-2],"data_offsets":[0,8]}}`:                                                  "impossible",
		`{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`:                                  "impossible",
		`{"w":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,0]}}`:                            "impossible",
		`{"w":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}`:                                                  "not supported",
		`{"w":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}`:                                      "dimensions",
		`{"w":{"dtype":"F32","shape":[1.5],"data_offsets":[0,8]}}`:                                                    "w",
		`{"w":7}`: "w",
		`{"w":`:   "header",
	} {
		b := safetensors(header, 8)
		_, _, err := Read(bytes.NewReader(b), int64(len(b)))
		assert.ErrorContains(t, err, want, header)
	}
	for _, b := range [][]byte{nil, []byte("short"), []byte("\xff\xff\xff\xff\xff\xff\xff\xff{}"), []byte("<html>not a model</html>")} {
		_, _, err := Read(bytes.NewReader(b), int64(len(b)))
		assert.Error(t, err)
	}
}

func seeds(f *testing.F) {
	f.Helper()
	names, err := filepath.Glob("testdata/*")
	require.NoError(f, err)
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && len(b) > 0 {
			f.Add(b)
		}
	}
}

// readAll reads what a fuzzer made; sizes are bounded by the input except through strides of zero.
func readAll(t *testing.T, b []byte) {
	tensors, _, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return
	}
	for _, tensor := range tensors {
		n := min(tensor.Elements(), 1<<12)
		r, err := tensor.Reader()
		if err != nil {
			continue
		}
		if err := r.Read(make([]float32, n)); err != nil {
			t.Fatalf("a tensor that was accepted cannot be read: %v", err)
		}
	}
}

func FuzzTorch(f *testing.F) {
	seeds(f)
	f.Fuzz(readAll)
}

func FuzzPickle(f *testing.F) {
	f.Add([]byte(pickled(sixFloats, "K\x00K\x02K\x03\x86K\x03K\x01\x86")))
	for _, name := range []string{"zip.pt", "protocol4.pt", "suno.pt"} {
		z, err := zip.OpenReader(filepath.Join("testdata", name))
		require.NoError(f, err)
		r, err := z.File[0].Open()
		require.NoError(f, err)
		var b bytes.Buffer
		_, err = b.ReadFrom(r)
		require.NoError(f, err)
		f.Add(b.Bytes())
		require.NoError(f, z.Close())
	}
	f.Fuzz(func(t *testing.T, pickle []byte) { readAll(t, archive(t, string(pickle), make([]byte, 24))) })
}

func FuzzSafetensors(f *testing.F) {
	b, err := os.ReadFile("testdata/mixed.safetensors")
	require.NoError(f, err)
	n := binary.LittleEndian.Uint64(b)
	f.Add(string(b[8:8+n]), len(b)-8-int(n))
	f.Add(`{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8)
	f.Fuzz(func(t *testing.T, header string, data int) {
		readAll(t, safetensors(header, max(0, min(data, 1<<16))))
	})
}
