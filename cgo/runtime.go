package cgo

import (
	"context"
	"errors"
)

// What callers branch on; an error of the runtime wraps exactly one of these (ErrTimeout and ErrLost are the pool's
// alone, ErrLost beside ErrDevice). The names say what the caller can do about it (native/include/barkrt.h,
// barkrt_status).
var (
	ErrInvalidArgument = errors.New("invalid argument")
	ErrNotFound        = errors.New("not found")
	ErrBadModel        = errors.New("bad model")
	ErrOutOfMemory     = errors.New("out of memory")
	ErrDevice          = errors.New("device failed")
	ErrLost            = errors.New("device lost")
	ErrUnsupported     = errors.New("unsupported")
	ErrBusy            = errors.New("busy")
	ErrInternal        = errors.New("internal error")
	ErrClosed          = errors.New("closed")
	ErrTimeout         = errors.New("took too long")
)

// Runtime loads models. Its methods may be called from any goroutine.
type Runtime interface {
	// Devices lists the devices without using them; index 0 is the CPU.
	Devices() ([]Device, error)
	// Probe begins to use a device, if nothing has, and returns how many of its bytes are free. ErrDevice when the device
	// is lost, which lasts until the process ends, and is answered at once.
	Probe(device int) (freeBytes int64, err error)
	// Estimate returns the bytes that Load and one NewSession would take, without loading.
	Estimate(src Source, opts LoadOptions, session SessionOptions) (Estimate, error)
	// Load maps and validates a model. A ctx that ends stops the load between tensors with ctx.Err().
	// The caller must Close the model.
	Load(ctx context.Context, src Source, opts LoadOptions) (Model, error)
	// Trim gives freed memory back to the system and says how many bytes the process shrank by.
	Trim(device int) (returned int64, err error)
	// Live returns everything the runtime holds on the device, components once.
	Live(device int) (Memory, error)
}

// Source says where a model's GGUF image is: a file, or bytes that never move or go away
// (the embedded default). Exactly one of Path and Embedded is set.
type Source struct {
	Name     string // the model's id, for messages
	Path     string
	Embedded bool // the default model in the binary
	// Version tells the image from one that took its place under the same name; whoever makes the Source decides how.
	Version string
}

// LoadOptions choose where a model lives.
type LoadOptions struct {
	Device   int                     // index of Devices()
	Threads  int                     // CPU threads, 0 for one per usable core; results do not depend on it
	Progress func(done, total int64) // bytes; may be nil; called on the loading goroutine's thread
}

// KVType is the type of a session's key-value cache.
type KVType int32

const (
	KVF16 KVType = 0
	KVF32 KVType = 1 // for parity with the reference implementations
	KVI8  KVType = 2
)

// KVTypes are the types by the names that settings and options have for them.
var KVTypes = map[string]KVType{"f16": KVF16, "f32": KVF32, "i8": KVI8}

// SessionOptions choose a session's memory. The zero value is the default.
type SessionOptions struct{ KV KVType }

// Model is a loaded, immutable model. Its methods may be called from any goroutine. Close releases this handle; the
// native memory goes when the model's sessions and voices are closed too.
type Model interface {
	Info() ModelInfo
	// Tokenize returns the text's token ids: no offset, no cut, no padding.
	Tokenize(rules Rules, text string) ([]int32, error)
	// Defaults returns the sampling defaults of the rules for this model.
	Defaults(rules Rules) (Request, error)
	// Voice opens a voice that the model file carries; ErrNotFound names those there are.
	Voice(name string) (Voice, error)
	// NewVoice validates and copies arrays; ErrInvalidArgument names the lengths.
	NewVoice(arrays VoiceArrays) (Voice, error)
	// NewSession allocates everything one request needs.
	NewSession(opts SessionOptions) (Session, error)
	// Memory returns what the model takes, components included; zero when it is closed.
	Memory() Memory
	// Components lists what the model shares; also when it is closed.
	Components() []Component
	// Account may be asked for any number of times, and used after Close.
	Account() Account
	Close() error
}

// Account tells what the native allocator still holds for one model: weights, tables, sessions and voices, without
// shared components.
type Account interface {
	// Live is 0 after the model's Close, once its sessions and voices are closed too.
	Live() int64
}

