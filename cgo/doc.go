// Package cgo is the Go face of the Bark runtime: the interfaces every caller uses, whatever
// stands behind them, and the Pool that keeps loaded models. Package cgo/native implements the
// interfaces on libbarkrt (the only import "C"), package cgo/mock simulates them, and
// cgo/runtimetest holds both to the same behaviour; cgo/cache is the policy behind the Pool,
// cgo/memwatch tells how much memory there is.
package cgo
