package convert

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"barkd/server/models/checkpoint"
	"barkd/server/models/schema"
)

// state is the tensors of a source by name.
type state map[string]*checkpoint.Tensor

// recipe says how one tensor of the model file is made. Exactly one of copied and built is set.
type recipe struct {
	tensor schema.Tensor
	copied *checkpoint.Tensor        // the same elements in the same order
	built  func() ([]float32, error) // computed, small enough to hold
}

// planner collects recipes and everything that is missing or of another shape.
type planner struct {
	state   state
	names   naming
	config  *schema.Config
	mayTie  bool // a fine table and its head may be one tensor
	missing []string
	wrong   []string
}

// plan returns the recipe of every tensor in list.
func (p *planner) plan(list []schema.Tensor) ([]recipe, error) {
	var out []recipe
	for _, t := range list {
		if t.Voice {
			continue
		}
		if rest, ok := strings.CutPrefix(t.Name, "codec."); ok {
			out = append(out, recipe{tensor: t, built: p.codec(t, rest)})
		} else {
			out = append(out, recipe{tensor: t, copied: p.gpt(t)})
		}
	}
	return out, p.fault()
}

// fault lists what the source lacks.
func (p *planner) fault() error {
	const most = 12
	list := func(names []string) string {
		slices.Sort(names)
		names = slices.Compact(names)
		if len(names) > most {
			return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
		}
		return strings.Join(names, ", ")
	}
	if len(p.missing) > 0 {
		return fmt.Errorf("the checkpoint lacks tensors: %s", list(p.missing))
	}
	if len(p.wrong) > 0 {
		return fmt.Errorf("tensors do not have the shape the config says: %s", list(p.wrong))
	}
	return nil
}

// need looks a tensor up and checks its shape.
func (p *planner) need(name string, shape ...int64) *checkpoint.Tensor {
	t := p.state[name]
	if t == nil {
		p.missing = append(p.missing, name)
		return nil
	}
	if !slices.Equal(t.Shape, shape) {
		p.wrong = append(p.wrong, fmt.Sprintf("%s is %v, want %v", name, t.Shape, shape))
		return nil
	}
	return t
}

func (p *planner) gpt(t schema.Tensor) *checkpoint.Tensor {
	stage, rest, _ := strings.Cut(t.Name, ".")
	name := p.names.gpt(stage, rest)
	if p.state[name] == nil && stage == "fine" && p.mayTie {
		if twin := p.tiedTo(rest); twin != "" {
			name = p.names.gpt(stage, twin)
		}
	}
	return p.need(name, t.Shape...)
}

// tiedTo returns the other name of a tied pair: table i+1 is head i. A safetensors file holds only one of the two.
func (p *planner) tiedTo(rest string) string {
	var i int
	if n, err := fmt.Sscanf(rest, "wte.%d.weight", &i); err == nil && n == 1 && i > 0 && i <= p.config.Fine.HeadCount() {
		return fmt.Sprintf("lm_head.%d.weight", i-1)
	}
	return ""
}

// untied tells for each fine head whether it is stored on its own: when the source has it and its values are not those
// of its table. A head that is there only as a table is tied, unless the config forbids it.
func (p *planner) untied() ([]bool, error) {
	out := make([]bool, p.config.Fine.HeadCount())
	for i := range out {
		head := p.state[p.names.gpt("fine", fmt.Sprintf("lm_head.%d.weight", i))]
		table := p.state[p.names.gpt("fine", fmt.Sprintf("wte.%d.weight", i+1))]
		switch {
		case head == nil && (table == nil || p.mayTie), table == nil && p.mayTie:
			continue // tied; what both names lack is found missing later
		case head == nil || table == nil:
			out[i] = true // also found missing later
		default:
			same, err := sameValues(head, table)
			if err != nil {
				return nil, err
			}
			out[i] = !same
		}
	}
	return out, nil
}

func sameValues(a, b *checkpoint.Tensor) (bool, error) {
	if a.SameData(b) {
		return true, nil
	}
	if a.DType != b.DType || !slices.Equal(a.Shape, b.Shape) {
		return false, nil
	}
	ra, err := a.Reader()
	if err != nil {
		return false, err
	}
	rb, err := b.Reader()
	if err != nil {
		return false, err
	}
	left := a.Elements()
	for left > 0 {
		n := min(left, 1<<16)
		x, y := make([]float32, n), make([]float32, n)
		if err := errors.Join(ra.Read(x), rb.Read(y)); err != nil {
			return false, err
		}
		if !slices.Equal(x, y) {
			return false, nil
		}
		left -= n
	}
	return true, nil
}

