package api

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerClosed returns a function that asks the kernel whether the peer has closed conn, without reading from it, so
// that a request sent ahead stays where it is. It is false for connections without a socket.
func peerClosed(conn net.Conn) (closed func() bool, ok bool) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil, false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, false
	}
	return func() bool {
		hungUp := false
		err := raw.Control(func(fd uintptr) {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			_, err := unix.Poll(poll, 0)
			hungUp = err == nil && poll[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
		})
		return hungUp || errors.Is(err, net.ErrClosed)
	}, true
}
