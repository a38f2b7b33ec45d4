package mock

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"barkd/cgo"
)

// A shape is a model's dimensions: enough for its bytes and its time.
type shape struct {
	id                              string
	nLayer, nEmbd                   int64
	textVocab, semanticVocab        int64 // rows of the semantic input and output tables
	coarseVocab, fineVocab          int64
	semanticCodes                   int64
	codecParams                     int64
	tables                          int64 // bytes of vocabulary and voices
	maxText, maxSemantic, blockSize int64
	hopLength                       int64
	trained                         bool
}

const (
	sampleRate     = 24000
	semanticRateHz = 49.9
	coarseRateHz   = 75.0
	nCoarse        = 2
	nFine          = 8
	codebookSize   = 1024
	voiceCodes     = 5000 // of a carried voice, all codebooks
	f32, f16, i32  = 4, 2, 4
	i8             = 1
)

// shapes are the two published models, the embedded default, and one larger than any, so that a cache sees sizes
// over four orders of magnitude.
func shapes() []shape {
	bark := shape{textVocab: 129600, semanticVocab: 10048, coarseVocab: 12096, fineVocab: 1056,
		semanticCodes: 10000, codecParams: 7423345 + 8*1024*128, tables: 9 << 20,
		maxText: 256, maxSemantic: 768, blockSize: 1024, hopLength: 320, trained: true}
	small, large, xl := bark, bark, bark
	small.id, small.nLayer, small.nEmbd = "suno/bark-small", 12, 768
	large.id, large.nLayer, large.nEmbd = "suno/bark", 24, 1024
	xl.id, xl.nLayer, xl.nEmbd = "mock/bark-xl", 36, 1280
	tiny := shape{id: "barkd/tiny", nLayer: 2, nEmbd: 64, textVocab: 2048, semanticVocab: 512, coarseVocab: 512,
		fineVocab: 160, semanticCodes: 400, codecParams: 100_000,
		tables: 29 << 10, maxText: 128, maxSemantic: 256, blockSize: 512, hopLength: 320}
	return []shape{small, large, xl, tiny}
}

// Models returns the ids that Resolve knows, sorted.
func Models() []string {
	var ids []string
	for _, s := range shapes() {
		ids = append(ids, s.id)
	}
	sort.Strings(ids)
	return ids
}

// Resolve is the cgo.Resolver of the simulated models.
func Resolve(id string) (cgo.Source, error) {
	if _, err := find(id); err != nil {
		return cgo.Source{}, err
	}
	return cgo.Source{Name: id, Path: "mock:" + id, Version: "mock"}, nil
}

// maxCopies is how many numbered models there are besides those that Models lists: mock/small-1 and so on have the
// shape of suno/bark-small, for tests of many models.
const maxCopies = 999

func find(id string) (shape, error) {
	if number, ok := strings.CutPrefix(id, "mock/small-"); ok {
		if n, err := strconv.Atoi(number); err == nil && n >= 1 && n <= maxCopies && strconv.Itoa(n) == number {
			small := shapes()[0]
			small.id = id
			return small, nil
		}
	}
	for _, s := range shapes() {
		if s.id == id {
			return s, nil
		}
	}
	return shape{}, fmt.Errorf("%w: no model %q; the mock knows %s and mock/small-1 to %d", cgo.ErrNotFound, id, strings.Join(Models(), ", "), maxCopies)
}

// blocks counts the parameters of all transformer blocks of one stage, without LayerNorms.
func (s shape) blocks() int64 { return 12 * s.nLayer * s.nEmbd * s.nEmbd }

// params counts the weights of the three transformers, tied tables once, and of the codec's decoder.
func (s shape) params() int64 {
	norms := (2*s.nLayer + 1) * s.nEmbd
	positions := s.blockSize * s.nEmbd
	semantic := s.blocks() + norms + positions + (s.textVocab+s.semanticVocab)*s.nEmbd
	coarse := s.blocks() + norms + positions + 2*s.coarseVocab*s.nEmbd
	fine := s.blocks() + 2*norms + positions + nFine*s.fineVocab*s.nEmbd
	return semantic + coarse + fine + s.codecParams
}

func (s shape) modelMemory() cgo.Memory {
	return sum(cgo.Memory{WeightsBytes: s.params() * f32, TablesBytes: s.tables, SharedBytes: s.codecParams * f32})
}

// ownMemory is modelMemory without components.
func (s shape) ownMemory() cgo.Memory {
	return sum(cgo.Memory{WeightsBytes: (s.params() - s.codecParams) * f32, TablesBytes: s.tables})
}

// components are the codec: that of the published models is the same.
func (s shape) components() []cgo.Component {
	digest := sha256.Sum256(fmt.Appendf(nil, "codec of %d parameters", s.codecParams))
	return []cgo.Component{{Digest: hex.EncodeToString(digest[:]), Bytes: s.codecParams * f32}}
}

func (s shape) sessionMemory(kv cgo.KVType) cgo.Memory {
	width := map[cgo.KVType]int64{cgo.KVF16: f16, cgo.KVF32: f32, cgo.KVI8: i8}[kv]
	row := 9*s.nEmbd + s.fineVocab // residual, normed, qkv, feed-forward, logits
	return sum(cgo.Memory{
		KVBytes:          2 * s.nLayer * s.nEmbd * s.blockSize * width,
		ActivationsBytes: s.blockSize*row*f32 + 32*sampleRate*f32,
	})
}

func sum(m cgo.Memory) cgo.Memory {
	m.TotalBytes = m.WeightsBytes + m.TablesBytes + m.KVBytes + m.ActivationsBytes
	m.PeakBytes = m.TotalBytes
	return m
}

// voices are the names every simulated model carries.
func voices() []string {
	return []string{"v2/de_speaker_3", "v2/en_speaker_0", "v2/en_speaker_6", "v2/en_speaker_9", "v2/fr_speaker_1"}
}
