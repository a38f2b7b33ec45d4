// Package convert turns published Bark checkpoints into the model file that native/DESIGN.md describes: it maps names,
// folds weight norm, permutes convolutions, changes number types and copies vocabulary, constants and voices.
package convert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"barkd/server/models/atomicfile"
	"barkd/server/models/checkpoint"
	"barkd/server/models/gguf"
	"barkd/server/models/schema"
)

// Type is the storage type of a model's matrices.
type Type = schema.Type

// The storage types, as schema has them, and that of the checkpoint.
const (
	Source Type = ""
	F32         = schema.F32
	BF16        = schema.BF16
	F16         = schema.F16
	Q8          = schema.Q8
	Q4          = schema.Q4
)

// ParseType reads the name of a type as a user writes it.
func ParseType(s string) (Type, error) {
	switch t := Type(s); t {
	case Source, F32, BF16, F16, Q8, Q4:
		return t, nil
	}
	return Source, fmt.Errorf("unknown type %q, want f32, bf16, f16, q8 or q4", s)
}

// Options say what to convert.
type Options struct {
	Source   string // folder: a Hugging Face repository, or suno's .pt files with EnCodec's .th
	Out      string // the file to write
	Type     Type
	Name     string                  // model id; "" for the folder's name
	Progress func(done, total int64) // bytes read for digests and written; may be nil
}

// Report says what was written.
type Report struct {
	Out     string
	Name    string
	Format  string // schema.FormatHuggingFace or schema.FormatSuno
	Type    Type
	Tensors int
	Bytes   int64
	Voices  []string
	Remarks []string // what the source has and the file does not follow
}

// source is a checkpoint folder, understood.
type source struct {
	config  schema.Config
	state   state
	names   naming
	mayTie  bool
	voices  voices
	files   []string // relative, in the order of bark.source.files
	remarks []string
	close   func() error
}

// Convert writes Options.Out. Memory stays far below the checkpoint's size. On failure, or when ctx ends, nothing is
// left behind.
func Convert(ctx context.Context, o Options) (Report, error) {
	r, err := convert(ctx, o)
	if err != nil {
		return Report{}, fmt.Errorf("convert %q: %w", o.Source, err)
	}
	return r, nil
}

func convert(ctx context.Context, o Options) (report Report, err error) {
	if _, err := ParseType(string(o.Type)); err != nil {
		return Report{}, err
	}
	src, err := open(o.Source)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	src.config.Name = o.Name
	if o.Name == "" {
		full, err := filepath.Abs(o.Source)
		if err != nil {
			return Report{}, err
		}
		src.config.Name = filepath.Base(full)
	}
	j, err := src.prepare(o.Type)
	if err != nil {
		return Report{}, err
	}
	if err := atomicfile.Write(o.Out, func(f *os.File) error { return j.write(ctx, f, o) }); err != nil {
		return Report{}, err
	}
	return j.report(o)
}

// open recognises the folder.
func open(dir string) (*source, error) {
	if st, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, errors.New("not a folder: give the one that holds the checkpoint's files")
	}
	if _, err := os.Stat(filepath.Join(dir, "config.json")); err == nil {
		return openHuggingFace(dir)
	}
	if files, err := sunoFiles(dir); err == nil {
		return openSuno(dir, files)
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return nil, errors.New("no checkpoint here: neither config.json nor text.pt, coarse.pt and fine.pt")
}

// job is a conversion with every decision made.
type job struct {
	*source
	kind    Type
	recipes []recipe
	list    []schema.Tensor
}

func (s *source) prepare(want Type) (*job, error) {
	c := &s.config
	c.Trained, c.Converter = true, converter()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &planner{state: s.state, names: s.names, config: c, mayTie: s.mayTie}
	var err error
	if c.Fine.Untied, err = p.untied(); err != nil {
		return nil, err
	}
	if c.Voices, err = s.voices.describe(c); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	j := &job{source: s, list: c.Tensors()}
	if j.recipes, err = p.plan(j.list); err != nil {
		return nil, err
	}
	j.kind = storage(want, j.recipes)
	if j.kind == Q4 && !slices.ContainsFunc(j.list, schema.Tensor.FourBits) {
		return nil, errors.New("no matrix fits 4-bit tiles of 16 rows by 64 columns: use q8")
	}
	return j, nil
}

