package convert

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func random(r *rand.Rand, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = r.NormFloat64()
	}
	return out
}

func TestPermutedConvolutionEqualsTheDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, s := range [][4]int{{3, 2, 7, 9}, {1, 5, 1, 4}, {4, 1, 3, 3}} {
		out, in, k, frames := s[0], s[1], s[2], s[3]
		w, x := random(r, out*in*k), random(r, (frames+k-1)*in) // x[t][i], padded already
		v := permuteConv(w, int64(out), int64(in), int64(k))
		for t0 := range frames {
			for o := range out {
				want, got := 0.0, 0.0
				for i := range in {
					for j := range k {
						want += w[(o*in+i)*k+j] * x[(t0+j)*in+i]
					}
				}
				for j := range k * in { // the file's row is one dot product with k rows of x
					got += float64(v[o*k*in+j]) * x[t0*in+j]
				}
				require.InDelta(t, want, got, 1e-5)
			}
		}
	}
}

func TestPermutedTransposedConvolutionEqualsTheDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, s := range [][4]int{{3, 2, 4, 6}, {1, 1, 1, 3}, {2, 5, 3, 1}} {
		in, out, stride, frames := s[0], s[1], s[2], s[3]
		w, x := random(r, in*out*2*stride), random(r, frames*in)
		v := permuteTransposed(w, int64(in), int64(out), int64(stride))
		full := make([]float64, (frames+1)*stride*out) // [(frames+1)·stride][out], the last stride rows are trimmed
		for t0 := range frames {
			for i := range in {
				for o := range out {
					for j := range 2 * stride {
						full[(t0*stride+j)*out+o] += w[(i*out+o)*2*stride+j] * x[t0*in+i]
					}
				}
			}
		}
		for t0 := range frames {
			for j := range stride {
				for o := range out {
					got := 0.0
					for i := range in {
						row := (j*out + o) * 2 * in
						if t0 > 0 {
							got += float64(v[row+i]) * x[(t0-1)*in+i]
						}
						got += float64(v[row+in+i]) * x[t0*in+i]
					}
					require.InDelta(t, full[(t0*stride+j)*out+o], got, 1e-5)
				}
			}
		}
	}
}

func TestFoldedRowsHaveTheGainAsNorm(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	gain, v := random(r, 6), random(r, 6*35)
	v[0] *= 1e30 // squares beyond float32, not beyond float64
	before := append([]float64(nil), v...)
	require.NoError(t, fold(gain, v))
	for i, g := range gain {
		norm, dot, length := 0.0, 0.0, 0.0
		for j := i * 35; j < (i+1)*35; j++ {
			norm = math.Hypot(norm, v[j])
			length = math.Hypot(length, before[j])
			dot += v[j] * before[j]
		}
		assert.InEpsilon(t, math.Abs(g), norm, 1e-12)
		assert.InEpsilon(t, g*length, dot, 1e-9, "the direction stays")
	}
	assert.Error(t, fold([]float64{1}, []float64{0, 0}), "torch would make this not a number")
}

func TestWeightNormIsFoundUnderEverySpelling(t *testing.T) {
	old := hfWeights(small())
	renamed, plain := make(weightsMap), make(weightsMap)
	a, _ := run(t, hfFolder(t, old), Source)
	for name, w := range old {
		n := strings.Replace(name, ".weight_g", ".parametrizations.weight.original0", 1)
		renamed[strings.Replace(n, ".weight_v", ".parametrizations.weight.original1", 1)] = w
		if base, ok := strings.CutSuffix(name, ".weight_v"); ok {
			g := old[base+".weight_g"].values
			v := append([]float32(nil), w.values...)
			n := len(v) / len(g)
			for i := range v {
				norm := 0.0
				for _, x := range w.values[i/n*n : i/n*n+n] {
					norm = math.Hypot(norm, float64(x))
				}
				v[i] = float32(float64(v[i]) * float64(g[i/n]) / norm)
			}
			plain[base+".weight"] = weight{w.shape, v}
		} else if !strings.HasSuffix(name, ".weight_g") {
			plain[name] = w
		}
	}
	for _, m := range []weightsMap{renamed, plain} {
		b, _ := run(t, hfFolder(t, m), Source)
		for _, name := range []string{"codec.conv_in.weight", "codec.up.0.convtr.weight", "codec.up.1.res.0.conv1.weight", "codec.conv_out.weight"} {
			assert.InDeltaSlice(t, floats(t, a, name), floats(t, b, name), 1e-6, name)
		}
	}
}
