package models

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestProgressWithoutATerminalIsAFewLines(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	p := newProgress(&out, false, func() time.Time { return now })
	p.Update("download", 0, 1_680_000_000, "pytorch_model.bin")
	for done := int64(0); done <= 1_680_000_000; done += 10_000_000 {
		now = now.Add(time.Second / 4)
		p.Update("download", done, 1_680_000_000, "pytorch_model.bin")
	}
	p.Log("a note")
	p.Update("convert", 5, 10, "")
	p.Update("convert", 10, 10, "")
	p.Update("convert", 10, 10, "")
	p.Close()
	want := "download: 10% of 1.68 GB\ndownload: 20% of 1.68 GB\ndownload: 30% of 1.68 GB\ndownload: 40% of 1.68 GB\n" +
		"download: 50% of 1.68 GB\ndownload: 60% of 1.68 GB\ndownload: 70% of 1.68 GB\ndownload: 80% of 1.68 GB\n" +
		"download: 90% of 1.68 GB\ndownload: 1.68 GB in 42.3s\na note\nconvert: 0.0 kB in 0s\n"
	assert.Equal(t, want, out.String())
}

func TestProgressOnATerminalIsABarWithRateAndName(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, true, time.Now)
	p.Update("download", 0, 2_000_000, "speaker_embeddings/v2/x\x1b[2J.npy")
	p.Update("download", 1_000_000, 2_000_000, "b.npy")
	p.Log("a note")
	p.Update("download", 2_000_000, 2_000_000, "b.npy")
	p.Update("convert", 1, 3, "")
	p.Close()
	p.Close()
	text := out.String()
	assert.Contains(t, text, "download x?[2J.npy")
	assert.Contains(t, text, "B/s")
	assert.Contains(t, text, "100%")
	assert.Contains(t, text, "a note\n")
	assert.NotContains(t, text, "\x1b[2J")
	assert.True(t, strings.HasSuffix(text, "\n"), "the shell's prompt gets its own line")
}