// Session is the memory of one running request. One Synthesize at a time (else ErrBusy).
type Session interface {
	// Synthesize blocks until the audio is complete. When ctx ends it stops within one decode step or codec
	// chunk and returns ctx.Err(). An error from a Sink method stops it too and is returned as it is.
	Synthesize(ctx context.Context, req Request, sink Sink) (Stats, error)
	Memory() Memory
	Close() error
}

// Voice is a validated history prompt of one model.
type Voice interface {
	Close() error
}

// Sink receives a request's output on the calling goroutine. Slices are valid during the call only; fields may be nil.
type Sink struct {
	Audio    func(pcm []float32) error // consecutive mono samples, nominally -1..1, not clamped
	Progress func(stage Stage, done, total int64) error
	Tokens   func(stage Stage, tokens []int32, rows, cols int) error // row-major, codes without offsets
}

// Rules says whose procedure is followed where suno-ai/bark and Hugging Face transformers differ.
type Rules int32

const (
	RulesSuno Rules = 0
	RulesHF   Rules = 1
)

// Stage is a step of the pipeline.
type Stage int32

const (
	StageSemantic Stage = 0
	StageCoarse   Stage = 1
	StageFine     Stage = 2
	StageCodec    Stage = 3
	StageCount          = 4
)

// String returns the stage's name in lower case.
func (s Stage) String() string {
	names := [...]string{"semantic", "coarse", "fine", "codec"}
	if s < 0 || int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// Sampling of one stage.
type Sampling struct {
	Temperature float32 // 0 is greedy
	TopP        float32 // (0, 1]; 1 is off
	TopK        int32   // 0 is off
	MinEOSP     float32 // semantic only; 0 is off
}

// Request is one text to speak. Obtain defaults from Model.Defaults.
type Request struct {
	Rules                  Rules
	Text                   string
	Voice                  Voice // nil for none
	Seed                   uint64
	Semantic, Coarse, Fine Sampling
	MaxSemanticTokens      int // 0: the model's own limit
	// FineChunk, if not 0, is how many new frames the fine stage takes at a time: audio comes sooner, and is not quite
	// that of the references' windows (native/DESIGN.md).
	FineChunk int
}

// VoiceArrays is a history prompt as arrays, row-major, codes without offsets.
type VoiceArrays struct {
	Semantic []int32   // (n)
	Coarse   [][]int32 // (codebooks, frames)
	Fine     [][]int32 // (codebooks, frames)
}

// Stats of one finished request.
type Stats struct {
	TextTokens     int // before the cut at ModelInfo.MaxTextTokens
	TextTruncated  bool
	SemanticTokens int
	CoarseTokens   int
	Frames         int
	Samples        int64
	StageMS        [StageCount]float64
}

// ModelInfo holds facts of a loaded model.
type ModelInfo struct {
	Name              string
	Trained           bool // false: random weights, it makes noise
	SampleRate        int  // Hz
	HopLength         int  // samples per codec frame
	MaxTextTokens     int
	MaxSemanticTokens int
	CoarseCodebooks   int
	FineCodebooks     int
	SemanticRateHz    float64
	CoarseRateHz      float64
	Voices            []string
}

// Component is a group of tensors that models on one device share when their digests are equal; it is held once.
type Component struct {
	Digest string
	Bytes  int64
}

// Estimate is what a load and one session would take, from the file's header alone.
type Estimate struct {
	Model, Session Memory
	Components     []Component // contained in Model
}

// Memory is exact, from the native allocator.
type Memory struct {
	WeightsBytes     int64
	TablesBytes      int64
	KVBytes          int64
	ActivationsBytes int64
	TotalBytes       int64
	PeakBytes        int64
	SharedBytes      int64 // of components; contained in WeightsBytes
}

// Device describes one place a model can live.
type Device struct {
	ID         string // "cpu", "cuda:0"
	Kind       string // "cpu", "cuda"
	Name       string
	Detail     string // which code path was chosen, and why
	UUID       string // that its driver tells others, too: "GPU-…", "MIG-…"; "" for none
	Cores      int
	TotalBytes int64
}
