//go:build cgo

package sndfile

// #cgo LDFLAGS: -lsndfile
// #include <stdlib.h>
// #include "memfile.h"
import "C"

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"unsafe"
)

// Available says whether this build can encode.
const Available = true

// mp3Kbit is the usual bit rate. It is constant: of a stream, whose header cannot say how long it is, players and
// libsndfile itself take the length from the first frame's bit rate.
const mp3Kbit = 96

// mp3Level and opusLevel are bit rates on libsndfile's scale, from the most (0) to the least (1) that the codec has: for
// MP3 that depends on the sample rate.
func mp3Level(rateHz, kbit int) float64 {
	switch {
	case rateHz >= 32000:
		return (320 - float64(kbit)) / (320 - 32)
	case rateHz >= 16000:
		return (160 - float64(kbit)) / (160 - 8)
	}
	return (64 - float64(kbit)) / (64 - 8)
}

func opusLevel(kbit int) float64 { return (256 - float64(kbit)) / (256 - 6) }

// pageLatencyMS bounds the audio that waits for an Ogg page to fill; libsndfile's own second would be heard as a
// pause before each piece of a stream.
const pageLatencyMS = 200

// formats are libsndfile's names of the kinds.
var formats = map[Kind]C.int{
	MP3:  C.SF_FORMAT_MPEG | C.SF_FORMAT_MPEG_LAYER_III,
	Opus: C.SF_FORMAT_OGG | C.SF_FORMAT_OPUS,
	FLAC: C.SF_FORMAT_FLAC | C.SF_FORMAT_PCM_16,
	ULaw: C.SF_FORMAT_RAW | C.SF_FORMAT_ULAW,
	ALaw: C.SF_FORMAT_RAW | C.SF_FORMAT_ALAW,
}

// Writer encodes samples. It is used by one goroutine and must be closed or aborted.
type Writer struct {
	to     io.Writer
	stream bool
	file   *C.memfile // for libsndfile to call back with; in C memory, as it is kept between calls
	snd    *C.SNDFILE
	kind   Kind
	serial uint32 // of an Ogg stream; 0 before its first samples
	err    error  // the first failure; later calls repeat it
}

// NewWriter starts a file of a kind; kbit is the bit rate of MP3 and Opus, 0 for the usual. A stream reaches to as it is encoded; else everything is written by Close, with
// a header that knows the length.
func NewWriter(to io.Writer, kind Kind, rateHz, kbit int, stream bool) (*Writer, error) {
	w := &Writer{to: to, stream: stream, kind: kind, file: (*C.memfile)(C.calloc(1, C.sizeof_memfile))} // calloc cannot fail under cgo
	info := C.SF_INFO{samplerate: C.int(rateHz), channels: 1, format: formats[kind]}
	if w.snd = C.memfile_open(w.file, C.SFM_WRITE, &info); w.snd == nil {
		err := errors.New(C.GoString(C.sf_strerror(nil)))
		w.Abort()
		return nil, fmt.Errorf("sndfile: open an encoder for %d Hz: %w", rateHz, err)
	}
	w.setUp(rateHz, kbit)
	return w, nil
}

func (w *Writer) setUp(rateHz, kbit int) {
	switch w.kind {
	case MP3:
		if kbit == 0 {
			kbit = mp3Kbit
		}
		mode := C.int(C.SF_BITRATE_MODE_CONSTANT)
		C.sf_command(w.snd, C.SFC_SET_BITRATE_MODE, unsafe.Pointer(&mode), C.sizeof_int)
		w.setLevel(mp3Level(rateHz, kbit))
	case Opus:
		latency := C.double(pageLatencyMS)
		C.sf_command(w.snd, C.SFC_SET_OGG_PAGE_LATENCY_MS, unsafe.Pointer(&latency), C.sizeof_double)
		if kbit != 0 {
			w.setLevel(opusLevel(kbit))
		}
	}
}

func (w *Writer) setLevel(of float64) {
	level := C.double(of)
	C.sf_command(w.snd, C.SFC_SET_COMPRESSION_LEVEL, unsafe.Pointer(&level), C.sizeof_double)
}

// WriteFloat appends samples of -1 to 1.
func (w *Writer) WriteFloat(samples []float32) error {
	if w.err != nil || len(samples) == 0 {
		return w.err
	}
	if w.serial == 0 {
		w.serial = oggSerial(samples)
	}
	n := C.sf_write_float(w.snd, (*C.float)(&samples[0]), C.sf_count_t(len(samples)))
	return w.wrote(int(n), len(samples))
}

// WriteInt16 appends samples as they are.
func (w *Writer) WriteInt16(samples []int16) error {
	if w.err != nil || len(samples) == 0 {
		return w.err
	}
	n := C.sf_write_short(w.snd, (*C.short)(&samples[0]), C.sf_count_t(len(samples)))
	return w.wrote(int(n), len(samples))
}

