// Package mock simulates the runtime: the same interface, events, errors and memory numbers as package native,
// with no weights and no arithmetic. It speaks in tones, one for each character, so that different texts, voices
// and seeds can be told apart by ear, and it takes the time a two-core machine would take, times a scale. A fault plan
// (Faults) says what goes wrong.
package mock
