//go:build !race

package cache

// modelSteps is how many steps the model-based test makes by default: a few seconds' worth.
const modelSteps = 1_040_000
