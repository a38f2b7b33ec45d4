package mock

import (
	"math"

	"barkd/cgo"
)

// A tune is the audio of a request: a tone for each character, in the voice's register, silence for a space.
type tune struct {
	text   []rune
	baseHz float64
	detune []float64 // one factor per character, from the seed
	bright float64   // share of the second harmonic
	state  uint64
}

func newTune(req cgo.Request, voice uint64) tune {
	seed := req.Seed
	if req.Semantic.Temperature == 0 && req.Coarse.Temperature == 0 && req.Fine.Temperature == 0 {
		seed = 0 // greedy: nothing is drawn
	}
	state := hash(req.Text, voice, seed)
	t := tune{text: []rune(req.Text), baseHz: 165, bright: 0.3, state: state}
	if voice != 0 {
		drawn := voice
		t.baseHz = 90 + 220*unit(&drawn)
		t.bright = unit(&drawn)
	}
	for range t.text {
		t.detune = append(t.detune, 1+0.06*(unit(&state)-0.5))
	}
	return t
}

// play writes the samples from start of a clip of total samples, so that chunks join without a seam.
func (t *tune) play(pcm []float32, start, total int) {
	for i := range pcm {
		at := start + i
		pcm[i] = t.sample(at, total)
	}
}

func (t *tune) sample(at, total int) float32 {
	if len(t.text) == 0 { // an empty text under the HF rules
		return 0
	}
	position := float64(at) * float64(len(t.text)) / float64(total)
	n := min(int(position), len(t.text)-1)
	r := t.text[n]
	if r == ' ' {
		return 0
	}
	// A pentatonic step for each character, so that any text is bearable.
	steps := [...]float64{0, 2, 4, 7, 9, 12, 14, 16, 19, 21}
	hz := t.baseHz * math.Exp2(steps[int(r)%len(steps)]/12) * t.detune[n]
	envelope := math.Sin(math.Pi * (position - float64(n)))
	phase := 2 * math.Pi * hz * float64(at) / sampleRate
	return float32(0.5 * envelope * (math.Sin(phase) + t.bright*math.Sin(2*phase)) / (1 + t.bright))
}

// next is splitmix64.
func next(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func unit(state *uint64) float64 { return float64(next(state)>>11) / (1 << 53) }
