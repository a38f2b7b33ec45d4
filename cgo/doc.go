// Package cgo is the Go face of the Bark runtime: the interfaces every caller uses, whatever
// stands behind them. Package cgo/native implements them on libbarkrt (the only import "C"),
// package cgo/mock simulates them; cgo/cache keeps loaded models.
package cgo
