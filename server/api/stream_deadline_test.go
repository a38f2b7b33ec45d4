package api

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// deadlineConn is a connection of which only the write deadline matters.
type deadlineConn struct {
	net.Conn
	deadline time.Time
}

func (c *deadlineConn) SetWriteDeadline(t time.Time) error {
	c.deadline = t
	return nil
}

func TestClientHasALimitedTimeToTakeEachBlock(t *testing.T) {
	u := &utterance{done: make(chan struct{}), stop: func() {}}
	u.from, u.to = io.Pipe()
	written := make(chan error, 1)
	go func() {
		defer close(u.done)
		_, err := u.to.Write(make([]byte, 8))
		written <- err
	}()
	conn := &deadlineConn{}
	body := &speechBodyStream{utterance: u, conn: conn}
	_, err := body.Read(make([]byte, 4))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(writePatience), conn.deadline, 10*time.Second)
	require.NoError(t, body.Close())
	require.ErrorIs(t, <-written, errClientGone, "the rest of the block was not taken")
	assert.True(t, conn.deadline.IsZero(), "the next request has no deadline of this one")
}