// storage picks the type of the matrices: the wanted one, else the source's if all its matrices agree, else f32.
func storage(want Type, recipes []recipe) Type {
	if want != Source {
		return want
	}
	seen := make(map[checkpoint.DType]bool)
	for _, r := range recipes {
		if r.tensor.Matrix {
			seen[r.copied.DType] = true
		}
	}
	switch {
	case len(seen) == 1 && seen[checkpoint.F16]:
		return F16
	case len(seen) == 1 && seen[checkpoint.BF16]:
		return BF16
	}
	return F32
}

func (j *job) write(ctx context.Context, f *os.File, o Options) error {
	var declared []gguf.Tensor
	for _, t := range j.list {
		declared = append(declared, t.Declare(j.kind)...)
	}
	p := &progress{ctx: ctx, report: o.Progress}
	if err := j.measure(p, o.Source, declared); err != nil {
		return err
	}
	for _, name := range j.files {
		sum, err := p.digest(filepath.Join(o.Source, name))
		if err != nil {
			return err
		}
		j.config.Source.Files = append(j.config.Source.Files, name)
		j.config.Source.SHA256 = append(j.config.Source.SHA256, sum)
	}
	var err error
	if j.config.Codec.SHA256, err = j.codecDigest(p); err != nil {
		return err
	}
	g, err := gguf.NewWriter(f, j.config.Metadata(), declared)
	if err != nil {
		return err
	}
	for _, r := range j.recipes {
		if err := p.tensor(g, r, j.kind); err != nil {
			return err
		}
	}
	for _, v := range j.config.Voices {
		a := j.voices[v.Name]
		err := errors.Join(
			g.WriteI32("voice."+v.Name+".semantic", a.Semantic),
			g.WriteI32("voice."+v.Name+".coarse", a.Coarse...),
			g.WriteI32("voice."+v.Name+".fine", a.Fine...),
		)
		if err != nil {
			return err
		}
	}
	return g.Close()
}

// codecDigest makes the codec's tensors once more: the header, which names their digest, is written first.
func (j *job) codecDigest(p *progress) (string, error) {
	recipes := make(map[string]recipe, len(j.recipes))
	for _, r := range j.recipes {
		recipes[r.tensor.Name] = r
	}
	digest := schema.NewCodecDigest(j.list)
	for _, t := range schema.CodecTensors(j.list) {
		if err := p.tensor(digest, recipes[t.Name], j.kind); err != nil {
			return "", err
		}
	}
	return digest.Sum()
}

// measure adds up the bytes that progress will count.
func (j *job) measure(p *progress, dir string, declared []gguf.Tensor) error {
	for _, name := range j.files {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		p.total += st.Size()
	}
	for _, t := range declared {
		scale := t.Type == gguf.F32 && filepath.Ext(t.Name) == ".scale"
		if t.Type != gguf.I32 && !scale {
			p.total += t.Elements() * t.Type.Size()
		}
		if strings.HasPrefix(t.Name, "codec.") { // for the digest
			p.total += t.Elements() * t.Type.Size()
		}
	}
	return nil
}

func (j *job) report(o Options) (Report, error) {
	st, err := os.Stat(o.Out)
	if err != nil {
		return Report{}, err
	}
	return Report{
		Out: o.Out, Name: j.config.Name, Format: j.config.Source.Format, Type: j.kind,
		Tensors: len(j.list), Bytes: st.Size(), Voices: sortedKeys(j.voices), Remarks: j.remarks,
	}, nil
}

// converter names the program and version for the file's provenance.
func converter() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return "barkd " + b.Main.Version
	}
	return "barkd"
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
