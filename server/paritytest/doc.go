// Package paritytest holds barkd to Hugging Face transformers: checkpoints converted, loaded and spoken greedily give
// the tokens and the audio that transformers gave. The fixtures in server/testdata/reference are written by
// tools/reference; the tests need no Python.
package paritytest
