// Package check holds the compose file and the Helm chart against the types of those who read them. It is a module of
// its own: barkd itself needs neither Helm nor Kubernetes.
package check