// codec returns how to compute a tensor of the decoder; rest is its name without "codec.".
func (p *planner) codec(t schema.Tensor, rest string) func() ([]float32, error) {
	k := &p.config.Codec
	dot := strings.LastIndex(rest, ".")
	module, part := rest[:dot], rest[dot+1:]
	var a, b int
	switch {
	case strings.HasPrefix(rest, "codebook."):
		_, _ = fmt.Sscanf(rest, "codebook.%d.weight", &a)
		return p.plain(p.names.codebook(a), t.Shape...)
	case strings.HasPrefix(rest, "lstm."):
		_, _ = fmt.Sscanf(rest, "lstm.%d.", &a)
		return p.lstm(a, part, t.Shape)
	case upName.MatchString(module):
		_, _ = fmt.Sscanf(module, "up.%d.convtr", &a)
		name := p.names.conv(codecLayer(k, a)+1, "", true)
		if part == "bias" {
			return p.plain(name+".bias", t.Shape...)
		}
		return p.transposed(name, t.Shape)
	case resName.MatchString(module):
		_, _ = fmt.Sscanf(module, "up.%d.res.%d.", &a, &b)
		inside := map[string]string{"conv1": "block.1", "conv2": "block.3", "shortcut": "shortcut"}
		m := resName.FindStringSubmatch(module)
		return p.conv(p.names.conv(codecLayer(k, a)+2+b, inside[m[3]], false), part, t.Shape)
	case module == "conv_in":
		return p.conv(p.names.conv(0, "", false), part, t.Shape)
	}
	return p.conv(p.names.conv(codecLayer(k, len(k.Ratios))+1, "", false), part, t.Shape)
}

// values reads a whole tensor.
func values(t *checkpoint.Tensor) ([]float64, error) {
	r, err := t.Reader()
	if err != nil {
		return nil, err
	}
	out := make([]float64, t.Elements())
	return out, r.Read64(out)
}

func narrow(in []float64) []float32 {
	out := make([]float32, len(in))
	for i, v := range in {
		out[i] = float32(v)
	}
	return out
}

func (p *planner) plain(name string, shape ...int64) func() ([]float32, error) {
	t := p.need(name, shape...)
	return func() ([]float32, error) {
		v, err := values(t)
		return narrow(v), err
	}
}

// lstm adds the two biases of a layer: they only ever occur as a sum.
func (p *planner) lstm(layer int, part string, shape []int64) func() ([]float32, error) {
	suffix := fmt.Sprintf("_l%d", layer)
	if part != "bias" {
		return p.plain(p.names.lstm(part+suffix), shape...)
	}
	ih, hh := p.need(p.names.lstm("bias_ih"+suffix), shape...), p.need(p.names.lstm("bias_hh"+suffix), shape...)
	return func() ([]float32, error) {
		a, err := values(ih)
		if err != nil {
			return nil, err
		}
		b, err := values(hh)
		if err != nil {
			return nil, err
		}
		for i := range a {
			a[i] += b[i]
		}
		return narrow(a), nil
	}
}

// conv turns torch's [out, in, k] into the file's [out, k, in].
func (p *planner) conv(name, part string, shape []int64) func() ([]float32, error) {
	if part == "bias" {
		return p.plain(name+".bias", shape...)
	}
	out, k, in := shape[0], shape[1], shape[2]
	load := p.folded(name, out, in, k)
	return func() ([]float32, error) {
		w, err := load()
		if err != nil {
			return nil, err
		}
		return permuteConv(w, out, in, k), nil
	}
}

// transposed turns torch's [in, out, 2·stride] into the file's [stride, out, 2, in].
func (p *planner) transposed(name string, shape []int64) func() ([]float32, error) {
	stride, out, in := shape[0], shape[1], shape[3]
	load := p.folded(name, in, out, 2*stride)
	return func() ([]float32, error) {
		w, err := load()
		if err != nil {
			return nil, err
		}
		return permuteTransposed(w, in, out, stride), nil
	}
}

func permuteConv(w []float64, out, in, k int64) []float32 {
	v := make([]float32, len(w))
	for o := range out {
		for i := range in {
			for j := range k {
				v[(o*k+j)*in+i] = float32(w[(o*in+i)*k+j])
			}
		}
	}
	return v
}

func permuteTransposed(w []float64, in, out, stride int64) []float32 {
	v := make([]float32, len(w))
	for i := range in {
		for o := range out {
			for j := range stride {
				at := (i*out + o) * 2 * stride
				to := (j*out + o) * 2 * in
				v[to+i] = float32(w[at+j+stride]) // meets x[t−1]
				v[to+in+i] = float32(w[at+j])     // meets x[t]
			}
		}
	}
	return v
}

// folded returns a loader of a convolution's weight, whichever way the source spells weight norm.
func (p *planner) folded(name string, shape ...int64) func() ([]float64, error) {
	for _, spelling := range [][2]string{
		{".weight_g", ".weight_v"},
		{".parametrizations.weight.original0", ".parametrizations.weight.original1"},
	} {
		if p.state[name+spelling[0]] == nil && p.state[name+spelling[1]] == nil {
			continue
		}
		g, v := p.need(name+spelling[0], shape[0], 1, 1), p.need(name+spelling[1], shape...)
		return func() ([]float64, error) {
			gain, err := values(g)
			if err != nil {
				return nil, err
			}
			w, err := values(v)
			if err != nil {
				return nil, err
			}
			return w, fold(gain, w)
		}
	}
	t := p.need(name+".weight", shape...)
	return func() ([]float64, error) { return values(t) }
}

// fold multiplies v by gain / ‖v‖ for each slice of the first dimension, in place: out channels of a convolution, in
// channels of a transposed one.
func fold(gain, v []float64) error {
	n := len(v) / len(gain)
	for i, g := range gain {
		row := v[i*n : (i+1)*n]
		sum := 0.0
		for _, x := range row {
			sum += x * x
		}
		scale := g / math.Sqrt(sum)
		if math.IsNaN(scale) || math.IsInf(scale, 0) {
			return fmt.Errorf("weight norm of slice %d is %v", i, math.Sqrt(sum))
		}
		for j := range row {
			row[j] *= scale
		}
	}
	return nil
}
