// Package jobs keeps speech that nobody waits for: orders lie in a work queue of NATS JetStream until a worker has
// spoken them, whichever server it is.
//
// A job's order is a message of the stream BARKD_JOBS, its state a record of the key-value bucket barkd-jobs, its audio
// a file of Results. What may go wrong, and what comes of it:
//
//	the same order twice          the id is the digest of the order: it is the same job, and one message of an id
//	                              is in the stream at a time
//	a worker dies                 its message is not acknowledged: after Lease another worker gets it
//	a worker stalls, then goes on every change of the record names the revision it follows; the worker that comes
//	                              late is refused, gives up, and leaves the message to the other one
//	the audio is there but the    the next worker speaks it again; an order has a seed, so it is the same audio, and
//	record does not say so        it takes the file's place whole
//	an order kills its workers    after MaxAttempts it is not tried again
package jobs
