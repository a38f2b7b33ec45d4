// Package speech turns a request for speech into calls of the runtime: it decides on the voice, cuts long text into
// pieces a model can say in one go, bounds how many requests run and wait, and joins the audio. It knows neither
// HTTP nor the native library.
package speech
