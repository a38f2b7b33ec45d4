package mock

import (
	"context"
	"time"
)

// The simulated machine, about two good cores: what its memory streams, its cores multiply and its disk reads.
const (
	memoryBytesPerS = 20e9
	macsPerS        = 100e9
	diskBytesPerS   = 1.5e9
)

// stepTime is one decode step of the semantic or coarse stage: it reads all blocks and a head.
func (s shape) stepTime() time.Duration {
	return seconds(float64(s.blocks()+codebookSize*10*s.nEmbd) * f16 / memoryBytesPerS)
}

// windowTime is the prefill of one coarse window.
func (s shape) windowTime() time.Duration {
	return seconds(float64(s.blocks()) * 0.6 * float64(s.blockSize) / macsPerS)
}

// finePassTime is one pass of the fine stage over a full window, whatever the clip's length.
func (s shape) finePassTime() time.Duration {
	return seconds(float64(s.blocks()) * 1.2 * float64(s.blockSize) / macsPerS)
}

// codecTime is the decoding of n frames.
func (s shape) codecTime(n int) time.Duration {
	return seconds(2.7 * float64(s.codecParams) * float64(n) / macsPerS)
}

func (s shape) loadTime() time.Duration { return seconds(float64(s.params()*f32) / diskBytesPerS) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func scaled(d time.Duration, factor float64) time.Duration { return time.Duration(float64(d) * factor) }

// pace is the factor on the times of a model's device.
func (m *model) pace() float64 {
	if m.device > 0 {
		return 0.1
	}
	return 1
}

// wait waits d times the scale, or until ctx ends. It also looks at ctx when there is nothing to wait for, so that
// a request that takes no time can still be cancelled within a step.
func (r *Runtime) wait(ctx context.Context, d time.Duration) error {
	if d = time.Duration(float64(d) * r.opts.TimeScale); d <= 0 {
		return ctx.Err()
	}
	return r.opts.Wait(ctx, d)
}

// waitForTimer is the default of Options.Wait.
func waitForTimer(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