func (w *Writer) wrote(n, of int) error {
	if n != of {
		w.err = fmt.Errorf("sndfile: %d of %d samples written: %s", n, of, C.GoString(C.sf_strerror(w.snd)))
		return w.err
	}
	if w.stream {
		w.err = w.drain()
	}
	return w.err
}

// drain hands over what has been encoded.
func (w *Writer) drain() error {
	n := int(w.file.len - w.file.base)
	if n == 0 {
		return nil
	}
	encoded := C.GoBytes(unsafe.Pointer(w.file.data), C.int(n))
	if w.stream && w.kind == MP3 && w.file.base == 0 {
		encoded = withoutEmptyFrame(encoded)
	}
	if w.kind == Opus {
		setOggSerial(encoded, w.serial)
	}
	w.file.base = w.file.len
	_, err := w.to.Write(encoded)
	return err
}

// withoutEmptyFrame cuts off the frame of zeros in which LAME keeps room for a header about the whole file: a stream
// never gets it, and decoders would play the room as silence. At a low bit rate a frame has no room, and there is none.
func withoutEmptyFrame(mp3 []byte) []byte {
	n := frameBytes(mp3)
	if n == 0 || n > len(mp3) || slices.ContainsFunc(mp3[4:n], func(b byte) bool { return b != 0 }) {
		return mp3
	}
	return mp3[n:]
}

// The bit rates of layer III, in kbit/s, by the four bits of a frame's header; MPEG-1, and MPEG-2 and 2.5.
var bitRates = [2][16]int{
	{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320},
	{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
}

// frameBytes is the length of the frame that mp3 begins with, 0 if that is none.
func frameBytes(mp3 []byte) int {
	if len(mp3) < 4 || mp3[0] != 0xff || mp3[1]&0xe6 != 0xe2 {
		return 0
	}
	version, samples := 1, 576
	rates := [...]int{11025, 12000, 8000, 0}
	switch mp3[1] >> 3 & 3 {
	case 2:
		rates = [...]int{22050, 24000, 16000, 0}
	case 3:
		version, samples, rates = 0, 1152, [...]int{44100, 48000, 32000, 0}
	}
	rate := rates[mp3[2]>>2&3]
	if rate == 0 {
		return 0
	}
	return samples/8*1000*bitRates[version][mp3[2]>>4]/rate + int(mp3[2]>>1&1)
}

// Close completes the file and frees everything, also after an error, which it repeats.
func (w *Writer) Close() error {
	if w.file == nil {
		return w.err
	}
	if code := C.sf_close(w.snd); code != 0 && w.err == nil {
		w.err = fmt.Errorf("sndfile: complete the file: %s", C.GoString(C.sf_error_number(code)))
	}
	w.snd = nil
	if w.err == nil {
		w.err = w.drain()
	}
	err := w.err
	w.Abort()
	return err
}

// Abort frees everything without completing the file. After Close it does nothing.
func (w *Writer) Abort() {
	if w.file == nil {
		return
	}
	if w.snd != nil {
		C.sf_close(w.snd)
	}
	C.free(unsafe.Pointer(w.file.data))
	C.free(unsafe.Pointer(w.file))
	w.file, w.snd = nil, nil
	if w.err == nil {
		w.err = errors.New("sndfile: the writer is closed")
	}
}

// Decode returns the mono samples of a whole file of any kind that libsndfile reads.
func Decode(data []byte) (samples []float32, rateHz int, err error) {
	if len(data) == 0 {
		return nil, 0, errors.New("sndfile: no bytes to decode")
	}
	file := (*C.memfile)(C.calloc(1, C.sizeof_memfile))
	defer C.free(unsafe.Pointer(file))
	file.data = (*C.uchar)(C.CBytes(data))
	defer C.free(unsafe.Pointer(file.data))
	file.len = C.sf_count_t(len(data))
	var info C.SF_INFO
	snd := C.memfile_open(file, C.SFM_READ, &info)
	if snd == nil {
		return nil, 0, fmt.Errorf("sndfile: %s", C.GoString(C.sf_strerror(nil)))
	}
	defer C.sf_close(snd)
	if info.channels != 1 {
		return nil, 0, fmt.Errorf("sndfile: %d channels instead of one", info.channels)
	}
	block := make([]float32, 4096)
	for {
		n := int(C.sf_read_float(snd, (*C.float)(&block[0]), C.sf_count_t(len(block))))
		samples = append(samples, block[:n]...)
		if n < len(block) {
			break
		}
	}
	if code := C.sf_error(snd); code != 0 {
		return nil, 0, fmt.Errorf("sndfile: decode: %s", C.GoString(C.sf_error_number(code)))
	}
	return samples, int(info.samplerate), nil
}
